"""What every kernel takes on every GPU of the launch table: registers, shared memory, spills.

    python benchmarks/resources.py [--arch sm_90] [--write]      (default: all of them, no writing)

The kernels are compiled for GPUs that need not be there. Writes benchmarks/results/
kernel_resources.json and .md. The exit code is 1 if a kernel spills or does not fit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
NAME = "kernel_resources"
# What a block may use of shared memory, in bytes.
SHARED = {
    "sm_80": 163 << 10,
    "sm_86": 99 << 10,
    "sm_89": 99 << 10,
    "sm_90": 227 << 10,
    "sm_100": 227 << 10,
    "sm_120": 99 << 10,
    "gfx942": 64 << 10,
}
# GPUs without entries of their own, an older and a newer one, for which "default" must do.
DEFAULT = ("sm_80", "sm_120")
DEFAULT_SHARED = 64 << 10
Row = dict[str, Any]
KEYS = ("arch", "target", "kernel", "shape", "form", "sizes")  # what says which compilation it is


def planned(arches: Iterable[str] | None = None) -> list[Row]:
    """Every compilation that the launch table asks for, as the first columns of its row."""
    from examples import examples
    from minboost.kernels.launch import TABLE, sizes_for

    return [
        {
            "arch": arch,
            "target": target,
            "kernel": example.kernel,
            "shape": example.shape,
            "form": example.form,
            "sizes": sizes_for(arch, example.kernel, example.shape),
        }
        for arch in (arches or TABLE)
        if arch != "interpreter"
        for target in (DEFAULT if arch == "default" else (arch,))
        for example in examples()
    ]


def with_pdl(row: Row) -> Row:
    return {**row, "sizes": {**row["sizes"], "pdl": 1}}


def compiled(row: Row) -> Row:
    """The row with what the compiled kernel takes; ``error`` where it does not compile."""
    import torch
    from examples import Where, examples
    from offline import compile_for, sizes_in_use

    (example,) = (
        e for e in examples() if all(getattr(e, k) == row[k] for k in ("kernel", "shape", "form"))
    )
    try:
        where = Where(torch.device("meta"))
        with sizes_in_use(*(row[key] for key in ("arch", "kernel", "shape", "sizes"))):
            (found,) = compile_for(row["target"], lambda: example.prepare(where).run())
    except Exception as error:  # whatever a compiler may raise is this row's result
        text = (str(error).strip().splitlines() or [""])[0]
        return {**row, "error": f"{type(error).__name__}: {text}"[:300]}
    return {**row, **asdict(found)}


def faults(rows: Iterable[Row]) -> list[str]:
    """One line for each kernel that does not compile, does not fit, or spills."""
    found = []
    for row in rows:
        name = " ".join(str(row[key]) for key in KEYS[:-1])
        limit = SHARED.get(row["target"], math.inf)  # a GPU that is there says so itself
        if row["arch"] == "default":
            limit = min(limit, DEFAULT_SHARED)
        if "error" in row:
            found.append(f"{name}: {row['error']}")
        elif row["spills"]:
            found.append(f"{name}: {row['spills']} bytes of registers are spilled")
        elif row["shared"] > limit:
            found.append(f"{name}: {row['shared']} bytes of shared memory, {limit} are there")
    return found


def compile_all(rows: list[Row]) -> Iterator[Row]:
    """``compiled`` rows in order, in as many processes as there are cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # Spawned, and set beforehand: triton must not have been imported for the interpreter.
    os.environ.pop("TRITON_INTERPRET", None)
    with multiprocessing.get_context("spawn").Pool(min(cores or 1, len(rows))) as pool:
        yield from pool.imap(compiled, rows, chunksize=4)


@contextlib.contextmanager
def own_cache() -> Iterator[None]:
    """What is compiled within is kept only so long: figures must not come from an older run."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        yield


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", action="append", help="only this key of the launch table")
    parser.add_argument("--smoke", action="store_true", help="one form of each kernel")
    parser.add_argument(
        "--pdl", action="store_true", help="programmatic dependent launch on, where there is it"
    )
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args(argv)
    if options.write and (options.arch or options.smoke or options.pdl):
        parser.error("--write is for the whole table")

    wanted = planned(options.arch)
    if options.smoke:
        wanted = list({row["kernel"]: row for row in reversed(wanted)}.values())
    if options.pdl:
        wanted = [with_pdl(row) for row in wanted if "pdl" in row["sizes"]]
    rows = []
    with own_cache():
        for row in compile_all(wanted):
            rows.append(row)
            print(line(row), file=sys.stderr if options.json else sys.stdout, flush=True)
    bad = faults(rows)
    if options.json:
        print(json.dumps({"rows": rows, "faults": bad}))
    if options.write and not bad:
        write(rows)
    for fault in bad:
        print(fault, file=sys.stderr)
    return 1 if bad else 0


def line(row: Row) -> str:
    where = f"{row['arch']:8}{row['target']:8}{row['kernel']:8}{row['shape']:10}{row['form']:30}"
    if "error" in row:
        return f"{where}{row['error']}"
    return (
        f"{where}{row['registers']:4} registers {row['shared']:7} bytes shared "
        f"{row['spills']:4} spilled  {row['mma']}"
    )


def write(rows: list[Row]) -> None:
    import triton

    facts = {"command": "python benchmarks/resources.py --write", "triton": triton.__version__}
    text = json.dumps({**facts, "rows": rows}, indent=None)
    text = text.replace('"rows": [', '"rows": [\n').replace("}, {", "},\n{").replace("}]}", "}\n]}")
    (RESULTS / f"{NAME}.json").write_text(text + "\n")
    (RESULTS / f"{NAME}.md").write_text(markdown(rows, facts))


def markdown(rows: list[Row], facts: dict[str, str]) -> str:
    out = [
        "# What the kernels take",
        "",
        f"`{facts['command']}`, triton {facts['triton']}, compiled without a GPU. Registers a "
        "thread; shared memory a block, in bytes; nothing is spilled to memory (a test fails if "
        "anything is). On AMD, *lanes* are scalar registers kept in lanes of vector registers.",
    ]
    heading = None
    for row in rows:
        if (row["arch"], row["target"]) != heading:
            heading = row["arch"], row["target"]
            name = row["arch"] + (f", on {row['target']}" if row["arch"] == "default" else "")
            out += ["", f"## {name}", ""]
            out += ["| kernel | shape | form | sizes | registers | shared | lanes | by |"]
            out += ["|---|---|---|---|--:|--:|--:|---|"]
        sizes = ", ".join(f"{key} {value}" for key, value in row["sizes"].items())
        function = row["function"].removesuffix("_kernel")
        out.append(
            f"| {function} | {row['shape']} | {row['form']} | {sizes} | {row['registers']} "
            f"| {row['shared']} | {row['lane_spills'] or ''} | {row['mma']} |"
        )
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    sys.exit(main())
