"""How many sentences and how many words in capitals a text has, for IFEval's instructions.

IFEval counts both with NLTK: sentences with its trained Punkt model, words with its tokenizer.
Punkt needs a download, so ``count_sentences`` is a rule of our own, meant to come to the same
number on ordinary English; ``capital_words`` splits words where NLTK's tokenizer does.
"""

from __future__ import annotations

import re

# Marks that may end a sentence: at the end of a run without white space, or before one of these.
MARK = re.compile(r"""[.?!]+(?=$|[]"')};:*@([{‘’“”«»])""")
CLOSING = re.compile(r"""^["')\]}‘’“”«»]+(?:\s+|$)""")
OPENING = "\"'“‘«([{*_#"
NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*")
INITIALS = re.compile(r"[^\W\d](?:\.[^\W\d])*")

# Written with a full stop that ends no sentence; so are single letters: U.S., a.m., J.
_ABBREVIATIONS = """
    adm apr aug ave bros capt cie co col corp dec dept dr feb fri gen gov inc jan jr lt ltd maj
    messrs mr mrs ms nov oct ph.d prof rep sen sep sept sgt sr st tues vs wed
"""
ABBREVIATIONS = frozenset(_ABBREVIATIONS.split())
POSTSCRIPTS = ("p.s", "p.p.s")

# Words that are seldom written with a capital but at the start of a sentence.
_STARTERS = """
    a after all also although an and any are as at because before both but by can could did do does
    each even every for from he her here his how however i if in instead is it its many more most
    my no not now on one other our she should since so some still such that the their then there
    these they this those though to under until was we were what when where which while who why
    with would yet you your
"""
STARTERS = frozenset(_STARTERS.split())


def count_sentences(text: str) -> int:
    """The number of sentences of ``text``.

    A sentence ends at "?", "!" or "." before white space, quotes, brackets or asterisks. A "." does
    not end one after an abbreviation or single letters (J., U.S.), nor as part of "...", unless the
    next word is a common one with a capital; and not after a number where the next word has none.
    As with Punkt, the end of a line ends no sentence; the "1." or "A." of a list and the "P.S." of
    a postscript count as one each; and so does whatever is left at the end but closing quotes and
    brackets, be it an asterisk.
    """
    runs = list(re.finditer(r"\S+", text))
    count = last = 0
    for number, run in enumerate(runs, 1):
        marks = list(MARK.finditer(run[0]))
        following = runs[number][0] if number < len(runs) else None
        if marks and _ends(run, marks[-1], following):
            count += 1
            last = run.start() + marks[-1].end()
    return count + bool(CLOSING.sub("", text[last:].strip(), count=1))


def _ends(run: re.Match[str], mark: re.Match[str], following: str | None) -> bool:
    """Whether a sentence ends at ``mark`` of ``run``, which ``following`` comes after."""
    if mark.end() < len(run[0]):
        following = ""  # what follows is no word
    elif following is None:
        return False  # that is no end within the text
    if set(mark[0]) & set("?!"):
        return True
    word = run[0][: mark.start()].lstrip(OPENING).lower()
    if NUMBER.fullmatch(word):
        return not following[:1].islower()
    following = following.lstrip(OPENING)
    part = word.rsplit("-")[-1]
    if len(mark[0]) == 1:
        if part in POSTSCRIPTS or not (part in ABBREVIATIONS or INITIALS.fullmatch(part)):
            return True
        line = run.string.rfind("\n", 0, run.start()) + 1
        first = not run.string[line : run.start()].strip("#*>- \t")
        if first and len(part) == 1 and not re.match(r"\w\.", following):
            return True  # the letter of a list
    return following[:1].isupper() and re.split(r"\W", following.lower())[0] in STARTERS


# Where NLTK's tokenizer parts words; a colon or comma before a digit stays: 10:30, 1,000.
PARTING = re.compile(r"""[][(){}<>;@#$%&?!*"`«»“”„‘’‒–—―]|--|''|\.{2,}|[:,](?!\d)""")
CLITIC = re.compile(r"(?i:'[smd])$|(?:'ll|'LL|'re|'RE|'ve|'VE|n't|N'T)$")
MERGED = re.compile(r"(?i)\b(?:can(?=not\b)|d(?='ye\b)|gim(?=me\b)|gon(?=na\b)|got(?=ta\b)"
                    r"|lem(?=me\b)|more(?='n\b)|wan(?=na(?:\s|$)))")  # fmt: skip


def capital_words(text: str) -> int:
    """The number of words without a lowercase letter and with a capital.

    A word with a hyphen is one; DON'T and CANNOT are two, DO and N'T, CAN and NOT.
    """
    count = 0
    for word in PARTING.sub(" ", text).split():
        word = word.rstrip(".")
        clitic = CLITIC.search(word)
        parts = [word]
        if clitic is not None and word[: clitic.start()].rstrip("'"):
            parts = [word[: clitic.start()], clitic[0]]
        for part in parts:
            count += sum(piece.isupper() for piece in MERGED.sub(r" \g<0> ", part).split())
    return count
