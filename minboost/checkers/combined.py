"""Checks made of checks: all of them, any of them, not this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import InputError
from .base import Checker, Verdict


def _as_check(raw: Any) -> Checker:
    from .registry import read_check  # which knows the checkers of this file

    return raw if isinstance(raw, Checker) else read_check(raw)


@dataclass(frozen=True)
class _Several(Checker):
    checks: tuple[Checker, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.checks, (list, tuple)) or not self.checks:
            raise InputError(f"checks must be a list of checks, not empty, got {self.checks!r}")
        object.__setattr__(self, "checks", tuple(map(_as_check, self.checks)))

    @classmethod
    def parse(cls, value: Any) -> Checker:
        if isinstance(value, Mapping) and "checks" not in value:
            raise InputError(f"{cls.name} takes a list of checks, got {dict(value)!r}")
        return super().parse(value)

    def needs(self) -> None:
        for check in self.checks:
            check.needs()


@dataclass(frozen=True)
class AllOf(_Several):
    """Every one of ``checks`` passes: for use within "any" and "not", since a case's checks must
    all pass as they are."""

    name: ClassVar[str] = "all"

    def check(self, text: str) -> Verdict:
        verdicts = [check.check(text) for check in self.checks]
        passed = all(verdict.passed for verdict in verdicts)
        return Verdict(passed, "; ".join(one.why for one in verdicts if one.passed is passed))


@dataclass(frozen=True)
class AnyOf(_Several):
    """One of ``checks`` passes, or several do."""

    name: ClassVar[str] = "any"

    def check(self, text: str) -> Verdict:
        verdicts = [check.check(text) for check in self.checks]
        passed = any(verdict.passed for verdict in verdicts)
        found = "; ".join(one.why for one in verdicts if one.passed is passed)
        return Verdict(passed, found if passed else f"none of {len(verdicts)}: {found}")


@dataclass(frozen=True)
class Not(Checker):
    """The check ``of`` does not pass; in suite files it stands behind "not" as it is."""

    name: ClassVar[str] = "not"

    of: Checker

    def __post_init__(self) -> None:
        object.__setattr__(self, "of", _as_check(self.of))

    @classmethod
    def parse(cls, value: Any) -> Checker:
        if isinstance(value, Mapping) and "of" not in value:
            value = {"of": value}
        return super().parse(value)

    def needs(self) -> None:
        self.of.needs()

    def check(self, text: str) -> Verdict:
        verdict = self.of.check(text)
        return Verdict(not verdict.passed, verdict.why + ", which is not wanted" * verdict.passed)
