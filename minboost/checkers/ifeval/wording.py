"""IFEval's instructions on the words of an answer: which, in what language, case and marks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from ...errors import InputError
from ..base import Verdict
from ..fields import texts
from .language import LANGUAGES, language_of, needs_langdetect
from .rule import Rule, bound, compared, exactly, listed, quoted, so_often
from .units import capital_words


@dataclass(frozen=True, kw_only=True)
class Existence(Rule):
    """Every keyword stands in the text, as part of a word too; capitals do not count."""

    name: ClassVar[str] = "keywords:existence"

    keywords: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "keywords", texts("keywords", self.keywords))

    def asks(self) -> str:
        return f"Use the word{'s' * (len(self.keywords) > 1)} {listed(self.keywords, 'and')}."

    def check(self, text: str) -> Verdict:
        missing = [word for word in self.keywords if not occurrences(word, text)]
        if missing:
            return Verdict(False, f"without {listed(missing, 'and')}")
        return Verdict(True, f"with {listed(self.keywords, 'and')}")


@dataclass(frozen=True, kw_only=True)
class Frequency(Rule):
    """The keyword stands in the text so often, as part of a word too; capitals do not count."""

    name: ClassVar[str] = "keywords:frequency"

    keyword: str
    frequency: int
    relation: str

    def __post_init__(self) -> None:
        self._text("keyword")
        self._amount("frequency")
        self._relation("relation")

    def asks(self) -> str:
        if (self.relation, self.frequency) == ("less than", 1):
            return f"Do not use the word {quoted(self.keyword)}."
        return f"Use the word {quoted(self.keyword)} {so_often(self.relation, self.frequency)}."

    def check(self, text: str) -> Verdict:
        count = occurrences(self.keyword, text)
        said = compared(count, self.relation, self.frequency, "time")
        return Verdict(said.passed, f"{quoted(self.keyword)} {said.why}")


@dataclass(frozen=True, kw_only=True)
class ForbiddenWords(Rule):
    """None of the words stands in the text as a whole word; capitals do not count."""

    name: ClassVar[str] = "keywords:forbidden_words"

    forbidden_words: tuple[str, ...]

    def __post_init__(self) -> None:
        words = texts("forbidden_words", self.forbidden_words)
        object.__setattr__(self, "forbidden_words", words)

    def asks(self) -> str:
        several = "s" * (len(self.forbidden_words) > 1)
        return f"Do not use the word{several} {listed(self.forbidden_words, 'or')}."

    def check(self, text: str) -> Verdict:
        used = [word for word in self.forbidden_words if occurrences(word, text, whole=True)]
        if used:
            return Verdict(False, f"with {listed(used, 'and')}")
        return Verdict(True, f"without {listed(self.forbidden_words, 'or')}")


@dataclass(frozen=True, kw_only=True)
class LetterFrequency(Rule):
    """The letter, or other character, stands in the text so often; capitals do not count."""

    name: ClassVar[str] = "keywords:letter_frequency"

    letter: str
    let_frequency: int
    let_relation: str

    def __post_init__(self) -> None:
        self._text("letter")
        if len(self.letter) != 1:
            raise InputError(f"letter must be one character, got {self.letter!r}")
        self._amount("let_frequency")
        self._relation("let_relation")

    def asks(self) -> str:
        kind = "letter" if self.letter.isalpha() else "character"
        if (self.let_relation, self.let_frequency) == ("less than", 1):
            return f"Do not use the {kind} {quoted(self.letter)}."
        times = so_often(self.let_relation, self.let_frequency)
        return f"Use the {kind} {quoted(self.letter)} {times}."

    def check(self, text: str) -> Verdict:
        count = text.lower().count(self.letter.lower())
        said = compared(count, self.let_relation, self.let_frequency, "time")
        return Verdict(said.passed, f"{quoted(self.letter)} {said.why}")


class _InALanguage(Rule):
    """A rule that needs to know the language of an answer."""

    def needs(self) -> None:
        needs_langdetect(self.name)


@dataclass(frozen=True, kw_only=True)
class ResponseLanguage(_InALanguage):
    """The text is in the language, a code such as "de"; one whose language shows not passes."""

    name: ClassVar[str] = "language:response_language"

    language: str

    def __post_init__(self) -> None:
        if not isinstance(self.language, str) or self.language not in LANGUAGES:
            raise InputError(
                f"language must be one of {', '.join(LANGUAGES)}, got {self.language!r}"
            )

    def asks(self) -> str:
        return f"Give the whole answer in {LANGUAGES[self.language]}."

    def check(self, text: str) -> Verdict:
        return _in_language(text, self.language)


@dataclass(frozen=True, kw_only=True)
class EnglishCapital(_InALanguage):
    """The text is in English and has no lowercase letter."""

    name: ClassVar[str] = "change_case:english_capital"

    def asks(self) -> str:
        return "Give the whole answer in English and in capital letters only."

    def check(self, text: str) -> Verdict:
        if not text.isupper():
            return Verdict(False, "not all in capital letters")
        return _in_language(text, "en")


@dataclass(frozen=True, kw_only=True)
class EnglishLowercase(_InALanguage):
    """The text is in English and has no capital letter."""

    name: ClassVar[str] = "change_case:english_lowercase"

    def asks(self) -> str:
        return "Give the whole answer in English and in lowercase letters only."

    def check(self, text: str) -> Verdict:
        if not text.islower():
            return Verdict(False, "not all in lowercase letters")
        return _in_language(text, "en")


@dataclass(frozen=True, kw_only=True)
class CapitalWordFrequency(Rule):
    """So many words are all in capitals: ``capital_words`` says what is a word."""

    name: ClassVar[str] = "change_case:capital_word_frequency"

    capital_frequency: int
    capital_relation: str

    def __post_init__(self) -> None:
        self._amount("capital_frequency")
        self._relation("capital_relation")

    def asks(self) -> str:
        words = bound(self.capital_relation, self.capital_frequency, "word")
        return f"Write {words} in all capital letters."

    def check(self, text: str) -> Verdict:
        count = capital_words(text)
        return compared(count, self.capital_relation, self.capital_frequency, "word in capitals")


@dataclass(frozen=True, kw_only=True)
class NoComma(Rule):
    """The text has no comma."""

    name: ClassVar[str] = "punctuation:no_comma"

    def asks(self) -> str:
        return "Do not use any commas."

    def check(self, text: str) -> Verdict:
        return exactly(text.count(","), 0, "comma")


def occurrences(word: str, text: str, *, whole: bool = False) -> int:
    """How often ``word`` stands in ``text``, capitals or not; ``whole``: as a word of its own."""
    pattern = re.escape(word)
    if whole:
        pattern = rf"(?<!\w){pattern}(?!\w)"
    return len(re.findall(pattern, text, flags=re.IGNORECASE))


def _in_language(text: str, wanted: str) -> Verdict:
    found = language_of(text)
    if found is None:  # as in IFEval: numbers alone, for example, are in any language
        return Verdict(True, "the language does not show")
    return Verdict(found == wanted, f"in {LANGUAGES.get(found, found)}, {LANGUAGES[wanted]} wanted")


RULES: tuple[type[Rule], ...] = (
    Existence,
    Frequency,
    ForbiddenWords,
    LetterFrequency,
    ResponseLanguage,
    CapitalWordFrequency,
    EnglishCapital,
    EnglishLowercase,
    NoComma,
)
