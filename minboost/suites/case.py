"""A case: one thing to ask, and the checks that tell whether an answer obeys."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from typing import Any

from ..checkers import Checker, read_checks
from ..checkers.text import Contains, Exact
from ..checks import as_integer
from ..errors import InputError

SPLITS = ("validation", "test")
MATCHES = ("exact", "contains")
KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "control": ((bool,), "bool"),
    "checks": ((tuple, list), "list"),
    "max_new_tokens": ((int, type(None)), "number"),
}
"""The types of fields that hold no text."""


@dataclass(frozen=True)
class Judgement:
    """Whether an answer passed all checks of its case, why not, and how each check went."""

    passed: bool
    why: str
    parts: tuple[bool, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to ask, and what tells whether an answer obeys.

    Attributes:
        instruction, query: what the model is told to do, and what it is asked.
        answer: an answer that obeys. Without ``checks`` it is the check as well, as ``match``
            says: "exact" or "contains".
        checks: all of them must pass: checkers, or their form in suite files.
        name: unique in its suite.
        task: cases of one kind.
        split: "validation" or "test"; a hash of the texts decides where none is given.
        control: the plain model gets it right, and steering should not break it.
        concept: which direction of latent steering serves the instruction.
        max_new_tokens: the answer's length at most, where the suite says so.
    """

    instruction: str
    query: str
    answer: str = ""
    checks: tuple[Checker, ...] = ()
    name: str = ""
    task: str = "default"
    match: str = "exact"
    split: str = ""
    control: bool = False
    concept: str = ""
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kinds, wanted = KINDS.get(field.name, ((str,), "text"))
            if not isinstance(value, kinds):
                raise InputError(f"{field.name} must be a {wanted}, got {value!r}")
            if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
                raise InputError(f"{field.name} holds half a character, got {value!r}")
        for name in ("instruction", "query", "task"):
            if not getattr(self, name).strip():
                raise InputError(f"{name} is empty")
        if self.match not in MATCHES:
            raise InputError(f"match must be {' or '.join(MATCHES)}, got {self.match!r}")
        if self.max_new_tokens is not None:
            as_integer("max_new_tokens", self.max_new_tokens, 1)
        self._set("checks", self._all_checks())
        if not self.split:
            digest = hashlib.sha256(f"{self.instruction}\0{self.query}".encode()).digest()
            self._set("split", SPLITS[digest[0] % 2])
        if self.split not in SPLITS:
            raise InputError(f"split must be {' or '.join(SPLITS)}, got {self.split!r}")

    def _all_checks(self) -> tuple[Checker, ...]:
        given = all(isinstance(check, Checker) for check in self.checks)
        checks = tuple(self.checks) if given else read_checks(self.checks)
        if checks:
            return checks
        if not self.answer.strip():
            raise InputError(
                "answer is empty" if self.answer else "there is neither an answer nor a check"
            )
        return (Exact(self.answer) if self.match == "exact" else Contains(self.answer),)

    @property
    def key(self) -> str:
        """A short name for the case, the same wherever its texts are."""
        checks = json.dumps([check.as_json() for check in self.checks], sort_keys=True)
        text = "\0".join((self.task, self.instruction, self.query, self.answer, checks))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def as_json(self) -> dict[str, Any]:
        """The form of suite files, less the fields at their default."""
        values = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }
        return {**values, "checks": [check.as_json() for check in self.checks]}

    def judge(self, text: str, *, finished: bool) -> Judgement:
        """Hold ``text`` to every check; an empty answer, or one that was cut off, never passes."""
        if not text.strip():
            return Judgement(False, "the answer is empty", (False,) * len(self.checks))
        if not finished:
            return Judgement(False, "the answer was cut off", (False,) * len(self.checks))
        verdicts = [check.check(text) for check in self.checks]
        return Judgement(
            all(verdict.passed for verdict in verdicts),
            "; ".join(verdict.why for verdict in verdicts if not verdict.passed),
            tuple(verdict.passed for verdict in verdicts),
        )

    def passed(self, text: str, *, finished: bool) -> bool:
        """Whether ``text`` obeys."""
        return self.judge(text, finished=finished).passed

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the dataclass is frozen
