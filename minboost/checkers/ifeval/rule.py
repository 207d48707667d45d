"""What IFEval's instructions have in common: an id, a request in words, counts to compare."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...checks import as_integer
from ...errors import InputError
from ..base import Checker, Verdict
from ..fields import text as as_text

COMPARED = {"at least": "at least", "less than": "fewer than"}
"""The relations, and how they are said of things that are counted."""


@dataclass(frozen=True, kw_only=True)
class Rule(Checker):
    """One verifiable instruction of IFEval: a checker whose fields are the instruction's kwargs.

    Its ``name`` is the instruction's id: "length_constraints:number_words".
    """

    name: ClassVar[str]

    @abstractmethod
    def asks(self) -> str:
        """The request as one plain sentence: "Answer in at least 300 words."."""

    @abstractmethod
    def check(self, text: str) -> Verdict:
        """Judge a text as IFEval's strict accuracy does."""

    def _amount(self, field: str, low: int = 1) -> None:
        """Hold ``field`` to an integer of at least ``low``; 3.0, as tables write it, is 3."""
        value = getattr(self, field)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        object.__setattr__(self, field, as_integer(field, value, low))

    def _relation(self, field: str) -> None:
        value = getattr(self, field)
        if value not in tuple(COMPARED):
            raise InputError(f"{field} must be {' or '.join(map(repr, COMPARED))}, got {value!r}")

    def _text(self, field: str) -> None:
        """Hold ``field`` to a text that is not blank, and leave no white space at its ends."""
        object.__setattr__(self, field, as_text(field, getattr(self, field)).strip())


def compared(count: int, relation: str, threshold: int, thing: str) -> Verdict:
    """Whether ``count`` is as it should: "12 words, at least 300 wanted"."""
    passed = count >= threshold if relation == "at least" else count < threshold
    return Verdict(passed, f"{numbered(count, thing)}, {COMPARED[relation]} {threshold} wanted")


def exactly(count: int, wanted: int, thing: str) -> Verdict:
    return Verdict(count == wanted, f"{numbered(count, thing)}, exactly {wanted} wanted")


def bound(relation: str, threshold: int, thing: str) -> str:
    """ "at least 300 words", "fewer than 300 words"."""
    return f"{COMPARED[relation]} {numbered(threshold, thing)}"


def so_often(relation: str, threshold: int) -> str:
    """ "at least once", "at least 3 times", "fewer than 3 times"."""
    if relation == "at least" and threshold == 1:
        return "at least once"
    return bound(relation, threshold, "time")


def numbered(count: int, thing: str) -> str:
    """ "1 word in capitals", "2 words in capitals"; ``thing`` is the singular."""
    noun, joint, rest = thing.partition(" in ")
    return f"{count} {noun}{'s' * (count != 1)}{joint}{rest}"


def listed(items: Sequence[str], last: str) -> str:
    """The items in quotation marks: "a", "b" and "c", where ``last`` is "and"."""
    marked = [quoted(item) for item in items]
    return f" {last} ".join([", ".join(marked[:-1]), marked[-1]] if len(marked) > 1 else marked)


def quoted(text: str) -> str:
    """``text`` in quotation marks that it does not hold itself."""
    return f"“{text}”" if '"' in text else f'"{text}"'
