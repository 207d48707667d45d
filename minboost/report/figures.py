"""The report's figures, with matplotlib: curves over a strength, the frontier, maps of heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..analysis.plots import BLUE, GREEN, GREY, ORANGE, Curve, draw_curves, figure
from ..comparison.statistics import Estimate
from ..comparison.summary import Group
from . import families
from .finding import ALPHA
from .formats import MINUS, brief, signed
from .frontier_figure import draw_frontier
from .svg import quiet_fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 5.6, 3.5
"""Inches of a figure on the page, and of a panel on the sheet."""
SHEET_COLUMNS = 2
MOST_CURVES = 24
LOGARITHMIC = 20.0
"""The largest strength over the smallest, from which a curve's axis is logarithmic."""
NAMED_TICKS = 12
NUMBERED_CELLS = 12
"""Heads up to which a map's cells have their numbers in them."""
DARK, LIGHT = "#111111", "#fefefe"  # ink on a cell, whatever the page's own colours
MAP_COLOURS = ("#d4600a", "#f7f7f7", "#0a74b0")  # of losses, of nothing, of gains
SHADES = 21


@dataclass(frozen=True)
class Panel:
    """One figure: what it is, in words, and how it is drawn on axes.

    Attributes:
        kind: "curve", "frontier" or "map".
        title, caption: a line, and what a reader must know.
        described: what it shows, for those who do not see it.
    """

    kind: str
    title: str
    caption: str
    described: str
    draw: Callable[[Axes], None]
    width: float = WIDTH
    height: float = HEIGHT

    def figure(self) -> Figure:
        """The panel alone, without its title, which stands on the page."""
        drawn, (axes,) = figure(1, width=self.width, height=self.height)
        with quiet_fonts():
            self.draw(axes)
        return drawn


def panels_of(group: Group) -> list[Panel]:
    """The figures of a group, those that there is something to draw for."""
    curves = families.curves_of(group)
    panels = [_curve_panel(curve) for curve in curves[:MOST_CURVES]]
    frontier = families.frontier_of(group)
    if frontier is not None:
        panels.append(_frontier_panel(frontier))
    maps = families.maps_of(group)
    top = max((abs(one.gain(*at) or 0) for one in maps for at in one.cells), default=0.0)
    return panels + [_map_panel(one, top) for one in maps]


def sheet(groups: Sequence[tuple[str, Sequence[Panel]]]) -> Figure | None:
    """All panels of ``groups``, of which each has a name, on one sheet; None without any."""
    panels = [(name, panel) for name, of in groups for panel in of]
    if not panels:
        return None
    columns = min(SHEET_COLUMNS, len(panels))
    drawn, axes = figure(len(panels), width=WIDTH, height=HEIGHT + 0.5, columns=columns)
    for one, (name, panel) in zip(axes, panels, strict=True):
        with quiet_fonts():
            panel.draw(one)
        title = one.set_title(
            f"{brief(name)}: {brief(panel.title, 48)}", loc="left", fontsize=10, pad=22
        )
        title.set_parse_math(False)
    drawn.set_layout_engine("constrained", w_pad=0.15, h_pad=0.15)
    return drawn


def _curve_panel(curve: families.Curve) -> Panel:
    best = max(curve.arms, key=lambda arm: 0.0 if arm.success is None else arm.success.value)
    at = curve.values[curve.arms.index(best)]
    success = "–" if best.success is None else f"{best.success.value:.3f}"
    words = f"most success at {curve.strength} {at:g}: {success}, fluency {best.fluency.value:.3f}"
    return Panel(
        kind="curve",
        title=f"{curve.name}: {curve.strength}",
        caption="Bands are 95 % intervals"
        + ("; the dashed line is plain’s success." if curve.plain is not None else "."),
        described=f"Success, control and fluency of {curve.name} over its {curve.strength}; "
        f"{words}.",
        draw=lambda axes: _draw_curve(axes, curve),
    )


