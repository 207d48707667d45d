"""A results file in numbers: ``summarise`` gives every arm's figures and its test against plain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from .arm_figures import Places, arm_summary, by_case, paired_outcomes, success
from .arms import PLAIN
from .paired import gained_and_lost, holm
from .records import Record
from .results import Results
from .summary_types import (
    ArmSummary,
    CaseSummary,
    Group,
    Mean,
    Ratings,
    RelativePerplexity,
    Summary,
    TaskArm,
    TaskSummary,
    Versus,
)

__all__ = [
    "ArmSummary",
    "CaseSummary",
    "Group",
    "Mean",
    "Ratings",
    "RelativePerplexity",
    "Summary",
    "TaskArm",
    "TaskSummary",
    "Versus",
    "summarise",
]

SPLITS = ("validation", "test")
CUT_OFF_NOTED = 0.05
"""The share of plain answers that may be cut off before it is said aloud."""


def summarise(results: Results) -> Summary:
    """The figures of all answers of a results file, each suite and each split by itself.

    An arm is compared with plain on the cases and runs that both have answered, and its own figures
    are over these; what is missing is said in the notes. The p values of a group, which is one
    split of one suite, are corrected together: the family is all of its arms but plain. Without the
    plain arm, or without an answer that it has too, there are figures and no comparison.
    """
    groups: dict[tuple[str, str], dict[str, dict[tuple[str, str, int], Record]]] = {}
    for record in results.answers:
        arms = groups.setdefault((record.suite, record.split), {})
        arms.setdefault(record.arm, {})[record.place] = record
    suites = list(dict.fromkeys(suite for suite, _ in groups))
    order = sorted(groups, key=lambda at: (suites.index(at[0]), SPLITS.index(at[1])))
    return Summary(
        groups=tuple(_group(at, groups[at], results) for at in order),
        notes=_missing(results) or (() if groups else ("there is no answer yet",)),
    )


def _group(at: tuple[str, str], arms: Mapping[str, Places], results: Results) -> Group:
    infos = results.arms
    names = [name for name in (PLAIN, *(n for n in infos if n != PLAIN)) if name in arms]
    plain = arms.get(PLAIN)
    everywhere = {place for places in arms.values() for place in places}
    notes = [
        f"{name} has {len(arms[name])} of {len(everywhere)} answers"
        for name in names
        if len(arms[name]) < len(everywhere)
    ]
    if plain is None:
        notes.append("there is no plain arm here, and nothing to compare with")
    summaries, shown = [], {}
    for name in names:
        beside = None if name == PLAIN else plain
        shown[name] = arms[name]
        if beside is not None:
            shared = {place: record for place, record in arms[name].items() if place in beside}
            if len(shared) < len(arms[name]):
                notes.append(_left_out(name, len(arms[name]), len(shared)))
            if shared:
                shown[name] = shared
            else:
                beside = None
        summaries.append(arm_summary(infos[name], shown[name], beside, results.ratings))
    return Group(
        suite=at[0],
        split=at[1],
        plain=plain is not None,
        arms=_corrected(summaries),
        tasks=_tasks(shown, plain),
        cases=_cases({name: arms[name] for name in names}, plain),
        notes=(*notes, *_cut_off(plain)),
    )


def _left_out(name: str, there: int, shared: int) -> str:
    if not shared:
        return f"no answer of {name} has a plain one beside it: it is not compared"
    return (
        f"{name} is shown by the {shared} of its {there} answers that have a plain one beside them"
    )


def _cut_off(plain: Places | None) -> list[str]:
    cut = sum(r.finish_reason == "length" for r in plain.values()) if plain else 0
    if plain is None or cut <= CUT_OFF_NOTED * len(plain):
        return []
    return [
        f"{cut} of the {len(plain)} plain answers were cut off, and count as failed: raise "
        "--max-new-tokens"
    ]


def _corrected(arms: Sequence[ArmSummary]) -> tuple[ArmSummary, ...]:
    """The arms with their p values corrected for the number of them that have one."""
    ps = {arm.name: arm.versus.p for arm in arms if arm.versus is not None}
    corrected = dict(zip(ps, holm(list(ps.values())), strict=True))
    return tuple(
        arm if arm.versus is None else replace(
            arm,
            versus=replace(arm.versus, corrected=corrected[arm.name], family=len(ps)),
        )
        for arm in arms
    )  # fmt: skip


def _tasks(arms: Mapping[str, Places], plain: Places | None) -> tuple[TaskSummary, ...]:
    tasks: dict[str, dict[str, list[Record]]] = {}
    for name, places in arms.items():
        for record in places.values():
            tasks.setdefault(record.task, {}).setdefault(name, []).append(record)
    summaries = []
    for task, of_arms in tasks.items():
        control = {r.case: r.control for records in of_arms.values() for r in records}
        summaries.append(
            TaskSummary(
                task=task,
                cases=len(control) - sum(control.values()),
                controls=sum(control.values()),
                arms=tuple(_task_arm(name, of, plain) for name, of in of_arms.items()),
            )
        )
    return tuple(summaries)


def _task_arm(name: str, records: Sequence[Record], plain: Places | None) -> TaskArm:
    told = [record for record in records if not record.control]
    pairs = [] if plain is None or name == PLAIN else paired_outcomes(told, plain)
    gained, lost = gained_and_lost(pairs) if pairs else (None, None)
    return TaskArm(
        arm=name,
        success=success(told),
        control=success(record for record in records if record.control),
        gained=gained,
        lost=lost,
    )


def _cases(arms: Mapping[str, Places], plain: Places | None) -> tuple[CaseSummary, ...]:
    cases: dict[str, dict[str, list[Record]]] = {}
    for name, places in arms.items():
        for case, records in by_case(places.values(), lambda record: record).items():
            cases.setdefault(case, {})[name] = sorted(records, key=lambda record: record.run)
    summaries = []
    for case, of_arms in cases.items():
        record = next(iter(of_arms.values()))[0]
        gained: list[str] = []
        lost: list[str] = []
        for name, records in of_arms.items():
            pairs = [] if plain is None or name == PLAIN else paired_outcomes(records, plain)
            for arm, other in pairs:
                if sum(arm) != sum(other):
                    (gained if sum(arm) > sum(other) else lost).append(name)
        summaries.append(
            CaseSummary(
                case=case,
                task=record.task,
                control=record.control,
                instruction=record.instruction,
                query=record.query,
                answers={name: tuple(records) for name, records in of_arms.items()},
                gained=tuple(gained),
                lost=tuple(lost),
            )
        )
    return tuple(summaries)


def _missing(results: Results) -> tuple[str, ...]:
    """What the newest command about an arm and its suites has not got yet."""
    newest = {
        (arm, tuple(run.suites)): keys for run in results.runs for arm, keys in run.keys.items()
    }
    return tuple(
        f"{name}: {missing} of {len(keys)} answers are not there yet; the same command goes on"
        for (name, _), keys in newest.items()
        if (missing := sum(key not in results.records for key in keys))
    )
