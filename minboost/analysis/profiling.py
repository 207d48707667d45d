"""From head scores to a few heads: PASTA's multi-task profiling (arXiv 2311.02262).

Each task ranks the heads by what steering one of them alone gains, and the sets that the rankings
agree on are compared by generating under them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..lm import LM
    from ..methods import Method
    from ..suites import Case
    from .evaluate import Evaluation
    from .score_file import CaseScores, ScoreFile

Head = tuple[int, int]
"""A layer and a head of it."""
SELECTIONS = ("intersection", "union", "task-specific", "task-agnostic")
SHARES = ((1, 8), (1, 4), (1, 2), (3, 4))
"""Of the heads: the k that are tried where none are named."""
FLOOR = 0.95
"""The least control and fluency of a choice, where the plain model has as much."""


@dataclass(frozen=True)
class Ranking:
    """The heads by their mean gain over one task's cases, best first, with that gain in nats and
    the share of the cases that greedy decoding gets right with that head steered."""

    task: str
    cases: int
    heads: tuple[Head, ...]
    gains: tuple[float, ...]
    success: tuple[float, ...]


@dataclass(frozen=True)
class Selection:
    """A set of heads, by layer and number, and the ks that each lead to it."""

    how: str
    ks: tuple[int, ...]
    heads: tuple[Head, ...]


@dataclass(frozen=True)
class Arm:
    """A set of heads, and how the model did with it."""

    selection: Selection
    evaluation: Evaluation

    @property
    def heads(self) -> tuple[Head, ...]:
        return self.selection.heads


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a profiling run came to.

    ``arms`` begins with the plain model and all heads; the ks ``empty`` left no head. ``scored``
    of the ``cases`` were scored in this run, on each of the heads ``tried``. ``seconds`` are those
    of one (head, case): "scored", None where there was nothing to score, and by each of the loops
    of ``head_loops``.
    """

    method: Method
    rankings: list[Ranking]
    cases: int
    controls: int
    tried: int
    scored: int
    empty: list[int]
    arms: list[Arm]
    chosen: Arm
    seconds: dict[str, float | None]


def score_cases(
    lm: LM,
    cases: Sequence[Case],
    method: Method,
    heads: Mapping[int, Sequence[int]],
    file: ScoreFile,
    *,
    role: str = "system",
    progress: Callable[[int], object] | None = None,
) -> float | None:
    """Score what ``file`` lacks of ``cases``, and keep it there.

    Args:
        heads: {layer: heads} to try.
        progress: called with the number of cases that were just added.

    Returns:
        Seconds for each (head, case), None where all was there.

    Raises:
        InputError: a case that the method or the model cannot take, before any is scored.
    """
    from .head_scores import ask, batches, score
    from .score_file import CaseScores

    asked = [ask(lm, case, method, role=role) for case in cases]
    seconds, scored = 0.0, 0
    for batch in batches(lm, asked):
        missing = set(file.missing([one.case.key for one in batch]))
        todo = [one for one in batch if one.case.key in missing]
        if not todo:
            continue
        began = time.perf_counter()
        found = [CaseScores.of(one) for one in score(lm, todo, heads)]
        seconds += time.perf_counter() - began
        scored += len(todo)
        before = len(file.scores)
        file.add(found)
        if progress is not None:
            progress(len(file.scores) - before)
    return seconds / (scored * sum(map(len, heads.values()))) if scored else None


def round_robin(tasks: Mapping[str, Sequence[Case]]) -> list[Case]:
    """The first case of each task, then the second of each: more cases are more at the end."""
    longest = max(map(len, tasks.values()), default=0)
    return [cases[i] for i in range(longest) for cases in tasks.values() if i < len(cases)]


def rankings(scores: Iterable[CaseScores]) -> dict[str, Ranking]:
    """Each task's ranking; of heads that gain the same, the first comes first."""
    tasks: dict[str, list[CaseScores]] = {}
    for one in scores:
        tasks.setdefault(one.task, []).append(one)
    return {task: _ranking(task, of) for task, of in tasks.items()}


def _ranking(task: str, scores: Sequence[CaseScores]) -> Ranking:
    tried = [
        (layer, head)
        for layer, row in enumerate(scores[0].gains)
        for head, gain in enumerate(row)
        if gain is not None
    ]
    gains = {(x, y): _mean([one.gains[x][y] or 0.0 for one in scores]) for x, y in tried}
    success = {(x, y): _mean([one.success[x][y] for one in scores]) for x, y in tried}
    heads = sorted(tried, key=lambda head: (-gains[head], head))
    return Ranking(
        task,
        len(scores),
        tuple(heads),
        tuple(gains[head] for head in heads),
        tuple(success[head] for head in heads),
    )


