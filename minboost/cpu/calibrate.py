"""Which form of a product is fastest here: measured once for a machine and a shape, then kept."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .forms import Form, default, forms
from .machine import cache_folder, processor, say

SMALL = 32 << 20  # bytes of a model's weights below which any form does
SAMPLE = 48 << 20  # bytes of weights that a form is timed on, so that few come from the cache
ROUNDS = 5


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
        say(f"measuring {len(missing)} products of this model on this machine, once …")
        found = {}
        for name, key in missing.items():
            speeds = measured(matrices[name], candidates[name])
            names[name] = max(speeds, key=lambda form: speeds[form])
            found[key] = {"best": names[name], "GB/s": speeds}
        _write(path, found)
    return {name: candidates[name][form] for name, form in names.items()}


@torch.inference_mode()
def measured(kind: Sequence[Tensor], candidates: dict[str, Form]) -> dict[str, float]:
    """GB/s that each form reads ``kind`` at, matrix after matrix: the best of rounds in turn.

    The best and not the median: what else the machine does only ever slows a round down.
    """
    some = kind[: max(1, SAMPLE // kind[0].nbytes)]
    x = torch.randn(kind[0].shape[1], generator=torch.Generator().manual_seed(0)).to(kind[0].dtype)
    out = x.new_empty(kind[0].shape[0])
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(1 + ROUNDS):
        for name, form in candidates.items():
            began = time.perf_counter()
            for weight in some:
                form(weight, x, out)
            times[name].append(time.perf_counter() - began)
    size = sum(weight.nbytes for weight in some)
    return {name: round(size / min(of[1:]) / 1e9, 2) for name, of in times.items()}


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
