"""Prefill: fused attention of many query rows, with the boost of whole segments of keys.

The boost stays out of the inner loop. Spans cut the keys into segments (segments.py), and within
one the bias of a head is a single number: adding it to every logit of a tile is shifting the
reference of the running maximum, one addition a row. Only a tile that an edge goes through takes
a bias per key, as only a tile on the diagonal takes a mask; so one loop over the keys serves all
of them, and its loads never wait for an edge.

A target mass (target_mass.py) needs the sums of its span and of the rest before it can say what to
add to the span's logits. So the span's sum is taken first, from its keys alone; then come the
segments of the rest, whose sum the running one is by then; and last those of the span, each row's
reference shifted by what its two sums ask for. Only the span's logits are worked out twice, and
nothing waits in memory. A head without a target takes all of its segments in the first turn.

Everything is in the exp2 domain: scale and biases arrive multiplied by log2(e).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import attention_shape, free_registers, launch
from .segments import LOG2E, Segments
from .target_mass import FORMS, log2_or_none, span_bias

NO_END = tl.constexpr((1 << 31) - 1)
PASS = tl.constexpr(4)  # segments that one loop over keys goes through


@triton.jit
def attend(
    acc, m, part, q, k_ptr, v_ptr, stride_ks, stride_vs, begin, end, all_low, all_high,
    edge1, edge2, edge3, bias0, bias1, bias2, bias3, row_bias, rows, window, scale, cap,
    D: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    WINDOWED: tl.constexpr, CAPPED: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Add keys [begin, end) to the state: acc (unless not VALUES), running maximum, sum.

    They lie in four segments, which ``edge1`` to ``edge3`` divide. Every row sees keys
    [all_low, all_high). ``row_bias`` (M,) or None is a bias that each row has besides.
    """
    offs_n = tl.arange(0, BLOCK_N)
    offs_d = tl.arange(0, BLOCK_D)
    in_d = offs_d < D
    # Within a tile 32 bits are enough (see ``prefill``), and they are the same for every tile.
    k_in_tile = offs_n[None, :] * stride_ks + offs_d[:, None]  # (D, N)
    v_in_tile = offs_n[:, None] * stride_vs + offs_d[None, :]  # (N, D)
    for first in range(begin, end, BLOCK_N):
        at, last = tl.cast(first, tl.int64), first + BLOCK_N
        inside = offs_n < end - first
        k_at = k_ptr + at * stride_ks + k_in_tile
        if D == BLOCK_D:  # a mask that is always true still costs registers
            k = tl.load(k_at, mask=inside[None, :], other=0.0)
        else:
            k = tl.load(k_at, mask=inside[None, :] & in_d[:, None], other=0.0)
        logits = tl.dot(q, k, input_precision="ieee")
        factor = scale
        if CAPPED:  # cap · tanh(x / cap), in the exp2 domain; tanh(y) = 2·sigmoid(2y) - 1
            logits = cap * (2 * tl.sigmoid(2 * scale * logits / cap) - 1)
            factor = 1.0
        bias = bias_of(first, edge1, edge2, edge3, bias0, bias1, bias2, bias3)
        mixed = (last > end) | (last > all_high) | (first < all_low)
        mixed = mixed | ((edge1 > first) & (edge1 < last)) | ((edge2 > first) & (edge2 < last))
        mixed = mixed | ((edge3 > first) & (edge3 < last))
        if mixed:
            keys = first + offs_n
            each = bias_of(keys, edge1, edge2, edge3, bias0, bias1, bias2, bias3)
            seen = inside[None, :] & (keys[None, :] <= rows[:, None])
            if WINDOWED:
                seen = seen & (rows[:, None] - keys[None, :] < window)
            logits = tl.where(seen, logits + (each / factor)[None, :], float("-inf"))
            bias = 0.0
        if row_bias is not None:
            bias = bias + row_bias
        top = tl.maximum(m, tl.max(logits, 1) * factor + bias)
        # A row that has seen nothing yet keeps a finite reference: exp2(-inf - 0) = 0, no NaN.
        reference = tl.where(top == float("-inf"), 0.0, top)
        p = tl.math.exp2(logits * factor - (reference - bias)[:, None])
        fade = tl.math.exp2(m - reference)
        part = part * fade + tl.sum(p, 1)
        if VALUES:
            v_at = v_ptr + at * stride_vs + v_in_tile  # not earlier: its registers are needed above
            if D == BLOCK_D:
                v = tl.load(v_at, mask=inside[:, None], other=0.0)
            else:
                v = tl.load(v_at, mask=inside[:, None] & in_d[None, :], other=0.0)
            acc = tl.dot(p.to(v.dtype), v, acc * fade[:, None], input_precision="ieee")
        m = top
    return acc, m, part


@triton.jit
def bias_of(key, edge1, edge2, edge3, bias0, bias1, bias2, bias3):
    """The bias of the segment that ``key`` lies in."""
    bias = tl.where(key < edge3, bias2, bias3)
    bias = tl.where(key < edge2, bias1, bias)
    return tl.where(key < edge1, bias0, bias)


