"""Whether an answer is in capitals, in small letters, or in title case."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from ..errors import InputError
from .base import Checker, Verdict
from .fields import shortened

FORMS = ("upper", "lower", "title")

SMALL = frozenset({
    "a", "an", "and", "as", "at", "but", "by", "down", "for", "from", "if", "in", "into",
    "like", "near", "nor", "of", "off", "on", "once", "onto", "or", "out", "over", "per", "so",
    "than", "that", "the", "to", "up", "upon", "via", "when", "with", "yet",
})  # fmt: skip
"""Words that a title may have without a capital, after its first."""


@dataclass(frozen=True)
class LetterCase(Checker):
    """The answer's letters are all of one ``form``; what has no capital, such as 7 or 字, is free.

    - "upper": no small letter.
    - "lower": no capital.
    - "title": every word begins with a capital, but articles, conjunctions and short prepositions
      after a line's first word need not; and some letter is small.
    """

    name: ClassVar[str] = "case"

    form: str

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise InputError(
                f"form must be {', '.join(FORMS[:-1])} or {FORMS[-1]}, got {self.form!r}"
            )

    def check(self, text: str) -> Verdict:
        if not any(_small(char) or _capital(char) for char in text):
            return Verdict(False, "no letter that could be a capital or a small one")
        if self.form == "title":
            return _title(text)
        wrong = _small if self.form == "upper" else _capital
        found = next((word for word in text.split() if any(map(wrong, word))), None)
        kind = {"upper": ("small letters", "capitals"), "lower": ("capitals", "small letters")}
        bad, good = kind[self.form]
        if found is not None:
            return Verdict(False, f"{bad} in {shortened(found)!r}")
        return Verdict(True, f"all in {good}")


def _title(text: str) -> Verdict:
    for line in text.splitlines():
        for at, word in enumerate(re.findall(r"[^\W\d_](?:[\w'’]*\w)?", line)):
            if _small(word[0]) and (at == 0 or word not in SMALL):
                return Verdict(False, f"{shortened(word)!r} begins with a small letter")
    if not any(map(_small, text)):
        return Verdict(False, "all in capitals, not in title case")
    return Verdict(True, "in title case")


def _small(char: str) -> bool:
    """Whether it is a small letter that has a capital: ª has none."""
    return char.islower() and char.upper() != char


def _capital(char: str) -> bool:
    return (char.isupper() or char.istitle()) and char.lower() != char
