"""Checks of what a suite gives to a checker, and how values stand in a verdict's reason."""

from __future__ import annotations

from typing import Any

from ..errors import InputError

LONGEST = 60
"""Characters of a value that stand in a reason or an error."""


def texts(name: str, value: Any) -> tuple[str, ...]:
    """``value`` as one or more texts that are not empty; a whole number is taken as it is written.

    Raises:
        InputError: something else, with the field's ``name``.
    """
    found = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not found:
        raise InputError(f"{name} must be a text or a list of texts, got an empty list")
    return tuple(text(name, one) for one in found)


def text(name: str, value: Any) -> str:
    """``value`` as a text that is not blank; errors as for ``texts``."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, (bool, float)):
        # What was written can no longer be told: 1.10 and 1.1 are one number.
        raise InputError(f"{name} must be a text, got {value!r}: put it in quotes")
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{name} must be a text that is not empty, got {value!r}")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise InputError(f"{name} holds half a character, got {value!r}")
    return value


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false, got {value!r}")
    return value


def shortened(words: str, longest: int = LONGEST) -> str:
    """``words`` on one line, their end left out where they are longer than ``longest``, and
    with "?" for half a character, which no file can hold."""
    line = " ".join(words.encode(errors="replace").decode().split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def listed(values: tuple[str, ...], last: str) -> str:
    """The values as they stand in a reason: 'a', 'b' or 'c', where ``last`` is "or"."""
    marked = [repr(shortened(value)) for value in values]
    return f" {last} ".join([", ".join(marked[:-1]), marked[-1]] if len(marked) > 1 else marked)
