"""The measurements of benchmarks/gpu.py as Markdown, the targets beside the figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
TARGET_DEVICE = "NVIDIA H200"  # what the absolute targets were set for


@dataclass(frozen=True)
class Target:
    """A bound on one figure; ``least`` where more is better."""

    what: str
    bound: float
    unit: str
    figure: Callable[[Sequence[Row]], float | None]
    least: bool = False

    def line(self, rows: Sequence[Row], device: str) -> str:
        value = self.figure(rows)
        sign = "≥" if self.least else "≤"
        met = "not measured"
        if value is not None:
            holds = value >= self.bound if self.least else value <= self.bound
            met = ("yes" if holds else "**no**") if device == TARGET_DEVICE else "—"
        shown = "—" if value is None else number(value)
        return f"| {self.what} | {shown} {self.unit} | {sign} {self.bound:g} {self.unit} | {met} |"


def pick(rows: Sequence[Row], group: str, figure: str, **match: Any) -> list[float]:
    """The figure of all rows of a group that match."""
    return [
        row[figure]
        for row in rows
        if row["group"] == group
        and figure in row
        and all(row.get(name) == value for name, value in match.items())
    ]


def largest(group: str, figure: str, **match: Any) -> Callable[[Sequence[Row]], float | None]:
    return lambda rows: max(pick(rows, group, figure, **match), default=None)


def smallest(group: str, figure: str, **match: Any) -> Callable[[Sequence[Row]], float | None]:
    return lambda rows: min(pick(rows, group, figure, **match), default=None)


def extra_memory(rows: Sequence[Row]) -> float | None:
    """MB of the peak that a boost adds."""
    plain = pick(rows, "first-token", "peak_bytes", boost="none")
    boosted = pick(rows, "first-token", "peak_bytes", boost="one span")
    return (min(boosted) - min(plain)) / 1e6 if plain and boosted else None


STEP = {"timed": "wall clock", "context": 2048, "boost": "none"}
TARGETS = (
    Target(
        "boost of one span, decode attention, over the same kernel without (worst)", 1.005, "×",
        largest("decode", "ratio", boost="one span"),
    ),
    Target(
        "boost of one span, prefill attention, over the same kernel without (worst)", 1.01, "×",
        largest("prefill", "ratio", boost="one span"),
    ),
    Target("boost, memory added to the peak (plan and segments)", 1.0, "MB", extra_memory),
    Target(
        "1B, a token at 2k context, batch 1: first", 800, "µs",
        largest("step-1b", "us_mean", **STEP),
    ),
    Target(
        "1B, a token at 2k context, batch 1: then", 678, "µs",
        largest("step-1b", "us_mean", **STEP),
    ),
    Target(
        "8B, a token at 2k context, batch 1", 3750, "µs", largest("step-8b", "us_mean", **STEP)
    ),
    Target(
        "decode attention, 32/4/128, 1k keys, boosted", 7, "µs",
        largest("decode", "us", shape="32/4/128", keys=1024, boost="one span"),
    ),
    Target(
        "decode attention, 32/4/128, 16k keys, boosted", 22, "µs",
        largest("decode", "us", shape="32/4/128", keys=16384, boost="one span"),
    ),
    Target(
        "prefill attention, d 64, 16k, boosted", 420, "TFLOP/s",
        smallest("prefill", "tflop_per_s", head_dim=64, tokens=16384, boost="one span"), True,
    ),
    Target(
        "prefill attention, d 128, 16k, boosted", 500, "TFLOP/s",
        smallest("prefill", "tflop_per_s", head_dim=128, tokens=16384, boost="one span"), True,
    ),
    Target(
        "SDPA with a float mask takes (closest case)", 3.0, "×",
        smallest("compare", "ratio", contender="sdpa float mask"), True,
    ),
    Target(
        "FlexAttention with a score_mod takes (closest case)", 1.1, "×",
        smallest("compare", "ratio", contender="flex score_mod"), True,
    ),
)  # fmt: skip

TIME = {"median µs": "us", "p10": "us_p10", "p90": "us_p90"}
COST = {"× unboosted": "ratio", "ratio p10": "ratio_p10", "ratio p90": "ratio_p90"}
BANDWIDTH = {"GB/s": "gb_per_s", "% of sheet": "percent_of_sheet", "% of copy": "percent_of_copy"}
MODEL = {"model": "model", "batch": "batch", "context": "context"}
SECTIONS: tuple[tuple[str, str, tuple[str, ...], dict[str, str]], ...] = (
    (
        "Correctness",
        "Share of the allowed error that the worst case takes: allowed is twice that of torch in "
        "the same dtype, and its rounding, all against float64.",
        ("checks",),
        {
            "check": "name", "cases": "cases", "share of allowed": "worst_share_of_allowed",
            "worst case": "worst_case", "against": "against", "passed": "passed",
        },
    ),
    (
        "Decode steps",
        "A whole step. graph: the captured step, replayed, between two device events; wall clock: "
        "between two tokens in the reader's hands, bandwidth by the mean.",
        ("step-1b", "step-8b", "batch-8"),
        MODEL | {"boost": "boost", "timed": "timed", **TIME, "mean": "us_mean", **BANDWIDTH} | COST,
    ),
    (
        "Decode attention",
        "One launch, in a graph of a chain over the caches of many layers, more than the "
        "second-level cache holds; eager: the same chain, called from Python.",
        ("decode",),
        {"q/kv/d": "shape", "keys": "keys", "boost": "boost", **TIME, "eager µs": "eager_us"}
        | BANDWIDTH | COST,
    ),
    (
        "Prefill attention",
        "Causal, 4·H·T²·d/2 operations; in a graph, the second-level cache flushed before.",
        ("prefill",),
        {"shape": "shape", "d": "head_dim", "tokens": "tokens", "boost": "boost", **TIME}
        | {"TFLOP/s": "tflop_per_s", "eager µs": "eager_us"} | COST,
    ),
    (
        "Against other attention",
        "Each in turn with minboost's kernel on the same inputs, with the same boost (plain: "
        "without); the ratio is how many times our time it takes.",
        ("compare",),
        {"stage": "stage", "shape": "shape", "tokens": "tokens", "of": "contender", **TIME}
        | {"minboost µs": "minboost_us", "ratio": "ratio", "p10 ": "ratio_p10"}
        | {"p90 ": "ratio_p90", "in": "how"},
    ),
    (
        "transformers",
        "The same shape through generate(), tokens timed as they are handed over.",
        ("transformers", "compiled"),
        MODEL | {"cache": "cache", "compiled": "compiled", **TIME, "mean": "us_mean"}
        | {"first token µs": "first_token_us"},
    ),
    (
        "First token",
        "From the prompt's ids to the first new token's, wall clock; memory: the peak over what "
        "the weights take.",
        ("first-token",),
        {"model": "model", "tokens": "tokens", "boost": "boost", **TIME} | COST
        | {"peak bytes": "peak_bytes"},
    ),
)  # fmt: skip


def markdown(results: dict[str, Any]) -> str:
    device, machine, rows = results["device"], results["machine"], results["rows"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [f"# {device['name']}, {results['date']}", ""]
    if results["dry_run"]:
        lines += ["**A rehearsal with tiny sizes: no figure here means anything.**", ""]
    sheet = device.get("sheet_gb_per_s")
    lines += [
        f"`{results['command']}`, commit {machine['commit']}, driver {device.get('driver')}, "
        f"{versions}, {device['dtype']}. Memory: {number(sheet) if sheet else 'unknown'} GB/s by "
        f"the data sheet, {number(device['copy_gb_per_s'])} GB/s by a copy, read and written. "
        f"Launch table: {', '.join(results['launch']['own']) or 'no entries'} of "
        f"{results['launch']['architecture']}, else default. Random weights and inputs.",
        "",
        "## Targets",
        "",
    ]
    if device["name"] != TARGET_DEVICE:
        lines += [f"Set for an {TARGET_DEVICE}: here they are context.", ""]
    lines += ["| what | measured | target | met |", "|---|---:|---:|---|"]
    lines += [target.line(rows, device["name"]) for target in TARGETS]
    for title, text, groups, columns in SECTIONS:
        chosen = [row for row in rows if row["group"] in groups and measured(row)]
        if chosen:
            lines += ["", f"## {title}", "", text, "", *table(chosen, columns)]
    left = [row for row in rows if not measured(row)]
    if left:
        lines += ["", "## Left out", ""]
        lines += [
            f"- {row['group']}, {row['name']}: "
            + (f"**{row['error']}**" if "error" in row else row["skipped"])
            for row in left
        ]
    return "\n".join(lines) + "\n"


def measured(row: Row) -> bool:
    return "error" not in row and "skipped" not in row


def table(rows: Sequence[Row], columns: dict[str, str]) -> list[str]:
    """A line a row; columns that no row fills are left out."""
    used = {title: key for title, key in columns.items() if any(key in row for row in rows)}
    lines = ["| " + " | ".join(used) + " |", "|" + "---|" * len(used)]
    for row in rows:
        if row.get("passed") is False:
            row = {**row, "passed": "**NO**"}
        lines.append("| " + " | ".join(number(row.get(key)) for key in used.values()) + " |")
    return lines


def number(value: Any) -> str:
    """Four digits, or the text itself."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
