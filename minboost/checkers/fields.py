"""Checks of what a suite gives to a checker."""

from __future__ import annotations

from typing import Any

from ..errors import InputError


def texts(name: str, value: Any) -> tuple[str, ...]:
    """``value`` as one or more texts that are not empty; a number is taken as it is written.

    Raises:
        InputError: something else, with the field's ``name``.
    """
    found = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    # YAML reads 42 as a number and yes as a truth value: the former can only be meant as a text.
    numbers = (int, float)
    found = tuple(
        str(one) if isinstance(one, numbers) and not isinstance(one, bool) else one for one in found
    )
    if not found or not all(isinstance(one, str) and one.strip() for one in found):
        raise InputError(f"{name} must be a text or a list of texts, none empty, got {value!r}")
    return found


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false, got {value!r}")
    return value
