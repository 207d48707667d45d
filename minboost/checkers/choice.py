"""Which option of a multiple-choice question an answer names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from string import ascii_uppercase
from typing import ClassVar

from ..checks import as_text
from ..errors import InputError
from .base import Checker, Verdict
from .fields import flag, shortened

# A letter in stars, quotes, dollars, square brackets or LaTeX's box is as good as one in brackets.
WRAPPED = re.compile(
    r"(?P<wrap>\*{1,3}|__?|`|\"|'|\$)\(?(?P<a>[A-Za-z])\)?(?P=wrap)|\[(?P<b>[A-Za-z])\]"
    r"|[“‘«](?P<c>[A-Za-z])[”’»]|\\(?:boxed|text|mathbf|textbf)\{(?P<d>[A-Za-z])\}"
)


@dataclass(frozen=True)
class Choice(Checker):
    """The answer chooses the option ``letter``, and no other of ``letters``.

    A letter counts as chosen where it

    - begins the answer: "B", "B.", "(B)", "**B**", "B) Rome", "B is right", "Option B";
    - follows a word for the choice: "Answer: B", "The answer is B.", "the correct option is (B)",
      "I choose B", "It's B";
    - is said to be right: "B is correct", "(B) Rome is the right answer";
    - stands alone on the last line.

    In these places it must stand by itself: in brackets, stars or quotes, or followed by the end of
    the line, by punctuation or a dash, or by "is", "because", "since", "as", "and", "or". So the
    English article in "A dog" and "The answer is a dog" is no choice. After a word for the choice
    any capital but A and I may have more words behind it: "The answer is B Rome". Small letters
    count like capitals where they stand by themselves.

    Letters joined to a chosen one are chosen too: "B and C", "A/B". One that is said to be wrong
    ("A is not correct"), or mentioned in another place, is not chosen. Where two or more lines
    begin with different letters, as when the options are repeated, these are no choices. An answer
    that names two letters fails, even if it takes the first one back.

    With ``only``, the letter must be the whole answer; brackets, stars, quotes and a full stop may
    be around it. The words for the choice are English.
    """

    name: ClassVar[str] = "choice"

    letter: str
    letters: str = "ABCD"
    only: bool = False

    def __post_init__(self) -> None:
        letters = as_text("letters", self.letters).upper()
        if (
            len(letters) < 2
            or len(set(letters)) < len(letters)
            or set(letters) - set(ascii_uppercase)
        ):
            raise InputError(
                f"letters must be two or more different letters from A to Z, got {self.letters!r}"
            )
        letter = as_text("letter", self.letter).upper()
        if len(letter) != 1 or letter not in letters:
            raise InputError(f"letter must be one of {letters}, got {self.letter!r}")
        flag("only", self.only)
        object.__setattr__(self, "letter", letter)
        object.__setattr__(self, "letters", letters)

    def check(self, text: str) -> Verdict:
        said = _unwrapped(text)
        if self.only and not re.fullmatch(rf"\(?[{self.letters}]\)?[.]?", said, re.IGNORECASE):
            return Verdict(False, f"not a letter alone: {shortened(text)!r}")
        chosen = sorted(set(_chosen(said, self.letters)))
        if not chosen:
            return Verdict(False, f"chooses none of {', '.join(self.letters)}")
        if len(chosen) > 1:
            return Verdict(False, f"chooses {', '.join(chosen[:-1])} and {chosen[-1]}")
        right = chosen[0] == self.letter
        return Verdict(right, f"chooses {chosen[0]}" + f", not {self.letter}" * (not right))


def _unwrapped(text: str) -> str:
    """``text`` with letters in (…) where they stood in stars and the like, without other
    emphasis, blank lines and white space at the lines' ends."""
    text = unicodedata.normalize("NFKC", text.strip())
    text = WRAPPED.sub(
        lambda found: f"({next(filter(None, found.group('a', 'b', 'c', 'd')))})", text
    )
    text = re.sub(r"\*+|`+|\\[()\[\]]|\$", "", text)
    text = re.sub(r"\(\((\w)\)\)", r"(\1)", text).replace("’", "'")
    # One space at a time: the patterns below take runs of them apart in every way.
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(filter(None, lines))


