"""InstABoost (arXiv 2506.13734): multiply the attention on the instruction and renormalise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from ..effects import Bias, Effect
from ..span import Span
from .base import Method


@dataclass(frozen=True)
class Boost(Method):
    """Multiply the attention weight on a span by ``multiplier`` and renormalise the row.

    Attributes:
        multiplier: m > 0. Above 1 emphasises, below 1 plays down, 1 is the plain model, bit for
            bit (InstABoost, arXiv 2506.13734).

    ``layers``, ``heads``, ``span`` and what belongs to them: as in ``Method``.
    """

    name: ClassVar[str] = "instaboost"
    strength: ClassVar[str] = "multiplier"

    multiplier: float = 10.0
    _: KW_ONLY

    def __post_init__(self) -> None:
        self._positive("multiplier")
        super().__post_init__()

    def effects(self, spans: Sequence[Span], tokens: int) -> list[Effect]:
        return [Bias(tuple(spans), math.log(self.multiplier))]

    def describe(self, span: str, tokens: str) -> str:
        return f"boosted {span} = tokens {tokens} x {self.multiplier:g}"
