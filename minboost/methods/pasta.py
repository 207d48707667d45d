"""PASTA (arXiv 2311.02262): scale the attention outside of the highlighted span on chosen heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from ..effects import Bias, Effect
from ..errors import InputError
from ..span import Span, outside
from .base import Method

SCALE_POSITIONS = ("exclude", "include", "generation")


@dataclass(frozen=True)
class Pasta(Method):
    """Multiply the attention weight on ``scale_position`` by ``alpha`` and renormalise the row.

    Attributes:
        alpha: the factor, above 0; PASTA's default 0.01 takes the attention away from the rest.
        scale_position: "exclude": the prompt outside of the span (generated tokens keep level with
            the span, unlike under ``Boost``); "include": the span; "generation": the whole prompt,
            as against what has been generated.

    ``heads`` is meant for profiled ones (``minboost profile``): PASTA reports that steering all of
    them does harm. ``layers``, ``heads``, ``span``: as in ``Method``.
    """

    name: ClassVar[str] = "pasta"
    strength: ClassVar[str] = "alpha"

    alpha: float = 0.01
    _: KW_ONLY
    scale_position: str = "exclude"

    def __post_init__(self) -> None:
        self._positive("alpha")
        if self.scale_position not in SCALE_POSITIONS:
            raise InputError(
                f"scale_position must be {', '.join(SCALE_POSITIONS)}, got {self.scale_position!r}"
            )
        super().__post_init__()

    def effects(self, spans: Sequence[Span], tokens: int) -> list[Effect]:
        if not spans:
            raise InputError("PASTA touches no token: its span is empty")
        scaled = {
            "exclude": lambda: outside(spans, tokens),
            "include": lambda: list(spans),
            "generation": lambda: [Span(0, tokens)],
        }[self.scale_position]()
        if not scaled:
            raise InputError(
                "PASTA would scale no token: the span covers the whole prompt, and "
                "scale_position 'exclude' scales what lies outside of it"
            )
        return [Bias(tuple(scaled), math.log(self.alpha))]

    def describe(self, span: str, tokens: str) -> str:
        what = {
            "exclude": f"the prompt without {span}",
            "include": span,
            "generation": "the whole prompt",
        }[self.scale_position]
        return f"scaled {what} = tokens {tokens} x {self.alpha:g}"
