"""Which implementation runs: chosen once, by device or by name, and never silently another."""

from __future__ import annotations

import importlib.util
import os
from contextlib import AbstractContextManager, nullcontext

import torch

from .errors import InputError

IMPLEMENTATIONS = ("reference", "torch", "triton")


def choose(impl: str, device: torch.device) -> str:
    """The implementation that ``impl`` stands for on ``device``.

    "auto" is what the environment variable MINBOOST_IMPL says, else "triton" on a GPU where the
    triton package is there, else "torch".

    Raises:
        InputError: a name that does not exist, or an implementation that cannot run here.
    """
    if impl == "auto":
        impl = os.environ.get("MINBOOST_IMPL", "auto")
    if impl == "auto":
        on_gpu = device.type == "cuda" and importlib.util.find_spec("triton") is not None
        return "triton" if on_gpu else "torch"
    if impl not in IMPLEMENTATIONS:
        raise InputError(
            f"implementation {impl!r} does not exist; choose auto, " + ", ".join(IMPLEMENTATIONS)
        )
    if impl == "triton":
        _check_triton(device)
    return impl


def on(device: torch.device) -> AbstractContextManager[object]:
    """Make ``device`` the current GPU, which is where Triton launches and graphs go."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _check_triton(device: torch.device) -> None:
    try:
        import triton
    except ImportError as error:
        raise InputError(
            f"implementation 'triton' needs the triton package ({error}); it comes with torch's "
            "builds for GPUs"
        ) from error
    interpreted = device.type in ("cpu", "meta") and triton.knobs.runtime.interpret
    if device.type != "cuda" and not interpreted:
        raise InputError(
            "implementation 'triton' runs on a GPU, or on the CPU under TRITON_INTERPRET=1; "
            f"the device is {device}"
        )
