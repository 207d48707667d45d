"""Checkers by name, and how a suite's list of checks is read."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from .amounts import Characters, Items, KeywordCount, Lines, Paragraphs, Sentences, Words
from .base import Checker
from .choice import Choice
from .combined import AllOf, AnyOf, Not
from .ifeval import IFEval
from .json_answer import Json
from .language import Language
from .letter_case import LetterCase
from .refusal import Refusal
from .regex import Regex
from .text import Contains, EndsWith, Exact, Excludes, StartsWith

CHECKERS: dict[str, type[Checker]] = {
    checker.name: checker
    for checker in (
        Exact, Contains, Excludes, StartsWith, EndsWith, Regex, Json, Choice, Words, Characters,
        Sentences, Lines, Paragraphs, Items, KeywordCount, LetterCase, Language, Refusal, AllOf,
        AnyOf, Not, IFEval,
    )
}  # fmt: skip


def read_checks(raw: Any) -> tuple[Checker, ...]:
    """The checkers of a suite's ``checks``: a list of {name: options}, or of names alone.

    Raises:
        InputError: no such list, an unknown name, or options that the checker refuses.
    """
    if not isinstance(raw, (list, tuple)):
        raise InputError(f"checks must be a list, got {raw!r}")
    try:
        return tuple(read_check(one) for one in raw)
    except RecursionError as error:
        raise InputError("checks nest too deeply") from error


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
        near = difflib.get_close_matches(str(name), CHECKERS, 1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(
            f"the checker {name!r} does not exist; {meant}known: {', '.join(CHECKERS)}"
        )
    return checker.parse(value)
