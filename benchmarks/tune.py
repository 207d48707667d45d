"""Measure launch sizes on this machine's GPU, kernel by kernel, and write the best.

    python benchmarks/tune.py [--only decode:d128 ...] [--minutes 8] [--write]
    python benchmarks/tune.py --dry-run

Candidates (candidates.py) are compiled on all cores first, for half of the time at most; what
spills or does not fit is out. All others must agree with the present sizes and are timed. The three
fastest, with and without programmatic dependent launch where there is it, are then timed in turn
with the present sizes, and the best is chosen if it takes at least 1 % less. The most telling
kernels come first; what time does not reach keeps its sizes. --write changes kernels/launch.json;
after that, benchmarks/resources.py --write brings the table of figures up to date.

--dry-run prints what would be measured. Under TRITON_INTERPRET=1 it also runs every candidate once,
with tiny inputs, and compares it with the first. Exit codes: 1 a candidate disagrees, 2 no GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from candidates import Sizes, candidates
from examples import Call, Example, Prepare, Where, examples
from gpu_runner import Budget, OutOfTime, say
from gpu_timing import Clock, Run
from minboost.kernels.launch import architecture, sizes_for
from offline import sizes_in_use
from resources import compile_all, faults
from torch import Tensor

TABLE = Path(__file__).resolve().parents[1] / "kernels" / "launch.json"
ORDER = (  # by weight: time may run out
    "linear:b1-narrow", "linear:b1-wide", "prefill:d128", "prefill:d64", "decode:d128",
    "decode:d64", "linear:b8-narrow", "linear:b8-wide", "rope:any", "embed:any", "greedy:any",
    "decode:d256", "prefill:d256", "decode:d64-fp32", "decode:d128-fp32", "decode:d256-fp32",
    "prefill:d64-fp32", "prefill:d128-fp32", "prefill:d256-fp32",
)  # fmt: skip
ROTATED = 256 << 20  # bytes of inputs taken in turn: several times any second-level cache
COPIES = 64
BETTER = 0.99  # of the present time: less is noise
DISAGREES = "disagrees with the first"


@dataclass
class Entry:
    """One entry of the launch table, its timed calls, and what became of its candidates."""

    arch: str
    name: str
    timed: list[Example]
    tried: list[Sizes]
    times: dict[int, float] = field(default_factory=dict)  # by number, relative to the present
    why_not: dict[int, str] = field(default_factory=dict)
    best: int = 0

    @property
    def kernel(self) -> str:
        return self.name.split(":")[0]

    @property
    def shape(self) -> str:
        return self.name.split(":")[1]


def entries(only: Sequence[str] | None, arch: str) -> list[Entry]:
    known = examples()
    made = []
    for name in ORDER:
        kernel, shape = name.split(":")
        if only and name not in only and kernel not in only:
            continue
        timed = [e for e in known if (e.kernel, e.shape) == (kernel, shape) and e.timed]
        present = sizes_for(arch, kernel, shape)
        made.append(
            Entry(arch, name, timed, candidates(kernel, shape, present, amd=arch.startswith("gfx")))
        )
    return made


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", metavar="KERNEL[:SHAPE]")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--write", action="store_true", help="change kernels/launch.json")
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args(argv)
    for name in options.only or ():
        if not any(name in (known, known.split(":")[0]) for known in ORDER):
            parser.error(f"--only {name}: the entries are {', '.join(ORDER)}")
    budget = Budget(options.minutes)
    if options.dry_run:
        return rehearse(entries(options.only, "sm_90"), budget)
    if not torch.cuda.is_available():
        print("benchmarks/tune.py needs a CUDA GPU; --dry-run does without", file=sys.stderr)
        return 2
    device = torch.device("cuda")
    arch = architecture(device)
    done = []
    for entry in compiled(entries(options.only, arch), arch, budget):
        try:
            with budget.limit():
                measure(entry, device)
        except OutOfTime:
            say(f"{entry.name}: left out, no time")
            break
        done.append(entry)
        report(entry)
        if options.write and entry.best:
            write(arch, entry)
    return 1 if any(DISAGREES in e.why_not.values() for e in done) else 0


def compiled(wanted: list[Entry], arch: str, budget: Budget) -> list[Entry]:
    """The entries whose candidates there was time to compile; what spills is ruled out."""
    rows = []
    for entry in wanted:
        for number, sizes in enumerate(entry.tried):
            for form in (example.form for example in entry.timed):
                row = {"arch": arch, "target": arch, "kernel": entry.kernel, "shape": entry.shape}
                rows.append({**row, "form": form, "sizes": sizes, "number": number})
    say(f"compiling {len(rows)} candidates")
    end = budget.left() / 2
    left = {entry.name: sum(r["kernel"] + ":" + r["shape"] == entry.name for r in rows)
            for entry in wanted}  # fmt: skip
    by_name = {entry.name: entry for entry in wanted}
    for row in compile_all(rows):
        entry = by_name[f"{row['kernel']}:{row['shape']}"]
        left[entry.name] -= 1
        if row["number"] and (wrong := faults([row])):
            entry.why_not[row["number"]] = wrong[0].split(": ", 1)[1]
        if budget.left() < end:
            break
    for entry in wanted:
        if left[entry.name]:
            say(f"{entry.name}: left out, no time to compile it")
    return [entry for entry in wanted if not left[entry.name]]


def measure(entry: Entry, device: torch.device) -> None:
    """Time every candidate, then the fastest and the present one in turn, and choose."""
    clock = Clock(device, rounds=7, warm=1)
    calls = [inputs(prepare, device) for example in entry.timed for _, prepare in example.timed]
    expected: list[Tensor] = []
    per_call: list[dict[int, float]] = [{} for _ in calls]

    def attempt(number: int) -> None:
        for at, call in enumerate(calls):
            try:
                run, outcome = chain(entry, number, call, clock)
            except Exception as error:  # it does not fit this GPU, for instance
                why = (str(error).strip().splitlines() or [""])[0]
                entry.why_not[number] = f"{type(error).__name__}: {why}"[:80]
                return
            if number == 0:
                expected.append(outcome)
            elif not agrees(outcome, expected[at]):
                entry.why_not[number] = DISAGREES
                return
            per_call[at][number] = statistics.median(clock.in_turn({"": run})[""])
        rank(entry, number, per_call)

    for number in range(len(entry.tried)):
        if number not in entry.why_not:
            attempt(number)
    if 0 in entry.why_not:
        raise RuntimeError(f"{entry.name}: the present sizes fail: {entry.why_not[0]}")
    finalists = fastest(entry)
    if "pdl" in entry.tried[0] and has_pdl(device):
        for number in finalists:
            sizes = entry.tried[number]
            entry.tried.append({**sizes, "pdl": 1 - sizes["pdl"]})
            attempt(len(entry.tried) - 1)
        finalists = fastest(entry)
    finalists = list(dict.fromkeys([0, *finalists]))
    clock.rounds = 21
    for at, call in enumerate(calls):
        runs = {str(number): chain(entry, number, call, clock)[0] for number in finalists}
        for name, times in clock.in_turn(runs).items():
            per_call[at][int(name)] = statistics.median(times)
    for number in finalists:
        rank(entry, number, per_call)
    best = min(finalists, key=lambda number: entry.times[number])
    entry.best = best if entry.times[best] < BETTER else 0


def fastest(entry: Entry) -> list[int]:
    return sorted(entry.times, key=lambda number: entry.times[number])[:3]


def rank(entry: Entry, number: int, per_call: list[dict[int, float]]) -> None:
    """The geometric mean, over the calls, of the time relative to the present sizes'."""
    ratios = [times[number] / times[0] for times in per_call]
    entry.times[number] = math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))


