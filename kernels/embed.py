"""Decode: the first launch of a step, embedding rows and the rotation's cos and sin."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from .launch import launch


@triton.jit
def embed_kernel(
    token_ptr, position_ptr, weight_ptr, scale_ptr, freq_ptr, x_ptr, cos_ptr, sin_ptr,
    K, half, factor, BLOCK_K: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_K numbers of one sequence's row; the first also turns the angles."""
    b = tl.program_id(0).to(tl.int64)
    offs_k = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    token = tl.maximum(tl.load(token_ptr + b), 0)
    row = tl.load(weight_ptr + token * K + offs_k, mask=offs_k < K)
    if scale_ptr is not None:
        row = (row.to(tl.float32) * tl.load(scale_ptr + token)).to(x_ptr.dtype.element_ty)
    tl.store(x_ptr + b * K + offs_k, row, mask=offs_k < K)
    if tl.program_id(1) == 0:
        offs_h = tl.arange(0, BLOCK_H)
        inside = offs_h < half
        position = tl.load(position_ptr + b).to(tl.float32)
        angle = position * tl.load(freq_ptr + offs_h, mask=inside, other=0.0)
        cos = (tl.cos(angle) * factor).to(cos_ptr.dtype.element_ty)
        sin = (tl.sin(angle) * factor).to(sin_ptr.dtype.element_ty)
        at = b * 2 * half + offs_h
        tl.store(cos_ptr + at, cos, mask=inside)
        tl.store(cos_ptr + at + half, cos, mask=inside)
        tl.store(sin_ptr + at, sin, mask=inside)
        tl.store(sin_ptr + at + half, sin, mask=inside)


def embed(
    tokens: Tensor,
    position: Tensor,
    weight: Tensor,
    inv_freq: Tensor,
    factor: float,
    *,
    scale: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The residual stream (B, K) that a step begins with, and cos and sin (B, D), in ``dtype``.

    Args:
        tokens, position: (B,) int64; a token below 0 reads row 0.
        weight: (V, K); inv_freq: (D / 2,) float32, angle per position of each pair.
        factor: on cos and sin.
        scale: (V,) float32, a factor of each row; the weight is int8 then, and otherwise not.
        dtype: the weight's own by default, and without a scale.
    """
    B, (_, K), half = len(tokens), weight.shape, len(inv_freq)
    dtype = dtype or weight.dtype
    assert dtype.is_floating_point
    assert weight.dtype == (dtype if scale is None else torch.int8)
    assert scale is None or (scale.is_contiguous() and scale.shape == weight.shape[:1])
    sizes = launch("embed", "any", weight.device)
    x = torch.empty(B, K, dtype=dtype, device=weight.device)
    cos = torch.empty(B, 2 * half, dtype=dtype, device=weight.device)
    sin = torch.empty_like(cos)
    embed_kernel[(B, triton.cdiv(K, sizes["block_k"]))](
        tokens, position, weight, scale, inv_freq, x, cos, sin, K, half, factor,
        BLOCK_K=sizes["block_k"], BLOCK_H=triton.next_power_of_2(half),
        num_warps=sizes["num_warps"],
    )  # fmt: skip
    return x, cos, sin


def embed_reference(
    tokens: Tensor,
    position: Tensor,
    weight: Tensor,
    inv_freq: Tensor,
    factor: float,
    *,
    scale: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """``embed`` in torch; arguments as there."""
    angle = position[:, None].float() * inv_freq
    cos, sin = (f(torch.cat((angle, angle), 1)) * factor for f in (torch.cos, torch.sin))
    tokens, dtype = tokens.clamp(min=0), dtype or weight.dtype
    x = F.embedding(tokens, weight)
    if scale is not None:
        x = (x * scale[tokens][:, None]).to(dtype)
    return x, cos.to(dtype), sin.to(dtype)
