"""Time and peak memory of loading a checkpoint, and how long minboost takes to start.

    python benchmarks/load.py [--shape SmolLM2-135M] [--runs 3] [--write]

Each load runs in a process of its own, minboost and (where it is installed) transformers in turn,
after a small warm-up load, with the files in the page cache. The peak is that of the process
(VmHWM), less what was resident before, as a multiple of the weights. A library may map the files
and read them when they are first used; "first touch" is what that then costs: reading one number of
every page of the weights. It counts for the peak too. start.py measures the start.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import start
from machine import describe
from shapes import SHAPES, write

NAME = "load"
RESULTS = Path(__file__).parent / "results"
DEFAULT = ("SmolLM2-135M", "Llama-3.2-1B")  # larger ones, tens of GB on disk, only by name
FILE_DTYPE = "bfloat16"
# (dtype, quantize): transformers has no int8 of its own for the CPU.
MODES = (("bfloat16", None), ("float32", None), ("bfloat16", "int8"))

CHILD = """
import json, sys, time
from pathlib import Path
import torch
library, folder, warm, dtype, quantize = sys.argv[1:]
dtype, quantize = getattr(torch, dtype), quantize or None

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

def load(folder):
    if library == "minboost":
        from minboost.checkpoint import load_model
        from minboost.config import ModelConfig
        folder = Path(folder)
        return load_model(folder, ModelConfig.from_folder(folder), device=torch.device("cpu"),
                          dtype=dtype, quantize=quantize)
    from transformers import AutoModelForCausalLM
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)

@torch.no_grad()
def touch(model):
    return sum(p.view(-1)[::4096 // p.itemsize].sum().item() for p in model.parameters())

touch(load(warm))
before, began = peak(), time.perf_counter()
model = load(folder)
loaded = time.perf_counter()
touch(model)
touched = time.perf_counter()
weights = sum(p.nbytes for p in model.parameters())
print(json.dumps({"ratio": (peak() - before) / weights, "weights": weights,
                  "seconds": loaded - began, "touch": touched - loaded}))
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--runs", type=int, default=3, help="of each load")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/load.*")
    options = parser.parse_args(argv)
    libraries = ["minboost"]
    if importlib.util.find_spec("transformers") is not None:
        libraries.append("transformers")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        warm = Path(scratch) / "warm"
        SHAPES["warm"] = {**SHAPES["SmolLM2-135M"], "vocab_size": 64, "num_hidden_layers": 1}
        make("warm", warm, shards=1)
        for shape in options.shape or DEFAULT:
            for shards in (1, 4):
                folder = Path(scratch) / f"{shape}-{shards}"
                make(shape, folder, shards=shards)
                for mode in MODES:
                    some = libraries if mode[1] is None else ["minboost"]
                    for library, runs in load(some, mode, folder, warm, options.runs).items():
                        about = {"library": library, "shape": shape, "shards": shards}
                        rows.append(row(about, mode, runs))
                        print(line(rows[-1]), file=sys.stderr, flush=True)
    results = report(rows, start.measure(start.RUNS), sys.argv[1:] if argv is None else argv)
    table = markdown(results)
    print(table)
    if options.write:
        text = json.dumps(results, indent=1) + "\n"
        (RESULTS / f"{NAME}.json").write_text(text, encoding="utf-8")
        (RESULTS / f"{NAME}.md").write_text(table, encoding="utf-8")
    return 0


def make(shape: str, folder: Path, *, shards: int) -> None:
    """A checkpoint of that shape in a new folder."""
    folder.mkdir()
    write(shape, folder, shards=shards)


def load(
    libraries: list[str], mode: tuple[str, str | None], folder: Path, warm: Path, runs: int
) -> dict[str, list[dict[str, float]]]:
    """What each library's processes measured, which take turns."""
    found: dict[str, list[dict[str, float]]] = {library: [] for library in libraries}
    for _ in range(runs):
        for library in libraries:
            arguments = (library, str(folder), str(warm), mode[0], mode[1] or "")
            found[library].append(json.loads(start.process("-c", CHILD, *arguments)[1]))
    return found


def row(
    about: dict[str, Any], mode: tuple[str, str | None], runs: list[dict[str, float]]
) -> dict[str, Any]:
    def median(name: str) -> float:
        return round(statistics.median(run[name] for run in runs), 3)

    return {
        **about,
        "file_dtype": FILE_DTYPE,
        "dtype": mode[0],
        "quantize": mode[1],
        "weights_bytes": int(runs[0]["weights"]),
        "peak_over_weights": median("ratio"),
        "peak_over_weights_max": round(max(run["ratio"] for run in runs), 3),
        "seconds": median("seconds"),
        "seconds_min": round(min(run["seconds"] for run in runs), 3),
        "touch_seconds": median("touch"),
        "runs": len(runs),
    }


def kept(row: dict[str, Any]) -> str:
    """In what the weights are kept."""
    return str(row["quantize"] or row["dtype"])


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['library']:13} {row['shape']:13} {row['shards']} file(s)  {FILE_DTYPE} -> "
        f"{kept(row):9} {row['seconds']:.2f} s + {row['touch_seconds']:.2f} s, peak "
        f"{row['peak_over_weights']:.2f} x weights (max {row['peak_over_weights_max']:.2f})"
    )


def report(
    rows: list[dict[str, Any]], started: list[dict[str, Any]], arguments: list[str]
) -> dict[str, Any]:
    return {
        "command": " ".join(["python benchmarks/load.py", *arguments]),
        "machine": describe(),
        "rows": rows,
        "start": started,
    }


def markdown(results: dict[str, Any]) -> str:
    rows = results["rows"]
    lines = [
        "# Loading and starting",
        "",
        f"`{results['command']}`, on {results['machine']['cores']} cores.",
        "",
        f"Checkpoints of random weights in {FILE_DTYPE}, in the page cache; medians of",
        f"{rows[0]['runs']} processes in turn. First touch is what the first use adds where a",
        "library maps its files; peak is resident memory at most, over the weights.",
        "",
        "| shape | files | kept in | library | load, s | first touch, s | peak | at most |",
        "|---|---:|---|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['shape']} | {row['shards']} | {kept(row)} | {row['library']} "
        f"| {row['seconds']:.2f} | {row['touch_seconds']:.2f} | {row['peak_over_weights']:.2f} × "
        f"| {row['peak_over_weights_max']:.2f} × |"
        for row in rows
    ]
    runs = len(results["start"][0]["seconds"])
    lines += ["", f"Starting: medians of {runs} processes in turn, on the CPU.", ""]
    return "\n".join(lines) + "\n" + start.markdown(results["start"])


if __name__ == "__main__":
    sys.exit(main())
