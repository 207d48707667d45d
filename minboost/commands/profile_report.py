"""What ``minboost profile`` prints: the sets compared, the heads' gains, and the time it took."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..analysis.profiling import (
    Arm,
    Head,
    Outcome,
    Ranking,
    as_mapping,
    keeps,
    mean_gains,
    pasta_json,
)
from .describe import header

if TYPE_CHECKING:
    from ..lm import LM

NAMED = 4  # heads of each task
CELL, SMALL_CELL = 8, 3  # widths in characters
LOOPS = {
    "forward": "a steered forward for each",
    "generation": "a steered generation for each",
    "batched_generation": "generations, up to 32 cases together",
}


def report(options: Mapping[str, Any], outcome: Outcome) -> list[str]:
    """Lines for people."""
    method, chosen = outcome.method, outcome.chosen
    values = ", ".join(f"{name} = {value}" for name, value in method.parameter_values().items())
    ks = " or ".join(map(str, chosen.selection.ks))
    return [
        f"{options['model']}, {method.name} ({values}): {_count(outcome.cases, 'case')} of "
        f"{_count(len(outcome.rankings), 'task')} and {_count(outcome.controls, 'control')}, "
        "validation split",
        "",
        *_table(outcome.arms, chosen),
        "",
        "best heads of each task, as layer.head: mean gain of the answer's log-probability (nats)",
        *_best_heads(outcome.rankings),
        "",
        "mean gain over the tasks with one head steered alone; * chosen: "
        f"{chosen.selection.how}, k = {ks}",
        *grid(mean_gains(outcome.rankings), set(chosen.heads)),
        "",
        f"chosen: {_count(len(chosen.heads), 'head')}, {pasta_json(chosen.heads).strip()}",
        *_speed(outcome),
    ]


def notes_of(outcome: Outcome, floor: float) -> list[str]:
    """What the figures say against the choice."""
    plain, everything = (arm.evaluation for arm in outcome.arms[:2])
    chosen = outcome.chosen.evaluation
    success = chosen.success or 0.0
    notes = []
    if outcome.empty:
        ks = " and ".join(map(str, outcome.empty))
        notes.append(f"the top {ks} of the tasks have no head in common")
    if not keeps(chosen, plain, floor):
        notes.append(
            f"no set of heads keeps control and fluency at {floor:g}; the one with the most "
            "success was written: try a weaker method"
        )
    if success <= (plain.success or 0.0):
        notes.append("the heads that were written do no better than the plain model here")
    elif (everything.success or 0.0) > success and keeps(everything, plain, floor):
        notes.append("steering all heads does better here than the heads that were written")
    return notes


def as_json(
    lm: LM, options: Mapping[str, Any], outcome: Outcome, *, scores: Path, notes: Sequence[str]
) -> dict[str, Any]:
    """What --json prints."""
    return {
        **header(lm, options),
        "role": options["role"],
        "method": outcome.method.name,
        "parameters": outcome.method.parameter_values(),
        "span": options["span"],
        "tasks_file": options["tasks"],
        "tasks": {ranking.task: ranking.cases for ranking in outcome.rankings},
        "controls": outcome.controls,
        "select": options["select"],
        "task": options["task"],
        "fluency_floor": options["fluency_floor"],
        "out": str(options["out"]),
        "scores": str(scores),
        "scored_cases": outcome.scored,
        "chosen": _arm(outcome.chosen),
        "compared": [_arm(arm) for arm in outcome.arms],
        "mean_gains": [
            {"layer": layer, "head": head, "gain": gain}
            for (layer, head), gain in mean_gains(outcome.rankings).items()
        ],
        "rankings": {
            ranking.task: [
                {"layer": layer, "head": head, "gain": gain, "success": success}
                for (layer, head), gain, success in zip(
                    ranking.heads, ranking.gains, ranking.success, strict=True
                )
            ]
            for ranking in outcome.rankings
        },
        "seconds_per_head_and_case": outcome.seconds,
        "notes": list(notes),
    }


def grid(gains: Mapping[Head, float], chosen: set[Head], width: int | None = None) -> list[str]:
    """Layers down, heads across: the gains, or tenths of the largest where they do not fit."""
    width = shutil.get_terminal_size((100, 24)).columns if width is None else width
    layers = sorted({layer for layer, _ in gains})
    columns = range(1 + max(head for _, head in gains))
    label = len(f"layer {layers[-1]}") + 1
    top = max(gains.values())
    wide = label + CELL * len(columns) <= width
    size = CELL if wide else SMALL_CELL

    def cell(at: Head) -> str:
        if at not in gains:
            return " " * size
        shown = f"{gains[at]:+.3f}" if wide else _tenth(gains[at], top)
        return f"{shown + ('*' if at in chosen else ''):<{size}}"

    names = (f"{f'head {column}' if wide else column:<{size}}" for column in columns)
    rows = [
        f"{f'layer {layer}':<{label}}" + "".join(cell((layer, column)) for column in columns)
        for layer in layers
    ]
    legend = f"tenths of {top:+.3f}, the largest; . none, - a loss"
    lines = [" " * label + "".join(names), *rows, *([] if wide else [legend])]
    return [line.rstrip() for line in lines]


def _tenth(gain: float, top: float) -> str:
    if gain < 0:
        return "-"
    tenths = min(9, int(10 * gain / top)) if top > 0 else 0
    return str(tenths) if tenths else "."


def _table(arms: Sequence[Arm], chosen: Arm) -> list[str]:
    rows = [("selection", "k", "heads", "success (95 %)", "control", "fluency", "")]
    for arm in arms:
        at = arm.evaluation
        assert at.success is not None
        assert at.success_interval is not None
        low, high = at.success_interval
        rows.append(
            (
                arm.selection.how,
                ", ".join(map(str, arm.selection.ks)) or "-",
                str(len(arm.heads)),
                f"{at.success:.3f} ({low:.3f} to {high:.3f})",
                "-" if at.control is None else f"{at.control:.3f}",
                f"{at.fluency:.3f}",
                "* chosen" if arm is chosen else "",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _best_heads(rankings: Sequence[Ranking]) -> list[str]:
    width = max(len(ranking.task) for ranking in rankings)
    return [
        f"  {ranking.task:<{width}}  "
        + "  ".join(
            f"{layer}.{head} {gain:+.2f}"
            for (layer, head), gain in zip(
                ranking.heads[:NAMED], ranking.gains[:NAMED], strict=True
            )
        )
        for ranking in rankings
    ]


def _speed(outcome: Outcome) -> list[str]:
    """What one (head, case) took, and what it takes by plain loops."""
    fast = outcome.seconds["scored"]
    if fast is None:
        return ["all scores were in the file: nothing was scored anew"]
    width = max(map(len, LOOPS.values()))
    lines = [
        f"one (head, case) took {1000 * fast:.2f} ms, the mean of {outcome.scored * outcome.tried};"
        " by plain loops, measured on a few:"
    ]
    for name, what in LOOPS.items():
        loop = outcome.seconds[name]
        assert loop is not None
        lines.append(f"  {what:<{width}}  {1000 * loop:8.2f} ms, {loop / fast:.1f} times as long")
    return lines


def _arm(arm: Arm) -> dict[str, Any]:
    at = arm.evaluation
    return {
        "selection": arm.selection.how,
        "k": list(arm.selection.ks),
        "head_count": len(arm.heads),
        "heads": {str(layer): list(of) for layer, of in as_mapping(arm.heads).items()},
        "success": at.success,
        "success_interval": at.success_interval,
        "control": at.control,
        "control_interval": at.control_interval,
        "fluency": at.fluency,
        "fluency_interval": at.fluency_interval,
    }


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