def _chosen(said: str, letters: str) -> Iterator[str]:
    """The letters that ``said`` names as its choice, by the rules of ``Choice``."""
    find = _Patterns(letters)
    labels = {found["label"].upper() for found in find.label.finditer(said)}
    repeated = len(labels) > 1 and find.label.match(said)
    if not repeated and (opening := find.opening.match(said)):
        yield from _with_joined(opening, said, find.joined, find.wrong_label)
    for pattern in find.named:
        for found in pattern.finditer(said):
            yield from _with_joined(found, said, find.joined, find.wrong)
    if last := find.alone.fullmatch(said.rpartition("\n")[2]):
        yield _letter(last)


def _with_joined(
    found: re.Match[str], said: str, joined: re.Pattern[str], wrong: re.Pattern[str]
) -> list[str]:
    """The letter of ``found`` and those joined to it; none if they are said to be wrong."""
    stop = found.end(found.lastindex or 0)
    letters = [_letter(found)]
    while more := joined.match(said, stop):
        letters.append(_letter(more))
        stop = more.end(more.lastindex or 0)
    return [] if wrong.match(said, stop) else letters


def _letter(found: re.Match[str]) -> str:
    return found[found.lastindex or 0].strip("()").upper()


class _Patterns:
    """The places of a choice as regular expressions, whose one group that is filled is the
    letter."""

    def __init__(self, letters: str) -> None:
        either = f"[{letters}{letters.lower()}]"
        before, after = r"(?<![\w'-])", r"(?![\w'-])"
        follows = (
            r"[.):,;!?]*[ \t]*$|[.):,;!?]+\s|\s+[-–—=→]+\s|\s*[/&]"
            r"|\s+(?:is|was|because|since|as|and|or)\b"
        )
        alone = rf"(?-i:\({either}\)|{before}{either}(?={follows}))"
        free = re.sub("[AI]", "", letters)  # no words of English
        behind = rf"(?:{alone}|(?-i:{before}[{free}]{after}))" if free else alone
        noun = r"(?:(?:option|choice|letter|answer)\s*:?\s*)?"
        is_ = r"(?:is|was|would be|should be|must be|will be)\b"
        is_ = rf"(?:\s*(?:{is_}|[:=]|[-–—=]*[>→]|[-–—])){{1,3}}"
        surely = (
            r"(?:(?:therefore|thus|then|clearly|definitely|indeed|probably)[ ,]\s*)?(?:the\s+)?"
        )
        # Up to a verb, within the sentence: "(B) Rome" is the right answer.
        gap = r"\)?(?:(?!\b(?:is|was|are)\b)[^.,;\n]){0,60}?\b(?:is|was|are)"

        def pattern(text: str) -> re.Pattern[str]:
            return re.compile(text, re.MULTILINE | re.IGNORECASE)

        self.label = pattern(rf"^[ \t>#•-]*\(?(?P<label>{either})[.):]+[ \t]+\S")
        self.opening = pattern(rf"[\s>#•-]*{noun}({alone})")
        self.alone = pattern(rf"{noun}(\({either}\)|{either})[.):]*")
        self.named = (
            pattern(
                r"(?<!wrong )(?<!incorrect )"
                r"\b(?:answer|choice|option|letter|response|solution|selection|pick)"
                rf"(?:\s+(?:here|to (?:this|the) question))?{is_}\s*{surely}{noun}({behind})"
            ),
            pattern(
                r"\bI(?:'d|'ll|'m| would| will| am)?\s+(?:choose|chose|pick|picked|select|selected"
                r"|go with|going with|opt for|say|think|believe|guess)\s+(?:it's\s+|it is\s+)?"
                rf"(?:the\s+)?{noun}({behind})"
            ),
            pattern(
                r"\b(?:it's|it is|it must be|that's|that is|that must be|that would be)\s+"
                rf"{noun}({alone})"
            ),
            pattern(
                rf"({behind}){gap}\s+"
                r"(?:(?:therefore|thus|clearly|definitely|indeed|the|most)\s+)*"
                r"(?:correct|right|best|true)\b"
            ),
        )
        self.joined = pattern(
            rf"\)?\.?(?:\s*(?:,?\s*\b(?:and|or)\b|/|&)\s*{noun}({behind})"
            rf"|\s*,\s*({alone})(?=\s*(?:$|[.,;!)]|and\b|or\b)))"
        )
        not_it = (
            rf"{gap}(?:(?:n't|\s+not)\s+(?:correct|right|true|the)|\s+(?:incorrect|wrong|false))\b"
        )
        self.wrong = pattern(not_it)
        self.wrong_label = pattern(rf"[.):]*{not_it}")  # "A. Rome is wrong."
