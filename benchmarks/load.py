"""Peak resident memory and time of loading a checkpoint, as a multiple of its weights.

    python benchmarks/load.py [--shape SmolLM2-135M] [--runs 3] [--write]

Each load runs in a process of its own, minboost and (where it is installed) transformers in turn,
after a small warm-up load; the peak is that of the process (VmHWM), less what was resident before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from machine import describe
from shapes import SHAPES, write

DEFAULT = ("SmolLM2-135M", "Llama-3.2-1B")  # larger ones, tens of GB on disk, only by name

CHILD = """
import json, sys, time
from pathlib import Path
import torch
library, folder, warm, dtype = sys.argv[1:]
dtype = getattr(torch, dtype)

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

def load(folder):
    if library == "minboost":
        from minboost.checkpoint import load_model
        from minboost.config import ModelConfig
        folder = Path(folder)
        return load_model(folder, ModelConfig.from_folder(folder),
                          device=torch.device("cpu"), dtype=dtype)
    from transformers import AutoModelForCausalLM
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)

load(warm)
before, began = peak(), time.perf_counter()
model = load(folder)
seconds = time.perf_counter() - began
total = sum(p.sum().item() for p in model.parameters())  # touch every page that is mapped
weights = sum(p.nbytes for p in model.parameters())
print(json.dumps({"ratio": (peak() - before) / weights, "seconds": seconds, "weights": weights}))
"""


def run(library: str, folder: Path, warm: Path, dtype: str) -> dict[str, float]:
    command = [sys.executable, "-c", CHILD, library, str(folder), str(warm), dtype]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{library} failed:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/load.json")
    args = parser.parse_args()
    try:
        import transformers  # noqa: F401

        libraries = ["minboost", "transformers"]
    except ImportError:
        libraries = ["minboost"]
    rows = []
    shapes = args.shape or DEFAULT
    with tempfile.TemporaryDirectory() as scratch:
        warm = Path(scratch) / "warm"
        warm.mkdir()
        SHAPES["warm"] = {**SHAPES["SmolLM2-135M"], "vocab_size": 64, "num_hidden_layers": 1}
        write("warm", warm)
        for shape in shapes:
            for shards in (1, 4):
                folder = Path(scratch) / f"{shape}-{shards}"
                folder.mkdir()
                write(shape, folder, shards=shards)
                for dtype in ("bfloat16", "float32"):
                    runs: dict[str, list[dict[str, float]]] = {name: [] for name in libraries}
                    for _ in range(args.runs):
                        for library in libraries:
                            runs[library].append(run(library, folder, warm, dtype))
                    for library, results in runs.items():
                        ratios = [result["ratio"] for result in results]
                        seconds = [result["seconds"] for result in results]
                        rows.append(
                            {
                                "library": library,
                                "shape": shape,
                                "shards": shards,
                                "file_dtype": "bfloat16",
                                "dtype": dtype,
                                "weights_bytes": int(results[0]["weights"]),
                                "peak_over_weights": round(statistics.median(ratios), 3),
                                "peak_over_weights_max": round(max(ratios), 3),
                                "seconds": round(statistics.median(seconds), 3),
                            }
                        )
                        print(
                            f"{library:13} {shape:13} {shards} shard(s)  bfloat16 -> {dtype:9}"
                            f"peak {rows[-1]['peak_over_weights']:.2f} x weights "
                            f"(max {rows[-1]['peak_over_weights_max']:.2f}), "
                            f"{rows[-1]['seconds']:.2f} s",
                            flush=True,
                        )
    if args.write:
        path = Path(__file__).parent / "results" / "load.json"
        path.parent.mkdir(exist_ok=True)
        command = "python benchmarks/load.py " + " ".join(sys.argv[1:])
        path.write_text(
            json.dumps({"command": command, "machine": describe(), "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
