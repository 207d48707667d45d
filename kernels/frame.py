"""The frame of a run: where its KV cache and its plan lie, as numbers in device memory.

Decode kernels that take a frame know no tensor of the run by its argument, only this table of
addresses. A captured graph of them then serves every cache length, every boost and every number
of spans: what changes from run to run is the frame's content.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .segments import Segments

K = tl.constexpr(0)  # address of the key cache (L, B, H_kv, T_max, D), contiguous
V = tl.constexpr(1)  # address of the value cache, as the keys'
LENGTH = tl.constexpr(2)  # T_max
EDGES = tl.constexpr(3)  # address of the segments' edges (B, C + 1) int32
BIAS = tl.constexpr(4)  # address of the segments' bias (L, B, H, C) float32, in powers of two
SEGMENTS = tl.constexpr(5)  # C
TARGET = tl.constexpr(6)  # address of the target masses (L, B, H) float32, 0 without
TARGETED = tl.constexpr(7)  # address of the targeted segments' flags (B, C) int32
FIELDS = 8


@triton.jit
def address(frame_ptr, field: tl.constexpr, dtype: tl.constexpr):
    """The pointer that the frame holds; what lies there is aligned as torch allocates it."""
    return tl.multiple_of(tl.load(frame_ptr + field).to(tl.pointer_type(dtype)), 16)


def frame(k: Tensor, v: Tensor, segments: Segments, target: Tensor | None = None) -> Tensor:
    """(FIELDS,) int64 on the caches' device, for caches (L, B, H_kv, T_max, D).

    ``segments.bias`` is (L, B, H, C) here, ``target`` (L, B, H) float32. The frame keeps nothing
    alive: whoever uses it holds the caches, the segments and the target.
    """
    assert k.is_contiguous()
    assert v.is_contiguous()
    assert segments.edges.is_contiguous()
    assert segments.bias.is_contiguous()
    assert target is None or (target.is_contiguous() and target.dtype == torch.float32)
    fields = [
        k.data_ptr(),
        v.data_ptr(),
        k.shape[3],
        segments.edges.data_ptr(),
        segments.bias.data_ptr(),
        segments.bias.shape[-1],
        0 if target is None else target.data_ptr(),
        segments.targeted.data_ptr(),
    ]
    return torch.tensor(fields, dtype=torch.int64, device=k.device)
