"""Checks of what users hand over: each names the thing, the rule and the value."""

from __future__ import annotations

import math
import operator
from typing import Any

from .errors import InputError


def as_integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """``value`` as an int, numpy's and torch's included; InputError if it is none or out of range.

    The range is [low, high), without an upper end where ``high`` is None.
    """
    rule = f"of at least {low}" if high is None else f"in [{low}, {high})"
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < low or (high and number >= high):
        raise InputError(f"{name} must be an integer {rule}, got {value!r}")
    return number


def as_number(name: str, value: Any) -> float:
    """``value`` as a finite float; InputError if it is none. Texts and truth values are none."""
    try:
        number = math.nan if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{name} must be a finite number, got {value!r}")
    return number


def as_text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name} must be a text, got {value!r}")
    return value
