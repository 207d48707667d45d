"""Spotlight (arXiv 2505.12025): a least attention mass on the span, instead of a multiplier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from ..checks import as_number
from ..effects import EXACT, PUBLISHED, Effect, Target
from ..errors import InputError
from ..span import Span
from .base import Method

FORMS = (EXACT, PUBLISHED)


@dataclass(frozen=True)
class Spotlight(Method):
    """Give the span at least ``target`` of the attention of every row and head that can see it.

    Rows and heads that give it more already are left as they are, so that strengthening the weak
    ones does not push the others into over-focus.

    Attributes:
        target: in (0, 1).
        form: "exact" reaches the target; "published" adds log(target / ψ) to the span's logits,
            as the paper does, and reaches target / (1 + target − ψ) from a mass of ψ.

    A span of several texts counts as one. A request can have one target. ``layers``, ``heads``,
    ``span``: as in ``Method``.
    """

    name: ClassVar[str] = "spotlight"
    strength: ClassVar[str] = "target"

    target: float = 0.3
    _: KW_ONLY
    form: str = EXACT

    def __post_init__(self) -> None:
        target = as_number("target", self.target)
        if not 0 < target < 1:
            raise InputError(f"target must lie in (0, 1), got {self.target!r}")
        self._set("target", target)
        if self.form not in FORMS:
            raise InputError(f"form must be {' or '.join(FORMS)}, got {self.form!r}")
        super().__post_init__()

    def effects(self, spans: Sequence[Span], tokens: int) -> list[Effect]:
        return [Target(tuple(spans), self.target, self.form)]

    def describe(self, span: str, tokens: str) -> str:
        done = "at least" if self.form == EXACT else "up to about"
        return f"gave {span} = tokens {tokens} {done} {self.target:g} of the attention"
