"""Prefill: fused attention of many query rows, with the boost of whole segments of keys.

The boost stays out of the inner loop. Keys are taken segment by segment (segments.py); within one
the bias of a head is a single number, and adding a number to every logit of a tile is shifting the
reference of the running maximum: one addition a row. The sum of a segment's weights, which the
softmax keeps anyway, is its attention mass.

Everything is in the exp2 domain: scale and biases arrive multiplied by log2(e).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .segments import LOG2E, Segments


@triton.jit
def log2_or_none(x):
    """log2(x), and -inf for 0 without taking a logarithm of it."""
    return tl.where(x > 0, tl.math.log2(tl.where(x > 0, x, 1.0)), float("-inf"))


@triton.jit
def attend(
    acc, m, total, q, k_ptr, v_ptr, stride_ks, stride_vs, begin, end, bias, rows, window,
    scale, cap,
    D: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    MASKED: tl.constexpr, WINDOWED: tl.constexpr, CAPPED: tl.constexpr,
):  # fmt: skip
    """Add keys [begin, end) of one segment to the state: acc, running maximum, segment's sum."""
    offs_n = tl.arange(0, BLOCK_N)
    offs_d = tl.arange(0, BLOCK_D)
    in_d = offs_d < D
    for first in range(begin, end, BLOCK_N):
        keys = first + offs_n
        k_at = k_ptr + keys[None, :].to(tl.int64) * stride_ks + offs_d[:, None]  # (D, N)
        v_at = v_ptr + keys[:, None].to(tl.int64) * stride_vs + offs_d[None, :]  # (N, D)
        if MASKED:
            inside = keys < end
            k = tl.load(k_at, mask=in_d[:, None] & inside[None, :], other=0.0)
            v = tl.load(v_at, mask=inside[:, None] & in_d[None, :], other=0.0)
        else:
            k = tl.load(k_at, mask=in_d[:, None], other=0.0)
            v = tl.load(v_at, mask=in_d[None, :], other=0.0)
        logits = tl.dot(q, k, input_precision="ieee") * scale
        if CAPPED:  # cap · tanh(x / cap), in the exp2 domain; tanh(y) = 2·sigmoid(2y) - 1
            logits = cap * (2 * tl.sigmoid(2 * logits / cap) - 1)
        if MASKED:
            seen = inside[None, :] & (keys[None, :] <= rows[:, None])
            if WINDOWED:
                seen = seen & (rows[:, None] - keys[None, :] < window)
            logits = tl.where(seen, logits, float("-inf"))
        top = tl.maximum(m, tl.max(logits, 1) + bias)
        # A row that has seen nothing yet keeps a finite reference: exp2(-inf - 0) = 0, no NaN.
        reference = tl.where(top == float("-inf"), 0.0, top)
        p = tl.math.exp2(logits - (reference - bias)[:, None])
        fade = tl.math.exp2(m - reference)
        total = total * fade + tl.sum(p, 1)
        acc = tl.dot(p.to(v.dtype), v, acc * fade[:, None], input_precision="ieee")
        m = top
    return acc, m, total


