"""Latent directions for all that the demo world's instructions ask, from its training split."""

from __future__ import annotations

import minboost
from minboost.analysis.contrast import contrast, demo_contrast
from minboost.demo.phrasings import VALUES
from minboost.directions import Directions
from minboost.suites.demo import concept

CONTRAST_PROMPTS = 60
"""Prompts that ask for it; as many do not."""
LAYERS = (1, 2, 3)
"""Of four; what enters layer 0 after the last token is the same in all prompts."""


def demo_directions(lm: minboost.LM) -> dict[str, Directions]:
    """The directions of each concept, "language-french": one value of an instruction."""
    return {
        concept(kind, value): contrast(
            lm, *demo_contrast(kind, value, CONTRAST_PROMPTS, 0), layers=LAYERS
        ).directions
        for kind, values in VALUES.items()
        for value in values
    }
