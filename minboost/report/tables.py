"""The report's tables, as the page and the Markdown share them: texts in rows and columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..comparison.arms import PLAIN
from ..comparison.statistics import Estimate
from ..comparison.summary import ArmSummary, Group, Mean, TaskArm
from .formats import NONE, count, interval, p_value, ratio, share, signed

MEANINGS = {
    "p, one by one": "p, one by one: before the correction.",
    "odds ratio": "Odds ratio: gained to lost cases, with its exact interval.",
    "Cohen’s h": "Cohen’s h: .2 is small, .5 medium, .8 large.",
    "single checks": "Single checks: the share of them that pass; a case may have several.",
    "as plain": "As plain: answers that are plain’s word for word.",
    "perplexity": "Perplexity: of the answers under the plain model.",
    "× plain’s": "× plain’s: the same as a multiple of that of plain’s answer to the same case, "
    "the geometric mean.",
    "repeated": "Repeated: the share of trigrams that have come before.",
    "entropy, bits": "Entropy: of bigrams and trigrams, as PASTA has it.",
    "excess, nats": "Excess: nats a token by which an answer surprises the plain model beyond what "
    "it expects of itself.",
}


@dataclass(frozen=True)
class Table:
    """Texts: the head of each column, and the rows, whose first cell is their name."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Cell:
    """What one arm made of one task."""

    arm: str
    task: str
    estimate: Estimate | None
    gained: int | None
    lost: int | None


@dataclass(frozen=True)
class Matrix:
    """Arms by tasks; whichever are more stand in the rows.

    Attributes:
        control: whether it is of the controls.
        corner: what the rows are: "arm" or "task".
        columns, rows: the names, and of tasks how many cases there are.
    """

    control: bool
    corner: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[tuple[str, str], tuple[Cell, ...]], ...]


def counts_of(group: Group) -> str:
    """What was asked: "210 cases and 70 controls, 3 runs of each"."""
    controls = sum(case.control for case in group.cases)
    told = len(group.cases) - controls
    found = [count(n, thing) for n, thing in ((told, "case"), (controls, "control")) if n]
    runs = max(arm.runs for arm in group.arms)
    return " and ".join(found) + (f", {runs} runs of each" if runs > 1 else "")


def main_table(group: Group) -> Table:
    """Every arm: success, the difference to plain and its p value, controls, fluency."""
    head = ("arm", "success", "95 %", "controls", "fluency", "difference", "95 %", "p",
            "gained", "lost")  # fmt: skip
    rows = []
    for arm in group.arms:
        row = [arm.name, _value(arm.success), interval(arm.success), _value(arm.control),
               _value(arm.fluency)]  # fmt: skip
        versus = arm.versus
        if versus is None:
            row += [NONE] * 5
        else:
            row += [
                signed(versus.difference.value),
                interval(versus.difference, sign=True),
                p_value(versus.corrected),
                str(versus.gained),
                str(versus.lost),
            ]
        rows.append(tuple(row))
    return Table(head, tuple(rows))


def more_table(group: Group) -> Table:
    """What else was measured of every arm; a column that says nothing of any arm is left out."""
    cells: dict[str, Callable[[ArmSummary], str]] = {
        "p, one by one": lambda arm: NONE if arm.versus is None else p_value(arm.versus.p),
        "odds ratio": _odds,
        "Cohen’s h": lambda arm: NONE if arm.versus is None else signed(arm.versus.cohens_h, 2),
        "single checks": lambda arm: _with_interval(arm.checks),
        "tokens": lambda arm: f"{arm.length:.1f}",
        "cut off": lambda arm: share(arm.cut_off),
        "as plain": lambda arm: share(arm.unchanged),
        "perplexity": lambda arm: ratio(arm.perplexity),
        "× plain’s": _perplexity,
        "repeated": lambda arm: _mean(arm.repeated),
        "entropy, bits": lambda arm: _mean(arm.entropy),
        "excess, nats": lambda arm: _mean(arm.excess),
        "faults": lambda arm: ", ".join(f"{n} {fault}" for fault, n in arm.faults.items()) or NONE,
    }
    judges = dict.fromkeys(rating.judge for arm in group.arms for rating in arm.ratings)
    for judge in judges:
        cells[f"rated 0 to 2 by {judge}"] = lambda arm, judge=judge: _rated(arm, judge)  # type: ignore[misc]
    columns = {
        name: [cell(arm) for arm in group.arms] for name, cell in cells.items()
    }  # fmt: skip
    told = {name: column for name, column in columns.items() if any(c != NONE for c in column)}
    rows = zip([arm.name for arm in group.arms], *told.values(), strict=True)
    return Table(("arm", *told), tuple(rows))


