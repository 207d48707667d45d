"""Two arms on the same cases: whether they differ, and by how much.

A pair is one case's outcomes under the arm and under plain, run by run.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..analysis.intervals import sign_test
from ..checks import as_integer
from ..errors import InputError
from .statistics import DIFFERENCE, LEVEL, Estimate, mean_over_cases

Pair = tuple[Sequence[bool], Sequence[bool]]

MCNEMAR = "exact McNemar test"
SIGN_FLIP = "exact sign-flip test over cases"
DRAWS = 99_999
SIGN_FLIP_DRAWN = "sign-flip test over cases, 99,999 draws"
EXACT_WORK = 200_000_000
"""Additions up to which the distribution of a sign-flip test is worked out: under a second."""
CHUNK = 1 << 20
"""Draws times values that are held at a time: 8 MiB."""


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """The name of a test and its two-sided p value, in (0, 1]."""

    name: str
    p: float


@dataclass(frozen=True, kw_only=True)
class OddsRatio:
    """The matched odds ratio gained / lost, with its 95 % interval.

    Attributes:
        value: gained / lost; infinite where no case was lost.
        low, high: the exact (Clopper–Pearson) interval; ``high`` is infinite where no case was
            lost.
        gained, lost: the numbers of cases.
    """

    value: float
    low: float
    high: float
    gained: int
    lost: int


def paired_test(pairs: Sequence[Pair]) -> PairedTest:
    """Test whether an arm and plain succeed equally often.

    With one run a case it is McNemar's test in its exact form. With several, the means of a case
    under either arm are compared by ``sign_flip_test``; runs are never taken for cases. For one
    run both are the same test.

    Raises:
        InputError: no pair, or one whose sides do not have equally many runs, at least one.
    """
    _check(pairs)
    if all(len(arm) == 1 for arm, _ in pairs):
        gained, lost = gained_and_lost(pairs)
        return PairedTest(name=MCNEMAR, p=_positive(sign_test(gained, lost)))
    return sign_flip_test([Fraction(sum(arm) - sum(plain), len(arm)) for arm, plain in pairs])


def difference(pairs: Sequence[Pair]) -> Estimate:
    """The arm's mean success − plain's, with its paired 95 % interval (``mean_over_cases``).

    Raises:
        InputError: as ``paired_test``.
    """
    _check(pairs)
    gaps = [[int(a) - int(b) for a, b in zip(arm, plain, strict=True)] for arm, plain in pairs]
    return mean_over_cases(gaps, bounds=DIFFERENCE, accelerated=False)


def _check(pairs: Sequence[Pair]) -> None:
    if not pairs:
        raise InputError("a comparison of two arms needs at least one case")
    for number, (arm, plain) in enumerate(pairs, 1):
        if len(arm) != len(plain) or not arm:
            raise InputError(
                f"case {number} needs as many runs of either arm, at least one, got {len(arm)} and "
                f"{len(plain)}"
            )


def gained_and_lost(pairs: Sequence[Pair]) -> tuple[int, int]:
    """The cases in which the arm succeeds in more runs than plain, and in fewer."""
    gaps = [sum(arm) - sum(plain) for arm, plain in pairs]
    return sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)


def sign_flip_test(
    differences: Sequence[Fraction],
    *,
    work: int = EXACT_WORK,
    draws: int = DRAWS,
    seed: int = 0,
) -> PairedTest:
    """Whether the mean of paired differences is 0: Fisher's permutation test (1935).

    If the arms do not differ, each case's difference could as well have the other sign. p is the
    share of all ways to choose the signs whose sum is at least as far from 0. It is worked out
    over all of them, as the distribution of a sum of whole numbers; where that would take more
    than ``work`` additions, over ``draws`` of them and the one that was seen, which is
    (1 + so many) / (1 + draws).

    Args:
        differences: of each case, the mean of the arm's runs − that of plain's.

    Raises:
        InputError: there is none.
    """
    as_integer("draws", draws, 1)
    if not differences:
        raise InputError("a paired test needs at least one case")
    scale = math.lcm(*(gap.denominator for gap in differences))
    gaps = [int(gap * scale) for gap in differences]
    sizes = [abs(gap) for gap in gaps if gap]
    seen, total = abs(sum(gaps)), sum(sizes)
    if len(sizes) * total <= work:
        return PairedTest(name=SIGN_FLIP, p=_positive(min(1.0, _exact(sizes, seen, total))))
    name = SIGN_FLIP_DRAWN if draws == DRAWS else f"sign-flip test over cases, {draws:,} draws"
    return PairedTest(name=name, p=_drawn(sizes, seen, total, draws, seed))


def _exact(sizes: Sequence[int], seen: int, total: int) -> float:
    """P(|Σ ±size| ≥ seen) over all signs."""
    chance = np.zeros(total + 1)  # [u]: that the sizes with a plus sum to u
    chance[0] = 1.0
    reach = 0
    for size in sorted(sizes):
        reach += size
        chance[: reach + 1] *= 0.5
        # A copy on the right: the places overlap.
        chance[size : reach + 1] += chance[: reach + 1 - size].copy()
    sums = 2 * np.arange(total + 1) - total
    return float(chance[np.abs(sums) >= seen].sum())


def _drawn(sizes: Sequence[int], seen: int, total: int, draws: int, seed: int) -> float:
    """The same from random signs: of equal sizes only how many have a plus counts."""
    rng = np.random.default_rng(seed)
    kinds = sorted(Counter(sizes).items())
    # In units of the total, since whole numbers of this size may not fit 64 bits.
    steps = np.array([size / total for size, _ in kinds])
    counts = np.array([count for _, count in kinds])
    least = seen / total - 1e-12
    hits, chunk = 0, max(1, CHUNK // len(kinds))
    for start in range(0, draws, chunk):
        plus = rng.binomial(counts, 0.5, size=(min(chunk, draws - start), len(kinds)))
        hits += int(np.sum(np.abs((2 * plus - counts) @ steps) >= least))
    return (1 + hits) / (1 + draws)


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm's step-down method (1979), in their order.

    Where those below .05 are believed, the chance to believe any that is none is at most .05,
    however many are real and whatever the tests have to do with each other.

    Raises:
        InputError: a value that does not lie in [0, 1].
    """
    if wrong := [p for p in ps if not 0 <= p <= 1]:
        raise InputError(f"a p value must lie in [0, 1], got {wrong[0]!r}")
    corrected = [0.0] * len(ps)
    highest = 0.0
    for rank, at in enumerate(sorted(range(len(ps)), key=lambda at: ps[at])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[at]))
        corrected[at] = highest
    return corrected


