"""The product of a decode step: rows of a weight with the few vectors of a batch, RMSNorm fused.

A decode step reads every weight once and does little with it, so all that counts is that the
memory stays busy: enough programs to fill the GPU, enough loads under way in each. What the rows
mean, and what becomes of the sums, is the business of the kernels that call ``product``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from .launch import free_registers, launch

MAX_BATCH = 16  # rows of the smallest tile of a tensor core
RUN = tl.constexpr(8)  # sums of so many neighbours stay in one thread until the loop is over
WIDE = 8192  # rows of a weight from which larger tiles still fill a GPU


@triton.jit
def product(
    x_ptr, norm_ptr, weight_ptr, scale_ptr, rows, B, K, eps,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """weight[rows] @ rmsnorm(x)ᵀ, (BLOCK_N, BLOCK_B) float32, 0 where b ≥ B.

    x (B, K) and weight (…, K), both contiguous; ``rows`` (BLOCK_N,) are all rows of the weight.
    Without ``norm_ptr`` x is taken as it is. ``scale_ptr``: a float32 factor a row of the weight,
    whose elements are then int8. What an earlier launch wrote must be read after this call: under
    programmatic dependent launch the wait for it is in here.
    """
    if scale_ptr is not None:  # ahead of the loop, so that nothing waits for it at the end
        scale = tl.load(scale_ptr + rows)
    w_at = weight_ptr + rows[:, None].to(tl.int64) * K + tl.arange(0, BLOCK_K)[None, :]
    if BLOCK_B == 1:
        y = one_vector(x_ptr, norm_ptr, w_at, K, eps, BLOCK_N, BLOCK_K, STAGES, PDL)
    else:
        y = few_vectors(x_ptr, norm_ptr, w_at, B, K, eps, BLOCK_B, BLOCK_N, BLOCK_K, STAGES, PDL)
    if scale_ptr is not None:
        y = y * scale[:, None]
    return y


@triton.jit
def early_tile(w_at, K, BLOCK_K: tl.constexpr):
    """The first tile of weights, asked for before the wait: no earlier launch writes weights.

    It is used after all others, so that their loads need not wait for a product with it.
    """
    gdc_launch_dependents()
    w = tl.load(w_at, mask=(tl.arange(0, BLOCK_K) < K)[None, :], other=0.0)
    gdc_wait()
    return w


@triton.jit
def one_vector(
    x_ptr, norm_ptr, w_at, K, eps,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """``product`` for B = 1, by multiply-add."""
    begin = 0
    if PDL:
        early = early_tile(w_at, K, BLOCK_K)
        begin = BLOCK_K
    offs_k = tl.arange(0, BLOCK_K)
    sums = tl.zeros([BLOCK_N, BLOCK_K // RUN], tl.float32)
    squares = tl.zeros([BLOCK_K // RUN], tl.float32)
    for k in tl.range(begin, K, BLOCK_K, num_stages=STAGES):
        inside = (offs_k < K - k)[None, :]
        w = tl.load(w_at + k, mask=inside, other=0.0)
        sums, squares = add_tile(sums, squares, w, x_ptr, norm_ptr, k, K, BLOCK_N, BLOCK_K)
    if PDL:
        sums, squares = add_tile(sums, squares, early, x_ptr, norm_ptr, 0, K, BLOCK_N, BLOCK_K)
    y = tl.sum(sums, 1)
    if norm_ptr is not None:  # one factor for all of x: it may wait until the sums are there
        y = y * tl.rsqrt(tl.sum(squares, 0) / K + eps)
    return y[:, None]


@triton.jit
def add_tile(
    sums, squares, w, x_ptr, norm_ptr, k, K,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The products of one tile (N, K), and the squares of its x, added run by run."""
    at = k + tl.arange(0, BLOCK_K)
    x = tl.load(x_ptr + at, mask=at < K, other=0.0).to(tl.float32)
    if norm_ptr is not None:
        squares += tl.sum((x * x).reshape(BLOCK_K // RUN, RUN), 1)
        x = x * tl.load(norm_ptr + at, mask=at < K, other=0.0).to(tl.float32)
    terms = w.to(tl.float32) * x[None, :]
    return sums + tl.sum(terms.reshape(BLOCK_N, BLOCK_K // RUN, RUN), 2), squares


@triton.jit
def few_vectors(
    x_ptr, norm_ptr, w_at, B, K, eps,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """``product`` for B > 1, by tensor cores, the batch padded to BLOCK_B."""
    begin = 0
    if PDL:
        early = early_tile(w_at, K, BLOCK_K)
        begin = BLOCK_K
    offs_k = tl.arange(0, BLOCK_K)
    offs_b = tl.arange(0, BLOCK_B)
    real = (offs_b < B)[None, :]
    # What tl.dot multiplies: x's dtype, in which int8 weights are exact.
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    x_at = x_ptr + offs_b[None, :].to(tl.int64) * K + offs_k[:, None]  # (K, B)
    # A 16-bit operand x · norm would overflow in float16 where the normed one does not, so there
    # its factor comes first, from a look at x ahead of the loop. bfloat16 has float32's range.
    FIRST: tl.constexpr = norm_ptr is not None and dtype == tl.float16
    factor = tl.full([BLOCK_B], 1.0, tl.float32)
    squares = tl.zeros([BLOCK_K // RUN, BLOCK_B], tl.float32)
    if FIRST:
        for k in range(0, K, BLOCK_K):
            inside = (offs_k < K - k)[:, None] & real
            x = tl.load(x_at + k, mask=inside, other=0.0).to(tl.float32)
            squares += tl.sum((x * x).reshape(BLOCK_K // RUN, RUN, BLOCK_B), 1)
        factor = tl.rsqrt(tl.sum(squares, 0) / K + eps)
    acc = tl.zeros([BLOCK_N, BLOCK_B], tl.float32)
    norm = norm_tile(norm_ptr, begin, K, BLOCK_K)
    for k in tl.range(begin, K, BLOCK_K, num_stages=STAGES):
        inside = offs_k < K - k
        w = tl.load(w_at + k, mask=inside[None, :], other=0.0)
        x = tl.load(x_at + k, mask=inside[:, None] & real, other=0.0)
        x, squares = normed(x, norm_ptr, norm, factor, squares, BLOCK_B, BLOCK_K, FIRST)
        norm = norm_tile(norm_ptr, k + BLOCK_K, K, BLOCK_K)  # a thread's part is too small to pipe
        acc = tl.dot(w.to(dtype), x.to(dtype), acc, input_precision="ieee")
    if PDL:
        norm = norm_tile(norm_ptr, 0, K, BLOCK_K)
        x = tl.load(x_at, mask=(offs_k < K)[:, None] & real, other=0.0)
        x, squares = normed(x, norm_ptr, norm, factor, squares, BLOCK_B, BLOCK_K, FIRST)
        acc = tl.dot(early.to(dtype), x.to(dtype), acc, input_precision="ieee")
    if norm_ptr is not None and not FIRST:
        acc = acc * tl.rsqrt(tl.sum(squares, 0) / K + eps)[None, :]
    return acc


@triton.jit
def norm_tile(norm_ptr, k, K, BLOCK_K: tl.constexpr):
    """The norm's weight from k on (BLOCK_K,); ones where there is none."""
    offs_k = k + tl.arange(0, BLOCK_K)
    if norm_ptr is not None:
        norm = tl.load(norm_ptr + offs_k, mask=offs_k < K, other=0.0)
    else:
        norm = tl.full([BLOCK_K], 1.0, tl.float32)
    return norm


@triton.jit
def normed(
    x, norm_ptr, norm, factor, squares,
    BLOCK_B: tl.constexpr, BLOCK_K: tl.constexpr, FIRST: tl.constexpr,
):  # fmt: skip
    """A tile of xᵀ (K, B) times norm and factor; and the squares of x added to theirs."""
    if norm_ptr is not None:
        x = x.to(tl.float32)
        if not FIRST:
            squares += tl.sum((x * x).reshape(BLOCK_K // RUN, RUN, BLOCK_B), 1)
        x = x * norm.to(tl.float32)[:, None] * factor[None, :]
    return x, squares


@triton.jit
def pairs(y, BLOCK_N: tl.constexpr, BLOCK_B: tl.constexpr):
    """(BLOCK_N, BLOCK_B) → rows 0, 2, 4 … and rows 1, 3, 5 …, each (BLOCK_N / 2, BLOCK_B)."""
    return tl.split(y.reshape(BLOCK_N // 2, 2, BLOCK_B).permute(0, 2, 1))


def sizes(x: Tensor, weight: Tensor, scale: Tensor | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tile sizes and launch options for x (B, K), weight (N, K) and its scale, all checked here.

    A tile's width in the table is for operands of two bytes; wider ones get a narrower tile. With
    one vector of two bytes, int8 weights get one twice as wide, so that as many bytes are under
    way. With a batch they keep the table's: each of their tiles has one of x beside it.
    """
    B, width = x.shape[0], weight.element_size()
    width = max(width, x.element_size() // (2 if B == 1 else 1))
    assert 1 <= B <= MAX_BATCH, f"a decode product takes 1 to {MAX_BATCH} rows, not {B}"
    assert x.shape[1] == weight.shape[1]
    assert x.is_contiguous()
    assert weight.is_contiguous()
    assert (scale is not None) == (weight.dtype == torch.int8)
    assert scale is None or (scale.is_contiguous() and scale.shape == weight.shape[:1])
    entry = launch("linear", shape_class(B, weight.shape[0], width), x.device)
    tile = {
        "BLOCK_B": 1 if B == 1 else MAX_BATCH,
        "BLOCK_N": entry["block_n"],
        "BLOCK_K": max(16, entry["block_k"] * 2 // width),
        "STAGES": entry["num_stages"],
        "PDL": bool(entry["pdl"]),
    }
    options = {"num_warps": entry["num_warps"]}
    if scale is not None and B > 1:  # the weights pass through registers on their way to tl.dot
        options |= free_registers()
    if entry["pdl"]:  # known to the NVIDIA backend alone
        options["launch_pdl"] = True
    return tile, options


def shape_class(B: int, N: int, width: int) -> str:
    """The key of a product in the launch table, for N rows and operands of ``width`` bytes.

    Float32 with B > 1 has no tensor cores that keep its precision; wide tiles spill there.
    """
    wide = N >= WIDE and (B == 1 or width <= 2)
    return f"b{1 if B == 1 else 8}-{'wide' if wide else 'narrow'}"


def product_reference(
    x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None
) -> Tensor:
    """x @ (weight · scale)ᵀ + bias in torch, in x's dtype; with a scale, rounded once."""
    if scale is None:
        return F.linear(x, weight, bias)
    wide = torch.promote_types(x.dtype, torch.float32)
    y = F.linear(x.to(wide), weight.to(wide)) * scale
    return (y if bias is None else y + bias).to(x.dtype)


def rmsnorm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Torch reference of the norm, in x's dtype (float64: exact enough to judge the others)."""
    if weight is None:
        return x
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)
