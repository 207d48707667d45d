"""What the figures of the analyses share: where they may be written, their look, their curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..output import check_writable, whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#555555"
"""Okabe and Ito's colours, which the colour-blind tell apart too."""

MARKED = 60
"""Points up to which a curve has marks; of more they would be all that is seen."""


@dataclass(frozen=True)
class Curve:
    """A line of a figure; ``y`` has a gap where it is None."""

    label: str
    y: Sequence[float | None]
    colour: str
    marker: str = ""
    style: str = "-"


def check_plot(path: Path) -> None:
    """Hold ``path`` to a file that ``save`` could write, before any work is done.

    Raises:
        InputError: another ending than .png or .svg, a folder that is not there or not writable, or
            no matplotlib.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"the plot must be a file ending in .png or .svg, got {path}")
    check_writable("the plot", path)
    need_matplotlib()


def figure(
    panels: int, *, width: float = 7.2, height: float = 3.6, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """An empty figure of ``panels``, one below the other or in ``columns``.

    Args:
        width: of a column, in inches.
        height: of a row, in inches.

    Raises:
        InputError: no matplotlib.
    """
    need_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = -(-panels // columns)
    drawn = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = drawn.subplots(rows, columns, squeeze=False).flatten().tolist()
    for unused in axes[panels:]:
        unused.remove()
    axes = axes[:panels]
    for one in axes:
        one.grid(axis="y", color="0.9")
        one.spines[["top", "right"]].set_visible(False)
        one.set_axisbelow(True)
        one.xaxis.set_major_locator(MaxNLocator(integer=True))  # layers, positions: whole numbers
    return drawn, axes


def draw_curves(axes: Axes, x: Sequence[float], curves: Sequence[Curve]) -> None:
    """Draw ``curves`` over ``x``, with a legend to their right."""
    for curve in curves:
        y = [float("nan") if value is None else value for value in curve.y]
        axes.plot(
            x,
            y,
            color=curve.colour,
            marker=curve.marker if len(x) <= MARKED else "",
            linestyle=curve.style,
            label=curve.label,
            markersize=4.5,
            linewidth=1.6,
        )
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)


def save(drawn: Figure, path: Path) -> None:
    """Write a figure to a PNG or SVG file: whole or not at all, the same figure to the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib import rc_context

    kind = path.suffix.lower().removeprefix(".")
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with rc_context({"svg.hashsalt": "minboost"}), whole(path) as temporary:
        drawn.savefig(temporary, format=kind, dpi=130, metadata=metadata)


def need_matplotlib() -> None:
    """Raise InputError if matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError('a plot needs matplotlib: pip install "minboost[plot]"') from error
