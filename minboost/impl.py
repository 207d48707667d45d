"""Which implementation runs: chosen once, by device or by name, and never silently another."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch

from .errors import InputError

IMPLEMENTATIONS = ("reference", "torch", "triton")
TRITON_NEEDED = (3, 6)  # the oldest that the kernels have been compiled with


def choose(impl: str, device: torch.device) -> str:
    """The implementation that ``impl`` stands for on ``device``.

    "auto" is what the environment variable MINBOOST_IMPL says, else "triton" on a GPU that has the
    means for it (bfloat16 tensor cores, triton 3.6), else "torch".

    Raises:
        InputError: a name that does not exist, or an implementation that cannot run here.
    """
    if impl == "auto":
        impl = os.environ.get("MINBOOST_IMPL", "auto")
    if impl == "auto":
        return "torch" if why_not_triton(device) else "triton"
    if impl not in IMPLEMENTATIONS:
        raise InputError(
            f"implementation {impl!r} does not exist; choose auto, " + ", ".join(IMPLEMENTATIONS)
        )
    if impl == "triton" and (reason := why_not_triton(device, by_name=True)):
        raise InputError(f"implementation 'triton' {reason}")
    return impl


def why_not_triton(device: torch.device, *, by_name: bool = False) -> str | None:
    """What keeps the Triton kernels from running on ``device``, or None.

    ``by_name``: asked for by name, they may also run in Triton's interpreter, on the CPU.
    """
    if device.type != "cuda" and not by_name:
        return f"runs on a GPU; the device is {device}"
    try:
        import triton
    except ImportError as error:
        return f"needs the triton package ({error}); it comes with torch's builds for GPUs"
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < TRITON_NEEDED:
        return f"needs triton {'.'.join(map(str, TRITON_NEEDED))}, and {triton.__version__} is here"
    if device.type == "cuda":
        if torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
            return f"needs a GPU of compute capability 8.0; {device} has less"
        return None
    if device.type == "cpu" and triton.knobs.runtime.interpret:
        return None
    return f"runs on a GPU, or on the CPU under TRITON_INTERPRET=1; the device is {device}"


def on(device: torch.device) -> AbstractContextManager[object]:
    """Make ``device`` the current GPU, which is where Triton launches and graphs go."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
