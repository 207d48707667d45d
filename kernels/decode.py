"""Decode: attention of one query row a sequence, the keys split over programs, in one launch.

The query heads that share a KV head are the rows of one tile, so each key and value is read once.
Every split keeps a partial state (maximum, sum, weighted values); the last program of a row to
finish joins them, in the order of the splits, so the result does not depend on who was last.
Lengths, spans and strengths are read from device memory: nothing here depends on host values.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .prefill import attend, log2_or_none
from .segments import LOG2E, Segments


@triton.jit
def decode_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, start_ptr, edge_ptr, bias_ptr,
    acc_ptr, state_ptr, sum_ptr, count_ptr,
    stride_qb, stride_qh, stride_kb, stride_kh, stride_ks, stride_vb, stride_vh, stride_vs,
    stride_ob, stride_oh,
    H, SEGMENTS, window, scale, cap,
    D: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, SPLITS: tl.constexpr,
    LEAST: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr,
    WINDOWED: tl.constexpr, CAPPED: tl.constexpr, MASS: tl.constexpr,
):  # fmt: skip
    """One program: one split of the keys of one KV head of one sequence."""
    kv_heads = H // GROUP
    pair, split = tl.program_id(0), tl.program_id(1)
    b = (pair // kv_heads).to(tl.int64)
    kv_head = pair % kv_heads
    offs_g = tl.arange(0, ROWS)
    offs_d = tl.arange(0, BLOCK_D)
    heads = kv_head * GROUP + offs_g
    real = offs_g < GROUP
    in_q = real[:, None] & (offs_d < D)[None, :]
    q_at = q_ptr + b * stride_qb + heads[:, None].to(tl.int64) * stride_qh
    q = tl.load(q_at + offs_d[None, :], mask=in_q, other=0.0)  # (ROWS, D)
    k_ptr += b * stride_kb + kv_head * stride_kh
    v_ptr += b * stride_vb + kv_head * stride_vh

    position = tl.load(start_ptr + b).to(tl.int32)
    low, high = 0, position + 1
    if WINDOWED:
        low = tl.maximum(0, high - window)
    share = tl.maximum(tl.cdiv(tl.cdiv(high - low, SPLITS), BLOCK_N) * BLOCK_N, LEAST)
    low = low + split * share
    high = tl.minimum(high, low + share)
    rows = tl.zeros([ROWS], tl.int32) + position

    acc = tl.zeros([ROWS, BLOCK_D], tl.float32)
    m = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    state_at = state_ptr + ((pair * SPLITS + split) * 2) * ROWS + offs_g
    sum_at = sum_ptr + (pair * SPLITS + split) * SEGMENTS * ROWS + offs_g
    for segment in range(SEGMENTS):
        begin = tl.maximum(tl.load(edge_ptr + b * (SEGMENTS + 1) + segment), low)
        end = tl.minimum(tl.load(edge_ptr + b * (SEGMENTS + 1) + segment + 1), high)
        bias = tl.load(
            bias_ptr + (b * H + heads) * SEGMENTS + segment, mask=real, other=0.0
        )  # (ROWS,)
        before, part = m, tl.zeros([ROWS], tl.float32)
        if end > begin:
            whole = (end - begin) // BLOCK_N * BLOCK_N
            acc, m, part = attend(
                acc, m, part, q, k_ptr, v_ptr, stride_ks, stride_vs, begin, begin + whole, bias,
                rows, window, scale, cap, D, BLOCK_N, BLOCK_D, False, False, CAPPED,
            )  # fmt: skip
            acc, m, part = attend(
                acc, m, part, q, k_ptr, v_ptr, stride_ks, stride_vs, begin + whole, end, bias,
                rows, window, scale, cap, D, BLOCK_N, BLOCK_D, True, False, CAPPED,
            )  # fmt: skip
        reference = tl.where(m == float("-inf"), 0.0, m)
        total = total * tl.math.exp2(before - reference) + part
        if MASS:
            tl.store(sum_at + segment * ROWS, reference + log2_or_none(part))

    offs_acc = offs_g[:, None] * BLOCK_D + offs_d[None, :]
    tl.store(acc_ptr + (pair * SPLITS + split) * ROWS * BLOCK_D + offs_acc, acc)
    tl.store(state_at, m)
    tl.store(state_at + ROWS, total)
    tl.debug_barrier()  # every thread's stores come before the count
    if tl.atomic_add(count_ptr + pair, 1, sem="acq_rel") == SPLITS - 1:
        tl.store(count_ptr + pair, 0)  # ready for the next launch
        top = tl.full([ROWS], float("-inf"), tl.float32)
        for s in range(SPLITS):
            top = tl.maximum(
                top, tl.load(state_ptr + ((pair * SPLITS + s) * 2) * ROWS + offs_g, volatile=True)
            )
        reference = tl.where(top == float("-inf"), 0.0, top)  # no key seen: zeros, no NaN
        total = tl.zeros([ROWS], tl.float32)
        acc = tl.zeros([ROWS, BLOCK_D], tl.float32)
        for s in range(SPLITS):
            at = state_ptr + ((pair * SPLITS + s) * 2) * ROWS + offs_g
            weight = tl.math.exp2(tl.load(at, volatile=True) - reference)
            total += tl.load(at + ROWS, volatile=True) * weight
            part_at = acc_ptr + (pair * SPLITS + s) * ROWS * BLOCK_D + offs_acc
            acc += tl.load(part_at, volatile=True) * weight[:, None]
        o_at = out_ptr + b * stride_ob + heads[:, None].to(tl.int64) * stride_oh + offs_d[None, :]
        total = tl.where(total == 0, 1.0, total)
        tl.store(o_at, (acc / total[:, None]).to(out_ptr.dtype.element_ty), mask=in_q)
        if MASS:
            # Over the splits into the first one's place; the sum of all keys goes last.
            offs_c = tl.arange(0, BLOCK_C)
            in_c = (offs_c < SEGMENTS)[:, None]
            joined = tl.zeros([BLOCK_C, ROWS], tl.float32)
            for s in range(SPLITS):
                at = sum_ptr + (pair * SPLITS + s) * SEGMENTS * ROWS
                at = at + offs_c[:, None] * ROWS + offs_g[None, :]
                log_sum = tl.load(at, mask=in_c, other=float("-inf"), volatile=True)
                joined += tl.math.exp2(log_sum - reference[None, :])
            at = sum_ptr + pair * SPLITS * SEGMENTS * ROWS + offs_c[:, None] * ROWS
            tl.store(at + offs_g[None, :], joined / total[None, :], mask=in_c)


def decode(
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
    splits: int = 16,
    least: int = 256,
    block_n: int = 64,
    num_warps: int = 4,
    num_stages: int = 2,
) -> tuple[Tensor, Tensor | None]:
    """Attention of one row per sequence, at position start[b]; arguments as ``prefill``.

    ``splits`` programs share the keys of a KV head, ``least`` keys each at the least.
    """
    B, H, _, D = q.shape
    kv_heads = k.shape[1]
    count, group = segments.bias.shape[2], H // kv_heads
    rows, wide = max(16, triton.next_power_of_2(group)), max(16, triton.next_power_of_2(D))
    pairs = B * kv_heads
    splits = max(1, min(splits, triton.cdiv(k.shape[2], least)))
    out = torch.empty_like(q)
    acc = torch.empty(pairs, splits, rows, wide, device=q.device)
    state = torch.empty(pairs, splits, 2, rows, device=q.device)
    sums = torch.empty(pairs, splits, count, rows, device=q.device) if return_mass else state
    arrived = torch.zeros(pairs, dtype=torch.int32, device=q.device)
    decode_kernel[(pairs, splits)](
        q, k, v, out, start, segments.edges, segments.bias, acc, state, sums, arrived,
        *q.stride()[:2], *k.stride()[:3], *v.stride()[:3], *out.stride()[:2],
        H, count, window or 0, scale * LOG2E, (soft_cap or 0.0) * LOG2E,
        D, group, rows, splits, least, block_n, wide, triton.next_power_of_2(count),
        window is not None, soft_cap is not None, return_mass,
        num_warps=num_warps, num_stages=num_stages,
    )  # fmt: skip
    if not return_mass:
        return out, None
    share = sums[:, 0, :, :group].reshape(B, kv_heads, count, group)
    share = share.transpose(2, 3).reshape(B, H, 1, count)
    return out, share @ segments.inside[:, None].to(share.dtype)
