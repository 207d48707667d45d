"""Latent directions for what the demo world's instructions ask, from its training split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import minboost
from minboost.analysis.contrast import contrast, demo_contrast
from minboost.directions import Directions

CONTRAST_PROMPTS = 60
"""Prompts that ask for it; as many do not."""
LAYERS = (1, 2, 3)
"""Of four; what enters layer 0 after the last token is the same in all prompts."""


def demo_directions(
    lm: minboost.LM, asked: Iterable[tuple[str, str]]
) -> Iterator[tuple[str, str, Directions]]:
    """(kind, value, directions) of each (kind of instruction, value) that is asked for, once."""
    for kind, value in sorted(set(asked)):
        positive, negative = demo_contrast(kind, value, CONTRAST_PROMPTS, 0)
        yield kind, value, contrast(lm, positive, negative, layers=LAYERS).directions
