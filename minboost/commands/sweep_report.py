"""What ``minboost sweep`` prints: the frontier of each grid, what was chosen, the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .describe import echo

if TYPE_CHECKING:
    from ..comparison.frontier import Point
    from ..comparison.grids import Grid
    from ..comparison.summary import Summary

BAR = 20
MOST_ROWS = 40
"""Settings of a grid that are printed; of a larger grid the frontier alone."""
LONGEST = 48


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a sweep found.

    ``points`` are the validation shares by arm, the plain one's too; ``best`` the choice of each
    grid by its text, None where no setting passed ``floor``; ``summary`` is of the test cases.
    """

    grids: Sequence[Grid]
    points: Mapping[str, Point]
    best: Mapping[str, Point | None]
    floor: float
    summary: Summary | None

    @property
    def winner(self) -> Point | None:
        """The best of all grids, on validation."""
        from ..comparison.frontier import choose

        return choose([point for point in self.best.values() if point is not None], self.floor)

    def as_json(self) -> dict[str, Any]:
        from ..comparison.frontier import frontier

        grids = []
        for grid in self.grids:
            points = _points(self, grid)
            best = self.best[grid.text]
            grids.append({
                "grid": grid.text,
                "points": [point.as_json() for point in points],
                "frontier": [point.arm for point in frontier(points)],
                "chosen": None if best is None else best.arm,
            })  # fmt: skip
        return {
            "floor": self.floor,
            "interval": "Wilson, 95 %",
            "plain": self.points["plain"].as_json(),
            "grids": grids,
            "best": None if self.winner is None else self.winner.arm,
            "test": None if self.summary is None else self.summary.as_json(),
        }


def print_sweep(found: Found, block: str | None) -> None:
    """The grids, the choice and the test, on stdout."""
    from ..comparison.frontier import frontier
    from .compare_table import lines

    plain = found.points["plain"]
    for grid in found.grids:
        points = _points(found, grid)
        front = {point.arm for point in frontier(points)}
        best = found.best[grid.text]
        shown = points if len(points) <= MOST_ROWS else [p for p in points if p.arm in front]
        width = min(LONGEST, max(len(point.arm) for point in [plain, *shown]))
        echo(f"{grid.text}: {len(points)} settings on {plain.cases} validation cases")
        echo(f"{'':<{width}}  success {'':<{BAR}}  control  fluency")
        echo(_row(plain, width, ""))
        for point in shown:
            notes = ["* chosen"] if best is not None and point.arm == best.arm else []
            if point.arm in front:
                notes.append("frontier")
            if point.safety < found.floor:
                notes.append(f"below {found.floor:g}")
            echo(_row(point, width, ", ".join(notes)))
        if len(shown) < len(points):
            echo(f"{len(points) - len(shown)} settings that are not on the frontier are left out")
        echo("")
    if found.summary is not None:
        echo("the chosen settings on test cases, once")
        for line in lines(found.summary, diffs=0):
            echo(line)
    if block is not None:
        echo(f"\n{block}", nl=False)


def none_passed(found: Found) -> str:
    safest = max(
        (point for grid in found.grids for point in _points(found, grid)),
        key=lambda point: point.safety,
    )
    plain = found.points["plain"]
    return (
        f"no setting passed the floor of {found.floor:g}: the safest, {safest.arm}, has fluency "
        f"{safest.fluency:.3f}{_control(safest)} (plain: fluency {plain.fluency:.3f}"
        f"{_control(plain)}); try weaker strengths, or a lower --fluency-floor"
    )


def remark(found: Found) -> str:
    """The comment at the head of the config.yaml."""
    winner = found.winner
    assert winner is not None
    return (
        f"chosen by minboost sweep: success {winner.success:.3f} on {winner.cases} validation "
        f"cases,\nfluency {winner.fluency:.3f}{_control(winner)}"
    )


def _points(found: Found, grid: Grid) -> list[Point]:
    return [found.points[arm.name] for arm in grid.arms if arm.name in found.points]


def _control(point: Point) -> str:
    return "" if point.control is None else f", control {point.control:.3f}"


def _row(point: Point, width: int, note: str) -> str:
    full = round(BAR * point.success)
    bar = "█" * full + "░" * (BAR - full)
    name = point.arm if len(point.arm) <= width else point.arm[: width - 1] + "…"
    control = "    -" if point.control is None else f"{point.control:.3f}"
    shares = f"{point.success:.3f}   {bar}  {control}    {point.fluency:.3f}"
    return f"{name:<{width}}  {shares}  {note}".rstrip()
