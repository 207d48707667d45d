"""Attention mass for the eye in a terminal: layers down, heads across, before beside after.

Without colour a cell is a shading character and a number, with colour a number on a shade.
``mass_figure`` draws the same to a file.
"""

from __future__ import annotations

import os
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

import torch
from torch import Tensor

from .mass import MassMap

SHADES = " ░▒▓█"
BARS = "▁▂▃▄▅▆▇█"
PLAIN = str.maketrans(dict(zip("░▒▓█▁▂▃▄▅▆▇…", ".:+#_,-~=*%~", strict=True)) | {"→": "->"})
"""What stands for these characters where the encoding lacks them."""
# From dark to light as matplotlib's viridis, in the 256 colours of a terminal.
COLOURS = (53, 54, 24, 30, 36, 78, 148, 220)
LIGHT = 36  # from this colour on, black is the better ink
CELL, MEAN, LABEL, GAP = 4, 7, 10, 4  # widths in characters
LONGEST_TOKEN = 12
NAMED_HEADS = 3
TOGETHER = "\N{NO-BREAK SPACE}"  # where a line must not end


@dataclass(frozen=True)
class Style:
    """How wide the text may be, and whether it may hold ANSI colours."""

    width: int = 100
    colour: bool = False

    @classmethod
    def of(cls, stream: TextIO | None, environment: Mapping[str, str] | None = None) -> Style:
        """What suits ``stream``: colour where it is a terminal, unless NO_COLOR or TERM=dumb says
        otherwise; its width, COLUMNS, or 100."""
        environment = os.environ if environment is None else environment
        terminal = stream is not None and stream.isatty()
        wanted = not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
        width = environment.get("COLUMNS", "")
        if width.isdecimal() and int(width):
            return cls(int(width), terminal and wanted)
        try:
            assert stream is not None
            columns = os.get_terminal_size(stream.fileno()).columns
        except (AssertionError, OSError, ValueError):
            columns = 0  # no terminal
        return cls(columns or cls.width, terminal and wanted)


def picture(mass: MassMap, style: Style) -> str:
    """The heat map of the prompt's last position, what it says in words, and the steps."""
    before, after = mass.baseline[:, :, 0], mass.steered[:, :, 0]
    where = ", ".join(map(str, mass.spans))
    title = (
        f"Attention mass on {mass.measured}, tokens {where}, at the prompt's last position, in %"
    )
    lines = [
        *_wrapped([title], style),
        "",
        *heat_map(before, after, style),
        "",
        *_wrapped(in_words(mass), style),
    ]
    if len(mass.tokens) > 1:
        lines += ["", *steps(mass, style)]
    return "\n".join(lines)


def printable(text: str, encoding: str | None) -> str:
    """``text``, with what the encoding of a stream lacks replaced by plain characters."""
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        assert encoding is not None
        return text.translate(PLAIN).encode(encoding, "replace").decode(encoding)
    return text


def heat_map(before: Tensor, after: Tensor, style: Style) -> list[str]:
    """Lines: (L, H) masses side by side on one scale, row means, and the scale.

    Heads that do not fit in the width are folded, groups of neighbours into their mean. The row
    means are of all heads.
    """
    n_heads = before.shape[1]
    group = _group(n_heads, style.width)
    sides = [_folded(side, group) for side in (before, after)]
    top = max(float(side.max()) for side in sides)
    columns = sides[0].shape[1]
    side = CELL * columns + MEAN
    names = (
        "".join(f"{column * group:>{CELL - 1}} " for column in range(columns)) + f"{'mean':>{MEAN}}"
    )
    lines = [
        (" " * LABEL + f"{'before':^{side}}" + " " * GAP + f"{'after':^{side}}").rstrip(),
        f"{'head':<{LABEL}}{names}{' ' * GAP}{names}",
    ]
    for layer in range(len(before)):
        halves = [
            "".join(_cell(value, top, style) for value in shown[layer].tolist())
            + f"{100 * whole[layer].mean().item():>{MEAN}.1f}"
            for shown, whole in zip(sides, (before, after), strict=True)
        ]
        lines.append(f"layer {layer:<{LABEL - 6}}" + (" " * GAP).join(halves))
    if group > 1:
        rest = n_heads % group
        last = f", the last of {rest}" if rest else ""
        folded = (
            f"{n_heads} heads do not fit in this width: a column is the mean of {group}, "
            f"and names the first{last}"
        )
        lines += _wrapped([folded], style)
    return [*lines, _scale(top, style)]


