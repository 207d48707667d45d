"""What a results file says, as data: groups of one suite and split, their arms, tasks and cases."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from .paired import OddsRatio
from .records import Record
from .statistics import Estimate


class _Plain:
    """A dataclass that can say itself in JSON's types."""

    def as_json(self) -> dict[str, Any]:
        """Its fields by name. What is infinite is null, since JSON has no word for it."""
        found = _json(self)
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True, kw_only=True)
class Mean(_Plain):
    """The mean of a measure over those answers that have it, and how many they are."""

    value: float
    answers: int


@dataclass(frozen=True, kw_only=True)
class Ratings(_Plain):
    """What one judge model said of an arm's answers: the mean of scores in [0, 2]."""

    judge: str
    score: Estimate


@dataclass(frozen=True, kw_only=True)
class RelativePerplexity(_Plain):
    """How an arm's answers do beside the plain ones, in the eyes of the plain model.

    Of each pair of answers to one case in one run the ratio of their perplexities,
    exp(surprisal of the arm's − surprisal of the plain one). Above 1 the plain model finds the
    arm's answers less likely than its own.

    Attributes:
        median: over the pairs, runs of one case counted one by one.
        geometric_mean: exp of the mean log ratio, each case counted once, with its interval.
        pairs: how many pairs have a perplexity on both sides.
    """

    median: float
    geometric_mean: Estimate
    pairs: int


@dataclass(frozen=True, kw_only=True)
class Versus(_Plain):
    """An arm against the plain one, on the cases that are no controls and that both answered.

    Attributes:
        cases, runs: so many cases, and the most runs of one. A case counts with its mean over the
            runs that both arms have.
        plain, arm: the success of either on them.
        gained, lost: cases in which the arm succeeds more often than plain, and less often.
        difference: arm − plain, with a paired interval.
        test: the name of the test, ``minboost.comparison.paired``.
        p: its p value, two-sided.
        corrected: p after Holm's correction for all arms of the group.
        family: how many arms that were.
        cohens_h: 2·asin(√arm) − 2·asin(√plain); .2 is small, .5 medium, .8 large (Cohen, 1988).
        odds_ratio: gained / lost with its interval; None where no case differs.
    """

    cases: int
    runs: int
    plain: float
    arm: float
    gained: int
    lost: int
    difference: Estimate
    test: str
    p: float
    corrected: float
    family: int
    cohens_h: float
    odds_ratio: OddsRatio | None


@dataclass(frozen=True, kw_only=True)
class ArmSummary(_Plain):
    """One arm in one suite and split.

    Where there is a plain arm, the figures of the others are over the answers that plain has too.

    Attributes:
        name, methods: of its ``ArmInfo``.
        cases, controls, runs, answers: cases that are no controls, those that are, the most runs of
            one case, and the answers of both.
        success, control: the share of cases that pass all checks, each with its mean over runs;
            None where there are none.
        fluency: the share of fluent answers, controls included.
        checks: the share of single checks that pass, controls left out ("instruction-level" for
            IFEval, where ``success`` is "prompt-level"); None without checks.
        length: mean tokens of an answer.
        cut_off: the share of answers that ended for their length (finish_reason "length").
        unchanged: the share of answers that are word for word the plain ones; None for the plain
            arm, or without one.
        perplexity: exp of the mean surprisal under the plain model, each answer once.
        relative_perplexity: beside the plain answers; None where ``unchanged`` is.
        repeated, entropy, excess: of ``minboost.analysis.fluency``; None where no answer is long
            enough.
        faults: how many answers have each fault, of those that occur.
        ratings: of each judge, in the order of their names.
        versus: against the plain arm; None for the plain arm, without one, or without a case.
    """

    name: str
    methods: tuple[dict[str, Any], ...]
    cases: int
    controls: int
    runs: int
    answers: int
    success: Estimate | None
    control: Estimate | None
    fluency: Estimate
    checks: Estimate | None
    length: float
    cut_off: float
    unchanged: float | None
    perplexity: float | None
    relative_perplexity: RelativePerplexity | None
    repeated: Mean | None
    entropy: Mean | None
    excess: Mean | None
    faults: dict[str, int]
    ratings: tuple[Ratings, ...]
    versus: Versus | None


@dataclass(frozen=True, kw_only=True)
class TaskArm(_Plain):
    """One arm on one task. ``gained`` and ``lost`` are None where there is no plain arm beside."""

    arm: str
    success: Estimate | None
    control: Estimate | None
    gained: int | None
    lost: int | None


@dataclass(frozen=True, kw_only=True)
class TaskSummary(_Plain):
    """One task of a group: its cases and controls, and every arm that answered any, in order."""

    task: str
    cases: int
    controls: int
    arms: tuple[TaskArm, ...]

    def arm(self, name: str) -> TaskArm | None:
        return next((arm for arm in self.arms if arm.arm == name), None)


@dataclass(frozen=True, kw_only=True)
class CaseSummary(_Plain):
    """One case: what each arm made of it.

    Attributes:
        answers: by arm, the records in the order of the runs.
        gained, lost: the arms that pass more often than plain over the runs that both have, and
            those that pass less often.
    """

    case: str
    task: str
    control: bool
    instruction: str
    query: str
    answers: dict[str, tuple[Record, ...]]
    gained: tuple[str, ...]
    lost: tuple[str, ...]

    @property
    def differs(self) -> bool:
        return bool(self.gained or self.lost)

    def success(self, arm: str) -> float | None:
        """The share of its runs in which ``arm`` passes; None where it has no answer."""
        records = self.answers.get(arm, ())
        return sum(record.passed for record in records) / len(records) if records else None

    def as_json(self) -> dict[str, Any]:
        """The answers by their keys: their texts stand in the results file."""
        return {
            "case": self.case,
            "task": self.task,
            "control": self.control,
            "answers": {
                arm: [
                    {"run": r.run, "key": r.key, "passed": r.passed, "fluent": r.fluent}
                    for r in records
                ]
                for arm, records in self.answers.items()
            },
            "gained": list(self.gained),
            "lost": list(self.lost),
        }


@dataclass(frozen=True, kw_only=True)
class Group(_Plain):
    """One split of one suite. Validation and test are never mixed.

    Attributes:
        plain: whether the plain arm is among the arms; without it nothing is compared.
        arms: plain first, then in the order of the results file.
        tasks, cases: in the order of their first answers.
        notes: what a reader must know: answers that are missing, and the like.
    """

    suite: str
    split: str
    plain: bool
    arms: tuple[ArmSummary, ...]
    tasks: tuple[TaskSummary, ...]
    cases: tuple[CaseSummary, ...]
    notes: tuple[str, ...]

    def arm(self, name: str) -> ArmSummary | None:
        return next((arm for arm in self.arms if arm.name == name), None)

    @property
    def differences(self) -> tuple[CaseSummary, ...]:
        """The cases in which some arm gained or lost against plain."""
        return tuple(case for case in self.cases if case.differs)


@dataclass(frozen=True, kw_only=True)
class Summary(_Plain):
    """All groups of a results file, in the order of its answers, validation before test."""

    groups: tuple[Group, ...]
    notes: tuple[str, ...]

    def group(self, suite: str, split: str) -> Group | None:
        return next((g for g in self.groups if (g.suite, g.split) == (suite, split)), None)


def _json(value: object) -> object:
    if isinstance(value, CaseSummary):
        return value.as_json()
    if is_dataclass(value):
        return {field.name: _json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: _json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
