"""minboost on a CPU against transformers, TransformerLens and llama.cpp, on the same weights.

    python benchmarks/cpu.py [--shape SmolLM2-135M] [--dtype float32] [--prompt 128+64]
        [--engine llama.cpp] [--ours compile] [--starts 3] [--rounds 2] [--seconds 5] [--write]

Random weights of known shapes, written once; the same ids, threads and matrices' dtype; greedy, the
end token ignored. Two engines at a time, each in a process of its own, take turns: prefill, then
decode 16 steps at a time, in an order that is turned round every time; ratios are taken within a
turn. One process of an engine is faster than the next, by a tenth at times: both are started anew
several times, and the turns of all starts count together. Boosted engines (transformers with a
float mask, TransformerLens with hooks) meet minboost with the same boost, the others meet it plain.
Logits and tokens of the two are compared as well.

Without options every combination, about two hours on two idle cores; --shape, --dtype, --prompt,
--engine and --ours choose among them. (transformers-mask-sdpa, whose mask goes into SDPA, only by
name: it differs little from transformers-mask.) --write puts the rows into
benchmarks/results/cpu.json and cpu.md as they come, in place of older ones of the same kind.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from bandwidth import ReadBandwidth, bytes_per_token
from cpu_table import key, markdown
from duel import Duel, duel, pooled
from engine_process import EngineError, EngineProcess, missing
from engines import BOOSTED, DTYPES, ENGINES, Job
from gguf_file import gguf_of
from result_rows import Row, lengths, machine, store
from shapes import SHAPES, write

from minboost.config import ModelConfig

NAME = "cpu"
DEFAULT_SHAPES = ("SmolLM2-135M", "Llama-3.2-1B")
PROMPTS = ((128, 64), (2048, 32))
OURS = ("eager", "compile")
RIVALS = tuple(name for name in ENGINES if name != "minboost")
DEFAULT_RIVALS = tuple(name for name in RIVALS if name != "transformers-mask-sdpa")
Kind = tuple[str, str, str, str]  # shape, dtype, ours, rival
Lengths = tuple[int, int]  # tokens of a prompt, and new ones


@dataclass
class Start:
    """What came of one start of two engines with one prompt.

    ``engines``, by side: the peak of memory so far, and how the engine was loaded.
    """

    duel: Duel
    engines: dict[str, dict[str, Any]]


def possible(kind: Kind) -> bool:
    """Is there such a row at all? Only llama.cpp has int8 matrices."""
    _, dtype, _, rival = kind
    return dtype != "int8" or rival == "llama.cpp"


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    torch.set_num_threads(options.threads)
    bandwidth = ReadBandwidth()
    command = f"python benchmarks/{NAME}.py --write"
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
                new = list(measure(kind, options.prompt, folder, options, bandwidth))
                rows += new
                if options.write:  # at once: the rest may take hours
                    store(NAME, command, new, key=key, markdown=markdown)
    print(markdown(rows, command))
    return 0


def measure(
    kind: Kind,
    prompts: Sequence[Lengths],
    folder: Path,
    options: argparse.Namespace,
    bandwidth: ReadBandwidth,
) -> Iterator[Row]:
    """The rows of one pair of engines, which are loaded once a start for all prompts."""
    shape, dtype, ours, rival = kind
    boosted = rival in BOOSTED
    length = max(prompt + new for prompt, new in prompts)
    job = Job("minboost", str(folder), dtype, options.threads, length, boosted, ours == "compile")
    common = {"shape": shape, "dtype": dtype, "ours": ours, "rival": rival, "boosted": boosted,
              "threads": options.threads, "machine": machine()}  # fmt: skip
    config = ModelConfig.from_folder(folder)
    starts: dict[Lengths, list[Start]] = {at: [] for at in sorted(prompts)}
    failed = None
    try:
        for _ in range(options.starts):
            for at, start in meet(job, rival, list(starts), config, options, bandwidth):
                starts[at].append(start)
                ratio = pooled([start.duel])["decode"]["by_start"][0]
                print(f"{' '.join(kind)} {at[0]}+{at[1]}  {ratio:.2f} x", file=sys.stderr)
    except EngineError as error:
        failed = str(error)
        print(f"{' '.join(kind)}  {failed}", file=sys.stderr)
    for (prompt, new), of in starts.items():
        row = {**common, "prompt": prompt, "new": new}
        if of:
            row |= pooled([start.duel for start in of])
            row |= engines(of, row, config, bandwidth.best)
        else:
            row["error"] = failed
        yield row


def meet(
    job: Job,
    rival: str,
    prompts: Sequence[Lengths],
    config: ModelConfig,
    options: argparse.Namespace,
    bandwidth: ReadBandwidth,
) -> Iterator[tuple[Lengths, Start]]:
    """Start minboost for ``job`` and its rival, and let them do every prompt."""
    with ExitStack() as stack:
        # The rival first: where it is not installed, nothing is started at all.
        them = stack.enter_context(EngineProcess(replace(job, engine=rival, compile=False)))
        us = stack.enter_context(EngineProcess(job))
        for prompt, new in prompts:  # ascending: the peak of memory only grows
            seed = torch.Generator().manual_seed(prompt)
            ids = torch.randint(config.vocab_size, (prompt,), generator=seed).tolist()
            found = duel(us, them, ids, new, rounds=options.rounds, seconds=options.seconds,
                         bandwidth=bandwidth)  # fmt: skip
            sides = {"ours": us, "theirs": them}
            said = {side: {**of.finish(), "loading": of.loaded} for side, of in sides.items()}
            yield (prompt, new), Start(found, said)


def engines(
    starts: Sequence[Start], row: Row, config: ModelConfig, bandwidth: float
) -> dict[str, Any]:
    """What the row says of each engine: its memory, and its share of the machine's bandwidth."""
    found: dict[str, Any] = {"bandwidth": bandwidth, "engines": {}}
    for name, engine in (("ours", "minboost"), ("theirs", row["rival"])):
        of = [start.engines[name] for start in starts]
        needed = bytes_per_token(
            config,
            row["dtype"],
            context=row["prompt"] + row["new"] / 2,
            blocks=engine == "llama.cpp",
        )
        found["engines"][name] = {
            **of[0],
            "peak": max((one["peak"] for one in of if one["peak"] is not None), default=None),
            "waiting": max(one["waiting"] for one in of),
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
    parser.add_argument("--starts", type=int, default=3, help="of each pair of engines")
    parser.add_argument("--rounds", type=int, default=2, help="passes a start, at least one")
    parser.add_argument("--seconds", type=float, default=5, help="after which no pass begins")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", action="store_true", help=f"write benchmarks/results/{NAME}.*")
    options = parser.parse_args(argv)
    for name in ("starts", "rounds"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(options, name)}")
    options.shape = options.shape or list(DEFAULT_SHAPES)
    options.dtype = options.dtype or list(DTYPES)
    options.prompt = options.prompt or list(PROMPTS)
    options.engine = options.engine or list(DEFAULT_RIVALS)
    options.ours = options.ours or list(OURS)
    return options


if __name__ == "__main__":
    sys.exit(main())
