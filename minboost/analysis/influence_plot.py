"""The figure of ``minboost influence``: by layer at the last position, and by position."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from .influence_comparison import Comparison
from .plots import BLUE, GREEN, GREY, ORANGE, PINK, Curve, draw_curves, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def influence_figure(found: Comparison, *, rollout: bool = False) -> Figure:
    """Draw log influence after each layer, and on each position after the last; log 0 is a gap.

    Raises:
        InputError: no matplotlib.
    """
    plain, boosted, upper = found.plain, found.boosted, found.upper
    layers = list(range(len(plain.at_last) - 1))
    drawn, (by_layer, by_position) = figure(2)
    curves = [
        Curve("plain", _logs(plain.at_last[1:]), BLUE, "o"),
        Curve("boosted", _logs(boosted.at_last[1:]), ORANGE, "s"),
        Curve("upper case", _logs(upper.at_last[1:]), GREEN, "^"),
    ]
    if rollout:
        curves += [
            Curve("rollout, plain", _logs(plain.rollout[1:, -1]), BLUE, "o", ":"),
            Curve("rollout, boosted", _logs(boosted.rollout[1:, -1]), ORANGE, "s", ":"),
        ]
    if found.control is not None:
        curves.append(Curve("control span", _logs(found.control[0].at_last[1:]), PINK, "D", "--"))
    curves.append(Curve("token share", _logs(found.share[:, -1]), GREY, "", "--"))
    draw_curves(by_layer, layers, curves)
    by_layer.set_xlabel("after layer")
    by_layer.set_ylabel("log influence (natural log)")
    by_layer.set_title("Influence of the instruction on the prompt's last position", fontsize=11)

    positions = list(range(len(found.prompt.ids)))
    draw_curves(
        by_position,
        positions,
        [
            Curve("plain", _logs(plain.influence[-1]), BLUE, "o"),
            Curve("boosted", _logs(boosted.influence[-1]), ORANGE, "s"),
        ],
    )
    by_position.axvspan(
        plain.span.start - 0.5,
        plain.span.stop - 0.5,
        color="0.88",
        linewidth=0,
        zorder=0,
        label="instruction",
    )
    by_position.set_xlim(-0.5, len(positions) - 0.5)
    by_position.set_xlabel("position (token)")
    by_position.set_ylabel("log influence (natural log)")
    by_position.set_title(f"On every position, after the last layer ({layers[-1]})", fontsize=11)
    by_position.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    return drawn


def _logs(values: Tensor) -> list[float | None]:
    return [math.log(value) if value > 0 else None for value in values.tolist()]
