"""Two answers side by side: which words of the one are not in the other.

``words.js`` has the same in JavaScript, for the pairs that a reader of the page chooses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

SAME, GONE, NEW = "same", "gone", "new"
MOST_WORDS = 2000
"""Words of a text up to which it is compared; the work grows with their square."""

# White space after words, and in front of the first; words; each punctuation mark of ASCII but the
# apostrophe; each character of scripts that are written without spaces. The ranges are spelled out
# so that JavaScript finds the same words.
_PUNCTUATION = r"!-&(-/:-@\[-`{-~"
_SINGLE = r"\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_WORD = re.compile(f"([{_PUNCTUATION}{_SINGLE}]|[^ \\t\\n{_PUNCTUATION}{_SINGLE}]+)([ \\t\\n]*)")


@dataclass(frozen=True)
class Part:
    """A stretch of both texts: ``SAME``, ``GONE`` (of the first alone) or ``NEW`` (of the second).

    White space never counts: a part that is the same may have another one on either side. All
    ``before`` in a row are the first text, all ``after`` the second.
    """

    kind: str
    before: str
    after: str


def differing(before: str, after: str) -> list[Part] | None:
    """What of ``before`` is gone in ``after``, and what is new, by words (difflib).

    Returns:
        The parts in order; None where a text has more than ``MOST_WORDS`` words.
    """
    lead = [text[: len(text) - len(text.lstrip(" \t\n"))] for text in (before, after)]
    a, b = (_WORD.findall(text) for text in (before, after))
    if max(len(a), len(b)) > MOST_WORDS:
        return None
    parts = [Part(SAME, *lead)]
    matcher = SequenceMatcher(None, [w for w, _ in a], [w for w, _ in b], autojunk=False)
    for kind, a0, a1, b0, b1 in matcher.get_opcodes():
        if kind == "equal":
            parts.append(Part(SAME, _joined(a[a0:a1]), _joined(b[b0:b1])))
            continue
        for side, words in ((GONE, a[a0:a1]), (NEW, b[b0:b1])):
            text, space = _joined(words), words[-1][1] if words else ""
            # The space behind the last word is no part of what differs.
            parts.append(Part(side, *_on(side, text.removesuffix(space))))
            parts.append(Part(SAME, *_on(side, space)))
    return _merged(parts)


def _merged(parts: Sequence[Part]) -> list[Part]:
    """Without the empty ones, and with neighbours that are the same as one."""
    merged: list[Part] = []
    for part in parts:
        if not part.before and not part.after:
            continue
        if merged and part.kind == merged[-1].kind == SAME:
            last = merged.pop()
            part = Part(SAME, last.before + part.before, last.after + part.after)
        merged.append(part)
    return merged


def _joined(words: Sequence[tuple[str, str]]) -> str:
    return "".join(word + space for word, space in words)


def _on(side: str, text: str) -> tuple[str, str]:
    return (text, "") if side == GONE else ("", text)
