"""How many words, characters, lines, paragraphs and list items a text has."""

from __future__ import annotations

import re
import unicodedata

# Scripts in which no space parts the words, and a character is about a syllable or a word.
EAST_ASIAN = re.compile(
    "[\u3005\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff]"
)
ITEM = re.compile(r"(?P<indent>[ \t]*)(?:[-*+‣–][ \t]+|•[ \t]*|\(?\d{1,3}[.)][ \t]+)(?P<said>.*)")
FENCE = re.compile(r"[ \t]*(```|~~~)")


def count_words(text: str) -> int:
    """The number of runs of other than white space that hold a letter or a digit.

    So "well-known" and "don't" are one word, and "-" is none. Of Chinese and Japanese every
    character counts as one. Thai, Lao, Khmer and Burmese, which put no space between words either,
    are counted by the spaces that there are.
    """
    text = unicodedata.normalize("NFC", text)
    parted, single = EAST_ASIAN.subn(" ", text)
    return single + sum(any(map(str.isalnum, run)) for run in parted.split())


def count_characters(text: str) -> int:
    """The number of code points of ``text`` in Unicode's composed form (NFC), spaces and line
    breaks included, white space at the ends not."""
    return len(unicodedata.normalize("NFC", text.strip()))


def count_lines(text: str) -> int:
    """The number of lines that hold more than white space."""
    return sum(bool(line.strip()) for line in text.splitlines())


def count_paragraphs(text: str) -> int:
    """The number of blocks between blank lines that hold a letter or a digit: a line of dashes or
    stars is none, a list without blank lines is one."""
    blocks = re.split(r"\n\s*\n", "\n".join(text.splitlines()))
    return sum(any(map(str.isalnum, block)) for block in blocks)


def count_items(text: str) -> int:
    """The number of items of lists: lines that begin with "-", "*", "+", "•", "1." or "1)" and say
    something.

    An item that is indented by two spaces or more beyond the outermost one is nested and does not
    count, nor does a line within a fence of code.
    """
    indents, fenced = [], False
    for line in text.splitlines():
        if FENCE.match(line):
            fenced = not fenced
        item = None if fenced else ITEM.fullmatch(line.rstrip())
        if item is not None and any(map(str.isalnum, item["said"])):
            indents.append(len(item["indent"].expandtabs(4)))
    return sum(indent < min(indents) + 2 for indent in indents)


def count_keyword(text: str, keyword: str, *, ignore_case: bool) -> int:
    """How often ``keyword`` stands in ``text`` as whole words, white space alike.

    It does so where no letter, digit or underscore is beside its ends, except that a keyword's end
    which is none itself, or is Chinese or Japanese, may have any neighbour.
    """
    text, keyword = (unicodedata.normalize("NFC", one) for one in (text, keyword))
    if ignore_case:
        text, keyword = text.casefold(), keyword.casefold()
    pattern = re.compile(r"\s+".join(map(re.escape, keyword.split())))
    first, last = (_in_word(keyword.strip()[at]) for at in (0, -1))
    count, at = 0, 0
    while found := pattern.search(text, at):
        start, stop = found.span()
        left = first and _in_word(text[max(start - 1, 0) : start])
        right = last and _in_word(text[stop : stop + 1])
        whole = not (left or right)
        count += whole
        at = stop if whole else start + 1
    return count


def _in_word(char: str) -> bool:
    """Whether a character, or none, is part of a word that spaces part from others."""
    if not char or EAST_ASIAN.match(char):
        return False
    # Vowel signs of Indic scripts are marks, which the re module does not take for part of a word.
    return char.isalnum() or char == "_" or unicodedata.category(char).startswith("M")
