"""Launch sizes by architecture, kernel and shape class, from the committed table launch.json.

Nothing is tuned in a user's run: benchmarks/tune.py measures and writes the table. What has no
entry of its own gets the one under "default", whose tiles are small enough for any NVIDIA GPU of
compute capability 8.0 on; AMD's GPUs, whose waves have twice the threads, get that of gfx942
before it. tests/test_kernels_compile.py compiles every entry and fails on one that spills;
benchmarks/results/kernel_resources.md says what each takes.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import torch

TABLE: dict[str, dict[str, dict[str, dict[str, int]]]] = json.loads(
    Path(__file__).with_name("launch.json").read_text()
)


def launch(kernel: str, shape: str, device: torch.device) -> dict[str, int]:
    """The sizes and options of ``kernel`` for a shape class, as keyword arguments."""
    return sizes_for(architecture(device), kernel, shape)


def sizes_for(arch: str, kernel: str, shape: str) -> dict[str, int]:
    """``launch`` for an architecture by its key, there or not."""
    for key in (arch, *(["gfx942"] if arch.startswith("gfx") else []), "default"):
        sizes = TABLE.get(key, {}).get(kernel, {}).get(shape)
        if sizes is not None:
            return sizes
    raise KeyError(f"launch.json has no entry for {kernel} {shape}")


def attention_shape(head_dim: int, dtype: torch.dtype = torch.bfloat16) -> str:
    """The shape class of the attention kernels: the head dim, rounded up to a tabled one.

    Float32 is a class of its own: its products are multiply-adds, which hold their operands in
    registers, so its tiles are smaller.
    """
    dim = "d64" if head_dim <= 64 else "d128" if head_dim <= 128 else "d256"
    return f"{dim}-fp32" if dtype.itemsize > 2 else dim


def free_registers() -> dict[str, int]:
    """The compiler's option to use every register that a thread may have.

    Unasked, ptxas spills to fit more programs on a multiprocessor. AMD's compiler knows no such
    option.
    """
    return {} if torch.version.hip else {"maxnreg": 255}


@functools.cache
def architecture(device: torch.device) -> str:
    """The key of a device: "sm_90", "gfx942" and the like; "interpreter" without a GPU."""
    if device.type != "cuda":
        return "interpreter"  # whose time goes by programs and not by what each of them does
    properties: Any = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return str(properties.gcnArchName).split(":")[0]
    return f"sm_{properties.major}{properties.minor}"
