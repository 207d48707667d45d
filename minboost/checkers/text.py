"""What an answer says: exactly this, among others this, none of that, this first or last.

All of these compare up to runs of white space, and up to how a character is composed: é in one
code point is é in two.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from .base import Checker, Verdict
from .fields import flag, listed, shortened, texts


def same_space(text: str) -> str:
    """``text`` with every run of white space as one space, and none at its ends."""
    return " ".join(text.split())


def folded(text: str, ignore_case: bool) -> str:
    text = unicodedata.normalize("NFC", text)
    if ignore_case:
        text = unicodedata.normalize("NFC", text.casefold())
    return same_space(text)


@dataclass(frozen=True)
class Exact(Checker):
    """The answer is ``text``, or one of several.

    With ``ignore_case``, capitals and small letters are alike.
    """

    name: ClassVar[str] = "exact"

    text: str | tuple[str, ...]
    ignore_case: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", texts("text", self.text))
        flag("ignore_case", self.ignore_case)

    def check(self, text: str) -> Verdict:
        said = folded(text, self.ignore_case)
        if any(said == folded(wanted, self.ignore_case) for wanted in self.text):
            return Verdict(True, "the expected answer")
        return Verdict(False, f"not exactly {listed(tuple(self.text), 'or')}")


@dataclass(frozen=True)
class _Texts(Checker):
    """One or more texts to look for; with ``ignore_case``, capitals and small letters are alike."""

    texts: str | tuple[str, ...]
    ignore_case: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", texts("texts", self.texts))
        flag("ignore_case", self.ignore_case)

    def such(self, holds: Callable[[str], bool]) -> tuple[str, ...]:
        """Those of ``texts`` that are such when they are folded as the answer is."""
        return tuple(one for one in self.texts if holds(folded(one, self.ignore_case)))


@dataclass(frozen=True)
class Contains(_Texts):
    """The answer contains every one of ``texts``."""

    name: ClassVar[str] = "contains"

    def check(self, text: str) -> Verdict:
        said = folded(text, self.ignore_case)
        if missing := self.such(lambda one: one not in said):
            return Verdict(False, f"does not contain {listed(missing, 'or')}")
        return Verdict(True, f"contains {listed(tuple(self.texts), 'and')}")


@dataclass(frozen=True)
class Excludes(_Texts):
    """The answer contains none of ``texts``, not even within a word.

    Capitals and small letters are alike unless ``ignore_case`` is False: a password in capitals is
    given away too. A text that the answer spells out with other characters in between
    ("s-e-s-a-m-e") is not found.
    """

    name: ClassVar[str] = "excludes"

    ignore_case: bool = True

    def check(self, text: str) -> Verdict:
        said = folded(text, self.ignore_case)
        if found := self.such(lambda one: one in said):
            return Verdict(False, f"contains {listed(found, 'and')}")
        return Verdict(True, f"does not contain {listed(tuple(self.texts), 'or')}")


@dataclass(frozen=True)
class StartsWith(_Texts):
    """The answer begins with ``texts``, or with one of several; "Dear" begins "Dearest" as well."""

    name: ClassVar[str] = "starts_with"

    def check(self, text: str) -> Verdict:
        if found := self.such(folded(text, self.ignore_case).startswith):
            return Verdict(True, f"begins with {shortened(found[0])!r}")
        start = shortened(text, 30)
        return Verdict(False, f"begins with {start!r}, not {listed(tuple(self.texts), 'or')}")


@dataclass(frozen=True)
class EndsWith(_Texts):
    """The answer ends with ``texts``, or with one of several. A full stop after it counts."""

    name: ClassVar[str] = "ends_with"

    def check(self, text: str) -> Verdict:
        if found := self.such(folded(text, self.ignore_case).endswith):
            return Verdict(True, f"ends with {shortened(found[0])!r}")
        end = same_space(text)[-30:]
        return Verdict(False, f"ends with {end!r}, not {listed(tuple(self.texts), 'or')}")
