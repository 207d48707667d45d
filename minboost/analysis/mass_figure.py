"""The figure of an attention mass: before and after as heat maps, below them the decode steps."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from .heatmap import label
from .mass import MassMap
from .plots import BLUE, ORANGE, Curve, draw_curves, figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

NAMED_TOKENS = 48
"""Steps up to which each is named; of more, every n-th."""


def draw(mass: MassMap, path: Path) -> None:
    """Write ``mass_figure`` to a PNG or SVG file, as ``plots.save`` does.

    Raises:
        InputError: no matplotlib. OSError: the file cannot be written.
    """
    drawn = mass_figure(mass)
    with warnings.catch_warnings():
        # A token in a script that the font lacks is a box, and nothing that a user can change.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        save(drawn, path)


def mass_figure(mass: MassMap) -> Figure:
    """Draw the (L, H) masses at the prompt's last position on one colour scale, and the means of
    every step.

    Raises:
        InputError: no matplotlib.
    """
    n_layers, n_heads = mass.baseline.shape[:2]
    tall = min(8.0, 1.6 + 0.22 * n_layers)
    drawn, (below,) = figure(1, width=min(14.0, 6.6 + 0.1 * n_heads), height=tall + 3.2)
    grid = drawn.add_gridspec(2, 2, height_ratios=(tall, 3.2))
    below.set_subplotspec(grid[1, :])
    maps = [drawn.add_subplot(grid[0, column]) for column in range(2)]
    top = max(float(mass.baseline[:, :, 0].max()), float(mass.steered[:, :, 0].max()))
    for axes, side, title in zip(
        maps, (mass.baseline, mass.steered), ("before", "after"), strict=True
    ):
        image = _heat_map(axes, side[:, :, 0], 100 * top)
        axes.set_title(f"{title}: mean {100 * side[:, :, 0].mean().item():.1f} %", fontsize=11)
    maps[1].set_ylabel("")
    drawn.colorbar(image, ax=maps, label="attention mass (%)", aspect=30)
    where = ", ".join(map(str, mass.spans))
    drawn.suptitle(
        f"Attention mass on {mass.measured}, tokens {where}, at the prompt's last position",
        fontsize=11,
    )
    _steps(below, mass)
    return drawn


def _heat_map(axes: Axes, side: Tensor, top: float) -> AxesImage:
    from matplotlib.ticker import MaxNLocator

    image = axes.imshow(
        (100 * side).numpy(),
        cmap="viridis",  # perceptually uniform
        vmin=0,
        vmax=top or 1,
        aspect="auto",
        interpolation="nearest",
    )
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return image


def _steps(axes: Axes, mass: MassMap) -> None:
    """The mean over all layers and heads at every step, under the token chosen there."""
    R = mass.baseline.shape[2]
    draw_curves(
        axes,
        list(range(R)),
        [
            Curve(name, (100 * side.mean(dim=(0, 1))).tolist(), colour, marker)
            for name, side, colour, marker in (
                ("before", mass.baseline, BLUE, "o"),
                ("after", mass.steered, ORANGE, "s"),
            )
        ],
    )
    every = -(-R // NAMED_TOKENS)
    named = range(0, len(mass.tokens), every)
    texts = [label(mass.tokens[at]) for at in named]
    upright = sum(map(len, texts)) <= 60
    axes.set_xticks(
        list(named),
        texts,
        rotation=0 if upright else 90,
        fontsize=9 if upright else 8,
        parse_math=False,  # a $ in a token is a dollar
    )
    axes.set_xlim(-0.5, R - 0.5)
    axes.set_ylim(0, 1.2 * max(axes.get_ylim()[1], 1))
    axes.legend(loc="upper right", ncols=2, frameon=False, fontsize=9)
    axes.set_xlabel("token of the answer that was chosen at this step")
    axes.set_ylabel("mean mass (%)")
    axes.set_title("Over the decode steps: mean of all layers and heads", fontsize=11)
