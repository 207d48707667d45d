"""What ``minboost tune`` prints: the curve as it grows, the choice and why, the test, the JSON."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ..analysis.fluency import CUT_OFF, FAULTS
from ..analysis.intervals import sign_test
from ..analysis.tuning import NEUTRAL, Point, Tuning
from .describe import echo, header

if TYPE_CHECKING:
    from ..analysis.evaluate import Evaluation
    from ..lm import LM
    from ..methods import Method
    from ..suites import Case

BAR, NAME, CELL = 20, 17, 25  # widths in characters
CUT_OFF_NOTED = 0.05
"""The share of plain answers that may be cut off before it is said aloud."""


class Display:
    """The curve, row by row as it comes, and a bar with an estimate on stderr.

    The curve goes to stdout, or to stderr where that is for JSON.
    """

    def __init__(
        self,
        options: dict[str, Any],
        method: Method,
        values: tuple[float, ...],
        splits: list[list[Case]],
    ) -> None:
        from tqdm import tqdm

        self.name, self.values = method.strength, values
        self.floor, self.full = options["fluency_floor"], options["full_curve"]
        self.err = options["json"]
        self.cases = len(splits[0])
        self.total = self.cases * (1 + len(values)) + 2 * len(splits[1])
        self.bar = tqdm(
            total=self.total,
            unit=" cases",
            file=sys.stderr,
            leave=False,
            disable=sys.stderr is None or not sys.stderr.isatty(),
        )
        controls = sum(case.control for case in splits[0])
        self._line(
            f"{self.name} of {method.name}, on {_count(self.cases, 'validation case')} of "
            f"{options['tasks']}" + (f", {controls} of them controls" if controls else "")
        )
        self._line(f"{'':<{NAME}}{'success':<{BAR + 8}}control  fluency")

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def advance(self, count: int) -> None:
        self.bar.update(count)

    def plain(self, evaluation: Evaluation) -> None:
        self._line(_row("plain", evaluation))

    def point(self, point: Point) -> None:
        below = point.below(self.floor)
        if point.value == NEUTRAL.get(self.name):
            self.bar.update(self.cases)  # the plain model, answered already
        if below and not self.full:
            self.total -= self.cases * (len(self.values) - 1 - self.values.index(point.value))
            self.bar.total = self.total
        note = f"{' and '.join(below)} below {self.floor:g}" if below else ""
        self._line(_row(f"{self.name} {point.value:g}", point.evaluation, note))

    def _line(self, text: str) -> None:
        self.bar.clear()
        echo(text, err=self.err)
        self.bar.refresh()


def notes_on(result: Tuning, options: dict[str, Any]) -> list[str]:
    notes = []
    cut = sum(CUT_OFF in answered.faults for answered in result.plain.answers)
    if cut > CUT_OFF_NOTED * result.plain.count:
        notes.append(
            f"{cut} of the {result.plain.count} plain answers were cut off at "
            f"{options['max_new_tokens']} tokens: raise --max-new-tokens"
        )
    chosen, plain = result.chosen, result.plain.success or 0.0
    if chosen is None:
        return notes
    if (chosen.evaluation.success or 0.0) <= plain:
        notes.append(
            f"the plain model does as well on the validation cases, {plain:.3f}: none of these "
            "values is worth using"
        )
    elif chosen == result.points[-1] and not result.skipped:
        notes.append(
            f"the strongest value that was tried, {chosen.value:g}, is the best: stronger ones may "
            "be better still, see --values"
        )
    return notes


def remark(result: Tuning, tasks: str) -> str:
    """What a config.yaml says of the choice."""
    assert result.chosen is not None
    assert result.test is not None
    chosen = result.chosen.evaluation
    return (
        f"{result.parameter} chosen by minboost tune on {tasks}: success {chosen.success:.3f} on "
        f"{_asked(chosen)} validation cases,\n"
        f"{result.test.success:.3f} on {_asked(result.test)} test cases; fluency there "
        f"{result.test.fluency:.3f}"
    )


def _asked(evaluation: Evaluation) -> int:
    """The cases that success is counted over: those that are no controls."""
    return sum(not answered.case.control for answered in evaluation.answers)


def outcome(result: Tuning) -> list[str]:
    """The choice and why, and the test."""
    chosen = result.chosen
    if chosen is None or result.test is None or result.test_plain is None:
        return []
    name, failed = f"{result.parameter} {chosen.value:g}", result.failed
    passing = result.points if failed is None else result.points[: result.points.index(failed)]
    lines = [
        "",
        f"chosen: {name}, with the best success, {chosen.evaluation.success:.3f}, of the "
        f"{_count(len(passing), 'value')} whose fluency"
        f"{'' if result.plain.control is None else ' and control'} reach {result.floor:g}",
    ]
    if failed is not None:
        rest = [f"{v:g}" for v in result.skipped]
        lines.append(
            f"  given up at {failed.value:g}: {_fallen(failed, result.floor)}"
            + (f"; not tried: {', '.join(rest)}" if rest else "")
        )
    gained, lost, p = _paired(result)
    lines += [
        "",
        f"on {_count(result.test.count, 'test case')}, once, with 95 % intervals",
        f"{'':<{NAME}}{'success':<{CELL}}{'control':<{CELL}}fluency",
        _shares("plain", result.test_plain),
        _shares(name, result.test),
        f"  {_count(gained, 'case')} obeyed only with it, {lost} only without "
        f"(sign test, p = {p:.2g})",
    ]
    return lines


def none_passed(result: Tuning) -> str:
    weakest, plain = result.points[0], result.plain
    control = "" if plain.control is None else f", control {plain.control:.3f}"
    return (
        f"no value passed the floor of {result.floor:g}: at the weakest, {result.parameter} "
        f"{weakest.value:g}, {_fallen(weakest, result.floor)} (plain: fluency "
        f"{plain.fluency:.3f}{control}); try weaker --values, or a lower --fluency-floor"
    )


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")


def _fallen(point: Point, floor: float) -> str:
    return " and ".join(
        f"{name} is {getattr(point.evaluation, name):.3f}" for name in point.below(floor)
    )


def _paired(result: Tuning) -> tuple[int, int, float]:
    """Test cases, no controls, that only the chosen strength gets right; only plain; p."""
    assert result.test is not None
    assert result.test_plain is not None
    pairs = [
        (steered.passed, plain.passed)
        for steered, plain in zip(result.test.answers, result.test_plain.answers, strict=True)
        if not steered.case.control
    ]
    gained, lost = pairs.count((True, False)), pairs.count((False, True))
    return gained, lost, sign_test(gained, lost)


def _row(name: str, evaluation: Evaluation, note: str = "") -> str:
    success, control = evaluation.success or 0.0, evaluation.control
    full = round(BAR * success)
    bar = "█" * full + "░" * (BAR - full)
    shown = "     -" if control is None else f"{control:6.3f}"
    faults = ", ".join(f"{count} {fault}" for fault, count in _faults(evaluation).items())
    notes = "; ".join(part for part in (note, faults) if part)
    return (
        f"{name:<{NAME}}{success:.3f} {bar}  {shown}   {evaluation.fluency:6.3f}  {notes}".rstrip()
    )


def _faults(evaluation: Evaluation) -> dict[str, int]:
    """How many answers have each fault, of those that occur."""
    counts = {f: sum(f in answered.faults for answered in evaluation.answers) for f in FAULTS}
    return {fault: count for fault, count in counts.items() if count}


def _shares(name: str, evaluation: Evaluation) -> str:
    cells = [
        "-" if share is None or interval is None
        else f"{share:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"
        for share, interval in (
            (evaluation.success, evaluation.success_interval),
            (evaluation.control, evaluation.control_interval),
            (evaluation.fluency, evaluation.fluency_interval),
        )
    ]  # fmt: skip
    return f"{name:<{NAME}}{cells[0]:<{CELL}}{cells[1]:<{CELL}}{cells[2]}"


def as_json(
    lm: LM,
    options: dict[str, Any],
    result: Tuning,
    splits: list[list[Case]],
    block: str | None,
    notes: list[str],
) -> dict[str, Any]:
    method = result.method
    found: dict[str, Any] = {
        **header(lm, options),
        "tasks": options["tasks"],
        "cases": {"validation": len(splits[0]), "test": len(splits[1])},
        "role": options["role"],
        "max_new_tokens": options["max_new_tokens"],
        "seed": options["seed"],
        "method": method.name,
        "parameter": result.parameter,
        "layers": options["layers"],
        "heads": options["heads"],
        "span": options["span"],
        "floor": result.floor,
        "interval": "Wilson, 95 %",
        "plain": _evaluation(result.plain),
        "points": [
            {
                "value": point.value,
                "below_floor": point.below(result.floor),
                **_evaluation(point.evaluation),
            }
            for point in result.points
        ],
        "not_tried": list(result.skipped),
        "chosen": None if result.chosen is None else result.chosen.value,
        "test": None,
        "config": block,
        "notes": notes,
    }
    if result.test is not None and result.test_plain is not None:
        gained, lost, p = _paired(result)
        found["test"] = {
            "plain": _evaluation(result.test_plain),
            "chosen": _evaluation(result.test),
            "only_chosen": gained,
            "only_plain": lost,
            "p": p,
        }
    return found


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """Shares with their intervals, and one character a case, in the order of the task file."""
    return {
        "success": evaluation.success,
        "success_interval": evaluation.success_interval,
        "control": evaluation.control,
        "control_interval": evaluation.control_interval,
        "fluency": evaluation.fluency,
        "fluency_interval": evaluation.fluency_interval,
        "faults": _faults(evaluation),
        "passed": "".join("1" if answered.passed else "0" for answered in evaluation.answers),
        "fluent": "".join("1" if answered.fluent else "0" for answered in evaluation.answers),
    }
