"""The tables of benchmarks/quantized.py."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any


def markdown(results: dict[str, Any]) -> str:
    rows, shapes, at = results["demo"]["rows"], results["shapes"], results["machine"]
    memory = [(row["shape"], row["bytes"]) for row in shapes]
    forms = wide, half, int8 = list(shapes[0]["bytes"])
    counts = " and ".join(
        f"{of['positions']} {arm} ({of['answer_positions']} of answers)"
        for arm, of in {row["arm"]: row["from"]["float32"] for row in rows}.items()
    )
    parts = [
        "# What int8 weights cost",
        f"`{results['command']}`, on {at['processor']}, torch {at['versions']['torch']}. "
        "int8 keeps the matrices in eight bits, with a scale a row; activations and norms are "
        "bfloat16 or float32. Divergence is the mean of KL(reference ‖ this form) in 10⁻⁴ nats; "
        "same, the share of positions where both have the same likeliest token.",
        "## Weights",
        grid("model | float32 | bfloat16 | int8 | int8 / bfloat16 | int8 / float32", 1, [
            [name, *(f"{of[form] / 1e6:.2f} MB" for form in forms),
             *(f"{of[int8] / of[form]:.3f}" for form in (half, wide))]
            for name, of in [("demo", results["demo"]["bytes"]), *memory]
        ]),
        "## The next token: demo model, trained",
        f"{results['demo']['cases']} prompts of the demo suite with float32's answers, in tokens "
        f"that are foretold: {counts}. The last two columns are those of the answers alone.",
        grid("form | arm | reference | divergence | same | of answers | same", 3, [
            [row["form"], row["arm"], reference, nats(of["kl"]), f"{of['same']:.4f}",
             nats(of["answer_kl"]), f"{of['answer_same']:.4f}"]
            for row in rows if row["form"] != "float32"
            for reference, of in row["from"].items() if reference != row["form"]
        ]),
        "## Answers: demo model, trained",
        f"The test split, {rows[0]['success_cases']} cases with a competing request and "
        f"{rows[0]['control_cases']} without: the share of {results['decoding']} answers that obey "
        f"({results['interval']} interval). Other answers are those with other tokens than "
        "float32's; against float32 counts the cases that only this form (+) or only float32 (−) "
        "answers rightly, with McNemar's exact p.",
        grid("form | arm | with conflict | without | other answers | against float32", 2, [
            [row["form"], row["arm"], interval(row, "success"), interval(row, "control"),
             *(("", "") if row["form"] == "float32" else (
                 f"{row['other_answers']} of {results['demo']['test_cases']}",
                 "+{better} −{worse}, p = {p:.2g}".format(**row["against_float32"])))]
            for row in rows
        ]),
        "## The next token: random weights",
        f"{results['random_ids']} random ids; weights that are bfloat16 in the file. Noise "
        "foretells next to nothing: these figures set int8 beside bfloat16, and say nothing of a "
        "trained model. Error is the logits' root mean square error over their standard deviation.",
        grid("shape | form | reference | divergence | same | error", 3, [
            [of["shape"], row["form"], row["from"], nats(row["kl"]), f"{row['same']:.4f}",
             f"{row['error']:.4f}"]
            for of in shapes for row in of["rows"]
        ]),
    ]  # fmt: skip
    filled = (p if p[0] in "#|" else textwrap.fill(p, 100, break_on_hyphens=False) for p in parts)
    return "\n\n".join(filled) + "\n"


def grid(header: str, texts: int, rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns behind the first ``texts`` are numbers."""
    rule = "|" + "---|" * texts + "---:|" * (header.count("|") + 1 - texts)
    return "\n".join([f"| {header} |", rule, *(f"| {' | '.join(row)} |" for row in rows)])


def nats(divergence: float) -> str:
    return f"{divergence * 1e4:.2f}"


def interval(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_interval"]
    return f"{row[name]:.3f} ({low:.3f} to {high:.3f})"