def cohens_h(arm: float, plain: float) -> float:
    """2·asin(√arm) − 2·asin(√plain), the effect size of two shares (Cohen, 1988, chapter 6).

    Raises:
        InputError: a share that does not lie in [0, 1].
    """
    for share in (arm, plain):
        if not 0 <= share <= 1:
            raise InputError(f"a share must lie in [0, 1], got {share!r}")
    return 2 * math.asin(math.sqrt(arm)) - 2 * math.asin(math.sqrt(plain))


def odds_ratio(gained: int, lost: int) -> OddsRatio | None:
    """The matched odds ratio with its exact 95 % interval; None where no case differs.

    The interval is Clopper and Pearson's (1934) of the share gained / (gained + lost), as odds. It
    leaves 1 out just where ``sign_test`` gives at most .05.

    Raises:
        InputError: a negative number.
    """
    as_integer("gained", gained, 0)
    as_integer("lost", lost, 0)
    count, tail = gained + lost, (1 - LEVEL) / 2
    if not count:
        return None
    low, high = 0.0, math.inf
    if gained:
        low = math.exp(_root(lambda x: _at_least(gained, count, x) - tail))
    if lost:
        high = math.exp(_root(lambda x: tail - _at_least(lost, count, -x)))
    value = gained / lost if lost else math.inf
    return OddsRatio(value=value, low=low, high=high, gained=gained, lost=lost)


def _at_least(successes: int, count: int, log_odds: float) -> float:
    """The chance of so many successes or more of ``count``."""
    log_p = -np.logaddexp(0.0, -log_odds)
    log_q = -np.logaddexp(0.0, log_odds)
    return math.fsum(
        math.exp(
            math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
            + k * log_p + (count - k) * log_q
        )
        for k in range(successes, count + 1)
    )  # fmt: skip


def _root(rising: Callable[[float], float], *, reach: float = 40.0) -> float:
    """Where ``rising`` crosses 0 in [−reach, reach], by halving."""
    low, high = -reach, reach
    for _ in range(80):
        middle = (low + high) / 2
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _positive(p: float) -> float:
    """A p value that is too small for a float is the smallest one: it is not 0."""
    return max(p, sys.float_info.min)
