"""How the report writes numbers and foreign texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..comparison.statistics import Estimate

NONE = "–"
MINUS = "\N{MINUS SIGN}"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# What no reader sees and some formats refuse: control characters but tab and line feed, halves of
# characters, and the two that are no characters.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_MARKUP = re.compile(r"[\\`*\[\]<>&|~$]|(?<!\w)_|_(?!\w)")
_AT_START = re.compile(r"^(?:([-+=#])|(\d+)([.)]))")
_ADDRESS = re.compile(r"(?i)\b(https?|ftp|mailto)(?=:)|\b(www)(?=\.)")
_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Characters that turn the direction of all that follows."""


def share(value: float | None) -> str:
    """Three decimals, "0.986"; a dash where there is none."""
    return NONE if value is None else f"{value:.3f}"


def signed(value: float | None, digits: int = 3) -> str:
    """With its sign, "+0.503", "−0.012"; nothing in front of 0."""
    if value is None:
        return NONE
    text = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if not float(text) else text.replace("-", MINUS)


def interval(estimate: Estimate | None, *, sign: bool = False) -> str:
    """The ends of an estimate's interval, "0.434 to 0.529"."""
    if estimate is None:
        return NONE
    ends = (estimate.low, estimate.high)
    return " to ".join(signed(end) if sign else share(end) for end in ends)


def p_value(p: float | None) -> str:
    """A p value, "0.031", "5.8 × 10⁻⁸"."""
    if p is None:
        return NONE
    if p >= 0.9995:
        return "1"
    if p >= 0.001:
        return f"{p:.3f}" if p >= 0.01 else f"{p:.4f}"
    number, power = f"{p:.1e}".split("e")
    return (
        f"{number}\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}10{str(int(power)).translate(SUPERSCRIPT)}"
    )


def ratio(value: float | None, digits: int = 2) -> str:
    """A ratio, "1.31", "∞"."""
    if value is None:
        return NONE
    if value == float("inf"):
        return "∞"
    return f"{value:.{digits}f}" if value < 1000 else f"{value:.3g}"


def count(number: int, thing: str) -> str:
    """How many there are, "1 case", "1,200 cases"."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def plain(value: Any) -> str:
    """A setting as people write it: "0.8", "none", "a, b", "method: instaboost, floor: 0.95"."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {plain(one)}" for key, one in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(plain, value)) or "none"
    return visible(str(value))


def visible(text: str) -> str:
    """``text`` with a sign for every character that cannot be seen or be in a file: ␀ for NUL."""
    return _UNSEEN.sub(_sign, text.replace("\r\n", "\n"))


def _sign(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"


def markdown(text: object) -> str:
    """``text`` for a line or a cell of Markdown, in which none of it is markup or a link."""
    line = " ".join(visible(str(text)).split())
    line = _TURNS.sub("\N{REPLACEMENT CHARACTER}", line)
    line = _MARKUP.sub(r"\\\g<0>", line)
    line = _ADDRESS.sub(r"\g<0>\\", line)
    return _AT_START.sub(lambda at: at[2] + "\\" + at[3] if at[2] else "\\" + at[1], line)


def code(text: str) -> str:
    """``text`` for a block of code in Markdown, whatever fences it holds."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{visible(text)}\n{fence}"


def brief(text: str, most: int = 38) -> str:
    """``text`` on one line of at most ``most`` characters, for a label."""
    line = " ".join(visible(text).split())
    return line if len(line) <= most else line[: most - 1] + "…"
