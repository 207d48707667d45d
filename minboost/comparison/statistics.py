"""How sure a mean over cases is, where a case may have been asked several times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ..analysis.intervals import wilson
from ..checks import as_integer
from ..errors import InputError

Array = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 10_000
ENOUGH_BCA, ENOUGH = 30, 10
"""Cases from which there are enough to draw from, for BCa and for the percentile bootstrap."""
ROUNDING = 1e-12
"""What rounding may part equal means by, of their size."""
CHUNK = 1 << 20
"""Numbers that are drawn at a time: 8 MiB."""
DRAW_COUNTS_UP_TO = 4
"""Cases a distinct value from which drawing how often each value comes is faster than drawing
cases."""
BCA = "BCa bootstrap over cases"
PERCENTILE = "percentile bootstrap over cases"
FEW = "Wilson, few cases"
ALIKE = "Wilson, all cases alike"
FIXED = "none, all cases alike"
SHARE, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)
"""Bounds of a share, and of the difference of two."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over cases and its 95 % interval, which holds it.

    Attributes:
        value, low, high: the mean and the ends of the interval.
        cases: how many cases it is over: what the interval rests on.
        answers: how many answers they are, all runs counted.
        method: how the interval was made: ``BCA``, ``PERCENTILE``, ``FEW``, ``ALIKE`` or
            ``FIXED``.
    """

    value: float
    low: float
    high: float
    cases: int
    answers: int
    method: str


def mean_over_cases(
    outcomes: Sequence[Sequence[float]],
    *,
    bounds: tuple[float, float] | None = None,
    pooled: bool = False,
    accelerated: bool = True,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """The mean of a measure over cases, and its 95 % interval.

    The cases are what is drawn, with all of their runs together: answers to one case resemble each
    other, so more runs sharpen what is known of a case, and are no further cases. The interval is
    the bias-corrected and accelerated bootstrap (BCa; Efron, 1987), which holds a share near 0 or 1
    clearly more often than the percentile bootstrap does. For differences of two arms, which
    gather around 0, it is the other way round where few cases differ: they take the latter. Both
    are tried out in tests/test_statistics.py.

    Two kinds of data have too little to draw from, and take Wilson's interval instead, where there
    are ``bounds``:

    - few cases, below 30 for BCa and 10 for the percentile bootstrap: that of the mean, as a share
      of the way between the bounds, with as many trials as there are cases. It is wide where an
      outcome is seldom at a bound, as a difference is, and further runs do not sharpen it.
    - cases that are all alike: every resample would be as well, and claim certainty. It is Wilson's
      of how many cases would have been otherwise, none of ``cases``: at most
      u = z² / (cases + z²), which might lie anywhere within the bounds. For a share of 0 or 1
      that is Wilson's interval of the share.

    Without ``bounds`` the interval of cases that are all alike is the value: nothing is known of
    others.

    Args:
        outcomes: of each case, the outcomes of its runs.
        bounds: what an outcome can be at least and at most.
        pooled: each outcome counts once, and not each case: for cases with several checks.
        accelerated: BCa; otherwise the percentile bootstrap.
        resamples, seed: of the bootstrap. The same arguments give the same interval, in whatever
            order the cases come.

    Raises:
        InputError: no case, a case without an outcome, or an outcome that is not finite or lies
            out of ``bounds``.
    """
    as_integer("resamples", resamples, 1)
    _check(outcomes, bounds)
    sizes = np.array([len(runs) for runs in outcomes])
    means = np.array([sum(runs) / len(runs) for runs in outcomes], dtype=np.float64)
    weights = sizes if pooled else np.ones_like(sizes)
    # Equal cases are counted, in sorted order: sums no longer depend on the order of the cases.
    rows, counts = np.unique(np.column_stack([means, weights]), axis=0, return_counts=True)
    parts = np.column_stack([rows[:, 0] * rows[:, 1], rows[:, 1]])  # (K, 2): of sum, and of count
    total = counts @ parts
    value = float(total[0] / total[1])
    lowest, highest = float(rows[0, 0]), float(rows[-1, 0])
    # Kish's effective number: cases of unequal weight tell less than as many equal ones.
    number = max(1.0, float(total[1] ** 2 / (counts @ parts[:, 1] ** 2)))
    if highest - lowest <= ROUNDING * max(abs(lowest), abs(highest)):
        (low, high), method = _alike(value, number, bounds)
    elif bounds is not None and len(outcomes) < (ENOUGH_BCA if accelerated else ENOUGH):
        (low, high), method = _few(value, number, bounds), FEW
    else:
        drawn = _resampled(parts, counts, resamples, np.random.default_rng(seed))
        tails: tuple[float, float] = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
        if accelerated:
            rest = total - parts  # (K, 2): without one case of each kind
            tails = _bca_tails(
                tails,
                bias=_bias(drawn, value, slack=ROUNDING * (highest - lowest)),
                acceleration=_acceleration(rest[:, 0] / rest[:, 1], counts),
            )
        low, high = map(float, np.quantile(drawn, tails))
        method = BCA if accelerated else PERCENTILE
    return Estimate(
        value=value,
        low=min(low, value),
        high=max(high, value),
        cases=len(outcomes),
        answers=int(sizes.sum()),
        method=method,
    )


def _check(outcomes: Sequence[Sequence[float]], bounds: tuple[float, float] | None) -> None:
    if not outcomes:
        raise InputError("a mean needs at least one case")
    low, high = (-math.inf, math.inf) if bounds is None else bounds
    for number, runs in enumerate(outcomes, 1):
        if not len(runs):
            raise InputError(f"case {number} has no outcome")
        for outcome in runs:
            if not (low <= outcome <= high and math.isfinite(outcome)):
                rule = "be finite" if bounds is None else f"lie in [{low:g}, {high:g}]"
                raise InputError(f"an outcome of case {number} must {rule}, got {outcome!r}")


def _alike(
    value: float, number: float, bounds: tuple[float, float] | None
) -> tuple[tuple[float, float], str]:
    if bounds is None:
        return (value, value), FIXED
    _, otherwise = wilson(0, number)
    low, high = ((1 - otherwise) * value + otherwise * bound for bound in bounds)
    return (low, high), ALIKE


def _few(value: float, number: float, bounds: tuple[float, float]) -> tuple[float, float]:
    start, length = bounds[0], bounds[1] - bounds[0]
    share = min(1.0, max(0.0, (value - start) / length))
    low, high = wilson(share * number, number)
    return start + length * low, start + length * high


def _resampled(
    parts: Array, counts: NDArray[np.int64], resamples: int, rng: np.random.Generator
) -> Array:
    """The ratio of the sums of ``parts`` (K, 2) in each resample of ``counts.sum()`` cases."""
    cases = int(counts.sum())
    by_count = len(parts) * DRAW_COUNTS_UP_TO <= cases
    each = None if by_count else np.repeat(parts, counts, axis=0)  # (cases, 2)
    size = max(1, CHUNK // (len(parts) if by_count else cases))
    means = []
    for start in range(0, resamples, size):
        some = min(size, resamples - start)
        if each is None:
            sums = rng.multinomial(cases, counts / cases, size=some) @ parts
        else:
            chosen = rng.integers(cases, size=(some, cases), dtype=np.int32)
            sums = np.column_stack([column[chosen].sum(axis=1) for column in each.T])
        means.append(sums[:, 0] / sums[:, 1])
    return np.concatenate(means)


def _bias(drawn: Array, value: float, *, slack: float) -> float:
    """BCa's z₀: how far the resamples lie to one side. Of those that equal ``value``, half count as
    below; ``slack`` is what rounding may part them by."""
    below = np.sum(drawn < value - slack) + np.sum(drawn <= value + slack)
    least = 1 / (2 * len(drawn))  # where all lie on one side
    return _z(float(np.clip(below / (2 * len(drawn)), least, 1 - least)))


def _acceleration(jackknife: Array, counts: NDArray[np.int64]) -> float:
    """BCa's a from the means without one case (K,), which stand for ``counts`` cases each."""
    gaps = (counts @ jackknife) / counts.sum() - jackknife
    return float((counts @ gaps**3) / (6 * (counts @ gaps**2) ** 1.5))


def _bca_tails(
    tails: tuple[float, float], *, bias: float, acceleration: float
) -> tuple[float, float]:
    def moved(tail: float) -> float:
        shifted = bias + _z(tail)
        return NormalDist().cdf(bias + shifted / (1 - acceleration * shifted))

    return moved(tails[0]), moved(tails[1])


def _z(probability: float) -> float:
    return NormalDist().inv_cdf(probability)
