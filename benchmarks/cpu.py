"""minboost on a CPU against transformers, TransformerLens and llama.cpp, on the same weights.

    python benchmarks/cpu.py [--shape SmolLM2-135M] [--dtype float32] [--prompt 128+64]
        [--engine llama.cpp] [--ours compile] [--rounds 3] [--seconds 15] [--write]

Random weights of known shapes, written once; the same ids, threads and matrices' dtype; greedy, the
end token ignored. Two engines at a time, each in a process of its own, take turns: prefill, then
decode 16 steps at a time, in an order that is turned round every time; ratios are taken within a
turn. Boosted engines (transformers with a float mask, TransformerLens with hooks) meet minboost
with the same boost, the others meet it plain. Logits and tokens of the two are compared as well.

Without options every combination, more than an hour on two idle cores; --shape, --dtype, --prompt,
--engine and --ours choose among them. (transformers-mask-sdpa, whose mask goes into SDPA, only by
name: it differs little from transformers-mask.) --write puts the rows into
benchmarks/results/cpu.json and cpu.md, in place of older ones of the same kind.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bandwidth import ReadBandwidth, bytes_per_token
from cpu_table import key, markdown
from duel import duel
from engine_process import EngineError, EngineProcess, missing
from engines import BOOSTED, DTYPES, ENGINES, Job
from gguf_file import gguf_of
from result_rows import Row, lengths, machine, publish
from shapes import SHAPES, write

from minboost.config import ModelConfig

NAME = "cpu"
DEFAULT_SHAPES = ("SmolLM2-135M", "Llama-3.2-1B")
PROMPTS = ((128, 64), (2048, 32))
OURS = ("eager", "compile")
RIVALS = tuple(name for name in ENGINES if name != "minboost")
DEFAULT_RIVALS = tuple(name for name in RIVALS if name != "transformers-mask-sdpa")
Kind = tuple[str, str, str, str]  # shape, dtype, ours, rival


def possible(kind: Kind) -> bool:
    """Is there such a row at all? Only llama.cpp has int8 matrices."""
    _, dtype, _, rival = kind
    return dtype != "int8" or rival == "llama.cpp"


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    torch.set_num_threads(options.threads)
    bandwidth = ReadBandwidth()
    rows: list[Row] = []
    for shape, dtype in itertools.product(options.shape, options.dtype):
        kinds = itertools.product((shape,), (dtype,), options.ours, options.engine)
        chosen = [kind for kind in kinds if possible(kind)]
        if not chosen:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            print(f"writing {shape}, {dtype}", file=sys.stderr, flush=True)
            write(shape, folder, dtype=torch.float32 if dtype == "float32" else torch.bfloat16)
            if any(kind[3] == "llama.cpp" for kind in chosen) and not missing("llama.cpp"):
                gguf_of(folder, dtype)  # here, so that it does not count as an engine's memory
            for kind in chosen:
                rows += measure(kind, options.prompt, folder, options, bandwidth)
    command = f"python benchmarks/{NAME}.py --write"
    publish(NAME, command, rows, key=key, markdown=markdown, keep=options.write)
    return 0


def measure(
    kind: Kind,
    prompts: Sequence[tuple[int, int]],
    folder: Path,
    options: argparse.Namespace,
    bandwidth: ReadBandwidth,
) -> Iterator[Row]:
    """The rows of one pair of engines, which are loaded once for all prompts."""
    shape, dtype, ours, rival = kind
    boosted = rival in BOOSTED
    length = max(prompt + new for prompt, new in prompts)
    job = Job("minboost", str(folder), dtype, options.threads, length, boosted, ours == "compile")
    common = {"shape": shape, "dtype": dtype, "ours": ours, "rival": rival, "boosted": boosted,
              "threads": options.threads, "machine": machine()}  # fmt: skip
    config = ModelConfig.from_folder(folder)
    failed = None
    with ExitStack() as stack:
        try:
            # The rival first: where it is not installed, nothing is started at all.
            them = stack.enter_context(EngineProcess(replace(job, engine=rival, compile=False)))
            us = stack.enter_context(EngineProcess(job))
        except EngineError as error:
            failed = str(error)
        for prompt, new in sorted(prompts):  # ascending: the peak of memory only grows
            print(f"{' '.join(kind)} {prompt}+{new} ", end="", file=sys.stderr, flush=True)
            row = {**common, "prompt": prompt, "new": new}
            ids = torch.randint(
                config.vocab_size, (prompt,), generator=torch.Generator().manual_seed(prompt)
            ).tolist()
            if not failed:
                try:
                    row |= duel(us, them, ids, new, rounds=options.rounds, seconds=options.seconds,
                                bandwidth=bandwidth)  # fmt: skip
                    row |= engines(us, them, row, config, bandwidth.best)
                except EngineError as error:
                    failed = str(error)
            if failed:
                row["error"] = failed
            print(failed or f" {row['decode']['ratio']['median']:.2f} x", file=sys.stderr)
            yield row


def engines(
    ours: EngineProcess,
    theirs: EngineProcess,
    row: Row,
    config: ModelConfig,
    bandwidth: float,
) -> dict[str, Any]:
    """What the row says of each engine: its memory, and its share of the machine's bandwidth."""
    found: dict[str, Any] = {"bandwidth": bandwidth, "engines": {}}
    for name, engine in (("ours", ours), ("theirs", theirs)):
        needed = bytes_per_token(
            config,
            row["dtype"],
            context=row["prompt"] + row["new"] / 2,
            blocks=engine.job.engine == "llama.cpp",
        )
        found["engines"][name] = {
            **engine.finish(),
            "loading": engine.loaded,
            "bytes_per_token": needed,
            "share": row["decode"][name]["median"] * needed / bandwidth,
        }
    return found


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", action="append", choices=SHAPES)
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="of the matrices")
    parser.add_argument("--prompt", action="append", type=lengths, metavar="PROMPT+NEW")
    parser.add_argument("--engine", action="append", choices=RIVALS, help="the rival")
    parser.add_argument("--ours", action="append", choices=OURS, help="how minboost runs")
    parser.add_argument("--rounds", type=int, default=3, help="passes at most, at least one")
    parser.add_argument("--seconds", type=float, default=15, help="after which no pass begins")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", action="store_true", help=f"write benchmarks/results/{NAME}.*")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    options.shape = options.shape or list(DEFAULT_SHAPES)
    options.dtype = options.dtype or list(DTYPES)
    options.prompt = options.prompt or list(PROMPTS)
    options.engine = options.engine or list(DEFAULT_RIVALS)
    options.ours = options.ours or list(OURS)
    return options


if __name__ == "__main__":
    sys.exit(main())
