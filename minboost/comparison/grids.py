"""Grids of a sweep: a method over many strengths, layers, heads, or any of its settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from ..analysis.tuning import GRIDS, RAISING_ALPHAS
from ..errors import InputError
from ..head_choice import parse_ranges
from ..methods import METHODS
from .arms import Arm, arms_of, read_setting

EACH = "each"
BAR = "|"
MOST_ARMS = 2000


@dataclass(frozen=True)
class Grid:
    """What was asked for, and the arms that it comes to, weak to strong as they were named."""

    text: str
    arms: tuple[Arm, ...]


def parse_grid(
    text: str, defaults: Mapping[str, Any], *, n_layers: int, n_heads: int
) -> Grid:  # fmt: skip
    """The grid of a text such as "instaboost multiplier=2,5,10 layers=all|0-1 heads=all|0.5".

    An arm's text (``parse_arms``) in which every key may have several values, with "|" between
    them. Strengths may have commas instead; without any they are the method's own, as in `minboost
    tune`. ``layers=each`` is every layer alone, ``heads=each`` every head alone, of the layers that
    are named.

    Args:
        defaults: as for ``parse_arms``; a strength there is not used.
        n_layers, n_heads: the model's.

    Raises:
        InputError: what ``parse_arms`` refuses, or more than ``MOST_ARMS`` arms.
    """
    raw = read_setting(text)
    name = raw["method"]
    if name not in METHODS:
        raise InputError(f"the method {name!r} does not exist; known: {', '.join(METHODS)}")
    strength = METHODS[name].strength
    axes: dict[str, list[Any]] = {
        key: str(value).split(BAR) for key, value in raw.items() if key != "method"
    }
    if strength in axes:
        axes[strength] = [part for one in axes[strength] for part in one.split(",")]
    elif not all(one.startswith("projection") for one in axes.get("direction", [""])):
        raising = axes.get("scale_position", ["exclude"]) != ["exclude"]
        axes[strength] = list(RAISING_ALPHAS if name == "pasta" and raising else GRIDS[strength])
    if axes.get("layers") == [EACH]:
        axes["layers"] = [str(layer) for layer in range(n_layers)]
    if axes.get("heads") == [EACH]:
        axes["heads"] = _each_head(axes.pop("layers", ["all"]), n_layers, n_heads)
    # The strength varies fastest, so that a curve stands together.
    keys = [*(key for key in axes if key != strength), *([strength] if strength in axes else [])]
    count = 1
    for values in axes.values():
        count *= len(values)
    if count > MOST_ARMS:
        raise InputError(f"the grid {text!r} has {count} arms, more than {MOST_ARMS}")
    arms: dict[str, Arm] = {}
    for chosen in product(*(axes[key] for key in keys)):
        setting = {"method": name, **dict(zip(keys, chosen, strict=True))}
        if strength in setting:
            setting[strength] = _number(text, strength, setting[strength])
        arms |= {arm.name: arm for arm in arms_of(setting, {**defaults, strength: None})}
    return Grid(text, tuple(arms.values()))


def _each_head(layers: list[str], n_layers: int, n_heads: int) -> list[str]:
    numbers = range(n_layers)
    chosen = [n for text in layers for n in (numbers if text == "all" else parse_ranges(text))]
    return [json.dumps({str(layer): [head]}) for layer in chosen for head in range(n_heads)]


def _number(text: str, name: str, value: Any) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise InputError(f"the grid {text!r}: {name} must be a number, got {value!r}") from error
