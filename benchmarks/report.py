"""The report on the demo model: every method at its best, validation and test apart.

    python benchmarks/report.py

Writes benchmarks/results/demo_report.{html,md,png}: a `minboost sweep` over the demo suite with a
grid for each method, the latent baselines, and each head alone, and the `minboost report` of what
it found. A latent direction serves one value of an instruction ("French"), so each case gets that
of its own concept, from the training split. Needs matplotlib (`pip install minboost[plot]`).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from demo_directions import LAYERS, demo_directions

import minboost
from minboost.cli import main as minboost_command
from minboost.directions import KINDS, save_directions

ROOT = Path(__file__).resolve().parents[1]
NAME = "demo_report"
GRIDS = (
    "instaboost multiplier=1.5,2,3,5,7,10,15",
    "instaboost multiplier=5,7,10 span=prefix",
    "instaboost multiplier=7 heads=each",
    "pasta alpha=0.5,0.3,0.15,0.05,0.01",
    "guide delta=0.5,1,1.5,2,2.5",
    "spotlight target=0.2,0.3,0.4,0.5,0.6",
    "spotlight target=0.3,0.5,0.7,0.9 form=published",
)
FACTORS = "4,8,16"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, help="cases of each split; all by default")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args(argv)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    limit = [] if options.limit is None else ["--limit", str(options.limit)]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the commands, which the report states, name relative paths
        try:
            write_directions(Path("directions"))
            grids = [word for grid in (*GRIDS, *latent_grids()) for word in ("--grid", grid)]
            sweep = ["sweep", *grids, "--max-new-tokens", "24", "--results", "demo.jsonl", *limit]
            pages = [f"--{form}={out / NAME}.{end}" for form, end in
                     (("html", "html"), ("markdown", "md"), ("png", "png"))]  # fmt: skip
            return minboost_command([*sweep, "--device", "cpu"]) or minboost_command(
                ["report", "demo.jsonl", *pages]
            )
        finally:
            os.chdir(ROOT)


def latent_grids() -> list[str]:
    """One grid a kind of direction: its layer is chosen with its factor."""
    path = "directions=directions/{concept}.safetensors"
    return [
        f"latent {path} direction=" + "|".join(f"{kind}.{layer}" for layer in LAYERS)
        + ("" if kind == "projection" else f" factor={FACTORS}")
        for kind in KINDS
    ]  # fmt: skip


def write_directions(folder: Path) -> None:
    """A file of directions for each concept of the demo world."""
    folder.mkdir()
    for concept, directions in demo_directions(minboost.load("demo", device="cpu")).items():
        save_directions(folder / f"{concept}.safetensors", directions)


if __name__ == "__main__":
    sys.exit(main())
