"""The rows of benchmarks/cpu.py as a table, with the targets they are held to."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from result_rows import Row, machines
from shapes import SHAPES

ORDER = {
    "dtype": ("float32", "bfloat16", "int8"),
    "ours": ("eager", "compile"),
    "rival": (
        "transformers",
        "transformers-mask",
        "transformers-mask-sdpa",
        "transformer-lens",
        "llama.cpp",
    ),
}
SHARE = 0.80  # of the bandwidth, on the 1B shape
ABOUT = textwrap.fill(
    "Random weights of known shapes, the same for both engines; batch 1, greedy, the same ids and "
    "threads, matrices of the same dtype. Two engines at a time, each in a process of its own, in "
    "turn, and both started anew several times. Rates are medians; ratios are minboost over the "
    "rival, median (range) of those within one turn, and the median of every start, left empty "
    "where there was only one. "
    "transformers-mask and transformer-lens are boosted on a quarter of the prompt, and so is "
    "minboost beside them; elsewhere both are plain. int8 is one scale a row in minboost, Q8_0 in "
    "llama.cpp. Peak is of the whole process, mapped files included. Bandwidth is the bytes that a "
    "token must read, times tokens/s, as a part of what this machine read at best while the rows "
    "were measured; a model that partly stays in the processor's cache can exceed it. The last "
    "columns say how far both engines agree: tokens before the first that differs, and the largest "
    "difference of the prompt's last logits as a part of the largest logit.",
    100,
)
TARGETS = textwrap.fill(
    "Targets of decoding: transformers 2.5 × on the 135M shape; TransformerLens 3 ×, compiled "
    f"4.5 ×; llama.cpp 0.8 ×, compiled 1.0 ×; {SHARE:.0%} of the bandwidth on the 1B shape.",
    100,
)
ONE_BY_ONE = "\\* Token by token: on this processor its product of several tokens crashes."
HEAD = (
    "dtype", "prompt + new", "minboost", "rival", "decode, tokens/s", "rival's",
    "ratio (range)", "by start", "target", "prefill, tokens/s", "rival's", "ratio (range)",
    "peak GB", "rival's", "bandwidth", "rival's", "same tokens", "logits differ by",
)  # fmt: skip


def key(row: Row) -> tuple[Any, ...]:
    """What makes two rows the same measurement, in the order of the table."""
    placed = [names.index(row[name]) for name, names in ORDER.items()]
    return (
        list(SHAPES).index(row["shape"]),
        row["threads"],
        placed[0],
        row["prompt"],
        row["new"],
        *placed[1:],
    )


def target(row: Row) -> float | None:
    """The decode ratio that a row is held to, as far as one was set."""
    if row["rival"] == "llama.cpp":
        return 1.0 if row["ours"] == "compile" else 0.8
    if row["rival"] == "transformer-lens" and row["dtype"] == "float32":
        return 4.5 if row["ours"] == "compile" else 3.0
    if row["rival"] == "transformers" and row["shape"] == "SmolLM2-135M":
        return 2.5
    return None


def markdown(rows: Sequence[Row], command: str) -> str:
    lines = ["# On a CPU, against other engines", "", f"`{command}`", "", ABOUT, "", TARGETS]
    for shape in dict.fromkeys(row["shape"] for row in rows):
        lines += [
            "",
            f"## {shape}",
            "",
            "| " + " | ".join(HEAD) + " |",
            "|---|---|---|---|" + "---:|" * (len(HEAD) - 4),
            *(line(row) for row in rows if row["shape"] == shape),
        ]
    if any(map(one_by_one, rows)):
        lines += ["", ONE_BY_ONE]
    return "\n".join([*lines, "", machines(rows), ""])


def one_by_one(row: Row) -> bool:
    """Did the rival take its prompt token by token (engine_llama_cpp.py)?"""
    return "engines" in row and bool(row["engines"]["theirs"]["loading"].get("one_token_at_a_time"))


def line(row: Row) -> str:
    cells = [
        row["dtype"],
        f"{row['prompt']} + {row['new']}",
        row["ours"],
        row["rival"],
    ]
    if "error" in row:
        return "| " + " | ".join([*cells, row["error"].replace("|", "\\|")]) + " |"
    engines, agreement = row["engines"], row["agreement"]
    aim = target(row)
    by_start = " ".join(f"{ratio:.2f}" for ratio in row["decode"].get("by_start", ()))
    cells += [*rates(row["decode"]), by_start, "" if aim is None else f"{aim} ×"]
    cells += rates(row["prefill"])
    if one_by_one(row):
        cells[-2] += " *"
    cells += [gigabytes(engines[name]["peak"]) for name in ("ours", "theirs")]
    cells += [f"{engines[name]['share']:.2f}" for name in ("ours", "theirs")]
    cells += [
        f"{agreement['same_tokens']} of {agreement['of']}",
        f"{agreement['logits_difference']:.0e}",
    ]
    return "| " + " | ".join(cells) + " |"


def rates(of: dict[str, Any]) -> list[str]:
    ratio = of["ratio"]
    low, high = ratio["range"]
    return [
        number(of["ours"]["median"]),
        number(of["theirs"]["median"]),
        f"{ratio['median']:.2f} × ({low:.2f}–{high:.2f})",
    ]


def number(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"


def gigabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e9:.2f}"