@triton.jit
def prefill_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, start_ptr, edge_ptr, bias_ptr, sum_ptr,
    stride_qb, stride_qh, stride_qt, stride_kb, stride_kh, stride_ks,
    stride_vb, stride_vh, stride_vs, stride_ob, stride_oh, stride_ot,
    T, S, H, GROUP, SEGMENTS, window, scale, cap,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    WINDOWED: tl.constexpr, CAPPED: tl.constexpr, MASS: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_M query rows of one head of one sequence."""
    tile = tl.num_programs(0) - 1 - tl.program_id(0)  # the longest rows first
    head = tl.program_id(1) % H
    b = (tl.program_id(1) // H).to(tl.int64)
    kv_head = head // GROUP
    offs_m = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_d = tl.arange(0, BLOCK_D)
    in_q = (offs_m < T)[:, None] & (offs_d < D)[None, :]
    start = tl.load(start_ptr + b)
    rows = start + offs_m
    q_at = q_ptr + b * stride_qb + head * stride_qh + offs_m[:, None].to(tl.int64) * stride_qt
    q = tl.load(q_at + offs_d[None, :], mask=in_q, other=0.0)  # (M, D)
    k_ptr += b * stride_kb + kv_head * stride_kh
    v_ptr += b * stride_vb + kv_head * stride_vh

    row_first = start + tile * BLOCK_M
    row_last = start + tl.minimum(tile * BLOCK_M + BLOCK_M, T) - 1
    low, high = 0, tl.minimum(S, row_last + 1)  # keys that some row sees
    all_low, all_high = 0, tl.minimum(S, row_first + 1)  # keys that every row sees
    if WINDOWED:
        low = tl.maximum(0, row_first - window + 1)
        all_low = tl.maximum(0, row_last - window + 1)

    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    m = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    for segment in range(SEGMENTS):
        begin = tl.maximum(tl.load(edge_ptr + b * (SEGMENTS + 1) + segment).to(tl.int32), low)
        end = tl.minimum(tl.load(edge_ptr + b * (SEGMENTS + 1) + segment + 1).to(tl.int32), high)
        bias = tl.load(bias_ptr + (b * H + head) * SEGMENTS + segment)
        before, part = m, tl.zeros([BLOCK_M], tl.float32)
        if end > begin:
            # Masked at the window's edge, then whole tiles that every row sees, then masked again.
            edge = tl.minimum(tl.maximum(all_low, begin), end)
            whole = tl.maximum(tl.minimum(all_high, end) - edge, 0) // BLOCK_N * BLOCK_N
            if WINDOWED:
                acc, m, part = attend(
                    acc, m, part, q, k_ptr, v_ptr, stride_ks, stride_vs, begin, edge, bias, rows,
                    window, scale, cap, D, BLOCK_N, BLOCK_D, True, WINDOWED, CAPPED,
                )  # fmt: skip
            acc, m, part = attend(
                acc, m, part, q, k_ptr, v_ptr, stride_ks, stride_vs, edge, edge + whole, bias,
                rows, window, scale, cap, D, BLOCK_N, BLOCK_D, False, WINDOWED, CAPPED,
            )  # fmt: skip
            acc, m, part = attend(
                acc, m, part, q, k_ptr, v_ptr, stride_ks, stride_vs, edge + whole, end, bias, rows,
                window, scale, cap, D, BLOCK_N, BLOCK_D, True, WINDOWED, CAPPED,
            )  # fmt: skip
        reference = tl.where(m == float("-inf"), 0.0, m)
        total = total * tl.math.exp2(before - reference) + part
        if MASS:
            at = sum_ptr + ((b * H + head) * T + offs_m) * (SEGMENTS + 1) + segment
            tl.store(at, reference + log2_or_none(part), mask=offs_m < T)
    reference = tl.where(m == float("-inf"), 0.0, m)
    if MASS:
        at = sum_ptr + ((b * H + head) * T + offs_m) * (SEGMENTS + 1) + SEGMENTS
        tl.store(at, reference + log2_or_none(total), mask=offs_m < T)
    out = acc / tl.where(total == 0, 1.0, total)[:, None]
    o_at = out_ptr + b * stride_ob + head * stride_oh + offs_m[:, None].to(tl.int64) * stride_ot
    tl.store(o_at + offs_d[None, :], out.to(out_ptr.dtype.element_ty), mask=in_q)


def launch(head_dim: int) -> tuple[int, int, int]:
    """Query rows, keys and warps of a tile: sizes that spill no register on sm_80 and sm_90."""
    if head_dim <= 64:
        return 128, 64, 8
    return (64, 64, 4) if head_dim <= 128 else (64, 32, 8)


def prefill(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    start: Tensor,
    segments: Segments,
    *,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
    return_mass: bool = False,
    block_m: int | None = None,
    block_n: int | None = None,
    num_warps: int | None = None,
    num_stages: int = 2,
) -> tuple[Tensor, Tensor | None]:
    """Attention of query rows at positions start[b] + t; k and v hold key j at position j.

    Args:
        q: (B, H, T, D), k and v: (B, H_kv, S, D), last dimension contiguous; D at most 256.
        start: (B,) integer.
        soft_cap: logits become cap·tanh(logits / cap) before the bias.
        return_mass: also return the attention mass on each span.
        block_m, block_n, num_warps, num_stages: the launch, by default that of ``launch``.

    Returns:
        out (B, H, T, D) in q's dtype, and the mass (B, H, T, N) float32 or None.
    """
    B, H, T, D = q.shape
    count = segments.bias.shape[2]
    rows, keys, warps = launch(D)
    block_m, block_n, num_warps = block_m or rows, block_n or keys, num_warps or warps
    out = torch.empty_like(q)
    sums = torch.empty(B, H, T, count + 1, device=q.device) if return_mass else out
    prefill_kernel[(triton.cdiv(T, block_m), B * H)](
        q, k, v, out, start, segments.edges, segments.bias, sums,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3],
        T, k.shape[2], H, H // k.shape[1], count, window or 0, scale * LOG2E,
        (soft_cap or 0.0) * LOG2E,
        D, block_m, block_n, max(16, triton.next_power_of_2(D)),
        window is not None, soft_cap is not None, return_mass,
        num_warps=num_warps, num_stages=num_stages,
    )  # fmt: skip
    return out, segments.mass(sums) if return_mass else None
