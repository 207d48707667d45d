"""Decode: RMSNorm, the product of q, k and v, rotation and the cache write in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .product import pairs, product, product_reference, rmsnorm, sizes
from .rope import rope_reference, rotated, store


@triton.jit(do_not_specialize=["layer"])
def qkv_kernel(
    x_ptr, norm_ptr, weight_ptr, scale_ptr, bias_ptr, cos_ptr, sin_ptr, position_ptr, frame_ptr,
    q_ptr, B, K, heads, kv_heads, half, layer, eps,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: elements i and i + half of one head, for BLOCK_N / 2 values of i.

    The two rows of a pair are taken in turn, so that a rotation stays within a program.
    """
    tiles = tl.cdiv(half, BLOCK_N // 2)
    head = tl.program_id(0) // tiles
    first = (tl.program_id(0) % tiles) * (BLOCK_N // 2)
    offs_n = tl.arange(0, BLOCK_N)
    rows = tl.minimum(first + offs_n // 2, half - 1) + (offs_n % 2) * half
    rows += head * (2 * half)
    y = product(
        x_ptr, norm_ptr, weight_ptr, scale_ptr, rows, B, K, eps,
        BLOCK_B, BLOCK_N, BLOCK_K, STAGES, PDL,
    )  # (N, B)  # fmt: skip
    if bias_ptr is not None:
        y += tl.load(bias_ptr + rows).to(tl.float32)[:, None]
    low, high = pairs(y, BLOCK_N, BLOCK_B)  # (N / 2, B)
    offs_i = first + tl.arange(0, BLOCK_N // 2)[:, None]
    offs_b = tl.arange(0, BLOCK_B)[None, :].to(tl.int64)
    inside = (offs_i < half) & (offs_b < B)
    if head < heads + kv_heads:
        low, high = rotated(low, high, cos_ptr, sin_ptr, offs_b, offs_i, inside, half)
    store(
        low, high, q_ptr, position_ptr, frame_ptr, head, layer, B, heads, kv_heads, half,
        offs_b, offs_i, inside,
    )  # fmt: skip


def qkv(
    x: Tensor,
    weight: Tensor,
    *,
    norm: Tensor,
    eps: float,
    bias: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    position: Tensor,
    frame: Tensor,
    layer: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    scale: Tensor | None = None,
) -> Tensor:
    """q (B, H, D) of the normed x, rotated; k and v of b go to position[b] of the frame's cache.

    Args:
        x: (B, K), B at most 16, of the cache's dtype; norm: (K,).
        weight: ((H + 2·H_kv)·D, K), the rows of q before those of k before those of v.
        scale: a float32 factor a row, where the weight is int8; else None.
        bias: one number a row, or None.
        cos, sin: (B, D); position: (B,) int64. What would lie outside the cache is dropped.
        frame: (FIELDS,) int64, see frame.py.
    """
    B, K = x.shape
    assert weight.shape[0] == (heads + 2 * kv_heads) * head_dim
    assert cos.is_contiguous()
    assert sin.is_contiguous()
    tile, options = sizes(x, weight, scale)
    q = torch.empty(B, heads, head_dim, dtype=x.dtype, device=x.device)
    tiles = triton.cdiv(head_dim // 2, tile["BLOCK_N"] // 2)
    qkv_kernel[((heads + 2 * kv_heads) * tiles,)](
        x, norm, weight, scale, bias, cos, sin, position, frame, q,
        B, K, heads, kv_heads, head_dim // 2, layer, eps, **tile, **options,
    )  # fmt: skip
    return q


def qkv_reference(
    x: Tensor,
    weight: Tensor,
    *,
    norm: Tensor,
    eps: float,
    bias: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    position: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    layer: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    scale: Tensor | None = None,
) -> Tensor:
    """``qkv`` in torch, writing to caches (L, B, H_kv, T_max, D) instead of through a frame."""
    return rope_reference(
        product_reference(rmsnorm(x, norm, eps), weight, scale, bias),
        cos=cos,
        sin=sin,
        position=position,
        k_cache=k_cache,
        v_cache=v_cache,
        layer=layer,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
    )
