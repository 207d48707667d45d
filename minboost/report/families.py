"""Arms that belong together: curves over a strength, maps over layers and heads, the frontier."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..comparison.arms import PLAIN, WHERE, name_of
from ..comparison.frontier import Point, frontier
from ..comparison.summary import ArmSummary, Group
from ..errors import InputError
from ..head_choice import parse_ranges
from ..methods import METHODS

SMALLEST_FAMILY = 2
PLACE = ("layers", "heads", "head_seed", "start_layer", "num_middle_layers")
"""Settings that say where a method acts."""


@dataclass(frozen=True)
class Curve:
    """Arms that differ in nothing but their method's strength, weak to strong.

    Attributes:
        name: what they share: "instaboost", "instaboost layers=0-1".
        strength: the setting that they differ in.
        values, arms: its values, and the arm of each.
        plain: the plain arm, if there is one.
    """

    name: str
    strength: str
    values: tuple[float, ...]
    arms: tuple[ArmSummary, ...]
    plain: ArmSummary | None


@dataclass(frozen=True)
class HeadMap:
    """What steering one head alone gains, or one layer alone, against plain.

    Attributes:
        name: what the arms share: "instaboost multiplier=10".
        cells: {(layer, head): arm}; head is None where the arm steers all heads of a layer.
    """

    name: str
    cells: Mapping[tuple[int, int | None], ArmSummary]

    @property
    def layers(self) -> int:
        return 1 + max(layer for layer, _ in self.cells)

    @property
    def heads(self) -> int | None:
        """How many heads a layer has, as far as can be seen; None for a map of whole layers."""
        numbers = [head for _, head in self.cells if head is not None]
        return 1 + max(numbers) if numbers else None

    def gain(self, layer: int, head: int | None) -> float | None:
        arm = self.cells.get((layer, head))
        return None if arm is None or arm.versus is None else arm.versus.difference.value

    @property
    def best(self) -> tuple[tuple[int, int | None], float]:
        """The place that gains most, and what."""
        gains = {at: self.gain(*at) for at in self.cells}
        found = {at: gain for at, gain in gains.items() if gain is not None}
        return max(found.items(), key=lambda one: one[1])


@dataclass(frozen=True)
class Frontier:
    """Every arm's success against its safety, the lower one of fluency and control.

    Attributes:
        curves: the points of each curve by its name, with their strengths.
        alone: the other arms' points, plain's among them.
        mapped: those of arms that stand in a map of single heads or layers.
        front: the arms that none beats in both.
    """

    curves: Mapping[str, tuple[tuple[float, Point], ...]]
    alone: tuple[Point, ...]
    mapped: tuple[Point, ...]
    front: frozenset[str]

    @property
    def points(self) -> list[Point]:
        of_curves = [point for curve in self.curves.values() for _, point in curve]
        return [*of_curves, *self.alone, *self.mapped]


def curves_of(group: Group) -> list[Curve]:
    """The curves of a group, less those of arms that stand in a map of single heads or layers."""
    in_maps = {arm.name for one in maps_of(group) for arm in one.cells.values()}
    families: dict[str, list[tuple[float, ArmSummary]]] = {}
    for arm in group.arms:
        setting = _only_setting(arm)
        strength = None if setting is None else _strength(setting)
        if setting is None or strength is None or arm.name in in_maps:
            continue
        value = setting[strength]
        if isinstance(value, (int, float)):
            families.setdefault(_rest(setting, strength), []).append((float(value), arm))
    curves = []
    for family in families.values():
        by_value = dict(sorted(family, key=lambda one: one[0]))
        if len(by_value) < SMALLEST_FAMILY:
            continue
        setting = next(iter(by_value.values())).methods[0]
        strength = _strength(setting)
        assert strength is not None
        curves.append(
            Curve(
                name=_name(setting, leave=(strength,)),
                strength=strength,
                values=tuple(by_value),
                arms=tuple(by_value.values()),
                plain=group.arm(PLAIN) if group.plain else None,
            )
        )
    return curves


def maps_of(group: Group) -> list[HeadMap]:
    """The maps of a group: arms of one method and strength that steer one head, or layer, each."""
    families: dict[tuple[str, bool], dict[tuple[int, int | None], ArmSummary]] = {}
    for arm in group.arms:
        setting = _only_setting(arm)
        place = None if setting is None or arm.versus is None else single_place(setting)
        if setting is None or place is None:
            continue
        rest = _rest(setting, *PLACE)
        families.setdefault((rest, place[1] is None), {})[place] = arm
    return [
        HeadMap(_name(next(iter(cells.values())).methods[0], leave=PLACE), cells)
        for cells in families.values()
        if len(cells) >= SMALLEST_FAMILY
    ]


def frontier_of(group: Group) -> Frontier | None:
    """Where the arms of a group stand; None without two arms that have a success."""
    points = {arm.name: point for arm in group.arms if (point := point_of(arm)) is not None}
    if len(points) < SMALLEST_FAMILY:
        return None
    curves = {
        curve.name: tuple(
            (value, points[arm.name])
            for value, arm in zip(curve.values, curve.arms, strict=True)
            if arm.name in points
        )
        for curve in curves_of(group)
    }
    in_curves = {point.arm for curve in curves.values() for _, point in curve}
    in_maps = {arm.name for one in maps_of(group) for arm in one.cells.values()}
    best = {(point.success, point.safety) for point in frontier(list(points.values()))}
    return Frontier(
        curves=curves,
        alone=tuple(p for name, p in points.items() if name not in in_curves | in_maps),
        mapped=tuple(p for name, p in points.items() if name in in_maps),
        # Of arms that are alike in both, ``frontier`` names the first: all of them are meant.
        front=frozenset(n for n, p in points.items() if (p.success, p.safety) in best),
    )


def point_of(arm: ArmSummary) -> Point | None:
    if arm.success is None:
        return None
    return Point(
        arm=arm.name,
        cases=arm.cases + arm.controls,
        success=arm.success.value,
        interval=(arm.success.low, arm.success.high),
        control=None if arm.control is None else arm.control.value,
        fluency=arm.fluency.value,
    )


def single_place(setting: Mapping[str, Any]) -> tuple[int, int | None] | None:
    """The layer and head that a setting steers, the head None where it is the whole layer.

    None where it steers more than that, or a share of the heads.
    """
    layers, heads = setting.get("layers", "all"), setting.get("heads", "all")
    numbers = _numbers(layers)
    if isinstance(heads, Mapping):
        if len(heads) != 1:
            return None
        ((layer, chosen),) = heads.items()
        if numbers is not None and int(layer) not in numbers:
            return None
        if isinstance(chosen, str):
            return (int(layer), None)
        return (int(layer), int(chosen[0])) if len(chosen) == 1 else None
    if heads not in ("all", 1.0) or numbers is None or len(numbers) != 1:
        return None
    return (numbers[0], None)


def _numbers(layers: Any) -> list[int] | None:
    """The layers of a setting; None for "all" and "middle"."""
    if not isinstance(layers, str):
        return [int(layer) for layer in layers]
    try:
        return None if layers in ("all", "middle") else parse_ranges(layers)
    except InputError:
        return None


def _only_setting(arm: ArmSummary) -> dict[str, Any] | None:
    return arm.methods[0] if len(arm.methods) == 1 else None


def _strength(setting: Mapping[str, Any]) -> str | None:
    method = METHODS.get(setting.get("method", ""))
    return method.strength if method is not None and method.strength in setting else None


def _rest(setting: Mapping[str, Any], *leave: str) -> str:
    """What is left of a setting without some keys, as a key."""
    rest = {key: value for key, value in setting.items() if key not in leave}
    return json.dumps(rest, sort_keys=True, default=str)


def _name(setting: Mapping[str, Any], *, leave: tuple[str, ...]) -> str:
    """A setting in short without some keys: "instaboost layers=0-1"."""
    method = METHODS[setting["method"]]
    known = {"method", *method.parameters(), *WHERE} - set(leave)
    text = name_of({key: value for key, value in setting.items() if key in known})
    if method.strength in leave:
        words = text.split(" ", 2)  # the method, its strength at the default, the rest
        text = " ".join([words[0], *words[2:]])
    return text
