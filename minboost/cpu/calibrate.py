"""Which form of a product is fastest here: measured once for a machine and a shape, then kept."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .eager import Eager
from .forms import Form, default, forms
from .layer import Weights
from .machine import cache_folder, processor, say

SMALL = 32 << 20  # bytes of a model's weights below which any form does
SAMPLE = 1 << 30  # bytes of weights that are read in a round: more than a processor's caches hold
ROUNDS = 7
PLUS = ("o", "down")  # kinds of matrices whose products are added to the residual stream
BETTER = 1.1  # how much faster than the default a form has to be to take its place


def choose(matrices: Mapping[str, Sequence[Tensor]], *, measure: bool = True) -> dict[str, Form]:
    """The form for each kind of matrix, given by name with all the model's matrices of the kind.

    What is not known of this machine (processor, PyTorch, threads, dtype and shape) is measured
    and written to ``calibration.json`` in the cache folder. Without ``measure``, and for models
    so small that it does not matter, it is the default form.
    """
    threads = torch.get_num_threads()
    total = sum(matrix.nbytes for kind in matrices.values() for matrix in kind)
    dtype = next(iter(matrices.values()))[0].dtype
    candidates = {name: forms(kind[0].shape[0], threads) for name, kind in matrices.items()}
    if not measure or total < SMALL or not dtype.is_floating_point:
        return {name: candidates[name][default(dtype)] for name in matrices}
    path = cache_folder() / "calibration.json"
    known = _read(path)
    names: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name, kind in matrices.items():
        N, K = kind[0].shape
        key = f"{processor()} | torch {torch.__version__} | {threads} threads | {dtype} | {N} x {K}"
        best = known.get(key, {}).get("best") if isinstance(known.get(key), dict) else None
        if isinstance(best, str) and best in candidates[name]:
            names[name] = best
        else:
            missing[name] = key
    if missing:
        say(f"measuring products of this model ({', '.join(missing)}) on this machine, once …")
        speeds = measured(matrices, candidates)
        found = {}
        for name, key in missing.items():
            names[name] = best_form(speeds[name], default(dtype))
            found[key] = {"best": names[name], "GB/s": speeds[name]}
        _write(path, found)
    return {name: candidates[name][form] for name, form in names.items()}


def best_form(speeds: Mapping[str, float], usual: str) -> str:
    """The fastest form, unless the ``usual`` one is as fast within what a measurement can tell.

    Forms round differently: noise should not decide between them.
    """
    best = max(speeds, key=lambda form: speeds[form])
    return best if speeds[best] > BETTER * speeds[usual] else usual


@torch.inference_mode()
def measured(
    matrices: Mapping[str, Sequence[Tensor]], candidates: Mapping[str, Mapping[str, Form]]
) -> dict[str, dict[str, float]]:
    """GB/s that each form reads each kind of matrix at: the best of rounds in turn.

    A round reads one layer after the other, as a decode step does, so no more of a matrix lies in
    a cache than would then. What is timed is all that a step does for a product: forms differ in
    the calls around them too. The best counts, for what slows a round down is other work.
    """
    generator = torch.Generator().manual_seed(0)
    some = _sample(matrices)
    x = {kind: torch.randn(of[0].shape[1], generator=generator).to(of[0].dtype)
         for kind, of in matrices.items()}  # fmt: skip
    plus = {kind: of[0].new_zeros(of[0].shape[0]) if kind in PLUS else None
            for kind, of in matrices.items()}  # fmt: skip
    eager = {kind: {name: Eager({kind: form}) for name, form in of.items()}
             for kind, of in candidates.items()}  # fmt: skip
    best = {kind: dict.fromkeys(of, math.inf) for kind, of in candidates.items()}
    for number in range(1 + ROUNDS):
        for turn in range(max(len(of) for of in candidates.values())):
            took = dict.fromkeys(matrices, 0.0)
            names = {kind: list(of)[turn % len(of)] for kind, of in candidates.items()}
            for kind, weights in some:
                by = eager[kind][names[kind]]
                began = time.perf_counter()
                by.product(weights, kind, x[kind], plus[kind])
                took[kind] += time.perf_counter() - began
            if number:  # the first round is a warm-up
                for kind, name in names.items():
                    best[kind][name] = min(best[kind][name], took[kind])
    read = dict.fromkeys(matrices, 0)
    for kind, weights in some:
        read[kind] += weights[kind].nbytes
    return {
        kind: {name: round(read[kind] / seconds / 1e9, 2) for name, seconds in of.items()}
        for kind, of in best.items()
    }


def _sample(matrices: Mapping[str, Sequence[Tensor]]) -> list[tuple[str, Weights]]:
    """Matrices with their kinds, layer by layer, until there are enough of them."""
    found: list[tuple[str, Weights]] = []
    size = 0
    for layer in range(max(len(of) for of in matrices.values())):
        for kind, of in matrices.items():
            if layer < len(of):
                found.append((kind, {kind: of[layer]}))
                size += of[layer].nbytes
        if size >= SAMPLE:
            break
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # nothing is lost but a second
    return known if isinstance(known, dict) else {}


def _write(path: Path, found: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            whole = Path(scratch) / path.name
            whole.write_text(json.dumps({**_read(path), **found}, indent=1), encoding="utf-8")
            os.replace(whole, path)
    except OSError as error:
        say(f"what was measured could not be kept in {path}: {error}")