def has_pdl(device: torch.device) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (9, 0)


def inputs(prepare: Prepare, device: torch.device) -> list[Call]:
    """The same call on as many inputs as no cache holds; on one where arithmetic is what counts."""
    first = prepare(Where(device))
    copies = 1 if first.flop else min(COPIES, max(1, math.ceil(ROTATED / first.moved)))
    return [first, *(prepare(Where(device, seed=seed)) for seed in range(1, copies))]


def chain(entry: Entry, number: int, calls: list[Call], clock: Clock) -> tuple[Run, Tensor]:
    """The calls one after another as a graph, with a candidate's sizes; and what one computes."""
    with sizes_in_use(entry.arch, entry.kernel, entry.shape, entry.tried[number]):
        outcome = calls[0].run().clone()
        return clock.captured(lambda: [call.run() for call in calls]), outcome


def agrees(got: Tensor, want: Tensor) -> bool:
    """Equal up to the rounding of another order of sums."""
    if not want.is_floating_point():
        return torch.equal(got, want)
    allowed = 4 * torch.finfo(want.dtype).eps if want.dtype != torch.float32 else 2e-5
    difference = (got.double() - want.double()).abs().max()
    return bool(difference <= allowed * max(1.0, float(want.abs().max())))


def report(entry: Entry) -> None:
    print(f"\n{entry.name}: {len(entry.tried)} candidates")
    for number in sorted(entry.times, key=lambda n: entry.times[n])[:10]:
        mark = "<- chosen" if number == entry.best else "present" if number == 0 else ""
        print(f"  {entry.times[number]:6.3f}  {_text(entry.tried[number])}  {mark}")
    if 0 not in sorted(entry.times, key=lambda n: entry.times[n])[:10]:
        print(f"   1.000  {_text(entry.tried[0])}  present")
    for number, why in entry.why_not.items():
        print(f"     out  {_text(entry.tried[number])}  {why}")
    sys.stdout.flush()


