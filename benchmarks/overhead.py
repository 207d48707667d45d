"""What the boost costs: minboost boosted against minboost plain, in one process on one model.

    python benchmarks/overhead.py [--shape SmolLM2-135M] [--dtype float32] [--prompt 128+64]
        [--compile] [--rounds 12] [--seconds 45] [--write]

Two decoders of the same model, one of them boosted on a quarter of the prompt on all layers and
heads, take turns of four decode steps, and so does a third that is plain as well: its ratio to the
first shows how much of a difference this measurement sees where there is none. The order goes round
with every turn. Each ratio is that of two neighbours in time; given are the median and the 95 %
interval of that median by bootstrap. Prefills take turns too, plain and boosted only; making the
plan is part of them.

Random weights of known shapes, batch 1. --compile measures the compiled decode step in place of the
eager one. --write puts the rows into benchmarks/results/overhead.json and overhead.md, in place of
older ones of the same kind.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from duel import spread
from engines import Job, Minboost
from result_rows import Row, lengths, machine, machines, store
from shapes import SHAPES, write

from minboost.config import ModelConfig

NAME = "overhead"
DEFAULT_SHAPES = ("SmolLM2-135M", "Llama-3.2-1B")
DTYPES = ("float32", "bfloat16")
PROMPTS = ((128, 64), (2048, 32))
TURN = 4  # decode steps
DECODE, PREFILL = 0.995, 0.90  # targets: boosted over plain, in tokens/s
ABOUT = textwrap.fill(
    "One model of random weights, batch 1; plain and boosted (× 10 on a quarter of the prompt, on "
    f"all layers and heads) in turns of {TURN} decode steps. Ratios are boosted over plain in "
    "tokens/s: the median of the turns' and its 95 % interval. The control is plain over plain, "
    "measured in the same turns.",
    100,
)
ARMS = ("plain", "boosted", "again")


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    for shape, dtype in itertools.product(options.shape, options.dtype):
        with tempfile.TemporaryDirectory() as scratch:
            print(f"writing {shape}, {dtype}", file=sys.stderr, flush=True)
            write(shape, Path(scratch), dtype=getattr(torch, dtype))
            arms = load(Path(scratch), dtype, options)
        for prompt, new in options.prompt:
            print(f"{shape} {dtype} {prompt}+{new} ", end="", file=sys.stderr, flush=True)
            row = {
                "shape": shape,
                "dtype": dtype,
                "compile": options.compile,
                "threads": options.threads,
                "prompt": prompt,
                "new": new,
                **measure(arms, prompt, new, rounds=options.rounds, seconds=options.seconds),
                "machine": machine(),
            }
            print(f"{row['decode']['boosted']['ratio']:.4f}", file=sys.stderr, flush=True)
            rows.append(row)
        del arms
    command = f"python benchmarks/{NAME}.py --write"
    print(markdown(rows, command))
    if options.write:
        store(NAME, command, rows, key=key, markdown=markdown)
    return 0


def load(folder: Path, dtype: str, options: argparse.Namespace) -> dict[str, Minboost]:
    """Three engines on one model: nothing but the boost, and the cache, is theirs alone."""
    length = max(prompt + new for prompt, new in options.prompt)
    job = Job("minboost", str(folder), dtype, options.threads, length, False, options.compile)
    first = Minboost(job)
    return {name: first.sharing(boosted=name == "boosted") for name in ARMS}


def measure(
    arms: dict[str, Minboost], prompt: int, new: int, *, rounds: int, seconds: float
) -> dict[str, Any]:
    """Prefills in turn until ``seconds`` have gone by, at least two each; then decoding as long.

    Returns:
        "prefill" and "decode": tokens/s of each arm, and its ratio to plain with its interval.
    """
    config: ModelConfig = arms["plain"].model.config
    ids = torch.randint(
        config.vocab_size, (prompt,), generator=torch.Generator().manual_seed(prompt)
    ).tolist()
    for arm in arms.values():
        arm.prefill(ids[:8], 1)
        arm.step(0)
    pair = {name: arms[name] for name in ("plain", "boosted")}

    def prefill(name: str) -> float:
        began = time.perf_counter()
        tokens[name] = int(arms[name].prefill(ids, new).argmax())
        return prompt / (time.perf_counter() - began)

    def turn(name: str) -> float:
        arm, token = arms[name], tokens[name]
        began = time.perf_counter()
        for _ in range(TURN):
            token = int(arm.step(token).argmax())
        took = time.perf_counter() - began
        tokens[name] = token
        return TURN / took

    tokens: dict[str, int] = {}
    prefills = taking_turns(list(pair), prefill, rounds=rounds, least=2, seconds=seconds)
    prefill("again")
    first = dict(tokens)
    decodes: dict[str, list[float]] = {name: [] for name in arms}
    began = time.perf_counter()
    for number in range(rounds + 1):
        if number > 1 and time.perf_counter() - began > seconds:
            break
        for arm in arms.values():
            arm.rewind()
        tokens.update(first)
        rates = taking_turns(list(arms), turn, rounds=new // TURN, least=new // TURN, seconds=0)
        for name, of in rates.items() if number else ():  # the first pass is a warm-up
            decodes[name] += of
    return {"prefill": against_plain(prefills), "decode": against_plain(decodes)}


def taking_turns(
    names: list[str], act: Callable[[str], float], *, rounds: int, least: int, seconds: float
) -> dict[str, list[float]]:
    """What ``act`` gives of each name, round after round, in an order that goes round."""
    found: dict[str, list[float]] = {name: [] for name in names}
    began = time.perf_counter()
    for number in range(rounds):
        if number >= least and time.perf_counter() - began > seconds:
            break
        at = number % len(names)
        for name in names[at:] + names[:at]:
            found[name].append(act(name))
    return found


def against_plain(rates: dict[str, list[float]]) -> dict[str, Any]:
    """Each arm's tokens/s, and its ratio to plain: the median of the turns', with its interval."""
    found: dict[str, Any] = {}
    for name, of in rates.items():
        found[name] = spread(of)
        if name != "plain":
            ratios = [a / b for a, b in zip(of, rates["plain"], strict=True)]
            found[name]["ratio"] = statistics.median(ratios)
            found[name]["interval"] = bootstrap(ratios)
    return found


def bootstrap(values: Sequence[float], *, draws: int = 2000) -> list[float]:
    """The 95 % interval of the median by the percentile bootstrap."""
    generator = random.Random(0)
    medians = sorted(
        statistics.median(generator.choices(values, k=len(values))) for _ in range(draws)
    )
    return [medians[draws // 40], medians[-1 - draws // 40]]


def key(row: Row) -> tuple[Any, ...]:
    """What makes two rows the same measurement, in the order of the table."""
    shape, dtype = list(SHAPES).index(row["shape"]), DTYPES.index(row["dtype"])
    return shape, row["threads"], dtype, row["compile"], row["prompt"], row["new"]


def markdown(rows: Sequence[Row], command: str) -> str:
    lines = [
        "# What the boost costs on a CPU",
        "",
        f"`{command}`, and the same with `--compile`",
        "",
        ABOUT,
        "",
        f"Targets: decode at least {DECODE}, prefill at least {PREFILL:.2f}.",
        "",
        "| shape | dtype | step | prompt + new | decode, plain tokens/s | boosted / plain "
        "| control | turns | prefill, plain tokens/s | boosted / plain | prefills |",
        "|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
        *map(line, rows),
    ]
    return "\n".join([*lines, "", machines(rows), ""])


def line(row: Row) -> str:
    decode, prefill = row["decode"], row["prefill"]

    def ratio(of: dict[str, Any]) -> str:
        low, high = of["interval"]
        return f"{of['ratio']:.4f} ({low:.4f}–{high:.4f})"

    cells = [
        row["shape"],
        row["dtype"],
        "compiled" if row["compile"] else "eager",
        f"{row['prompt']} + {row['new']}",
        f"{decode['plain']['median']:.1f}",
        ratio(decode["boosted"]),
        ratio(decode["again"]),
        str(decode["plain"]["runs"]),
        f"{prefill['plain']['median']:.0f}",
        ratio(prefill["boosted"]),
        str(prefill["plain"]["runs"]),
    ]
    return "| " + " | ".join(cells) + " |"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", action="append", choices=SHAPES)
    parser.add_argument("--dtype", action="append", choices=DTYPES)
    parser.add_argument("--prompt", action="append", type=lengths, metavar="PROMPT+NEW")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rounds", type=int, default=12, help="passes at most")
    parser.add_argument("--seconds", type=float, default=45, help="after which no pass begins")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", action="store_true", help=f"write benchmarks/results/{NAME}.*")
    options = parser.parse_args(argv)
    options.shape = options.shape or list(DEFAULT_SHAPES)
    options.dtype = options.dtype or list(DTYPES)
    options.prompt = options.prompt or list(PROMPTS)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    for prompt, new in options.prompt:
        if new < TURN:
            parser.error(f"--prompt {prompt}+{new}: at least {TURN} new tokens make a turn")
    return options


if __name__ == "__main__":
    sys.exit(main())
