"""How much of something an answer has: words, characters, sentences, lines, paragraphs, list items,
a keyword."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from ..checks import as_integer
from ..errors import InputError
from . import counts
from .base import Checker, Verdict
from .fields import flag, shortened, text
from .sentences import sentences


@dataclass(frozen=True, kw_only=True)
class Amount(Checker):
    """Something is counted, and is ``exactly`` so many, or at least ``min`` and at most ``max``."""

    thing: ClassVar[str]
    """What is counted, one of it."""
    least: ClassVar[int] = 1
    """How many every answer has."""

    exactly: int | None = None
    min: int | None = None
    max: int | None = None

    def __post_init__(self) -> None:
        given = {
            bound: as_integer(bound, value, self.least + (bound == "min" and self.least == 0))
            for bound in ("exactly", "min", "max")
            if (value := getattr(self, bound)) is not None
        }
        for bound, value in given.items():
            object.__setattr__(self, bound, value)
        if not given:
            raise InputError("one of exactly, min and max must be given")
        if "exactly" in given and len(given) > 1:
            raise InputError("exactly stands alone, without min and max")
        if len(given) == 2 and given["min"] > given["max"]:
            raise InputError(f"min must be at most max, got {given['min']} and {given['max']}")

    @abstractmethod
    def count(self, text: str) -> int: ...

    def told(self, count: int) -> str:
        return f"{count} {self.thing}" + "s" * (count != 1)

    def check(self, text: str) -> Verdict:
        count = self.count(text)
        if self.exactly is not None:
            return Verdict(
                count == self.exactly, f"{self.told(count)}, exactly {self.exactly} wanted"
            )
        passed = (self.min or 0) <= count and (self.max is None or count <= self.max)
        if self.min is None:
            rule = f"at most {self.max} allowed"
        elif self.max is None:
            rule = f"at least {self.min} wanted"
        else:
            rule = f"{self.min} to {self.max} wanted"
        return Verdict(passed, f"{self.told(count)}, {rule}")


@dataclass(frozen=True, kw_only=True)
class Words(Amount):
    """Words: runs of other than white space with a letter or a digit in them; of Chinese and
    Japanese every character (``counts.count_words``)."""

    name: ClassVar[str] = "words"
    thing: ClassVar[str] = "word"

    def count(self, text: str) -> int:
        return counts.count_words(text)


@dataclass(frozen=True, kw_only=True)
class Characters(Amount):
    """Characters: code points, spaces and line breaks included, white space at the ends not
    (``counts.count_characters``)."""

    name: ClassVar[str] = "characters"
    thing: ClassVar[str] = "character"

    def count(self, text: str) -> int:
        return counts.count_characters(text)


@dataclass(frozen=True, kw_only=True)
class Sentences(Amount):
    """Sentences (``sentences.sentences``)."""

    name: ClassVar[str] = "sentences"
    thing: ClassVar[str] = "sentence"

    def count(self, text: str) -> int:
        return len(sentences(text))


@dataclass(frozen=True, kw_only=True)
class Lines(Amount):
    """Lines that are not blank (``counts.count_lines``)."""

    name: ClassVar[str] = "lines"
    thing: ClassVar[str] = "line"

    def count(self, text: str) -> int:
        return counts.count_lines(text)


@dataclass(frozen=True, kw_only=True)
class Paragraphs(Amount):
    """Paragraphs: blocks between blank lines (``counts.count_paragraphs``)."""

    name: ClassVar[str] = "paragraphs"
    thing: ClassVar[str] = "paragraph"

    def count(self, text: str) -> int:
        return counts.count_paragraphs(text)


@dataclass(frozen=True, kw_only=True)
class Items(Amount):
    """Items of bulleted and numbered lists, nested ones not (``counts.count_items``)."""

    name: ClassVar[str] = "items"
    thing: ClassVar[str] = "list item"
    least: ClassVar[int] = 0

    def count(self, text: str) -> int:
        return counts.count_items(text)


@dataclass(frozen=True, kw_only=True)
class KeywordCount(Amount):
    """How often ``keyword``, a word or several, stands in the answer as whole words
    (``counts.count_keyword``). Capitals and small letters are alike unless ``ignore_case`` is
    False.
    """

    name: ClassVar[str] = "keyword_count"
    least: ClassVar[int] = 0

    keyword: str
    ignore_case: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "keyword", text("keyword", self.keyword))
        flag("ignore_case", self.ignore_case)
        super().__post_init__()

    def count(self, text: str) -> int:
        return counts.count_keyword(text, self.keyword, ignore_case=self.ignore_case)

    def told(self, count: int) -> str:
        times = "once" if count == 1 else f"{count} times"
        return f"{shortened(self.keyword)!r} {times}"
