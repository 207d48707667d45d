"""What an answer says: exactly this, among others this, none of that, a pattern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import Checker, Verdict
from .fields import texts


def same_space(text: str) -> str:
    """``text`` with every run of white space as one space, and none at its ends."""
    return " ".join(text.split())


@dataclass(frozen=True)
class Exact(Checker):
    """The answer is ``text``, or one of several, up to runs of white space.

    With ``ignore_case``, capitals and small letters are alike.
    """

    name: ClassVar[str] = "exact"

    text: str | tuple[str, ...]
    ignore_case: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", texts("text", self.text))

    def check(self, text: str) -> Verdict:
        said = folded(text, self.ignore_case)
        if any(said == folded(wanted, self.ignore_case) for wanted in self.text):
            return Verdict(True, "the expected answer")
        wanted = " or ".join(map(repr, self.text))
        return Verdict(False, f"not exactly {wanted}")


@dataclass(frozen=True)
class Contains(Checker):
    """The answer contains every one of ``texts``, up to runs of white space.

    With ``ignore_case``, capitals and small letters are alike.
    """

    name: ClassVar[str] = "contains"

    texts: str | tuple[str, ...]
    ignore_case: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", texts("texts", self.texts))

    def check(self, text: str) -> Verdict:
        said = folded(text, self.ignore_case)
        missing = [one for one in self.texts if folded(one, self.ignore_case) not in said]
        if missing:
            return Verdict(False, f"does not contain {missing[0]!r}")
        return Verdict(True, f"contains {', '.join(map(repr, self.texts))}")


def folded(text: str, ignore_case: bool) -> str:
    return same_space(text.casefold() if ignore_case else text)
