"""Answers a second of `minboost compare`, against generating them one by one.

    python benchmarks/throughput.py [--runs 5] [--write]

The demo suite under the default arms, greedy. `compare` is the whole command but for loading the
model: planning, batches, checks, fluency, the results file, the CSV file and the summary with its
statistics. One by one is a loop of `lm.generate` over the same cases and arms and nothing else,
once with as many threads as torch takes by default and once with the single thread that suits so
small a model. The ways run in turn, A B C A B C; medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from machine import describe

import minboost
from minboost.cli import main as minboost_command
from minboost.suites import load_suite

NAME = "throughput"
RESULTS = Path(__file__).parent / "results"
ARMS = (None, minboost.Boost(10.0), minboost.Boost(10.0, layers="1-2"))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=int, help="cases of each split; all by default")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results")
    options = parser.parse_args(argv)
    lm = minboost.load("demo", device="cpu")
    threads = torch.get_num_threads()
    cases = list(load_suite("demo").cases)
    if options.limit is not None:
        cases = cases[: options.limit] + cases[-options.limit :]
    ways = {
        "compare": lambda: compare(lm, options.limit, threads),
        f"generate, {threads} threads": lambda: one_by_one(lm, cases, threads),
        "generate, 1 thread": lambda: one_by_one(lm, cases, 1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for name, way in ways.items():
        way()  # what is set up once
        print(f"warm: {name}", file=sys.stderr, flush=True)
    for _ in range(options.runs):
        for name, way in ways.items():
            seconds[name].append(way())
            print(f"{name}: {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True)
    results = report(seconds, len(cases))
    table = markdown(results)
    print(table)
    if options.write:
        text = json.dumps(results, indent=1) + "\n"
        (RESULTS / f"{NAME}.json").write_text(text, encoding="utf-8")
        (RESULTS / f"{NAME}.md").write_text(table, encoding="utf-8")
    return 0


def compare(lm: minboost.LM, limit: int | None, threads: int) -> float:
    """Seconds of the command, with a model that is there already."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()) as out:
        some = [] if limit is None else ["--limit", str(limit)]
        with mock.patch("minboost.commands.answering.load_model", return_value=lm):
            began = time.perf_counter()
            with redirect_stderr(StringIO()):
                code = minboost_command(["compare", "--out", folder, *some])
            seconds = time.perf_counter() - began
    if code:
        raise SystemExit(f"minboost compare ended with {code}: {out.getvalue()}")
    return seconds


def one_by_one(lm: minboost.LM, cases: list[Any], threads: int) -> float:
    torch.set_num_threads(threads)
    began = time.perf_counter()
    for case in cases:
        for boost in ARMS:
            lm.generate(instruction=case.instruction, query=case.query, boost=boost)
    return time.perf_counter() - began


def report(seconds: dict[str, list[float]], cases: int) -> dict[str, Any]:
    answers = cases * len(ARMS)
    medians = {name: statistics.median(of) for name, of in seconds.items()}
    return {
        "command": "python benchmarks/throughput.py --write",
        "model": "demo",
        "cases": cases,
        "arms": len(ARMS),
        "rows": [
            {
                "way": name,
                "seconds": [round(value, 4) for value in of],
                "answers_per_second": answers / medians[name],
                "cases_per_second": cases / medians[name],
                "compare_is_faster_by": medians[name] / medians["compare"],
            }
            for name, of in seconds.items()
        ],
        "machine": describe(),
    }


def markdown(results: dict[str, Any]) -> str:
    lines = [
        "# Answers a second",
        "",
        f"`{results['command']}`: the demo suite, {results['cases']} cases under "
        f"{results['arms']} arms, greedy,",
        f"on {results['machine']['cores']} cores. `compare` does all that it does: checks,",
        "fluency, results file, table, statistics; `generate` only generates, one after the other.",
        f"Medians of {len(results['rows'][0]['seconds'])} runs in turn.",
        "",
        "| | answers/s | compare is faster by |",
        "|---|---:|---:|",
    ]
    for row in results["rows"]:
        ratio = row["compare_is_faster_by"]
        lines.append(
            f"| {row['way']} | {row['answers_per_second']:.0f} | "
            + ("" if row["way"] == "compare" else f"{ratio:.1f} ×")
            + " |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
