"""GUIDE (arXiv 2409.19001): add delta to the logits of the instruction, or of tagged texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar

from ..checks import as_number
from ..effects import Bias, Effect
from ..errors import InputError
from ..span import Span
from .base import Method

LEVELS = {"!": 0.5, "!!": 1.0, "!!!": 2.0}
"""What a tag of so many marks multiplies delta by."""
MOST = 1000.0
"""The largest delta either way: e^1000 is beyond any attention, and float16 still holds it."""
_TAG = re.compile(r"<(?P<opens>!{1,3})->\s*|<-(?P<closes>!{1,3})>")


@dataclass(frozen=True)
class Guide(Method):
    """Add ``delta`` to the attention logits of a span's keys.

    Attributes:
        delta: a finite number; 0 is the plain model. Above 5 the paper often saw nonsense.

    Tags in the instruction or the query choose the spans instead, and weigh delta: ``<!-> … <-!>``
    halves it, ``<!!-> … <-!!>`` takes it as it is, ``<!!!-> … <-!!!>`` doubles it. Tags, and the
    white space just inside of them, are no part of the prompt. A token that tags of one level share
    is steered once; of different levels, it gets the sum.

    ``layers``, ``heads``, ``span``: as in ``Method``.
    """

    name: ClassVar[str] = "guide"
    strength: ClassVar[str] = "delta"

    delta: float = 1.0
    _: KW_ONLY

    def __post_init__(self) -> None:
        delta = as_number("delta", self.delta)
        if abs(delta) > MOST:
            raise InputError(f"delta must lie in [-{MOST:g}, {MOST:g}], got {self.delta!r}")
        self._set("delta", delta)
        super().__post_init__()

    def effects(self, spans: Sequence[Span], tokens: int) -> list[Effect]:
        return [Bias(tuple(spans), self.delta)]

    def plain(self) -> Guide:
        """Without a strength, so that tags are no part of that prompt either."""
        return replace(self, delta=0.0)

    def describe(self, span: str, tokens: str) -> str:
        return f"moved the logits of tokens {tokens} (delta = {self.delta:g})"


@dataclass(frozen=True)
class Tagged:
    """A text between two tags: characters ``[start, stop)`` of the text without tags."""

    start: int
    stop: int
    level: float


def read_tags(name: str, text: str) -> tuple[str, list[Tagged]]:
    """``text`` without GUIDE's tags, and what stood between them, in order.

    Raises:
        InputError: a tag that is not closed, closes nothing, encloses nothing, or opens inside of
            another; the message names the tag and the text's ``name``.
    """
    clean, marks, at = "", [], 0
    open_: tuple[str, int] | None = None  # the tag, and where its text begins
    for match in _TAG.finditer(text):
        clean += text[at : match.start()]
        at, tag = match.end(), match.group().strip()
        where = f"in the {name}, at character {match.start()}"
        if match["opens"]:
            if open_ is not None:
                raise InputError(f"the tag {tag} {where} opens inside of {open_[0]}")
            open_ = (tag, len(clean))
            continue
        if open_ is None:
            raise InputError(f"the tag {tag} {where} closes nothing")
        wanted = f"<-{match['closes']}>"
        if open_[0] != f"<{match['closes']}->":
            raise InputError(f"the tag {wanted} {where} does not close {open_[0]}")
        clean = clean[: open_[1]] + clean[open_[1] :].rstrip()
        if len(clean) == open_[1]:
            raise InputError(f"there is nothing between {open_[0]} and {wanted} {where}")
        marks.append(Tagged(open_[1], len(clean), LEVELS[match["closes"]]))
        open_ = None
    if open_ is not None:
        raise InputError(f"the tag {open_[0]} in the {name} is never closed")
    return clean + text[at:], marks
