"""How long minboost takes to start: for --help, and to the demo model's first token.

    python benchmarks/start.py [--runs 11]

Each run is a process of its own, and the kinds of process take turns. ``benchmarks/load.py`` puts
the same figures into its results.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

RUNS = 11
NAMES = {
    "python": "Python itself, doing nothing",
    "help": "`python -m minboost.generate --help`, above that",
    "torch": "`import torch`",
    "first_token": "the demo model's first token, after that",
}
TARGETS = {"help": 0.3, "first_token": 1.5}

# Loading is part of it, as is making the plan of the boost.
ANSWER = """
import json, time
began = time.perf_counter()
import torch
there = time.perf_counter()
import minboost
lm = minboost.load("demo", device="cpu")
stream = lm.stream(instruction="Answer in French.", query="What colour is the sky?",
                   boost=minboost.Boost(10.0))
next(stream)
first = time.perf_counter()
for _ in stream:
    pass
print(json.dumps({"torch": there - began, "first_token": first - there}))
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=RUNS)
    options = parser.parse_args(argv)
    print(markdown(measure(options.runs)))
    return 0


def measure(runs: int) -> list[dict[str, Any]]:
    """A row for each of NAMES: all its seconds, and their median."""
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    process("-c", ANSWER)  # from here on all files are in memory
    for run in range(runs):
        python = process("-c", "pass")[0]
        seconds["python"].append(python)
        help_, text = process("-m", "minboost.generate", "--help")
        assert "Usage:" in text
        seconds["help"].append(help_ - python)
        for name, value in json.loads(process("-c", ANSWER)[1]).items():
            seconds[name].append(value)
        print(f"start: {run + 1} of {runs} runs", file=sys.stderr, flush=True)
    return [
        {
            "what": name,
            "seconds": [round(value, 4) for value in of],
            "median": round(statistics.median(of), 4),
            "target": TARGETS.get(name),
        }
        for name, of in seconds.items()
    ]


def process(*arguments: str) -> tuple[float, str]:
    """Seconds of a whole Python process, and what it printed."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"python {' '.join(arguments)} failed:\n{done.stderr}")
    return seconds, done.stdout


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| | seconds | from | to | target |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        low, high = min(row["seconds"]), max(row["seconds"])
        target = "" if row["target"] is None else f"≤ {row['target']:.1f}"
        lines.append(
            f"| {NAMES[row['what']]} | {row['median']:.3f} | {low:.3f} | {high:.3f} | {target} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
