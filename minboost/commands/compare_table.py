"""A summary as tables for a terminal: a block of lines for each suite and split."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, zip_longest

from ..comparison.arms import PLAIN
from ..comparison.records import Record
from ..comparison.statistics import Estimate
from ..comparison.summary import ArmSummary, CaseSummary, Group, Summary, TaskSummary
from .text_table import (
    columns,
    cut,
    cut_middle,
    folded,
    one_line,
    padded,
    parted,
    width_of,
    without_empty,
)

WIDTH = 100
NAME, TASK, JUDGE = 24, 28, 30  # widths of names at most
MARKS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
Names = Mapping[str, str]
"""What stands for each arm's name in a column."""
LARGEST = 1000.0
"""From here on a ratio is said to be above it."""


def lines(summary: Summary, *, diffs: int = 5, width: int = WIDTH) -> list[str]:
    """The lines of all groups.

    Of each: the arms with their test against plain, what else was measured, the tasks, and the
    first ``diffs`` cases that came out otherwise than plain, gained and lost ones by turns, with
    the answers shortened.
    """
    return parted(
        [
            *(_block(group, diffs, width) for group in summary.groups),
            _notes(summary.notes, width),
        ]
    )


def _block(group: Group, diffs: int, width: int) -> list[str]:
    names = _short_names([arm.name for arm in group.arms])
    return parted(
        [
            [*_title(group, width), *_main(group, names), *_legend(group, names, width)],
            _more(group, names, width),
            _ratings(group, names, width),
            _tasks(group, names, width),
            _differences(group, names, diffs, width),
            _notes(group.notes, width),
        ]
    )


def _title(group: Group, width: int) -> list[str]:
    controls = sum(case.control for case in group.cases)
    told = len(group.cases) - controls
    counts = [_count(told, "case")] if told else []
    counts += [_count(controls, "control")] if controls else []
    runs = max(arm.runs for arm in group.arms)
    each = f", {runs} runs of each" if runs > 1 else ""
    title = f"{one_line(group.suite)}, {group.split} split: {' and '.join(counts)}{each}"
    return [cut(title, width)]


def _main(group: Group, names: Names) -> list[str]:
    head = ["", "success", "control", "fluency"]
    if any(arm.versus is not None for arm in group.arms):
        head += ["difference", "p (Holm)"]
    rows = []
    for arm in group.arms:
        row = [names[arm.name], _interval(arm.success), _share(arm.control), _share(arm.fluency)]
        if arm.versus is not None:
            corrected = arm.versus.corrected
            row += [
                _interval(arm.versus.difference, "+.3f"),
                _p(corrected) + _mark(corrected),
            ]
        rows.append(row)
    return columns([head, *rows])


def _legend(group: Group, names: Names, width: int) -> list[str]:
    texts = [
        "in brackets: 95 % intervals, by bootstrap over the cases; Wilson's where they are few, or "
        "alike"
    ]
    compared = [arm.versus for arm in group.arms if arm.versus is not None]
    if compared:
        tests = " or ".join(dict.fromkeys(versus.test for versus in compared))
        arms = _count(compared[0].family, "arm")
        marks = ", ".join(f"{mark} below {level:g}" for level, mark in reversed(MARKS))
        texts.append(f"p: {tests} against plain, Holm-corrected for {arms}")
        texts.append(f"p is {marks}")
    full = [f"{short} is {one_line(arm)}" for arm, short in names.items() if short != one_line(arm)]
    return _wrapped([*texts, *full], width)


def _more(group: Group, names: Names, width: int) -> list[str]:
    """What else is known of the arms; a column that says nothing of any arm is left out."""
    several = any(arm.checks is not None and arm.checks.answers > arm.answers for arm in group.arms)
    cut_off = any(arm.cut_off for arm in group.arms)
    cells: dict[str, Callable[[ArmSummary], str]] = {
        "gained": lambda arm: "" if arm.versus is None else str(arm.versus.gained),
        "lost": lambda arm: "" if arm.versus is None else str(arm.versus.lost),
        "odds ratio": _odds,
        "Cohen's h": lambda arm: "" if arm.versus is None else f"{arm.versus.cohens_h:+.2f}",
        "checks": lambda arm: _share(arm.checks) if several else "",
        "tokens": lambda arm: f"{arm.length:.1f}",
        "cut off": lambda arm: f"{arm.cut_off:.3f}" if cut_off else "",
        "same": lambda arm: "" if arm.unchanged is None else f"{arm.unchanged:.3f}",
        "perplexity": _perplexity,
    }
    rows = [[names[arm.name], *(cell(arm) for cell in cells.values())] for arm in group.arms]
    shown = without_empty([["", *cells], *rows])
    said = {
        "gained": "gained, lost: cases against plain; odds ratio: of the two",
        "checks": "checks: share of single checks",
        "same": "same: answers that are plain's word for word",
        "perplexity": "perplexity: under the plain model; x: times plain's (geometric mean)",
    }
    text = "; ".join(meaning for column, meaning in said.items() if column in shown[0])
    return [*folded(shown, width), *_wrapped([text] if text else [], width)]


def _ratings(group: Group, names: Names, width: int) -> list[str]:
    judges = sorted({rating.judge for arm in group.arms for rating in arm.ratings})
    if not judges:
        return []
    rows = []
    for arm in group.arms:
        scores = {rating.judge: rating.score for rating in arm.ratings}
        rows.append([names[arm.name], *(_interval(scores.get(j), ".2f") for j in judges)])
    head = ["rated 0 to 2 by", *(cut_middle(one_line(judge), JUDGE) for judge in judges)]
    return folded([head, *rows], width)