def in_words(mass: MassMap) -> list[str]:
    """What happened at the prompt's last position: the mean, and the heads that changed most."""
    before, after = mass.baseline[:, :, 0], mass.steered[:, :, 0]
    mean = f"mean mass on {mass.measured}: {_change(before.mean(), after.mean())}"
    change = (after - before).abs().flatten()
    # A stable order: of heads that changed alike, the first comes first.
    most = change.argsort(descending=True, stable=True)[:NAMED_HEADS].tolist()
    named = [
        f"layer {at // before.shape[1]} head {at % before.shape[1]} "
        f"({_change(before.flatten()[at], after.flatten()[at])})".replace(" ", TOGETHER)
        for at in most
        if change[at] > 0
    ]
    if not named:
        return [mean, "no head changed"]
    return [mean, "changed most: " + ", ".join(named)]


def steps(mass: MassMap, style: Style) -> list[str]:
    """Lines: the mean mass at every step, before and after, under the token chosen there."""
    means = [side.mean(dim=(0, 1)).tolist() for side in (mass.baseline, mass.steered)]
    top = max(map(max, means))
    cells = [
        [token, *(f"{_level(side[row], top, BARS)}{100 * side[row]:5.1f}" for side in means)]
        for row, token in enumerate(map(label, mass.tokens))
    ]
    title = "Mean mass of all heads as each token of the answer was chosen, in %"
    lines = _wrapped([title], style)
    line: list[str] = []

    def flush() -> None:
        if line:
            lines.extend(["", *(text.rstrip() for text in line)])

    for cell in cells:
        width = max(map(_columns, cell))
        if not line or _columns(line[0]) + 2 + width > style.width:
            flush()
            line = [f"{name:<6}" for name in ("token", "before", "after")]
        line = [
            text + " " * (2 + width - _columns(part)) + part
            for text, part in zip(line, cell, strict=True)
        ]
    flush()
    return lines


def label(token: str) -> str:
    """A token's text on one short line: what cannot be seen is escaped."""
    shown = token.strip() or token
    if not shown.strip():
        return repr(shown)
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown)
    while _columns(shown) > LONGEST_TOKEN:
        shown = shown.removesuffix("…")[:-1] + "…"
    return shown


def _group(n_heads: int, width: int) -> int:
    """How many heads share a column, so that both sides fit: a divisor, if one is near."""
    fit = max(1, ((width - LABEL - GAP) // 2 - MEAN) // CELL)
    least = -(-n_heads // fit)
    return next((size for size in range(least, 2 * least) if n_heads % size == 0), least)


def _folded(side: Tensor, group: int) -> Tensor:
    """(L, H) → (L, ⌈H / group⌉): the mean of each group of neighbouring heads."""
    return torch.stack([part.mean(1) for part in torch.split(side, group, dim=1)], dim=1)


def _level(value: float, top: float, levels: Sequence[str]) -> str:
    return levels[_bin(value, top, len(levels))]


def _bin(value: float, top: float, count: int) -> int:
    return min(count - 1, int(count * value / top)) if top > 0 else 0


def _cell(value: float, top: float, style: Style) -> str:
    number = f"{100 * value:.0f}"
    if not style.colour:
        return f"{number:>{CELL - 1}}{_level(value, top, SHADES)}"
    return _inked(f"{number:>{CELL - 1}} ", COLOURS[_bin(value, top, len(COLOURS))])


def _inked(text: str, colour: int) -> str:
    ink = 16 if COLOURS.index(colour) >= COLOURS.index(LIGHT) else 231
    return f"\x1b[48;5;{colour}m\x1b[38;5;{ink}m{text}\x1b[0m"


def _scale(top: float, style: Style) -> str:
    """The legend: where each shade begins, and where the last one ends."""
    shades: Sequence[object] = COLOURS if style.colour else SHADES
    begins = [f"{100 * top * k / len(shades):.1f}" for k in range(len(shades))]
    if style.colour:
        blocks = [_inked(f" {b} ", c) for b, c in zip(begins, COLOURS, strict=True)]
        return f"scale, from: {''.join(blocks)} to {100 * top:.1f} %"
    named = [f"{shade} {begin}" for shade, begin in zip(SHADES, begins, strict=True)]
    return f"scale, from: blank {begins[0]}  {'  '.join(named[1:])}  to {100 * top:.1f} %"


def _change(before: Tensor, after: Tensor) -> str:
    return f"{100 * before.item():.1f} → {100 * after.item():.1f} %"


def _wrapped(lines: Sequence[str], style: Style) -> list[str]:
    return [
        part.replace(TOGETHER, " ")
        for line in lines
        for part in textwrap.wrap(line, max(20, style.width), subsequent_indent="  ")
    ]


def _columns(text: str) -> int:
    """The width of ``text`` in a terminal."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
