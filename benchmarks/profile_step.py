"""Where the time of a decode step goes, before and after: three ways on one model, in turn.

    python benchmarks/profile_step.py [--shape SmolLM2-135M] [--dtype float32] [--prompt 128]
        [--no-compile] [--rounds 10] [--write]

``forward`` is the step of any batch, and once was the only one; ``eager`` and ``compiled`` are
those of minboost/cpu for a single sequence. Each is plain, and boosted on a quarter of the prompt
on all layers and heads. Random weights of known shapes. A turn is a few steps timed from outside,
whose median counts, and as many under a profiler, whose own cost is taken off again: step_parts.py
says how, and what the groups are.

--no-compile leaves ``compiled`` out. --write puts the rows into benchmarks/results/cpu_profile.json
and cpu_profile.md, in place of older ones of the same kind.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from bandwidth import ReadBandwidth, bytes_per_token
from duel import spread
from engines import DTYPES, Job, Minboost
from result_rows import Row, machine, machines, store
from shapes import SHAPES, write
from step_parts import LIBRARY, OPERATORS, TURN, calls, inside, memory, parts, timed

from minboost.cpu import prepare

NAME = "cpu_profile"
DEFAULT_SHAPES = ("SmolLM2-135M", "Llama-3.2-1B")
DEFAULT_DTYPES = ("float32", "bfloat16")
WAYS = ("forward", "eager", "compiled")
ABOUT = textwrap.fill(
    "Times are medians in ms of a step behind the prompt, batch 1, the ways in turn; boosted is "
    "× 10 on a quarter of the prompt, on all layers and heads. The ratio is the time by forward "
    "over that of the row, median (range) of the turns'. Calls are those that Python makes in a "
    "step, of operators and of the compiled library; allocations are all that PyTorch's allocator "
    "gives out in it, freed soon or not, and page faults of four steps tell whether the system had "
    "to provide any of it. The columns from products to left add up to the step: "
    "within operators, by kind, or within the library's layers and head; left is Python and the "
    "way into operators. The profiler's own cost is taken off. The floor is the bytes that a step "
    "must read, through the machine's best plain read during the same turns.",
    100,
)
HEAD = ("dtype", "prompt", "boost", "way", "step, ms", "faster by (range)", "calls",
        "allocations", "kB", "page faults", *OPERATORS, *LIBRARY, "left", "floor")  # fmt: skip
Arm = tuple[str, bool]  # the way, and whether it is boosted


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or each profile says that it began and ended
    torch.set_num_threads(options.threads)
    bandwidth = ReadBandwidth()
    rows: list[Row] = []
    for shape, dtype in itertools.product(options.shape, options.dtype):
        print(f"{shape} {dtype} ", end="", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            write(shape, Path(folder), dtype=getattr(torch, dtype.replace("int8", "bfloat16")))
            length = options.prompt + 1 + TURN
            engine = Minboost(Job("minboost", folder, dtype, options.threads, length))
        needed = bytes_per_token(engine.model.config, dtype, context=options.prompt, blocks=False)
        common = {"shape": shape, "dtype": dtype, "threads": options.threads}
        common |= {"prompt": options.prompt, "bytes_per_token": needed, "machine": machine()}
        arms = start(engine, options.prompt, compile=options.compile)
        found = measure(arms, options.rounds, bandwidth)
        rows += [{**common, **row, "bandwidth": bandwidth.best} for row in found]
        print(file=sys.stderr)
        del engine, arms  # before the next model comes
    command = f"python benchmarks/{Path(__file__).name} --write"
    print(markdown(rows, command))
    if options.write:
        store(NAME, command, rows, key=key, markdown=markdown)
    return 0


def start(engine: Minboost, prompt: int, *, compile: bool) -> dict[Arm, Minboost]:
    """Engines on one model, each with a decoder of its own behind the prompt."""
    model = engine.model
    ways = {"forward": None, "eager": model.row}
    if compile:
        prepare(model, compile=True)
        ways["compiled"] = model.row
    generator = torch.Generator().manual_seed(prompt)
    ids = torch.randint(model.config.vocab_size, (prompt,), generator=generator).tolist()
    arms: dict[Arm, Minboost] = {}
    for (way, row), boosted in itertools.product(ways.items(), (False, True)):
        arms[way, boosted] = engine.sharing(boosted=boosted)
        model.row = row  # the decoder, which prefill makes, asks for it then and never again
        arms[way, boosted].prefill(ids, 1 + TURN)
    return arms


def measure(arms: dict[Arm, Minboost], rounds: int, bandwidth: ReadBandwidth) -> list[Row]:
    """A row for each arm, the forward ones among them."""
    walls: dict[Arm, list[float]] = {arm: [] for arm in arms}
    insides: dict[Arm, list[dict[str, float]]] = {arm: [] for arm in arms}
    order = list(arms)
    bandwidth.samples.clear()
    for number in range(1 + rounds):
        bandwidth.sample()
        for arm in order:
            wall, found = timed(arms[arm]), inside(arms[arm], compiled=arm[0] == "compiled")
            if number:  # the first turn is a warm-up
                walls[arm].append(wall)
                insides[arm].append(found)
        order.reverse()
        print(".", end="", file=sys.stderr, flush=True)
    return [
        {
            "way": way,
            "boosted": boosted,
            "wall": spread(walls[way, boosted]),
            "ratio": spread(
                [a / b for a, b in zip(walls["forward", boosted], walls[way, boosted], strict=True)]
            ),
            "calls": calls(engine, compiled=way == "compiled"),
            **memory(engine),
            "parts": parts(median(walls[way, boosted]), insides[way, boosted]),
        }
        for (way, boosted), engine in arms.items()
    ]


def key(row: Row) -> tuple[Any, ...]:
    """What makes two rows the same measurement, in the order of the table."""
    shape, dtype = list(SHAPES).index(row["shape"]), DTYPES.index(row["dtype"])
    return shape, row["threads"], dtype, row["prompt"], row["boosted"], WAYS.index(row["way"])


def markdown(rows: Sequence[Row], command: str) -> str:
    lines = ["# Where the time of a decode step goes", "", f"`{command}`", "", ABOUT]
    rows = sorted(rows, key=key)
    for shape in dict.fromkeys(row["shape"] for row in rows):
        lines += ["", f"## {shape}", "", "| " + " | ".join(HEAD) + " |"]
        lines += ["|---|---:|---|---|" + "---:|" * (len(HEAD) - 4)]
        lines += [line(row) for row in rows if row["shape"] == shape]
    return "\n".join([*lines, "", machines(rows), ""])


def line(row: Row) -> str:
    low, high = row["ratio"]["range"]
    ratio = f"{row['ratio']['median']:.2f} × ({low:.2f}–{high:.2f})"
    groups = (*OPERATORS, *LIBRARY, "left")
    cells = [
        row["dtype"],
        str(row["prompt"]),
        "× 10" if row["boosted"] else "plain",
        row["way"],
        milliseconds(row["wall"]["median"]),
        "" if row["way"] == "forward" else ratio,
        str(row["calls"]),
        str(row["allocations"]),
        f"{row['allocated'] / 1e3:.0f}",
        "" if row["page_faults"] is None else str(row["page_faults"]),
        *(milliseconds(row["parts"][name]) if name in row["parts"] else "" for name in groups),
        milliseconds(row["bytes_per_token"] / row["bandwidth"]),
    ]
    return "| " + " | ".join(cells) + " |"


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", action="append", choices=SHAPES)
    parser.add_argument("--dtype", action="append", choices=DTYPES)
    parser.add_argument("--prompt", type=int, default=128, help="tokens")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", action="store_true", help=f"write benchmarks/results/{NAME}.*")
    options = parser.parse_args(argv)
    if options.rounds < 1 or options.prompt < 1:
        parser.error("--rounds and --prompt must be at least 1")
    options.shape = options.shape or list(DEFAULT_SHAPES)
    options.dtype = options.dtype or list(DEFAULT_DTYPES)
    return options


if __name__ == "__main__":
    sys.exit(main())
