"""Decode: a linear layer on a few rows, its RMSNorm before and its residual after in one launch.

Output projection and down with the residual stream; norm and LM head; norm and a plain product.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .product import product, product_reference, rmsnorm, sizes


@triton.jit
def linear_kernel(
    x_ptr, norm_ptr, weight_ptr, scale_ptr, bias_ptr, residual_ptr, out_ptr, B, N, K, eps,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_N rows of the weight."""
    offs_n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows = tl.minimum(offs_n, N - 1)  # in range without a mask: the last row, again
    y = product(
        x_ptr, norm_ptr, weight_ptr, scale_ptr, rows, B, K, eps,
        BLOCK_B, BLOCK_N, BLOCK_K, STAGES, PDL,
    )  # (N, B)  # fmt: skip
    if bias_ptr is not None:
        y += tl.load(bias_ptr + rows).to(tl.float32)[:, None]
    offs_b = tl.arange(0, BLOCK_B)
    inside = (offs_n < N)[:, None] & (offs_b < B)[None, :]
    at = offs_b[None, :].to(tl.int64) * N + offs_n[:, None]
    if residual_ptr is not None:
        y += tl.load(residual_ptr + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, y.to(out_ptr.dtype.element_ty), mask=inside)


def linear(
    x: Tensor,
    weight: Tensor,
    *,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    norm: Tensor | None = None,
    eps: float = 0.0,
    residual: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """residual + (rmsnorm(x) @ weightᵀ + bias), summed in float32 and rounded once: (B, N).

    Args:
        x: (B, K), B at most 16 (1 to 8 is what it is for); weight: (N, K); bias: (N,).
        scale: (N,) float32, a factor of each row; the weight is int8 then, and otherwise not.
        norm: (K,) weight of the RMSNorm before; without it x is taken as it is.
        residual: (B, N).
        out_dtype: x's by default.
    """
    B, K = x.shape
    N = weight.shape[0]
    tile, options = sizes(x, weight, scale)
    assert residual is None or (residual.is_contiguous() and residual.shape == (B, N))
    out = torch.empty(B, N, dtype=out_dtype or x.dtype, device=x.device)
    linear_kernel[(triton.cdiv(N, tile["BLOCK_N"]),)](
        x, norm, weight, scale, bias, residual, out, B, N, K, eps, **tile, **options
    )
    return out


def linear_reference(
    x: Tensor,
    weight: Tensor,
    *,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    norm: Tensor | None = None,
    eps: float = 0.0,
    residual: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """``linear`` in torch; arguments as there."""
    y = product_reference(rmsnorm(x, norm, eps), weight, scale, bias)
    return (y if residual is None else residual + y).to(out_dtype or x.dtype)
