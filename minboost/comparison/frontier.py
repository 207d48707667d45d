"""Which arm of many to take: the frontier of success and fluency, and the best above a floor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..analysis.intervals import wilson
from ..analysis.tuning import FLOOR
from .records import Record


@dataclass(frozen=True, kw_only=True)
class Point:
    """An arm's shares: success over the cases that are no controls, control over those that are
    (None where there are none), fluency over all; ``interval`` is success's 95 % (Wilson), and
    ``cases`` counts the cases that are no controls."""

    arm: str
    cases: int
    success: float
    interval: tuple[float, float]
    control: float | None
    fluency: float

    @property
    def safety(self) -> float:
        """What success must not cost: the lower one of fluency and control."""
        return self.fluency if self.control is None else min(self.fluency, self.control)

    def as_json(self) -> dict[str, Any]:
        return {
            "arm": self.arm,
            "cases": self.cases,
            "success": self.success,
            "success_interval": self.interval,
            "control": self.control,
            "fluency": self.fluency,
        }


def points_of(records: Iterable[Record]) -> dict[str, Point]:
    """The point of each arm of ``records``, by its name; an arm with controls alone has none."""
    by_arm: dict[str, list[Record]] = {}
    for record in records:
        by_arm.setdefault(record.arm, []).append(record)
    points = {}
    for arm, of in by_arm.items():
        told = [record.passed for record in of if not record.control]
        cases = {record.place[:2] for record in of if not record.control}
        kept = [record.passed for record in of if record.control]
        if not told:
            continue
        points[arm] = Point(
            arm=arm,
            cases=len(cases),
            success=sum(told) / len(told),
            # Runs are never taken for cases.
            interval=wilson(sum(told) / len(told) * len(cases), len(cases)),
            control=sum(kept) / len(kept) if kept else None,
            fluency=sum(record.fluent for record in of) / len(of),
        )
    return points


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that none beats in both success and safety, the most successful first.

    Of points that are alike in both, the first.
    """
    front: list[Point] = []
    for point in sorted(points, key=lambda one: (-one.success, -one.safety)):
        if not front or point.safety > front[-1].safety:
            front.append(point)
    return front


def choose(points: Sequence[Point], floor: float = FLOOR) -> Point | None:
    """The most successful of the points with fluency and control at ``floor`` or above.

    Of equals the one with more safety, then the first.
    """
    passing = [point for point in points if point.safety >= floor]
    return max(passing, key=lambda one: (one.success, one.safety), default=None)
