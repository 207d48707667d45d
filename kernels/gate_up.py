"""Decode: the first half of a gated MLP, silu(gate) · up of the normed x, in one launch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from .product import pairs, product, product_reference, rmsnorm, sizes


@triton.jit
def gate_up_kernel(
    x_ptr, norm_ptr, weight_ptr, scale_ptr, bias_ptr, out_ptr, B, INNER, K, eps,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_N / 2 rows of the gate and the same of up, taken in turn."""
    first = tl.program_id(0) * (BLOCK_N // 2)
    offs_n = tl.arange(0, BLOCK_N)
    rows = tl.minimum(first + offs_n // 2, INNER - 1) + (offs_n % 2) * INNER
    y = product(
        x_ptr, norm_ptr, weight_ptr, scale_ptr, rows, B, K, eps,
        BLOCK_B, BLOCK_N, BLOCK_K, STAGES, PDL,
    )  # (N, B)  # fmt: skip
    if bias_ptr is not None:
        y += tl.load(bias_ptr + rows).to(tl.float32)[:, None]
    gate, up = pairs(y, BLOCK_N, BLOCK_B)  # (N / 2, B)
    out = gate * tl.sigmoid(gate) * up
    offs_i = first + tl.arange(0, BLOCK_N // 2)
    offs_b = tl.arange(0, BLOCK_B)
    at = out_ptr + offs_b[None, :].to(tl.int64) * INNER + offs_i[:, None]
    inside = (offs_i < INNER)[:, None] & (offs_b < B)[None, :]
    tl.store(at, out.to(out_ptr.dtype.element_ty), mask=inside)


def gate_up(
    x: Tensor,
    weight: Tensor,
    *,
    norm: Tensor,
    eps: float,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """silu(gate) · up of rmsnorm(x) @ weightᵀ + bias: (B, inner) in x's dtype.

    Args:
        x: (B, K), B at most 16; norm: (K,).
        weight: (2·inner, K), the gate's rows before up's; bias: (2·inner,).
        scale: (2·inner,) float32, a factor of each row; the weight is int8 then, and otherwise not.
    """
    B, K = x.shape
    inner = weight.shape[0] // 2
    tile, options = sizes(x, weight, scale)
    out = torch.empty(B, inner, dtype=x.dtype, device=x.device)
    gate_up_kernel[(triton.cdiv(inner, tile["BLOCK_N"] // 2),)](
        x, norm, weight, scale, bias, out, B, inner, K, eps, **tile, **options
    )
    return out


def gate_up_reference(
    x: Tensor,
    weight: Tensor,
    *,
    norm: Tensor,
    eps: float,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """``gate_up`` in torch; arguments as there."""
    gate, up = product_reference(rmsnorm(x, norm, eps), weight, scale, bias).chunk(2, dim=-1)
    return F.silu(gate) * up