def rehearse(wanted: list[Entry], budget: Budget) -> int:
    """What would be measured; under the interpreter every candidate runs once, with tiny inputs."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    wrong = 0
    for entry in wanted:
        names = [name for example in entry.timed for name, _ in example.timed]
        print(f"{entry.name}: {len(entry.tried)} candidates, on {'; '.join(names)}")
        for sizes, verdict in (
            _trials(entry, budget) if interpreted else ((sizes, "") for sizes in entry.tried)
        ):
            wrong += verdict == DISAGREES
            print(f"  {_text(sizes)}  {verdict}", flush=True)
    return 1 if wrong else 0


def _trials(entry: Entry, budget: Budget) -> Iterator[tuple[Sizes, str]]:
    expected: list[Tensor] = []
    where = Where(torch.device("cpu"), tiny=True)
    for sizes in entry.tried:
        if budget.left() <= 0:
            yield sizes, "left out, no time"
            continue
        verdict = "ran"
        with sizes_in_use(entry.arch, entry.kernel, entry.shape, {**sizes, "pdl": 0}):
            got = [example.prepare(where).run() for example in entry.timed]
        expected = expected or got
        if not all(agrees(a, b) for a, b in zip(got, expected, strict=True)):
            verdict = DISAGREES
        yield sizes, verdict


def _text(sizes: Sizes) -> str:
    return ", ".join(f"{key} {value}" for key, value in sizes.items())


def write(arch: str, entry: Entry) -> None:
    """The chosen sizes into kernels/launch.json, which is read afresh: one line a shape class."""
    table = json.loads(TABLE.read_text())
    if entry.best:
        table.setdefault(arch, {}).setdefault(entry.kernel, {})[entry.shape] = entry.tried[
            entry.best
        ]
        TABLE.write_text(formatted(table))


def formatted(table: dict[str, dict[str, dict[str, Sizes]]]) -> str:
    """launch.json as it is committed."""
    arches = []
    for arch, kernels in table.items():
        parts = []
        for kernel, shapes in kernels.items():
            lines = ",\n".join(f'      "{s}": {json.dumps(sizes)}' for s, sizes in shapes.items())
            parts.append(f'    "{kernel}": {{\n{lines}\n    }}')
        arches.append(f'  "{arch}": {{\n' + ",\n".join(parts) + "\n  }")
    return "{\n" + ",\n".join(arches) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