def more_legend(table: Table) -> str:
    """What the columns of ``more_table`` mean, those that are there."""
    return " ".join(text for name, text in MEANINGS.items() if name in table.head)


def matrix(group: Group, *, control: bool = False) -> Matrix | None:
    """Success by arm and task, or that of the controls; None where there are none."""
    tasks = [task for task in group.tasks if (task.controls if control else task.cases)]
    if not tasks:
        return None
    found = {(arm.arm, task.task): arm for task in tasks for arm in task.arms}
    arms = [(arm.name, "") for arm in group.arms]
    names = [
        (task.task, count(task.controls, "control") if control else count(task.cases, "case"))
        for task in tasks
    ]

    def cell(arm: str, task: str) -> Cell:
        return _cell(found.get((arm, task)), arm, task, control)

    if len(names) > len(arms):
        rows = [(task, tuple(cell(arm, task[0]) for arm, _ in arms)) for task in names]
        return Matrix(control, "task", tuple(arms), tuple(rows))
    rows = [(arm, tuple(cell(arm[0], task) for task, _ in names)) for arm in arms]
    return Matrix(control, "arm", tuple(names), tuple(rows))


def legend(group: Group) -> list[str]:
    """How the numbers of ``main_table`` were made, a sentence each."""
    estimates = [e for arm in group.arms for e in (arm.success, arm.control, arm.fluency) if e]
    methods = dict.fromkeys(estimate.method for estimate in estimates)
    lines = [
        "Success: the share of cases, controls apart, whose answer passes all checks. Controls: "
        "the same of cases that plain should get right, and steering should not break. Fluency: "
        "the share of answers that are not empty, cut off, repetitive or surprising.",
        f"95 % intervals: {'; '.join(methods)}.",
    ]
    compared = [arm.versus for arm in group.arms if arm.versus is not None]
    if compared:
        tests = " or ".join(dict.fromkeys(versus.test for versus in compared))
        lines.append(
            f"Difference, gained and lost: cases against {PLAIN}, the same ones under both. p: "
            f"{tests}, two-sided, Holm-corrected for {count(compared[0].family, 'arm')}."
        )
    return lines


def _cell(found: TaskArm | None, arm: str, task: str, control: bool) -> Cell:
    if found is None:
        return Cell(arm, task, None, None, None)
    if control:
        return Cell(arm, task, found.control, None, None)
    return Cell(arm, task, found.success, found.gained, found.lost)


def _value(estimate: Estimate | None) -> str:
    return share(None if estimate is None else estimate.value)


def _with_interval(estimate: Estimate | None) -> str:
    return NONE if estimate is None else f"{share(estimate.value)} ({interval(estimate)})"


def _mean(mean: Mean | None) -> str:
    return NONE if mean is None else signed(mean.value, 2).removeprefix("+")


def _odds(arm: ArmSummary) -> str:
    found = None if arm.versus is None else arm.versus.odds_ratio
    if found is None:
        return NONE
    return f"{ratio(found.value)} ({ratio(found.low)} to {ratio(found.high)})"


def _perplexity(arm: ArmSummary) -> str:
    found = arm.relative_perplexity
    if found is None:
        return NONE
    mean = found.geometric_mean
    return f"{ratio(mean.value)} ({ratio(mean.low)} to {ratio(mean.high)})"


def _rated(arm: ArmSummary, judge: str) -> str:
    scores: Sequence[Estimate] = [one.score for one in arm.ratings if one.judge == judge]
    return _with_interval(scores[0]) if scores else NONE
