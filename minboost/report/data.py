"""What the report says, as plain data: provenance, and the cases as JSON for the page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ..comparison.arms import PLAIN
from ..comparison.records import Rating, Record, RunInfo
from ..comparison.results import Results
from ..comparison.summary import CaseSummary, Group, Summary
from .finding import Finding
from .formats import count, plain, visible

SHOWN_AT_FIRST = 3
"""Arms that the page shows beside plain before a reader chooses."""
LABELS = {
    "name": "Model",
    "revision": "Revision",
    "weights": "Weights, digest",
    "config": "Config, digest",
    "device": "Device",
    "dtype": "Dtype",
    "impl": "Implementation",
    "role": "Role of the instruction",
    "max_new_tokens": "Most new tokens",
    "temperature": "Temperature",
    "top_p": "Top p",
    "top_k": "Top k",
    "min_p": "Min p",
    "repetition_penalty": "Repetition penalty",
    "stop": "Stop texts",
    "split": "Splits asked",
    "suites": "Suites, digests",
    "seed": "Seed",
    "runs": "Runs of a case",
    "commit": "Commit",
    "versions": "Versions",
    "sweep": "Sweep",
}
INTERNAL = ("format", "generation")
OF_RUNS = ("suites", "split", "seed", "runs", "commit", "versions", "sweep")
"""What is said once where all commands agree, and of each command otherwise."""


@dataclass(frozen=True)
class Command:
    """One command that wrote to the results file, and what it does not share with the others."""

    line: str
    arms: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Provenance:
    """Where the answers come from: facts that all share, and the commands."""

    facts: tuple[tuple[str, str], ...]
    commands: tuple[Command, ...]


def title_of(results: Results) -> str:
    """What the report is called: "How steering changes the answers of demo"."""
    name = PurePath(str(results.head.get("name", ""))).name
    return f"How steering changes the answers of {visible(name) or 'a model'}"


def ordered(summary: Summary) -> list[Group]:
    """The groups, test before validation: what was chosen on comes after what was held out."""
    return sorted(summary.groups, key=lambda group: group.split != "test")


def provenance_of(results: Results) -> Provenance:
    head = results.head
    generation = head.get("generation") or {}
    facts = {name: value for name, value in head.items() if name not in INTERNAL}
    facts |= generation if isinstance(generation, Mapping) else {"generation": generation}
    # The ones that have a label come first, in its order.
    order = [name for name in LABELS if name in facts] + [n for n in facts if n not in LABELS]
    said = [(LABELS.get(name, visible(name)), plain(facts[name])) for name in order]
    runs = results.runs
    shared = [name for name in OF_RUNS if runs and len({_of(run, name) for run in runs}) == 1]
    said += [(LABELS[name], _of(runs[0], name)) for name in shared if _of(runs[0], name)]
    return Provenance(
        facts=tuple(said),
        commands=tuple(
            Command(
                line=visible(run.command),
                arms=f"{count(len(run.arms), 'arm')}, "
                f"{count(sum(map(len, run.keys.values())), 'answer')}",
                facts=tuple(
                    (LABELS[name], _of(run, name))
                    for name in OF_RUNS
                    if name not in shared and _of(run, name)
                ),
            )
            for run in runs
        ),
    )


def _of(run: RunInfo, name: str) -> str:
    value = getattr(run, name)
    if name in ("suites", "versions"):
        return ", ".join(f"{visible(key)} {visible(str(one))}" for key, one in value.items())
    if name == "commit":
        return "none: an installed package" if value is None else _commit(value)
    if name == "sweep":
        return "" if value is None else plain(_brief_sweep(value))
    return plain(value)


def _brief_sweep(sweep: Mapping[str, Any]) -> dict[str, Any]:
    """A sweep's facts, its grids with how many arms they came to."""
    grids = sweep.get("grids")
    if not isinstance(grids, Mapping):
        return dict(sweep)
    return {**sweep, "grids": [f"{text} ({count(len(of), 'arm')})" for text, of in grids.items()]}


def _commit(value: str) -> str:
    return value if not value.endswith("+") else f"{value[:-1]}, with changes of its own"


def cases_json(results: Results, groups: Sequence[Group], findings: Iterable[Finding]) -> str:
    """The cases as JSON that a <script> element can hold, whatever the answers say.

    Texts stand once, in "texts", and are meant by their number. A case's "answers" has for each arm
    that answered [arm, [[run, text, passed, why, faults, [[judge, score, words], …]], …]].
    """
    texts: dict[str, int] = {}

    def text(of: str) -> int:
        return texts.setdefault(visible(of), len(texts))

    names = dict.fromkeys(arm.name for group in groups for arm in group.arms)
    arms = {name: number for number, name in enumerate(names)}
    ratings: dict[str, list[Rating]] = {}
    for (key, _), rating in results.ratings.items():
        ratings.setdefault(key, []).append(rating)
    cases = [
        _case(number, case, arms, text, ratings)
        for number, group in enumerate(groups)
        for case in group.cases
    ]
    first = [arms[arm] for arm in _first(list(arms), findings)]
    data = {
        "arms": [visible(arm) for arm in arms],
        "plain": arms.get(PLAIN),
        "first": first,
        "groups": [{"suite": visible(g.suite), "split": g.split} for g in groups],
        "cases": cases,
        "texts": list(texts),
    }
    return in_script(json.dumps(data, ensure_ascii=False, separators=(",", ":")))


def in_script(text: str) -> str:
    """JSON with no character that could end a <script> element or a line of JavaScript."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _case(
    group: int,
    case: CaseSummary,
    arms: Mapping[str, int],
    text: Callable[[str], int],
    ratings: Mapping[str, list[Rating]],
) -> dict[str, Any]:
    return {
        "group": group,
        "name": visible(case.case),
        "task": visible(case.task),
        "control": case.control,
        "instruction": text(case.instruction),
        "query": text(case.query),
        "answers": [
            [arms[arm], [_answer(record, text, ratings) for record in records]]
            for arm, records in case.answers.items()
        ],
    }


def _answer(
    record: Record, text: Callable[[str], int], ratings: Mapping[str, list[Rating]]
) -> list[Any]:
    return [
        record.run,
        text(record.text),
        int(record.passed),
        text(record.why),
        [visible(fault) for fault in record.faults],
        [
            [text(one.judge), f"{one.score:g}", text(one.words)]
            for one in ratings.get(record.key, ())
        ],
    ]


def _first(arms: Sequence[str], findings: Iterable[Finding]) -> list[str]:
    """The arms to show before a reader chooses: all of a few, else those that were found."""
    others = [arm for arm in arms if arm != PLAIN]
    if len(others) > SHOWN_AT_FIRST:
        found = [finding.arm for finding in findings if finding.arm is not None]
        others = list(dict.fromkeys(found))[:SHOWN_AT_FIRST] or others[:1]
    return others