def _draw_curve(axes: Axes, curve: families.Curve) -> None:
    lines: list[tuple[Curve, list[Estimate | None]]] = []
    for name, colour, marker in (
        ("success", BLUE, "o"), ("control", GREEN, "s"), ("fluency", ORANGE, "^"),
    ):  # fmt: skip
        estimates = [getattr(arm, name) for arm in curve.arms]
        if any(one is not None for one in estimates):
            values = [None if one is None else one.value for one in estimates]
            lines.append((Curve(name, values, colour, marker), estimates))
    draw_curves(axes, curve.values, [line for line, _ in lines])
    nan = float("nan")
    for line, estimates in lines:
        axes.fill_between(
            curve.values,
            [nan if one is None else one.low for one in estimates],
            [nan if one is None else one.high for one in estimates],
            color=line.colour, alpha=0.13, linewidth=0,
        )  # fmt: skip
    if curve.plain is not None and curve.plain.success is not None:
        axes.axhline(curve.plain.success.value, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    low, high = curve.values[0], curve.values[-1]
    if low > 0 and high / low >= LOGARITHMIC:
        axes.set_xscale("log")
    if len(curve.values) <= NAMED_TICKS:
        axes.set_xticks(curve.values, [f"{value:g}" for value in curve.values])
        axes.set_xticks([], minor=True)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(curve.strength)
    axes.set_ylabel("share")
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=9,
        borderaxespad=0.2, handlelength=1.6,
    )  # fmt: skip


def _frontier_panel(found: families.Frontier) -> Panel:
    front = sorted(found.front)
    named = ", ".join(front[:6]) + (" and others" if len(front) > 6 else "")
    return Panel(
        kind="frontier",
        title="success and what it costs",
        caption="Filled points: no arm does better in both."
        + (" Numbers are the strengths of a curve." if found.curves else ""),
        described="Success of each arm against its fluency or control, whichever is lower. No arm "
        f"does better in both than: {named}.",
        draw=lambda axes: draw_frontier(axes, found),
        width=WIDTH + 1.6,
        height=HEIGHT + 0.6,
    )


def _map_panel(one: families.HeadMap, top: float) -> Panel:
    (layer, head), gain = one.best
    where = f"layer {layer}" + ("" if head is None else f", head {head}")
    unit = "layer" if one.heads is None else "head"
    columns = one.heads or 1
    star = f"; * where p, corrected, is below {ALPHA:g}" if columns <= NUMBERED_CELLS else ""
    wide = min(WIDTH + 2, 1.9 + (0.5 if columns <= NUMBERED_CELLS else 0.22) * columns)
    return Panel(
        kind="map",
        title=f"one {unit} alone: {one.name}",
        caption=f"Change of success against plain with one {unit} steered alone{star}. "
        f"Most: {where}, {signed(gain)}.",
        described=f"A map of the change of success by layer{'' if head is None else ' and head'}. "
        f"The largest: {where}, {signed(gain)}.",
        draw=lambda axes: _draw_map(axes, one, top),
        width=max(2.8, wide),
        height=min(7.0, max(2.4, 1.2 + 0.3 * one.layers)),
    )


def _draw_map(axes: Axes, one: families.HeadMap, top: float) -> None:
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    heads = [None] if one.heads is None else list(range(one.heads))
    nan = float("nan")
    found = [[one.gain(layer, head) for head in heads] for layer in range(one.layers)]
    shades = LinearSegmentedColormap.from_list("gain", MAP_COLOURS, N=SHADES)
    limit = top or 1.0
    mesh = axes.pcolormesh(
        [[nan if gain is None else gain for gain in row] for row in found],
        cmap=shades, norm=Normalize(-limit, limit), edgecolors="white", linewidth=0.6,
    )  # fmt: skip
    axes.grid(visible=False)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for axis, number in ((axes.yaxis, one.layers), (axes.xaxis, len(heads))):
        every = max(1, -(-number // 16))
        named = range(0, number, every)
        axis.set_ticks([k + 0.5 for k in named], [str(k) for k in named])
    axes.set_ylabel("layer")
    axes.set_xlabel("head")
    if one.heads is None:
        axes.set_xticks([0.5], ["all heads"])
        axes.set_xlabel("")
    if len(heads) <= NUMBERED_CELLS:
        for layer, row in enumerate(found):
            for column, gain in enumerate(row):
                if gain is None:
                    continue
                arm = one.cells[layer, heads[column]]
                star = "*" if arm.versus is not None and arm.versus.corrected < ALPHA else ""
                axes.text(
                    column + 0.5, layer + 0.5, f"{gain:+.2f}".replace("-", MINUS) + star,
                    ha="center", va="center", fontsize=7.5,
                    color=LIGHT if abs(gain) > 0.6 * limit else DARK,
                )  # fmt: skip
    bar = axes.figure.colorbar(mesh, ax=axes, fraction=0.06, pad=0.03, aspect=20)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2)