@triton.jit
def edge_or_end(edge_ptr, c, SEGMENTS):
    """Where segment c begins; the last one ends where the keys do."""
    return tl.load(edge_ptr + c, mask=c < SEGMENTS, other=NO_END)


@triton.jit
def span_sum(
    q, k_ptr, stride_ks, low, high, all_low, all_high, edge_ptr, bias_ptr, flag_ptr, SEGMENTS,
    rows, window, scale, cap, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, WINDOWED: tl.constexpr, CAPPED: tl.constexpr,
):  # fmt: skip
    """(M,) log2 sum of each row over the keys of targeted segments, -inf for none."""
    m = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    for c in range(SEGMENTS):
        begin = tl.maximum(tl.load(edge_ptr + c), low)
        end = tl.minimum(edge_or_end(edge_ptr, c + 1, SEGMENTS), high)
        if (end > begin) & (tl.load(flag_ptr + c) > 0):
            bias = tl.load(bias_ptr + c)
            _, m, total = attend(
                m, m, total, q, k_ptr, k_ptr, stride_ks, stride_ks, begin, end, all_low, all_high,
                NO_END, NO_END, NO_END, bias, bias, bias, bias, None, rows, window, scale, cap,
                D, BLOCK_N, BLOCK_D, WINDOWED, CAPPED, False,
            )  # fmt: skip
    return log_sum(m, total)


@triton.jit
def log_sum(m, total):
    """log2 of ``total`` powers of two, relative to ``m`` as they are; -inf for none."""
    return tl.where(m == float("-inf"), 0.0, m) + log2_or_none(total)


