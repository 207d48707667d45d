"""Launch sizes by architecture, kernel and shape class, from the committed table launch.json.

Nothing is tuned in a user's run: benchmarks/tune.py measures and writes the table. An architecture
or a shape class without an entry of its own gets the safe one under "default".
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
    for arch in (architecture(device), "default"):
        sizes = TABLE.get(arch, {}).get(kernel, {}).get(shape)
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


@functools.cache
def architecture(device: torch.device) -> str:
    """The key of a device: "sm_90", "gfx942" and the like; "interpreter" without a GPU."""
    if device.type != "cuda":
        return "interpreter"  # whose time goes by programs and not by what each of them does
    properties: Any = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return str(properties.gcnArchName).split(":")[0]
    return f"sm_{properties.major}{properties.minor}"
