"""Is it right, and how fast, on one GPU: checks, then measurements, in eight minutes.

    python benchmarks/gpu.py [--only GROUP ...] [--strict] [--minutes 8]
    python benchmarks/gpu.py --dry-run

Correctness first (kernels against float64, graph decode against eager, boosted tokens against
transformers), then times with random weights of the Llama-3.2-1B and Llama-3.1-8B shapes, the most
telling first. What time does not reach is named as left out. Writes gpu_<device>.json, after every
row, and gpu_<device>.md. Exit codes: 0 all checks passed, 1 one did not, 2 no GPU or wrong usage.

--dry-run goes the same way with tiny sizes; without a GPU in Triton's interpreter, on the CPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_table import markdown
from machine import describe

if TYPE_CHECKING:
    from gpu_lab import Lab
    from gpu_runner import Job

ROOT = Path(__file__).resolve().parents[1]
GROUPS = (  # in the order of their weight: what time does not reach is the end of the list
    "checks",
    "step-1b",
    "decode",
    "prefill",
    "step-8b",
    "compare",
    "batch-8",
    "transformers",
    "first-token",
    "compiled",
)
MARGIN = 10.0  # seconds that writing, and what cannot be interrupted, may take at the end


class Results:
    """The results file: whole after every row, so that a kill loses nothing."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {**about, "complete": False, "rows": []}
        path.parent.mkdir(parents=True, exist_ok=True)
        self.write()

    def keep(self, row: dict[str, Any]) -> None:
        self.content["rows"].append(row)
        self.write()

    def write(self) -> None:
        text = json.dumps(self.content, indent=1, ensure_ascii=False) + "\n"
        part = self.path.with_suffix(".json.part")
        part.write_text(text, encoding="utf-8")
        part.replace(self.path)

    def finish(self, **last: Any) -> str:
        """Mark the file as complete, write the table beside it and return that."""
        self.content |= {"complete": True, **last}
        self.write()
        table = markdown(self.content)
        self.path.with_suffix(".md").write_text(table, encoding="utf-8")
        return table


def main(argv: Sequence[str] | None = None) -> int:
    began = time.monotonic()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything (default 8)")
    parser.add_argument("--out", type=Path, help="folder of the results (benchmarks/results)")
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="GROUP", help=str(GROUPS))
    parser.add_argument("--strict", action="store_true", help="measure nothing if a check fails")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes, no GPU needed")
    parser.add_argument("--commit", help="what to note, where the tree is no git checkout")
    args = parser.parse_args(argv)

    import torch

    if not torch.cuda.is_available():
        if not args.dry_run:
            print("benchmarks/gpu.py needs a CUDA GPU; --dry-run does without", file=sys.stderr)
            return 2
        os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton
    find_kernels()
    from gpu_lab import Lab
    from gpu_runner import Budget, run_jobs

    spent = time.monotonic() - began
    budget = Budget(args.minutes - (spent + (0 if args.dry_run else MARGIN)) / 60)
    lab = Lab.open(dry=args.dry_run)
    lab.copy = lab.clock.copy_bandwidth(lab.sizes.copy_bytes)
    jobs = [job for job in all_jobs(lab) if not args.only or job.group in args.only]
    about = {
        "command": command(args),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "dry_run": args.dry_run,
        "device": device(lab),
        "machine": describe(),
        "launch": launch_entries(lab),
    }
    if args.commit:
        about["machine"]["commit"] = args.commit
    results = Results(path_of(args, about["device"]["name"]), about)
    with torch.no_grad():
        passed = run_jobs(jobs, lab, budget, results.keep, strict=args.strict)
    checked = any(job.group == "checks" for job in jobs)
    minutes = round((time.monotonic() - began) / 60, 2)
    print(results.finish(passed=passed if checked else None, minutes=minutes), end="")
    print(f"{results.path} and .md written", file=sys.stderr)
    if not passed:
        print("A CORRECTNESS CHECK FAILED: see above; the times mean nothing", file=sys.stderr)
    return 0 if passed else 1