@triton.jit(do_not_specialize=["T", "S", "SEGMENTS", "window"])
def prefill_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, start_ptr, edge_ptr, bias_ptr, sum_ptr, target_ptr, flag_ptr,
    stride_qb, stride_qh, stride_qt, stride_kb, stride_kh, stride_ks,
    stride_vb, stride_vh, stride_vs, stride_ob, stride_oh, stride_ot,
    T, S, H, GROUP, SEGMENTS, window, scale, cap,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    WINDOWED: tl.constexpr, CAPPED: tl.constexpr, MASS: tl.constexpr, TARGET: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_M query rows of one head of one sequence."""
    tile = tl.num_programs(0) - 1 - tl.program_id(0)  # the longest rows first
    head = (tl.program_id(1) % H).to(tl.int64)
    b = (tl.program_id(1) // H).to(tl.int64)
    kv_head = head // GROUP
    in_tile = tl.arange(0, BLOCK_M)
    offs_m = tile * BLOCK_M + in_tile
    offs_d = tl.arange(0, BLOCK_D)
    in_q = (in_tile < T - tile * BLOCK_M)[:, None] & (offs_d < D)[None, :]
    start = tl.load(start_ptr + b)
    rows = (start + offs_m).to(tl.int32)
    q_ptr += b * stride_qb + head * stride_qh + (tile * BLOCK_M).to(tl.int64) * stride_qt
    out_ptr += b * stride_ob + head * stride_oh + (tile * BLOCK_M).to(tl.int64) * stride_ot
    # 32 bits within a tile: see ``prefill``.
    q_at = q_ptr + in_tile[:, None] * stride_qt + offs_d[None, :]
    q = tl.load(q_at, mask=in_q, other=0.0)  # (M, D)
    k_ptr += b * stride_kb + kv_head * stride_kh
    v_ptr += b * stride_vb + kv_head * stride_vh

    row_first = start.to(tl.int32) + tile * BLOCK_M
    row_last = start.to(tl.int32) + tl.minimum(tile * BLOCK_M + BLOCK_M, T) - 1
    low, high = 0, tl.minimum(S, row_last + 1)  # keys that some row sees
    all_low, all_high = 0, tl.minimum(S, row_first + 1)  # keys that every row sees
    if WINDOWED:
        low = tl.maximum(0, row_first - window + 1)
        all_low = tl.maximum(0, row_last - window + 1)

    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    m = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    edge_ptr += b * (SEGMENTS + 1)
    bias_ptr += (b * H + head) * SEGMENTS
    row_bias = None
    if TARGET:
        row_bias = total
        flag_ptr += b * SEGMENTS
        target = tl.load(target_ptr + b * H + head)
        steered = (target > 0).to(tl.int32)
        of_span = m
        if steered:
            of_span = span_sum(
                q, k_ptr, stride_ks, low, high, all_low, all_high, edge_ptr, bias_ptr, flag_ptr,
                SEGMENTS, rows, window, scale, cap,
                D, BLOCK_M, BLOCK_N, BLOCK_D, WINDOWED, CAPPED,
            )  # fmt: skip
    step: tl.constexpr = 1 if MASS or TARGET else PASS
    for side in range(2 if TARGET else 1):  # the rest, then the span
        for c in range(0, SEGMENTS, step):
            begin = tl.maximum(tl.load(edge_ptr + c), low)
            end = tl.minimum(edge_or_end(edge_ptr, c + step, SEGMENTS), high)
            if TARGET:
                its_turn = tl.load(flag_ptr + c) * steered == side
                end = tl.where(its_turn, end, begin)
            before, part = m, total
            if MASS:  # each segment's own
                part = tl.zeros([BLOCK_M], tl.float32)
            if end > begin:
                edge1, edge2, edge3 = NO_END, NO_END, NO_END
                bias0 = tl.load(bias_ptr + c)
                bias1, bias2, bias3 = bias0, bias0, bias0
                if step > 1:
                    edge1 = edge_or_end(edge_ptr, c + 1, SEGMENTS)
                    edge2 = edge_or_end(edge_ptr, c + 2, SEGMENTS)
                    edge3 = edge_or_end(edge_ptr, c + 3, SEGMENTS)
                    bias1 = tl.load(bias_ptr + c + 1, mask=c + 1 < SEGMENTS, other=0.0)
                    bias2 = tl.load(bias_ptr + c + 2, mask=c + 2 < SEGMENTS, other=0.0)
                    bias3 = tl.load(bias_ptr + c + 3, mask=c + 3 < SEGMENTS, other=0.0)
                acc, m, part = attend(
                    acc, m, part, q, k_ptr, v_ptr, stride_ks, stride_vs, begin, end,
                    all_low, all_high, edge1, edge2, edge3, bias0, bias1, bias2, bias3, row_bias,
                    rows, window, scale, cap, D, BLOCK_N, BLOCK_D, WINDOWED, CAPPED, True,
                )  # fmt: skip
            if MASS:
                reference = tl.where(m == float("-inf"), 0.0, m)
                at = sum_ptr + ((b * H + head) * T + offs_m) * (SEGMENTS + 1) + c
                stored = offs_m < T
                if TARGET:
                    stored = stored & its_turn
                tl.store(at, reference + log2_or_none(part), mask=stored)
                part += total * tl.math.exp2(before - reference)
            total = part
        if TARGET:
            row_bias = span_bias(log_sum(m, total), of_span, target, TARGET)
    if MASS:
        reference = tl.where(m == float("-inf"), 0.0, m)
        at = sum_ptr + ((b * H + head) * T + offs_m) * (SEGMENTS + 1) + SEGMENTS
        tl.store(at, reference + log2_or_none(total), mask=offs_m < T)
    out = acc * (1 / tl.where(total == 0, 1.0, total))[:, None]
    out_at = out_ptr + in_tile[:, None] * stride_ot + offs_d[None, :]
    tl.store(out_at, out.to(out_ptr.dtype.element_ty), mask=in_q)


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
    target: Tensor | None = None,
    form: str = "exact",
    **sizes: int,
) -> tuple[Tensor, Tensor | None]:
    """Attention of query rows at positions start[b] + t; k and v hold key j at position j.

    Args:
        q: (B, H, T, D), k and v: (B, H_kv, S, D), last dimension contiguous; D at most 256.
        start: (B,) integer.
        soft_cap: logits become cap·tanh(logits / cap) before the bias.
        return_mass: also return the attention mass on each span, as steered.
        target: (B, H) float32 in [0, 1), the least mass that each row of a head has on the
            targeted segments together; 0 is none. A row that sees none of their keys, or no key
            but theirs, stays as it is. Spotlight, arXiv 2505.12025.
        form: "exact" reaches the target; "published" adds log(target / ψ) and falls short.
        sizes: the launch, in place of what launch.json says: block_m, block_n, num_warps,
            num_stages.

    Returns:
        out (B, H, T, D) in q's dtype, and the mass (B, H, T, N) float32 or None.
    """
    B, H, T, D = q.shape
    count = segments.bias.shape[2]
    sizes = {**launch("prefill", attention_shape(D, q.dtype), q.device), **sizes}
    block_m, block_n = sizes["block_m"], sizes["block_n"]
    if return_mass or target is not None:  # more sums, for which a wide tile leaves no registers
        block_n = max(16, block_n // 2)
    assert B * H < 1 << 16, f"one launch takes 65535 heads, not {B * H}"
    assert max(q.stride(2), k.stride(2), v.stride(2)) * max(block_m, block_n) < 1 << 31
    out = torch.empty_like(q)
    sums = torch.empty(B, H, T, count + 1, device=q.device) if return_mass else out
    prefill_kernel[(triton.cdiv(T, block_m), B * H)](
        q, k, v, out, start, segments.edges, segments.bias, sums,
        out if target is None else target.contiguous(), segments.targeted,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3],
        T, k.shape[2], H, H // k.shape[1], count, window or 0, scale * LOG2E,
        (soft_cap or 0.0) * LOG2E,
        D, block_m, block_n, max(16, triton.next_power_of_2(D)),
        window is not None, soft_cap is not None, return_mass,
        0 if target is None else FORMS[form],
        num_warps=sizes["num_warps"], num_stages=sizes["num_stages"], **free_registers(),
    )  # fmt: skip
    return out, segments.mass(sums) if return_mass else None
