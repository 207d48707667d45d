"""Checkers by name, and how a suite's list of checks is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from .base import Checker
from .text import Contains, Exact

CHECKERS: dict[str, type[Checker]] = {checker.name: checker for checker in (Exact, Contains)}


def read_checks(raw: Any) -> tuple[Checker, ...]:
    """The checkers of a suite's ``checks``: a list of {name: options}, or of names alone.

    Raises:
        InputError: no such list, an unknown name, or options that the checker refuses.
    """
    if not isinstance(raw, (list, tuple)):
        raise InputError(f"checks must be a list, got {raw!r}")
    return tuple(read_check(one) for one in raw)


def read_check(raw: Any) -> Checker:
    """One checker, from ``{name: options}`` or its name alone."""
    if isinstance(raw, str):
        raw = {raw: None}
    if not isinstance(raw, Mapping) or len(raw) != 1:
        raise InputError(
            f"a check must be the name of a checker, or one name with its options, got {raw!r}"
        )
    ((name, value),) = raw.items()
    checker = CHECKERS.get(name)
    if checker is None:
        raise InputError(f"the checker {name!r} does not exist; known: {', '.join(CHECKERS)}")
    return checker.parse(value)
