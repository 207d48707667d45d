"""How sure a share of cases is, and a difference between two arms on the same cases."""

from __future__ import annotations

import math

from ..errors import InputError


def wilson(successes: float, count: float, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a share (E. B. Wilson, 1927), 95 % by default.

    Both may be fractions: a mean of runs, and the number of cases that weighted ones are worth.

    Raises:
        InputError: ``count`` is not above 0, or ``successes`` does not lie in [0, count].
    """
    if count < 1 or not 0 <= successes <= count:
        raise InputError(f"a share needs 0 <= successes <= count, got {successes} of {count}")
    share = successes / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    half /= 1 + z * z / count
    return max(0.0, middle - half), min(1.0, middle + half)


def sign_test(gained: int, lost: int) -> float:
    """The chance of a split at least as uneven, were gaining and losing a case equally likely.

    Exact and two-sided: McNemar's test on the cases in which two arms differ.

    Raises:
        InputError: a negative number.
    """
    if gained < 0 or lost < 0:
        raise InputError(f"gained and lost must be at least 0, got {gained} and {lost}")
    count = gained + lost
    tail = sum(math.comb(count, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / (1 << count))
