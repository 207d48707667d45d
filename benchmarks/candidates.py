"""The launch sizes that benchmarks/tune.py tries, by kernel and shape class."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

Sizes = dict[str, int]


def candidates(kernel: str, shape: str, current: Sizes, *, amd: bool = False) -> list[Sizes]:
    """What to measure; the first is ``current``, which the others must beat and agree with."""
    tried = {
        "prefill": _prefill,
        "decode": _decode,
        "linear": _linear,
        "rope": lambda shape, amd: _grid(num_warps=(1, 2, 4)),
        "embed": lambda shape, amd: _grid(block_k=(256, 512, 1024, 2048), num_warps=(1, 2, 4, 8)),
        "greedy": lambda shape, amd: _grid(block_v=(1024, 2048, 4096, 8192), num_warps=(4, 8)),
    }[kernel](shape, amd)
    made = [current]
    for sizes in tried:
        if (sizes := {**current, **sizes}) not in made:
            made.append(sizes)
    return made


def _grid(**values: Iterable[int]) -> list[Sizes]:
    return [
        dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())
    ]


def _prefill(shape: str, amd: bool) -> list[Sizes]:
    stages = (1, 2) if amd else (2, 3, 4)
    if shape.endswith("fp32"):
        return _grid(block_m=(16, 32, 64), block_n=(16, 32), num_warps=(4, 8), num_stages=(1, 2))
    dim = int(shape[1:])
    keys = (32, 64, 128) if dim <= 128 else (16, 32, 64)
    tiles = _grid(block_m=(64, 128), block_n=keys, num_warps=(4, 8), num_stages=stages)
    # Four warps have the registers for 128 rows of 64 channels, and not for more.
    return [t for t in tiles if t["block_m"] * dim <= 128 * 64 * (t["num_warps"] // 4) * 2]


def _decode(shape: str, amd: bool) -> list[Sizes]:
    """``splits`` is left as it is: workspaces share it over all dtypes of a head dim."""
    keys = (16, 32) if shape.endswith("fp32") else (32, 64, 128)
    return _grid(
        least=(64, 128, 256), block_n=keys, num_warps=(2, 4, 8),
        num_stages=(1, 2) if amd else (2, 3, 4),
    )  # fmt: skip


def _linear(shape: str, amd: bool) -> list[Sizes]:
    stages = (1, 2) if amd else (2, 3, 4)
    if shape.startswith("b1"):
        return _grid(
            block_n=(2, 4, 8, 16), block_k=(512, 1024, 2048), num_warps=(4, 8), num_stages=stages
        )
    rows = (16, 32) if shape.endswith("narrow") else (32, 64, 128)
    return _grid(
        block_n=rows, block_k=(128, 256), num_warps=(4, 8), num_stages=(1, 2) if amd else (3, 5, 8)
    )
