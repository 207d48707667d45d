"""Compile the kernels for a GPU that need not be there, through their own Python launchers.

A launcher is called with tensors on the meta device. Triton's own binder then specialises the
kernel as it would in a run, and compiles it for the GPU that the stand-in driver names; the launch
itself is left out. So what is compiled is what the library launches, with no copy of a signature
that could go stale.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel takes.

    ``registers`` a thread; ``shared`` bytes a block; ``spills`` bytes of a thread's memory that
    stand in for registers. ``lane_spills`` are AMD's scalar registers kept in lanes of vector
    registers: counted there, and never in memory. ``mma`` names the matrix instruction.
    """

    function: str
    registers: int
    shared: int
    spills: int
    lane_spills: int
    mma: str


class _Driver:
    """What triton asks of a driver before a launch, for a GPU that is not there."""

    def __init__(self, target: Any, name: str) -> None:
        self.target, self.name = target, name

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> str:
        return self.name  # only a key of triton's caches

    def get_current_stream(self, device: str) -> int:
        return 0


@contextlib.contextmanager
def pretending(target: str) -> Iterator[list[tuple[str, Any]]]:
    """Launches are compiled for ``target`` and not run.

    Gives the list of (kernel's name, what triton compiled), which grows with every launch.
    """
    import torch
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    amd = target.startswith("gfx")
    gpu = GPUTarget("hip", target, 64) if amd else GPUTarget("cuda", int(target[3:]), 32)
    made: list[tuple[str, Any]] = []
    real = JITFunction.run

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        compiled = real(self, *args, grid=grid, warmup=True, **options)
        made.append((self.__name__, compiled))
        return compiled

    with (
        mock.patch.object(driver, "_active", _Driver(gpu, target)),
        mock.patch.object(JITFunction, "run", run),
        mock.patch.object(torch.version, "hip", "any" if amd else None),
    ):
        yield made


@contextlib.contextmanager
def sizes_in_use(arch: str, kernel: str, shape: str, sizes: dict[str, int]) -> Iterator[None]:
    """Launches take the launch table's entries for ``arch``, but for one these ``sizes``."""
    from minboost.kernels import launch

    entries = launch.TABLE.get(arch, {})
    entries = {**entries, kernel: {**entries.get(kernel, {}), shape: sizes}}
    with (
        mock.patch.object(launch, "TABLE", {**launch.TABLE, arch: entries}),
        mock.patch.object(launch, "architecture", return_value=arch),
    ):
        yield


def compile_for(target: str, call: Callable[[], Any]) -> list[Resources]:
    """The resources of every kernel that ``call`` launches, compiled for ``target``."""
    with pretending(target) as made:
        call()
    return [resources(name, compiled) for name, compiled in made]


def resources(function: str, compiled: Any) -> Resources:
    """Read from the binary's own description."""
    asm = compiled.asm
    if "cubin" in asm:
        registers, spills = _cubin(asm["cubin"], asm["ptx"])
        lane_spills, text, known = 0, asm["ptx"], ("wgmma", "tcgen05.mma", "mma.sync")
    else:
        text, known = asm["amdgcn"], ("v_mfma",)
        registers = _metadata(text, "vgpr_count")
        spills = 4 * _metadata(text, "vgpr_spill_count")
        spills = max(spills, _metadata(text, "private_segment_fixed_size"))
        lane_spills = _metadata(text, "sgpr_spill_count")
    return Resources(
        function=function,
        registers=registers,
        shared=int(compiled.metadata.shared),
        spills=spills,
        lane_spills=lane_spills,
        mma=next((word for word in known if word in text), ""),
    )


def _cubin(cubin: bytes, ptx: str) -> tuple[int, int]:
    """Registers, and bytes of stack beyond the arrays that the code itself asks for.

    The stack is where ptxas puts what it spills. An array of the code (cos and sin of large
    angles have one) is declared in the PTX.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [_cuobjdump(), "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    read = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    arrays = sum(int(size) for size in re.findall(r"\.local .*\[(\d+)\];", ptx))
    return read["REG"], max(0, read["STACK"] + read["LOCAL"] - (arrays + 7) // 8 * 8)


@functools.cache
def _cuobjdump() -> str:
    import triton.backends.nvidia as nvidia

    return os.path.join(os.path.dirname(str(nvidia.__file__)), "bin", "cuobjdump")


def _metadata(text: str, key: str) -> int:
    (number,) = re.findall(rf"^\s*\.{key}:\s*(\d+)", text, re.MULTILINE)
    return int(number)
