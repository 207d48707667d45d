"""Decode: rotate the queries and keys of a step, and write keys and values to the cache.

For products formed elsewhere: models with a norm on each head's q and k, and batches too large
for the fused product (qkv.py), which shares ``store`` with this one.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from .frame import LENGTH, K, V, address
from .launch import launch
from .product import rmsnorm


@triton.jit
def rotated(low, high, cos_ptr, sin_ptr, offs_b, offs_i, inside, half):
    """Pairs (i, i + half) turned by their angles; every argument (I, B) or broadcast to it."""
    at = offs_b * (2 * half) + offs_i
    cos = tl.load(cos_ptr + at, mask=inside, other=1.0).to(tl.float32)
    sin = tl.load(sin_ptr + at, mask=inside, other=0.0).to(tl.float32)
    turned_low = low * cos - high * sin
    cos = tl.load(cos_ptr + at + half, mask=inside, other=1.0).to(tl.float32)
    sin = tl.load(sin_ptr + at + half, mask=inside, other=0.0).to(tl.float32)
    return turned_low, high * cos + low * sin


@triton.jit
def store(
    low, high, q_ptr, position_ptr, frame_ptr, head, layer, B, heads, kv_heads, half,
    offs_b, offs_i, inside,
):  # fmt: skip
    """Elements i and i + half of one head of q, k or v: to q (B, H, D), or to the cache.

    ``head`` counts q's heads, then k's, then v's. A position outside the cache is not written.
    """
    dtype: tl.constexpr = q_ptr.dtype.element_ty
    D = 2 * half
    if head < heads:
        at = q_ptr + (offs_b * heads + head) * D + offs_i
        tl.store(at, low.to(dtype), mask=inside)
        tl.store(at + half, high.to(dtype), mask=inside)
    else:
        cache = address(frame_ptr, K, dtype)
        if head >= heads + kv_heads:
            cache = address(frame_ptr, V, dtype)
        length = tl.load(frame_ptr + LENGTH)
        position = tl.load(position_ptr + offs_b, mask=offs_b < B, other=-1)
        inside = inside & (position >= 0) & (position < length)
        row = (layer * B + offs_b) * kv_heads + (head - heads) % kv_heads  # of (L, B, H_kv), int64
        at = cache + (row * length + position) * D + offs_i
        tl.store(at, low.to(dtype), mask=inside)
        tl.store(at + half, high.to(dtype), mask=inside)


@triton.jit
def half_norm(low, high, norm_ptr, eps, offs_i, half):
    """RMSNorm over both halves of one head, each (I,)."""
    scale = tl.rsqrt((tl.sum(low * low, 0) + tl.sum(high * high, 0)) / (2 * half) + eps)
    inside = offs_i < half
    low *= scale * tl.load(norm_ptr + offs_i, mask=inside, other=0.0).to(tl.float32)
    high *= scale * tl.load(norm_ptr + half + offs_i, mask=inside, other=0.0).to(tl.float32)
    return low, high


@triton.jit(do_not_specialize=["layer", "B"])
def rope_kernel(
    qkv_ptr, q_norm_ptr, k_norm_ptr, cos_ptr, sin_ptr, position_ptr, frame_ptr, q_ptr,
    B, heads, kv_heads, half, layer, eps, BLOCK_I: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: one head of q, k or v of one sequence."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    head = tl.program_id(0)
    b = tl.program_id(1).to(tl.int64)
    offs_i = tl.arange(0, BLOCK_I)
    inside = offs_i < half
    at = qkv_ptr + (b * (heads + 2 * kv_heads) + head) * (2 * half) + offs_i
    low = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(at + half, mask=inside, other=0.0).to(tl.float32)
    if head < heads + kv_heads:
        if head < heads:
            if q_norm_ptr is not None:
                low, high = half_norm(low, high, q_norm_ptr, eps, offs_i, half)
        else:
            if k_norm_ptr is not None:
                low, high = half_norm(low, high, k_norm_ptr, eps, offs_i, half)
        low, high = rotated(low, high, cos_ptr, sin_ptr, b, offs_i, inside, half)
    store(
        low, high, q_ptr, position_ptr, frame_ptr, head, layer, B, heads, kv_heads, half,
        b, offs_i, inside,
    )  # fmt: skip


def rope(
    qkv: Tensor,
    *,
    cos: Tensor,
    sin: Tensor,
    position: Tensor,
    frame: Tensor,
    layer: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    q_norm: Tensor | None = None,
    k_norm: Tensor | None = None,
    eps: float = 0.0,
) -> Tensor:
    """The rotated q (B, H, D); k and v of sequence b go to position[b] of the frame's cache.

    Args:
        qkv: (B, (H + 2·H_kv)·D), of the cache's dtype, any B.
        cos, sin: (B, D); position: (B,) int64. What would lie outside the cache is dropped.
        frame: (FIELDS,) int64, see frame.py.
        q_norm, k_norm: (D,) weights of an RMSNorm over each head, before the rotation.
    """
    B = qkv.shape[0]
    assert qkv.shape[1] == (heads + 2 * kv_heads) * head_dim
    assert qkv.is_contiguous()
    assert cos.is_contiguous()
    assert sin.is_contiguous()
    q = torch.empty(B, heads, head_dim, dtype=qkv.dtype, device=qkv.device)
    entry = launch("rope", "any", qkv.device)
    options = {"launch_pdl": True} if entry["pdl"] else {}
    rope_kernel[(heads + 2 * kv_heads, B)](
        qkv, q_norm, k_norm, cos, sin, position, frame, q,
        B, heads, kv_heads, head_dim // 2, layer, eps,
        triton.next_power_of_2(head_dim // 2), bool(entry["pdl"]),
        num_warps=entry["num_warps"], **options,
    )  # fmt: skip
    return q


def rope_reference(
    qkv: Tensor,
    *,
    cos: Tensor,
    sin: Tensor,
    position: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    layer: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    q_norm: Tensor | None = None,
    k_norm: Tensor | None = None,
    eps: float = 0.0,
) -> Tensor:
    """``rope`` in torch, writing to caches (L, B, H_kv, T_max, D) instead of through a frame."""
    qkv = qkv.view(len(qkv), -1, head_dim)
    q, k, v = qkv.split((heads, kv_heads, kv_heads), dim=1)  # (B, H, D)
    rows = torch.arange(len(qkv), device=qkv.device)
    k_cache[layer, rows, :, position] = _rotate(rmsnorm(k, k_norm, eps), cos, sin)
    v_cache[layer, rows, :, position] = v
    return _rotate(rmsnorm(q, q_norm, eps), cos, sin)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat((-high, low), dim=-1) * sin[:, None]
