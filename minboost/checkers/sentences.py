"""A text's sentences, by a rule that is short enough to be written down."""

from __future__ import annotations

import re

BEFORE_ALL = frozenset({
    "approx", "ca", "capt", "cf", "dr", "e.g", "gen", "gov", "hon", "i.e", "lt", "messrs", "mr",
    "mrs", "ms", "mt", "mx", "prof", "rev", "sen", "sgt", "st", "viz", "vs", "z.b",
})  # fmt: skip
"""Abbreviations that stand before a name or an example: their full stop ends no sentence."""
BEFORE_SMALL = frozenset({
    "a.m", "al", "ave", "blvd", "bros", "bzw", "co", "corp", "dept", "esp", "etc", "inc", "jr",
    "ltd", "p.m", "ph.d", "sr", "u.k", "u.n", "u.s", "u.s.a", "usw",
})  # fmt: skip
"""Those whose full stop ends a sentence unless a small letter or a digit follows."""
BEFORE_NUMBERS = frozenset({
    "apr", "art", "aug", "ch", "dec", "eq", "feb", "fig", "figs", "jan", "jul", "jun", "mar", "no",
    "nos", "nov", "nr", "oct", "p", "pp", "sec", "sep", "sept", "vol",
})  # fmt: skip
"""Those whose full stop ends a sentence unless a digit follows: "No. 5", but "No. Never."."""

LONGEST = 12
"""Characters of an abbreviation, with what may stand in front of it."""

# Full-width and Indic marks end a sentence without a space after them, the others only before one.
END = re.compile(r"(?<![.!?…])(?P<mark>[.!?…]+)[\"'”’»)\]*_]*(?=\s)|[。！？｡।۔؟][\"'”’」』）)\]]*")
ITEM = re.compile(r"^[ \t]*(?:[-*+•‣–]|\(?\d{1,3}[.)]|\(?[a-z][.)])[ \t]+", re.MULTILINE)
BLANK = re.compile(r"\n[ \t]*\n")


def sentences(text: str) -> list[str]:
    """The sentences of ``text``.

    A sentence ends

    - at a run of . ! ? …, closing quotes and brackets included, before white space; but not at the
      full stop of a common abbreviation or of a single capital ("J. Smith"), nor at "…" or "..."
      before a small letter, nor at "!" and "?" in quotes before one (“Stop!” he said);
    - at 。！？ and the marks of Hindi, Urdu and Arabic;
    - at the end of a paragraph (a blank line) and of a list's item, whatever stands there.

    What has neither letter nor digit, such as a closing "😊", is none.
    """
    found = []
    for block in BLANK.split(text.replace("\r\n", "\n")):
        for piece in ITEM.split(block):
            found += _parted(piece)
    return [one for one in found if any(char.isalnum() for char in one)]


def _parted(piece: str) -> list[str]:
    parts, start = [], 0
    for match in END.finditer(piece):
        if _ends(match, piece):
            parts.append(piece[start : match.end()].strip())
            start = match.end()
    return [*parts, piece[start:].strip()]


def _ends(match: re.Match[str], piece: str) -> bool:
    mark = match["mark"]
    if mark is None:
        return True
    following = piece[match.end() :].lstrip(" \t\n\"'“‘(")[:1]
    if "!" in mark or "?" in mark:
        return mark == match[0] or not following.islower()
    if "…" in mark or ".." in mark:
        return not following.islower()
    before = piece[max(match.start() - LONGEST, 0) : match.start()]
    word = before[-1:].strip() and before.split()[-1].lstrip("\"'“‘([{*_")
    if len(word) == 1 and word.isupper() and word != "I":
        return False
    word = word.lower()
    if word in BEFORE_NUMBERS:
        return not following.isdigit()
    if word in BEFORE_SMALL:
        return not (following.isdigit() or following.islower())
    return word not in BEFORE_ALL
