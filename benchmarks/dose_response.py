"""How often the demo model obeys its instruction, by multiplier: table, figure and JSON.

    python benchmarks/dose_response.py

Held-out cases of the `test` split, the kinds in equal number, greedy decoding, the instruction's
own tokens boosted on all layers and heads. An answer counts only if it is exactly the obeying one.
Needs matplotlib (`pip install minboost[plot]`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import describe

import minboost
from minboost.analysis.intervals import wilson
from minboost.demo.corpus import Case, followed, sample_cases
from minboost.demo.phrasings import KINDS

MULTIPLIERS = (0.1, 0.3, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0)
DEFAULT_MULTIPLIER = 10.0
ANSWER_TOKENS = 24
NAME = "demo_dose_response"
ROOT = Path(__file__).parents[1]
CONFLICT, NO_CONFLICT = "#c2410c", "#1d4ed8"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--cases", type=int, default=420, help="with conflict, and again without")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=70)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args(argv)

    lm = minboost.load(options.model, device="cpu")
    sides = {
        "conflict": sample_cases(options.seed, options.split, options.cases, conflict=True),
        "no_conflict": sample_cases(options.seed, options.split, options.cases, conflict=False),
    }
    started = time.monotonic()
    rows = []
    for multiplier in MULTIPLIERS:
        row: dict[str, Any] = {"multiplier": multiplier}
        for side, cases in sides.items():
            texts = answers(lm, cases, multiplier, options.batch)
            row[side] = score(cases, texts)
        rows.append(row)
        print(table_line(row), file=sys.stderr, flush=True)
    results = {
        "command": "python benchmarks/dose_response.py",
        "model": options.model,
        "device": "cpu",
        "dtype": str(lm.dtype).removeprefix("torch."),
        "split": options.split,
        "seed": options.seed,
        "cases": {side: len(cases) for side, cases in sides.items()},
        "boost": {"span": "instruction", "layers": "all", "heads": "all"},
        "decoding": "greedy",
        "interval": "Wilson, 95 %",
        "seconds": round(time.monotonic() - started, 1),
        "machine": describe(),
        "rows": rows,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / NAME
    text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    path.with_suffix(".json").write_text(text, encoding="utf-8")
    table = markdown(results)
    path.with_suffix(".md").write_text(table, encoding="utf-8")
    draw(results, path)
    print(table)
    return 0


def answers(lm: minboost.LM, cases: Sequence[Case], multiplier: float, batch: int) -> list[str]:
    """The greedy answers; sorted by length, so that a batch holds little padding."""
    boost = minboost.Boost(multiplier=multiplier)
    order = sorted(range(len(cases)), key=lambda i: len(cases[i].instruction + cases[i].query))
    texts = [""] * len(cases)
    for at in range(0, len(order), batch):
        chosen = order[at : at + batch]
        requests = [
            minboost.Request(
                instruction=cases[i].instruction,
                query=cases[i].query,
                boost=boost,
                max_new_tokens=ANSWER_TOKENS,
            )
            for i in chosen
        ]
        for i, out in zip(chosen, lm.generate_batch(requests), strict=True):
            # An answer that was cut off must not pass, even if what is there looks right.
            texts[i] = out.text if out.finish_reason == "stop" else ""
    return texts


def score(cases: Sequence[Case], texts: Sequence[str]) -> dict[str, Any]:
    obeyed = [followed(case, text) for case, text in zip(cases, texts, strict=True)]
    low, high = wilson(sum(obeyed), len(obeyed))
    yielded = [
        not good and text.split() == case.answer_if_query.split()
        for good, case, text in zip(obeyed, cases, texts, strict=True)
    ]
    kinds = {}
    for kind in KINDS:
        of_kind = [good for good, case in zip(obeyed, cases, strict=True) if case.kind == kind]
        kinds[kind] = round(sum(of_kind) / len(of_kind), 3)
    return {
        "success": round(sum(obeyed) / len(obeyed), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "followed_query": round(sum(yielded) / len(yielded), 4),
        "kinds": kinds,
        "obeyed": "".join("1" if good else "0" for good in obeyed),  # case by case
    }


def share(side: dict[str, Any]) -> str:
    return f"{side['success']:.3f} ({side['low']:.3f} to {side['high']:.3f})"


def table_line(row: dict[str, Any]) -> str:
    return f"| {row['multiplier']:g} | {share(row['conflict'])} | {share(row['no_conflict'])} |"


def markdown(results: dict[str, Any]) -> str:
    cases = results["cases"]
    lines = [
        "# Demo model: instruction following by multiplier",
        "",
        f"`{results['command']}`: {cases['conflict']} held-out cases with conflict and "
        f"{cases['no_conflict']} without ({results['split']} split, seed {results['seed']}), "
        "greedy decoding, the instruction boosted on all layers and heads. Share of answers that "
        f"are exactly the obeying one ({results['interval']} interval).",
        "",
        "| multiplier | with conflict | without conflict |",
        "|---:|---|---|",
        *map(table_line, results["rows"]),
        "",
        "By kind of instruction, with conflict / without:",
        "",
        "| multiplier | " + " | ".join(KINDS) + " |",
        "|---:|" + "---|" * len(KINDS),
    ]
    for row in results["rows"]:
        sides = row["conflict"]["kinds"], row["no_conflict"]["kinds"]
        cells = [f"{sides[0][kind]:.2f} / {sides[1][kind]:.2f}" for kind in KINDS]
        lines.append(f"| {row['multiplier']:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(results: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = NAME  # the same figure gives the same file
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    x = [row["multiplier"] for row in results["rows"]]
    for side, colour, marker, label in (
        ("no_conflict", NO_CONFLICT, "s", "without conflict"),
        ("conflict", CONFLICT, "o", "with a competing request"),
    ):
        values = [row[side] for row in results["rows"]]
        low, high = [v["low"] for v in values], [v["high"] for v in values]
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        shares = [v["success"] for v in values]
        axes.plot(x, shares, color=colour, marker=marker, markersize=4.5, label=label)
    for at, note in ((1.0, "plain prompting"), (DEFAULT_MULTIPLIER, "default")):
        axes.axvline(at, color="0.45", linewidth=0.9, linestyle="--", zorder=0)
        axes.annotate(
            f"{note} (m = {at:g})",
            (at, 0.02),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=8.5,
            color="0.3",
        )
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{m:g}" for m in x])
    axes.minorticks_off()
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("multiplier m on the instruction's attention (log scale)")
    axes.set_ylabel("answers that obey the instruction")
    axes.set_title("Demo model: the boost decides whom it listens to", fontsize=11)
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(0.02, 0.5), frameon=False, fontsize=9)
    figure.savefig(path.with_suffix(".png"), dpi=130)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
