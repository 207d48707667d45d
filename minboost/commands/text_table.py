"""Aligned columns of text for a terminal, by the width that characters have there."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

GAP = "  "

Rows = Sequence[Sequence[str]]


def columns(rows: Rows) -> list[str]:
    """One line a row, each column as wide as its widest cell; a short row ends early."""
    count = max(map(len, rows))
    full = [[*row, *[""] * (count - len(row))] for row in rows]
    widths = [max(map(width_of, column)) for column in zip(*full, strict=True)]
    return [
        GAP.join(padded(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in full
    ]


def folded(rows: Rows, width: int, *, fixed: int = 1) -> list[str]:
    """The same; columns that do not fit go to further tables, each after the first ``fixed``."""
    widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
    start = sum(widths[:fixed]) + len(GAP) * (fixed - 1)
    parts: list[list[int]] = []
    used = 0
    for at in range(fixed, len(widths)):
        used += len(GAP) + widths[at]
        if not parts or start + used > width:
            parts.append([])
            used = len(GAP) + widths[at]
        parts[-1].append(at)
    return parted(
        [columns([[*row[:fixed], *(row[at] for at in part)] for row in rows]) for part in parts]
    )


def parted(blocks: Sequence[Sequence[str]]) -> list[str]:
    """The lines of all blocks that have any, an empty one between two."""
    lines: list[str] = []
    for block in blocks:
        if block:
            lines += ["", *block] if lines else block
    return lines


def without_empty(rows: Rows) -> list[list[str]]:
    """``rows``, a head first, without the columns that are empty below it; the first one stays."""
    told = [at for at in range(len(rows[0])) if not at or any(row[at] for row in rows[1:])]
    return [[row[at] for at in told] for row in rows]


def one_line(text: str) -> str:
    """``text`` with every run of white space one blank, and what cannot be seen escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))


def cut(text: str, width: int) -> str:
    """``text``, where it is wider than ``width`` with its end left out."""
    if width_of(text) <= width:
        return text
    while width_of(text) > width - 1:
        text = text[:-1]
    return f"{text}…"


def cut_middle(text: str, width: int) -> str:
    """The same with its middle left out: names often differ at their ends."""
    if width_of(text) <= width:
        return text
    start, end = text[: len(text) // 2], text[len(text) // 2 :]
    while width_of(start) + width_of(end) > width - 1:
        start, end = (start[:-1], end) if len(start) >= len(end) else (start, end[1:])
    return f"{start}…{end}"


def padded(text: str, width: int) -> str:
    return text + " " * (width - width_of(text))


def width_of(text: str) -> int:
    """The columns that ``text`` takes in a terminal."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