def mean_gains(rankings: Iterable[Ranking]) -> dict[Head, float]:
    """Each head's gain, averaged over the tasks, whatever their size."""
    found: dict[Head, list[float]] = {}
    for ranking in rankings:
        for head, gain in zip(ranking.heads, ranking.gains, strict=True):
            found.setdefault(head, []).append(gain)
    return {head: _mean(found[head]) for head in sorted(found)}


def counted_tasks(how: str, tasks: Sequence[str], task: str | None) -> list[str]:
    """The tasks whose cases decide: all, the one named, or all but it.

    Raises:
        InputError: a task that does not exist, is missing, or has no meaning for ``how``.
    """
    if how in ("intersection", "union"):
        if task is not None:
            raise InputError(
                f"--task has no meaning for --select {how}: it belongs to task-specific and "
                "task-agnostic"
            )
        return list(tasks)
    if task is None:
        raise InputError(f"--select {how} needs --task: one of {', '.join(tasks)}")
    if task not in tasks:
        raise InputError(f"the task {task!r} does not exist; there are {', '.join(tasks)}")
    counted = [name for name in tasks if (name == task) == (how == "task-specific")]
    if not counted:
        raise InputError(
            f"--select task-agnostic leaves the task {task!r} out, and there is no other"
        )
    return counted


def default_ks(heads: int) -> tuple[int, ...]:
    """An eighth, a quarter, a half and three quarters of so many heads, rounded up."""
    return tuple(dict.fromkeys(-(-heads * part // whole) for part, whole in SHARES))


def selected(rankings: Sequence[Ranking], how: str, k: int) -> tuple[Head, ...]:
    """The heads that are among the top ``k`` of every ranking, or for "union" of any, in order."""
    tops = [set(ranking.heads[:k]) for ranking in rankings]
    chosen = set.union(*tops) if how == "union" else set.intersection(*tops)
    return tuple(sorted(chosen))


def shortlist(
    rankings: Sequence[Ranking], how: str, ks: Sequence[int]
) -> tuple[list[Selection], list[int]]:
    """The distinct selections of ``ks``, ascending, and the ks that leave no head.

    Raises:
        InputError: none of them leaves any head; the message says which k would.
    """
    found: dict[tuple[Head, ...], Selection] = {}
    empty = []
    for k in sorted(set(ks)):
        heads = selected(rankings, how, k)
        if not heads:
            empty.append(k)
        elif heads in found:
            found[heads] = replace(found[heads], ks=(*found[heads].ks, k))
        else:
            found[heads] = Selection(how, (k,), heads)
    if not found:
        worst = {
            head: max(ranking.heads.index(head) for ranking in rankings)
            for head in rankings[0].heads
        }
        raise InputError(
            f"the top {' and '.join(map(str, empty))} of the {len(rankings)} tasks have no head in "
            f"common: the smallest k that leaves one is {min(worst.values()) + 1}"
        )
    return list(found.values()), empty


def keeps(arm: Evaluation, plain: Evaluation, floor: float) -> bool:
    """Whether control and fluency reach ``floor``, or the plain model's where that is less."""
    pairs = [(arm.fluency, plain.fluency)]
    if arm.control is not None and plain.control is not None:
        pairs.append((arm.control, plain.control))
    return all(mine >= min(floor, theirs) for mine, theirs in pairs)


def best(arms: Sequence[Arm], plain: Evaluation, *, floor: float = FLOOR) -> Arm:
    """The most successful of those that keep control and fluency, then the one of fewest heads.

    Where none keeps them, the most successful of all.
    """

    def merit(arm: Arm) -> tuple[bool, float, int]:
        kept = keeps(arm.evaluation, plain, floor)
        return kept, arm.evaluation.success or 0.0, -len(arm.heads)

    return max(arms, key=merit)


def as_mapping(heads: Iterable[Head]) -> dict[int, tuple[int, ...]]:
    """{layer: heads}, as a ``Method`` takes them."""
    mapping: dict[int, tuple[int, ...]] = {}
    for layer, head in sorted(heads):
        mapping[layer] = (*mapping.get(layer, ()), head)
    return mapping


def pasta_json(heads: Iterable[Head]) -> str:
    """PASTA's file: {"layer": [head, …]}."""
    return json.dumps({str(layer): list(of) for layer, of in as_mapping(heads).items()}) + "\n"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
