"""Whether an answer is in a language."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from ..checks import as_text
from ..errors import InputError
from .base import Checker, Verdict
from .counts import count_keyword
from .fields import listed, shortened, texts
from .ifeval.language import LANGUAGES, language_of, needs_langdetect

MIN_LETTERS = 20
"""Below, the language of a text in a script of many languages is not guessed."""
MIN_HAN = 8
"""A Japanese text with so many characters has kana among them; a Chinese one has none."""

CODES = tuple(sorted({code.partition("-")[0] for code in LANGUAGES}))

LATIN, HAN = "Latin", "Han"
SCRIPTS = {
    "Greek": ("el",), "Hebrew": ("he",), "Thai": ("th",), "Hangul": ("ko",), "Bengali": ("bn",),
    "Gujarati": ("gu",), "Gurmukhi": ("pa",), "Tamil": ("ta",), "Telugu": ("te",),
    "Kannada": ("kn",), "Malayalam": ("ml",), "Kana": ("ja",), "Han": ("ja", "zh"),
    "Cyrillic": ("bg", "mk", "ru", "uk"), "Arabic": ("ar", "fa", "ur"),
    "Devanagari": ("hi", "mr", "ne"),
}  # fmt: skip
"""The languages of ``CODES`` by their script; those of no script here are written in Latin
letters."""

IN_LATIN = tuple(code for code in CODES if not any(code in codes for codes in SCRIPTS.values()))
UNICODE_NAMES = {"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana"}
"""First words of characters' names in Unicode, where they are not the script's."""


@dataclass(frozen=True)
class Language(Checker):
    """Most of the answer is in the language ``code``, of ISO 639-1: "fr".

    The script decides where it can: more than half of the letters must be of one that the language
    is written in, and a script of one language alone, such as Greek or Hangul, settles it. Where
    some letters are kana, Chinese characters are Japanese. Otherwise langdetect decides (the extra
    "suites"), with a fixed seed, on small letters where the answer is in capitals.

    langdetect takes short texts for anything. So an answer with fewer than 20 letters of a script
    of several languages (8 Chinese characters) fails as too short to tell, unless it has one of
    ``words``: words that stand for the language, such as "bleu", for answers of that length only.
    """

    name: ClassVar[str] = "language"

    code: str
    words: str | tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if as_text("code", self.code) not in CODES:
            raise InputError(f"code must be one of {', '.join(CODES)}, got {self.code!r}")
        if self.words != ():
            object.__setattr__(self, "words", texts("words", self.words))

    def needs(self) -> None:
        if _detected(self.code):
            needs_langdetect("the checker language")

    def check(self, text: str) -> Verdict:
        scripts = Counter(map(script_of, filter(str.isalpha, unicodedata.normalize("NFKC", text))))
        letters = sum(scripts.values())
        if not letters:
            return Verdict(False, "no letters to tell the language by")
        if scripts["Kana"] * 10 > scripts["Han"]:
            scripts["Kana"] += scripts.pop("Han", 0)  # the Chinese characters of a Japanese text
        script, count = scripts.most_common(1)[0]
        if 2 * count <= letters:
            return Verdict(False, "no script has more than half of the letters")
        codes = IN_LATIN if script == LATIN else SCRIPTS.get(script, ())
        if self.code not in codes:
            return Verdict(False, f"in {script} letters, so not {_name(self.code)}")
        if len(codes) == 1:
            return Verdict(True, f"in {script} letters, so {_name(self.code)}")
        if count < (MIN_HAN if script == HAN else MIN_LETTERS):
            return self._short(text, letters)
        if script == HAN:
            found = "zh"
        else:
            found = (language_of(text.lower() if _shouted(text) else text) or "").partition("-")[0]
        if found == self.code:
            return Verdict(True, _name(found))
        return Verdict(False, f"{_name(found)}, not {_name(self.code)}")

    def _short(self, text: str, letters: int) -> Verdict:
        for word in self.words:
            if count_keyword(text, word, ignore_case=True):
                return Verdict(True, f"short, and has {shortened(word)!r}")
        told = f"{letters} letter" + "s" * (letters != 1)
        if self.words:
            return Verdict(False, f"{told} without {listed(tuple(self.words), 'or')}")
        return Verdict(False, f"{told}, too few to tell whether it is {_name(self.code)}")


def script_of(letter: str) -> str:
    """The script of a letter, by its name in Unicode: "Latin"."""
    first = re.split(r"[ -]", unicodedata.name(letter, "UNNAMED"))[0]
    return UNICODE_NAMES.get(first, first.capitalize())


def _detected(code: str) -> bool:
    """Whether it takes langdetect to tell the language from others of its script."""
    own = [codes for codes in SCRIPTS.values() if code in codes and codes != SCRIPTS[HAN]]
    return code in IN_LATIN or any(len(codes) > 1 for codes in own)


def _shouted(text: str) -> bool:
    """Whether most letters are capitals; langdetect passes over words in capitals."""
    return 2 * sum(map(str.isupper, text)) > sum(map(str.isalpha, text))


def _name(code: str) -> str:
    return "Chinese" if code == "zh" else LANGUAGES.get(code, "of no language that can be told")
