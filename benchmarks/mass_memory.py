"""Peak memory of measuring the attention mass, by prompt length: what a token more costs.

    python benchmarks/mass_memory.py [--write]

A small random model on the CPU, one forward in a process of its own: plain; boosted; boosted with
the mass of the last 64 rows (what `minboost inspect` takes of a 64-token answer); and with the mass
of every row. The peak is the process's peak resident memory, the median of the runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from machine import describe

LENGTHS = (512, 1024, 2048, 4096, 8192)
FORWARDS = ("plain", "boosted", "measured", "every_row")
SHAPE = {
    "model_type": "llama",
    "vocab_size": 256,
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 8192,
}
ROWS, SPAN, MULTIPLIER = 64, (4, 24), 10.0
NAME = "mass_memory"
# glibc then returns what is freed at once; else its free lists make the peak a matter of luck.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536"}

CHILD = """
import json, resource, sys
import torch
from minboost import Boost, Span
from minboost.config import ModelConfig
from minboost.model import Transformer
from minboost.plan import Plan, sequence_plan
shape, span, multiplier, rows, length, forward = json.loads(sys.argv[1])
torch.set_num_threads(1)
config = ModelConfig.from_dict(shape)
model = Transformer(config).eval()
g = torch.Generator().manual_seed(0)
with torch.no_grad():
    for parameter in model.parameters():
        parameter.normal_(std=0.04, generator=g)
sequence = sequence_plan([(Boost(multiplier), [Span(*span)])], **config.size)
plan = Plan.build([sequence], **config.size, device=torch.device("cpu"))
ids = torch.randint(0, config.vocab_size, (1, length), generator=g)
options = {
    "plain": {},
    "boosted": {"plan": plan},
    "measured": {"plan": plan, "return_mass": True, "rows": range(length - rows, length)},
    "every_row": {"plan": plan, "return_mass": True},
}[forward]
with torch.inference_mode():
    model(ids[:, :128], plan=plan, return_mass=True)  # what is set up once
    out = model(ids, **options)
assert out.hidden.isfinite().all()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak * (1 if sys.platform == "darwin" else 1024))
"""


def peak(length: int, forward: str) -> int:
    """Peak resident bytes of a process that does one ``forward`` over ``length`` tokens."""
    arguments = json.dumps([SHAPE, SPAN, MULTIPLIER, ROWS, length, forward])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, arguments],
        capture_output=True,
        text=True,
        env=os.environ | ALLOCATOR,
    )
    if done.returncode:
        sys.exit(f"{forward} at {length} tokens failed:\n{done.stderr}")
    return int(done.stdout)


def row_of(length: int, runs: int) -> dict[str, Any]:
    peaks: dict[str, list[int]] = {name: [] for name in FORWARDS}
    for _ in range(runs):
        for name in FORWARDS:  # in turn, so that what drifts drifts for all
            peaks[name].append(peak(length, name))
    middle = {name: int(statistics.median(values)) for name, values in peaks.items()}
    # One layer's weights of one forward; a hook that keeps every layer's holds L of them.
    matrix = 4 * SHAPE["num_attention_heads"] * length * length
    return {
        "tokens": length,
        "peak_bytes": middle,
        "peak_bytes_range": {name: [min(v), max(v)] for name, v in peaks.items()},
        "extra_bytes_per_token": {
            name: round((middle[name] - middle["plain"]) / length) for name in FORWARDS[1:]
        },
        "one_layers_matrix_bytes": matrix,
        "all_layers_matrices_bytes": matrix * SHAPE["num_hidden_layers"],
    }


def line(row: dict[str, Any]) -> str:
    peaks, extra = row["peak_bytes"], row["extra_bytes_per_token"]
    cells = [
        str(row["tokens"]),
        *(f"{peaks[name] / 1e6:.0f}" for name in FORWARDS),
        *(f"{extra[name] / 1e3:.1f}" for name in FORWARDS[1:]),
        f"{row['all_layers_matrices_bytes'] / row['tokens'] / 1e3:.0f}",
        f"{row['all_layers_matrices_bytes'] / 1e6:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def markdown(results: dict[str, Any]) -> str:
    machine = results["machine"]
    return "\n".join(
        [
            "# Memory of measuring the attention mass",
            "",
            f"`{results['command']}`: one forward of a random Llama of "
            f"{SHAPE['num_hidden_layers']} layers, {SHAPE['num_attention_heads']} heads of "
            f"{SHAPE['head_dim']} ({SHAPE['num_key_value_heads']} KV heads), hidden size "
            f"{SHAPE['hidden_size']}, float32, torch implementation, one thread, in a process of "
            f"its own; peak resident memory, median of {results['runs']}. Measured: the mass of "
            f"the last {ROWS} rows on a boosted span, as `minboost inspect` takes it; every row: "
            "the mass of all rows. Extra is what a token costs over the plain forward; matrices "
            "are the attention weights of all layers, float32, which a hook on them would hold.",
            "",
            "| tokens | plain (MB) | boosted (MB) | measured (MB) | every row (MB) "
            "| extra, boosted (kB per token) | extra, measured (kB per token) "
            "| extra, every row (kB per token) | matrices (kB per token) | matrices (MB) |",
            "|---:" * 10 + "|",
            *map(line, results["rows"]),
            "",
            f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, "
            f"torch {machine['versions']['torch']}.",
            "",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tokens", type=int, action="append")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"write benchmarks/results/{NAME}.*")
    args = parser.parse_args(argv)
    rows = []
    for length in args.tokens or LENGTHS:
        rows.append(row_of(length, args.runs))
        print(line(rows[-1]), file=sys.stderr, flush=True)
    results = {
        "command": "python benchmarks/mass_memory.py --write",
        "machine": describe(),
        "shape": SHAPE,
        "runs": args.runs,
        "boost": {"multiplier": MULTIPLIER, "span": SPAN},
        "measured_rows": ROWS,
        "rows": rows,
    }
    table = markdown(results)
    print(table)
    if args.write:
        path = Path(__file__).parent / "results" / NAME
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
        path.with_suffix(".md").write_text(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