def command(args: argparse.Namespace) -> str:
    """What gives these results again: where they were written to is nobody's concern."""
    words = ["python benchmarks/gpu.py"]
    if args.only:
        words += ["--only", *args.only]
    if args.minutes != 8:
        words += [f"--minutes {args.minutes:g}"]
    if args.dry_run:
        words += ["--dry-run"]
    return " ".join(words)


def find_kernels() -> None:
    """Make a bare checkout importable: without an installation nothing maps minboost.kernels."""
    if importlib.util.find_spec("minboost") is None:
        sys.path.insert(0, str(ROOT))
    import minboost

    if importlib.util.find_spec("minboost.kernels") is None:
        minboost.__path__.append(str(ROOT))


def all_jobs(lab: Lab) -> list[Job]:
    """Everything there is, in the order of GROUPS."""
    import gpu_attention
    import gpu_check_attention
    import gpu_check_model
    import gpu_checks
    import gpu_steps

    small, large = lab.sizes.steps
    jobs = [
        *gpu_checks.jobs(),
        *gpu_check_attention.jobs(),
        *gpu_check_model.jobs(),
        *gpu_steps.step_jobs(lab, "step-1b", small, 1),
        *gpu_attention.decode_jobs(lab),
        *gpu_attention.prefill_jobs(lab),
        *gpu_steps.step_jobs(lab, "step-8b", large, 1),
        *gpu_attention.compare_jobs(lab),
        *gpu_steps.step_jobs(lab, "batch-8", small, lab.sizes.batch),
        *gpu_steps.step_jobs(lab, "batch-8", large, lab.sizes.batch),
        *gpu_steps.transformers_jobs(lab, "transformers", "dynamic"),
        *gpu_steps.first_token_jobs(lab),
        *gpu_steps.transformers_jobs(lab, "compiled", "static"),
    ]
    return sorted(jobs, key=lambda job: GROUPS.index(job.group))


def path_of(args: argparse.Namespace, name: str) -> Path:
    """gpu_<device>.json; a part of the measurements does not take the place of all of them."""
    folder = args.out
    if folder is None:
        folder = ROOT / "benchmarks" / "results"
        if args.dry_run:
            folder = Path(tempfile.mkdtemp(prefix="minboost-gpu-"))
    slug = "dry_run" if args.dry_run else slug_of(name)
    part = "_" + "_".join(args.only) if args.only else ""
    return Path(folder) / f"gpu_{slug}{part}.json"


def slug_of(name: str) -> str:
    """NVIDIA H100 80GB HBM3 → h100_80gb_hbm3."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower().removeprefix("nvidia ")).strip("_")


def device(lab: Lab) -> dict[str, Any]:
    """What the rows were measured on."""
    import torch

    assert lab.copy is not None
    about: dict[str, Any] = {
        "name": "cpu, Triton's interpreter",
        "dtype": str(lab.dtype).removeprefix("torch."),
        "sheet_gb_per_s": lab.sheet and lab.sheet / 1e9,
        "copy_gb_per_s": round(lab.copy / 1e9, 1),
    }
    if lab.clock.on_gpu:
        properties = torch.cuda.get_device_properties(lab.device)
        about |= {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_gb": round(properties.total_memory / 1e9, 1),
            "cuda": torch.version.cuda,
            "driver": _driver(),
        }
    return about


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout.split() or [None])[0]


def launch_entries(lab: Lab) -> dict[str, Any]:
    """The launch table as this device sees it: its own entries, else the default ones."""
    from minboost.kernels.launch import TABLE, architecture, launch

    arch = architecture(lab.device)
    tables = [TABLE.get(name, {}) for name in ("default", arch)]
    return {
        "architecture": arch,
        "own": sorted(TABLE.get(arch, {})) if arch != "default" else [],
        "entries": {
            kernel: {shape: launch(kernel, shape, lab.device) for shape in shapes}
            for table in tables
            for kernel, shapes in table.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
