"""The figure of success and what it costs: one point an arm, and labels that hide nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..analysis.plots import BLUE, GREEN, GREY, ORANGE, PINK
from ..comparison.arms import PLAIN
from ..comparison.frontier import Point
from .families import Frontier
from .formats import brief

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (BLUE, ORANGE, GREEN, PINK)
MARKERS = "os^Dv"
MOST_CURVES = 10
"""Curves that are told apart; the points of more are among the other arms."""
MOST_NAMES = 5
"""Single arms whose names stand beside their marks; of more, numbers do, and a list of names."""
MOST_NUMBERS = 24
MARK, LETTER = 5.5, 7.5  # size of a mark and of a letter, in points
WIDE, TALL = 0.58, 1.25  # of an average letter and of a line, in letters' sizes
AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
DISTANCES = (6.0, 14.0, 24.0, 36.0, 50.0)  # points from a mark to its label
LINED = 10.0  # points from which a label has a line to its mark


@dataclass(frozen=True)
class Box:
    """A rectangle in points, from its left lower corner."""

    x: float
    y: float
    width: float
    height: float

    def over(self, other: Box) -> float:
        """The area that both cover."""
        wide = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        tall = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return max(0.0, wide) * max(0.0, tall)


@dataclass(frozen=True)
class Label:
    """A text and the place, in points, of the mark that it belongs to."""

    text: str
    at: tuple[float, float]

    @property
    def size(self) -> tuple[float, float]:
        return (WIDE * LETTER * max(1, len(self.text)), TALL * LETTER)


def draw_frontier(axes: Axes, found: Frontier) -> None:
    curves = dict(list(found.curves.items())[:MOST_CURVES])
    rest = [point for name in found.curves if name not in curves for _, point in found.curves[name]]
    _limits(axes, found.points)
    for point in [*found.mapped, *rest]:
        axes.plot(point.safety, point.success, ".", color=GREY, alpha=0.45, markersize=MARK)
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        marker = MARKERS[number % len(MARKERS)]
        points = [point for _, point in curve]
        axes.plot(
            [p.safety for p in points], [p.success for p in points], color=colour, linewidth=1,
            alpha=0.45,
        )  # fmt: skip
        for point in points:
            _mark(axes, point, found, colour, marker)
        axes.plot(
            [], [], marker, color=colour, markersize=MARK, linestyle="-", linewidth=1,
            label=brief(name, 30),
        )  # fmt: skip
    if found.mapped or rest:
        name = "other arms" if rest else "one head or layer"
        axes.plot([], [], ".", color=GREY, alpha=0.45, label=name)
    for point in found.alone:
        _mark(axes, point, found, "black" if point.arm == PLAIN else BLUE, "o")
    if len(found.alone) > MOST_NAMES:
        for number, point in enumerate(_ordered(found)[:MOST_NUMBERS], 1):
            axes.plot(
                [], [], marker=f"${number}$", color="black", markersize=MARK + 1, linestyle="",
                label=brief(point.arm, 40),
            )  # fmt: skip
    axes.set_xlabel("fluency or control, whichever is lower")
    axes.set_ylabel("success")
    if axes.get_legend_handles_labels()[1]:
        legend = axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
        for text in legend.get_texts():
            text.set_parse_math(False)
    _label(axes, found, curves)


def _limits(axes: Axes, points: Sequence[Point]) -> None:
    """As near as the points allow, with room for labels around them, and no ticks above 1."""
    from matplotlib.ticker import MaxNLocator

    locator = MaxNLocator(nbins=6, steps=[1, 2, 5, 10])
    for axis, set_limits, values in (
        (axes.xaxis, axes.set_xlim, [point.safety for point in points]),
        (axes.yaxis, axes.set_ylim, [point.success for point in points]),
    ):
        low, high = min(values), max(values)
        room = max(0.08 * (high - low), 0.02)
        axis.set_ticks(
            [t for t in locator.tick_values(low - room, high + room) if -0.01 < t < 1.01]
        )
        set_limits(low - room, high + room)


def _mark(axes: Axes, point: Point, found: Frontier, colour: str, marker: str) -> None:
    axes.plot(
        point.safety, point.success, marker, color=colour, markersize=MARK, zorder=3,
        markerfacecolor=colour if point.arm in found.front else "white",
    )  # fmt: skip


def _label(axes: Axes, found: Frontier, curves: dict[str, tuple[tuple[float, Point], ...]]) -> None:
    """Write the labels where they hide no mark and no other label, as far as there is room."""
    drawn = axes.figure
    engine = drawn.get_layout_engine()
    if engine is not None:
        engine.execute(drawn)  # type: ignore[arg-type]
    scale = 72 / drawn.dpi
    low = axes.transAxes.transform((0, 0)) * scale
    high = axes.transAxes.transform((1, 1)) * scale
    frame = Box(low[0], low[1], high[0] - low[0], high[1] - low[1])

    def place(point: Point) -> tuple[float, float]:
        x, y = axes.transData.transform((point.safety, point.success)) * scale
        return (float(x), float(y))

    marks = [place(point) for point in found.points]
    named = list(_texts(found, curves))
    labels = [Label(text, place(point)) for text, point in named]
    for (_, point), label, box in zip(named, labels, placed(labels, marks, frame), strict=True):
        x, y = label.at
        middle = (box.x + box.width / 2, box.y + box.height / 2)
        far = max(abs(middle[0] - x) - box.width / 2, abs(middle[1] - y) - box.height / 2) > LINED
        text = axes.annotate(
            label.text,
            xy=(point.safety, point.success),
            xytext=(middle[0] - x, middle[1] - y), textcoords="offset points",
            ha="center", va="center", fontsize=LETTER, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": GREY, "alpha": 0.5, "linewidth": 0.6,
                        "shrinkA": 0, "shrinkB": 3} if far else None,
        )  # fmt: skip
        text.set_parse_math(False)
        text.set_in_layout(False)


def _texts(
    found: Frontier, curves: dict[str, tuple[tuple[float, Point], ...]]
) -> Iterator[tuple[str, Point]]:
    """Each label with its point: single arms first, by name, or by number where they are many."""
    many = len(found.alone) > MOST_NAMES
    for number, point in enumerate(_ordered(found)[:MOST_NUMBERS], 1):
        yield str(number) if many else brief(point.arm, 30), point
    for curve in curves.values():
        together: dict[tuple[float, float], list[tuple[float, Point]]] = {}
        for value, point in curve:
            together.setdefault((point.safety, point.success), []).append((value, point))
        for here in together.values():
            values = [f"{value:g}" for value, _ in here]
            text = ", ".join(values) if len(values) < 4 else f"{values[0]} to {values[-1]}"
            yield text, here[0][1]


def _ordered(found: Frontier) -> list[Point]:
    """The single arms, plain and those on the front first."""
    return sorted(found.alone, key=lambda p: (p.arm != PLAIN, p.arm not in found.front, -p.success))


def placed(labels: Sequence[Label], marks: Sequence[tuple[float, float]], frame: Box) -> list[Box]:
    """A box for each label, near its mark, within ``frame``, on no mark and no box before it.

    Where none of the places around a mark is free, the one that covers least.
    """
    taken = [Box(x - MARK / 2, y - MARK / 2, MARK, MARK) for x, y in marks]
    boxes: list[Box] = []
    for label in labels:
        best, least = None, float("inf")
        for box in _around(label):
            outside = box.width * box.height - box.over(frame)
            covered = sum(box.over(other) for other in taken) + 4 * outside
            if covered < least - 1e-9:
                best, least = box, covered
            if covered <= 1e-9:
                break
        assert best is not None
        boxes.append(best)
        taken.append(best)
    return boxes


def _around(label: Label) -> Iterator[Box]:
    width, height = label.size
    for distance in DISTANCES:
        for right, up in AROUND:
            # A diagonal place is as far away as the others.
            far = distance if not (right and up) else 0.75 * distance
            x = label.at[0] + right * (far + width / 2) - width / 2
            y = label.at[1] + up * (far + height / 2) - height / 2
            yield Box(x, y, width, height)
