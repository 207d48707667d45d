"""IFEval's instructions on how many of something an answer has: sentences, paragraphs, bullets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from ...errors import InputError
from ..base import Verdict
from ..fields import shortened
from .rule import Rule, bound, compared, exactly, listed, numbered, quoted
from .units import count_sentences


@dataclass(frozen=True, kw_only=True)
class NumberSentences(Rule):
    """The text has so many sentences; ``count_sentences`` says what is one."""

    name: ClassVar[str] = "length_constraints:number_sentences"

    num_sentences: int
    relation: str

    def __post_init__(self) -> None:
        self._amount("num_sentences")
        self._relation("relation")

    def asks(self) -> str:
        return f"Answer in {bound(self.relation, self.num_sentences, 'sentence')}."

    def check(self, text: str) -> Verdict:
        return compared(count_sentences(text), self.relation, self.num_sentences, "sentence")


@dataclass(frozen=True, kw_only=True)
class NumberWords(Rule):
    """The text has so many words: runs of letters, digits and underscores; "well-known" is two."""

    name: ClassVar[str] = "length_constraints:number_words"

    num_words: int
    relation: str

    def __post_init__(self) -> None:
        self._amount("num_words")
        self._relation("relation")

    def asks(self) -> str:
        return f"Answer in {bound(self.relation, self.num_words, 'word')}."

    def check(self, text: str) -> Verdict:
        count = len(re.findall(r"\w+", text))
        return compared(count, self.relation, self.num_words, "word")


@dataclass(frozen=True, kw_only=True)
class NumberParagraphs(Rule):
    """The text is exactly so many paragraphs, parted by "***"; an empty one between two fails."""

    name: ClassVar[str] = "length_constraints:number_paragraphs"

    num_paragraphs: int

    def __post_init__(self) -> None:
        self._amount("num_paragraphs")

    def asks(self) -> str:
        if self.num_paragraphs == 1:
            return "Write exactly 1 paragraph."
        return f'Write exactly {self.num_paragraphs} paragraphs and put "***" between them.'

    def check(self, text: str) -> Verdict:
        # As IFEval splits: of four asterisks the last is a paragraph.
        filled = [bool(part.strip()) for part in text.split("***")]
        if not all(filled[1:-1]):
            return Verdict(False, "an empty paragraph")
        return exactly(sum(filled), self.num_paragraphs, "paragraph")


@dataclass(frozen=True, kw_only=True)
class NthParagraphFirstWord(Rule):
    """The text is exactly so many paragraphs, parted by empty lines, and one begins with a word.

    Paragraphs are numbered from 1. As in IFEval, empty ones do not count, but do have a number.
    """

    name: ClassVar[str] = "length_constraints:nth_paragraph_first_word"

    num_paragraphs: int
    nth_paragraph: int
    first_word: str

    def __post_init__(self) -> None:
        self._amount("num_paragraphs")
        self._amount("nth_paragraph")
        self._text("first_word")
        if self.nth_paragraph > self.num_paragraphs:
            raise InputError(
                f"nth_paragraph must be at most num_paragraphs, {self.num_paragraphs}, got "
                f"{self.nth_paragraph}"
            )

    def asks(self) -> str:
        paragraphs = numbered(self.num_paragraphs, "paragraph")
        parted = ", with an empty line between them," if self.num_paragraphs > 1 else ""
        return (
            f"Write exactly {paragraphs}{parted} and begin paragraph {self.nth_paragraph} "
            f"with the word {quoted(self.first_word)}."
        )

    def check(self, text: str) -> Verdict:
        paragraphs = text.split("\n\n")
        length = exactly(
            sum(bool(one.strip()) for one in paragraphs), self.num_paragraphs, "paragraph"
        )
        if not length.passed:
            return length
        words = paragraphs[self.nth_paragraph - 1].split()
        # The word without quotes in front of it, up to the first mark after it.
        first = words[0].lstrip("'").lstrip('"').lower() if words else ""
        first = re.split(r"""[.,?!'"]""", first)[0]
        why = f"paragraph {self.nth_paragraph} begins with {quoted(shortened(first))}"
        return Verdict(first == self.first_word.lower(), why)


@dataclass(frozen=True, kw_only=True)
class NumberPlaceholders(Rule):
    """The text has at least so many placeholders: square brackets that close on their line."""

    name: ClassVar[str] = "detectable_content:number_placeholders"

    num_placeholders: int

    def __post_init__(self) -> None:
        self._amount("num_placeholders")

    def asks(self) -> str:
        least = bound("at least", self.num_placeholders, "placeholder")
        return f"Include {least} in square brackets, such as [address]."

    def check(self, text: str) -> Verdict:
        count = len(re.findall(r"\[[^\]\n]*\]", text))
        return compared(count, "at least", self.num_placeholders, "placeholder")


@dataclass(frozen=True, kw_only=True)
class NumberBulletLists(Rule):
    """The text has exactly so many bullets: lines that begin with "-" or one "*", not with "**"."""

    name: ClassVar[str] = "detectable_format:number_bullet_lists"

    num_bullets: int

    def __post_init__(self) -> None:
        self._amount("num_bullets", 0)

    def asks(self) -> str:
        if self.num_bullets == 0:
            return "Do not use bullet points."
        points = numbered(self.num_bullets, "bullet point")
        return f'Use exactly {points}, written as lines that begin with "* ".'

    def check(self, text: str) -> Verdict:
        stars = re.findall(r"^\s*\*[^*].*$", text, flags=re.MULTILINE)
        dashes = re.findall(r"^\s*-.*$", text, flags=re.MULTILINE)
        return exactly(len(stars) + len(dashes), self.num_bullets, "bullet point")


@dataclass(frozen=True, kw_only=True)
class NumberHighlightedSections(Rule):
    """The text has at least so many highlights within a line: *such* or **such**."""

    name: ClassVar[str] = "detectable_format:number_highlighted_sections"

    num_highlights: int

    def __post_init__(self) -> None:
        self._amount("num_highlights")

    def asks(self) -> str:
        least = bound("at least", self.num_highlights, "part")
        return f"Highlight {least} of the answer with asterisks, *like this*."

    def check(self, text: str) -> Verdict:
        marked = re.findall(r"\*[^\n*]*\*", text) + re.findall(r"\*\*[^\n*]*\*\*", text)
        count = sum(bool(one.strip("*").strip()) for one in marked)
        return compared(count, "at least", self.num_highlights, "highlight")


@dataclass(frozen=True, kw_only=True)
class MultipleSections(Rule):
    """The text has at least so many headings: the section word and a number."""

    name: ClassVar[str] = "detectable_format:multiple_sections"

    section_spliter: str
    num_sections: int

    def __post_init__(self) -> None:
        self._text("section_spliter")
        self._amount("num_sections")

    def asks(self) -> str:
        head = self.section_spliter
        heads = [f"{head} {number}" for number in range(1, min(self.num_sections, 2) + 1)]
        more = " and so on" if self.num_sections > 2 else ""
        return (
            f"Write {numbered(self.num_sections, 'section')} headed "
            f"{', '.join(map(quoted, heads)) if more else listed(heads, 'and')}{more}."
        )

    def check(self, text: str) -> Verdict:
        count = len(re.findall(rf"{re.escape(self.section_spliter)}\s?\d+", text))
        return compared(count, "at least", self.num_sections, "section")


RULES: tuple[type[Rule], ...] = (
    NumberSentences,
    NumberWords,
    NumberParagraphs,
    NthParagraphFirstWord,
    NumberPlaceholders,
    NumberBulletLists,
    NumberHighlightedSections,
    MultipleSections,
)
