"""Choosing a strength on validation cases, by the protocol of the InstABoost paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..checks import as_number
from ..errors import InputError
from ..methods import Latent, Method, Pasta
from ..suites import Case
from .evaluate import Evaluation, evaluate

if TYPE_CHECKING:
    from ..lm import LM

FLOOR = 0.95
"""The least share of answers that must be fluent, and of control cases that must pass."""
NEUTRAL = {"multiplier": 1.0, "alpha": 1.0, "delta": 0.0, "factor": 0.0}
"""The value of each strength that is the plain model; a target mass has none."""
RATIOS = ("multiplier", "alpha")
"""Strengths that multiply: 1/m is as far from the plain model as m."""


def _grid(first: float, last: float, step: float) -> tuple[float, ...]:
    count = round((last - first) / step) + 1
    return tuple(round(first + step * k, 6) for k in range(count))


GRIDS = {
    "multiplier": _grid(1, 19, 2),
    "alpha": (0.3, 0.1, 0.03, 0.01, 0.003, 0.001),
    "delta": _grid(0.5, 5, 0.5),
    "target": _grid(0.05, 0.6, 0.05),
    "factor": _grid(0.1, 1, 0.1),
}
"""The values that are tried by default, weak to strong: the paper's for multiplier and factor."""
RAISING_ALPHAS = (2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""The same for alpha where it is what the span or the prompt gains, not what the rest loses."""


@dataclass(frozen=True)
class Point:
    """A strength that was tried, and how it did on the validation cases."""

    value: float
    evaluation: Evaluation

    def below(self, floor: float) -> list[str]:
        """What of the evaluation lies below ``floor``: "fluency", "control", both or nothing."""
        shares = {"fluency": self.evaluation.fluency, "control": self.evaluation.control}
        return [name for name, share in shares.items() if share is not None and share < floor]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What ``tune`` found.

    ``points`` are the values tried, weak to strong, and ``plain`` the plain model on the same
    cases. ``chosen`` is None where no value passed the floor; then the test split was left alone,
    and ``test`` and ``test_plain`` are None too.
    """

    method: Method
    floor: float
    plain: Evaluation
    points: tuple[Point, ...]
    chosen: Point | None
    skipped: tuple[float, ...]
    test_plain: Evaluation | None = None
    test: Evaluation | None = None

    @property
    def parameter(self) -> str:
        return self.method.strength

    @property
    def failed(self) -> Point | None:
        """The first value below the floor, from which on none was considered."""
        return next((point for point in self.points if point.below(self.floor)), None)

    @property
    def best_method(self) -> Method | None:
        """The method at the chosen strength."""
        return None if self.chosen is None else at(self.method, self.chosen.value)


def tune(
    lm: LM,
    validation: Sequence[Case],
    test: Sequence[Case],
    method: Method,
    *,
    values: Sequence[float] | None = None,
    floor: float = FLOOR,
    full_curve: bool = False,
    max_new_tokens: int = 64,
    batch: int = 64,
    role: str = "system",
    progress: Callable[[int], object] | None = None,
    on_plain: Callable[[Evaluation], object] | None = None,
    on_point: Callable[[Point], object] | None = None,
) -> Tuning:
    """Try the strengths of ``method`` on ``validation``, and the chosen one once on ``test``.

    Strengths go from weak to strong, until the share of fluent answers, or of control cases that
    pass, falls below ``floor``; the most successful before that is chosen, of equals the weakest.
    (InstABoost, arXiv 2506.13734, whose rule is a mean fluency of at least 1 on a judge's scale of
    0 to 2.) The plain model answers each split once.

    Args:
        values: the strengths; by default those of ``default_values``.
        floor: in [0, 1].
        full_curve: also try what comes after the first value below the floor; it is not chosen.
        progress: called with the number of cases that were just answered.
        on_plain, on_point: called with each result as it comes.

    Raises:
        InputError: a split without a case that is no control, a value that the method refuses, or
            what ``ordered`` and ``evaluate`` refuse.
    """
    for name, cases in (("validation", validation), ("test", test)):
        if all(case.control for case in cases):
            raise InputError(
                f"the {name} split has {len(cases)} cases"
                + (", all of them controls" if cases else "")
                + ": there is nothing for a strength to succeed in"
            )
    floor = as_number("the floor", floor)
    if not 0 <= floor <= 1:
        raise InputError(f"the floor must lie in [0, 1], got {floor:g}")
    strengths = ordered(method, default_values(method) if values is None else values)

    def answer(cases: Sequence[Case], arm: Method | None, plain: Evaluation | None) -> Evaluation:
        return evaluate(
            lm,
            cases,
            arm,
            max_new_tokens=max_new_tokens,
            batch=batch,
            role=role,
            progress=progress,
            plain=plain,
        )

    plain = answer(validation, method.plain(), None)
    if on_plain is not None:
        on_plain(plain)

    def measure(value: float) -> Point:
        neutral = NEUTRAL.get(method.strength) == value
        point = Point(value, plain if neutral else answer(validation, at(method, value), plain))
        if on_point is not None:
            on_point(point)
        return point

    points = curve(strengths, measure, floor=floor, full_curve=full_curve)
    result = Tuning(
        method=method,
        floor=floor,
        plain=plain,
        points=tuple(points),
        chosen=choose(points, floor),
        skipped=strengths[len(points) :],
    )
    best = result.best_method
    if result.chosen is None or best is None:
        return result
    test_plain = answer(test, method.plain(), None)
    neutral = NEUTRAL.get(method.strength) == result.chosen.value
    tested = test_plain if neutral else answer(test, best, test_plain)
    return replace(result, test_plain=test_plain, test=tested)


def curve(
    values: Sequence[float],
    measure: Callable[[float], Point],
    *,
    floor: float,
    full_curve: bool = False,
) -> list[Point]:
    """``values`` measured in order, up to the first below ``floor``, or all of them."""
    points = []
    for value in values:
        points.append(measure(value))
        if points[-1].below(floor) and not full_curve:
            break
    return points


def choose(points: Sequence[Point], floor: float) -> Point | None:
    """The most successful of the points before the first below ``floor``, of equals the first."""
    passing = []
    for point in points:
        if point.below(floor):
            break
        passing.append(point)
    # max keeps the first of equals.
    return max(passing, key=lambda point: point.evaluation.success or 0.0, default=None)


def default_values(method: Method) -> tuple[float, ...]:
    """The strengths that are tried where none are named, weak to strong."""
    if isinstance(method, Pasta) and method.scale_position != "exclude":
        return RAISING_ALPHAS
    return GRIDS[method.strength]


def ordered(method: Method, values: Sequence[float]) -> tuple[float, ...]:
    """``values`` from weak to strong: by their distance from the plain model, each once.

    Raises:
        InputError: no value, one that the method refuses, values on both sides of the plain model,
            or a projection, which has no strength.
    """
    name = method.strength
    if isinstance(method, Latent) and method.direction.kind == "projection":
        raise InputError("a projection takes its direction out and has no strength to tune")
    numbers = [getattr(at(method, as_number(name, value)), name) for value in values]
    if not numbers:
        raise InputError(f"there is no value of {name} to try")
    neutral = NEUTRAL.get(name)
    if neutral is not None and min(numbers) < neutral < max(numbers):
        raise InputError(
            f"values of {name} must lie on one side of {neutral:g}, the plain model, got "
            f"{', '.join(f'{number:g}' for number in numbers)}: each side is a search of its own"
        )

    def strength(number: float) -> float:
        return abs(math.log(number)) if name in RATIOS else abs(number)

    return tuple(sorted(set(numbers), key=strength))


def at(method: Method, value: float) -> Method:
    """``method`` with its strength at ``value``."""
    changes: dict[str, Any] = {method.strength: value}
    return replace(method, **changes)