def _tasks(group: Group, names: Names, width: int) -> list[str]:
    tasks = [task for task in group.tasks if task.cases]
    if len(tasks) < 2:
        return []
    head = ["success by task", "cases", *names.values()]
    return folded([head, *(_task(task, names) for task in tasks)], width, fixed=2)


def _task(task: TaskSummary, names: Iterable[str]) -> list[str]:
    found = {arm.arm: arm.success for arm in task.arms}
    shares = (_interval(found.get(name)) for name in names)
    return [cut_middle(one_line(task.task), TASK), str(task.cases), *shares]


def _differences(group: Group, names: Names, diffs: int, width: int) -> list[str]:
    found = group.differences
    if not found or diffs < 1:
        return []
    shown = _by_turns(found)[:diffs]
    some = "" if len(shown) == len(found) else f"; {len(shown)} of them"
    result = [f"{_count(len(found), 'case')} came out otherwise than plain{some}:"]
    for case in shown:
        result += ["", *_difference(case, names, width)]
    return result


def _by_turns(cases: Sequence[CaseSummary]) -> list[CaseSummary]:
    """One that was gained, one that was lost, and so on: neither kind hides the other."""
    gained = [case for case in cases if case.gained]
    lost = [case for case in cases if not case.gained]
    return [case for pair in zip_longest(gained, lost) for case in pair if case is not None]


def _difference(case: CaseSummary, names: Names, width: int) -> list[str]:
    other = [arm for arm in case.answers if arm in case.gained or arm in case.lost]
    run = _telling_run(case, other)
    runs = max(map(len, case.answers.values()))
    said = ["control"] if case.control else []
    for what, arms in (("gained", case.gained), ("lost", case.lost)):
        by = ", ".join(names[arm] for arm in arms) if len(arms) < 3 else f"{len(arms)} arms"
        said += [f"{what} by {by}"] if arms else []
    said += [f"answers of run {run}"] if runs > 1 else []
    found = [
        cut(f"{one_line(case.case)} ({'; '.join(said)})", width),
        cut(f"  told:  {one_line(case.instruction)}", width),
        cut(f"  asked: {one_line(case.query)}", width),
    ]
    column = max(width_of(names[name]) for name in (PLAIN, *other))
    for name in (PLAIN, *other):
        records = case.answers[name]
        record = next((one for one in records if one.run == run), records[0])
        start = f"  {padded(names[name], column)}  {_outcome(record, records)}  "
        found.append(cut(start + (one_line(record.text) or "(empty)"), width))
        if record.why:
            found.append(cut(f"{'':<{width_of(start)}}({one_line(record.why)})", width))
    return found


def _outcome(record: Record, records: Sequence[Record]) -> str:
    outcome = "passes" if record.passed else "fails "
    passed = sum(one.passed for one in records)
    return outcome if len(records) == 1 else f"{outcome} ({passed} of {len(records)} pass)"


def _telling_run(case: CaseSummary, arms: Sequence[str]) -> int:
    """The first run in which one of ``arms`` and plain come out differently."""
    plain = {record.run: record.passed for record in case.answers[PLAIN]}
    return min(
        record.run
        for record in chain(*(case.answers[arm] for arm in arms))
        if plain.get(record.run, record.passed) != record.passed
    )


def _notes(notes: Iterable[str], width: int) -> list[str]:
    return _wrapped([f"note: {one_line(note)}" for note in notes], width)


def _wrapped(texts: Iterable[str], width: int) -> list[str]:
    return [line for text in texts for line in textwrap.wrap(text, width, subsequent_indent="  ")]


def _short_names(arms: Iterable[str]) -> Names:
    """Names that fit in a column, each its own."""
    names: dict[str, str] = {}
    for arm in arms:
        name, number = cut_middle(one_line(arm), NAME), 1
        while name in names.values():
            number += 1
            tag = f" {number}"
            name = cut_middle(one_line(arm), NAME - len(tag)) + tag
        names[arm] = name
    return names


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")


def _share(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{estimate.value:.3f}"


def _interval(estimate: Estimate | None, form: str = ".3f") -> str:
    if estimate is None:
        return "-"
    ends = (estimate.value, estimate.low, estimate.high)
    # Adding 0 takes the sign off a number that is rounded to none.
    value, low, high = (f"{round(one, 3) + 0.0:{form}}" for one in ends)
    return f"{value} [{low}, {high}]"


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _mark(p: float) -> str:
    return next((mark for level, mark in MARKS if p < level), "")


def _odds(arm: ArmSummary) -> str:
    if arm.versus is None:
        return ""
    ratio = arm.versus.odds_ratio
    if ratio is None:
        return "-"
    return f"{_ratio(ratio.value)} [{_ratio(ratio.low)}, {_ratio(ratio.high)}]"


def _ratio(value: float) -> str:
    if math.isinf(value):
        return "inf"
    return (
        f">{LARGEST:.0f}" if value > LARGEST else f"{value:.2f}" if value < 10 else f"{value:.0f}"
    )


def _perplexity(arm: ArmSummary) -> str:
    if arm.relative_perplexity is not None:
        return f"x {_ratio(arm.relative_perplexity.geometric_mean.value)}"
    return "" if arm.perplexity is None else _ratio(arm.perplexity)
