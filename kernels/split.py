"""One split of a decode row's keys, and the join of all of them.

The keys of one query row are shared out over programs. Each keeps a partial state a row (maximum,
sum, weighted values); ``join`` adds the states in the order of the splits, so that the result is
the same whoever was last. The boost is one select a key and bound: the keys of a split are read in
one unbroken loop whatever segments they lie in.

A target mass doubles the rows of a tile, which are mostly padding: the first GROUP rows see the
keys outside the targeted segments, the next GROUP the keys inside them. Their two states stay
apart to the end, where one number a row says how much of each to take.

Everything is in the exp2 domain.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .target_mass import log2_or_none, span_log_odds

NO_END = tl.constexpr((1 << 31) - 1)
PASS = tl.constexpr(4)  # segments that one loop over keys goes through


@triton.jit
def row_bias(bias_ptr, flag_ptr, c, SEGMENTS, real, side, TARGET: tl.constexpr):
    """(ROWS,) bias of segment c; in target mode -inf for the rows of the other side."""
    bias = tl.load(bias_ptr + c, mask=real & (c < SEGMENTS), other=0.0)
    if TARGET:
        flag = tl.load(flag_ptr + c, mask=c < SEGMENTS, other=0)
        bias = tl.where(side == flag, bias, float("-inf"))
    return bias


@triton.jit
def attend(
    acc, m, part, q, k_ptr, v_ptr, stride_ks, stride_vs, begin, end,
    edge1, edge2, edge3, bias0, bias1, bias2, bias3, scale, cap,
    D: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    CAPPED: tl.constexpr, SINGLE: tl.constexpr,
):  # fmt: skip
    """Add keys [begin, end) to the state; ``part`` holds the sum (ROWS, N) before its reduction."""
    offs_n = tl.arange(0, BLOCK_N)
    offs_d = tl.arange(0, BLOCK_D)
    in_d = offs_d < D
    for first in range(begin, end, BLOCK_N):
        keys = first + offs_n
        inside = keys < end
        k_at = k_ptr + keys[None, :].to(tl.int64) * stride_ks + offs_d[:, None]  # (D, N)
        v_at = v_ptr + keys[:, None].to(tl.int64) * stride_vs + offs_d[None, :]  # (N, D)
        k = tl.load(k_at, mask=in_d[:, None] & inside[None, :], other=0.0)
        v = tl.load(v_at, mask=inside[:, None] & in_d[None, :], other=0.0)
        logits = tl.dot(q, k, input_precision="ieee") * scale
        if CAPPED:  # cap · tanh(x / cap), in the exp2 domain; tanh(y) = 2·sigmoid(2y) - 1
            logits = cap * (2 * tl.sigmoid(2 * logits / cap) - 1)
        if SINGLE:
            logits += bias0[:, None]
        else:
            at = keys[None, :]
            bias = tl.where(at < edge3, bias2[:, None], bias3[:, None])
            bias = tl.where(at < edge2, bias1[:, None], bias)
            logits += tl.where(at < edge1, bias0[:, None], bias)
        logits = tl.where(inside[None, :], logits, float("-inf"))
        top = tl.maximum(m, tl.max(logits, 1))
        # A row that has seen nothing yet keeps a finite reference: exp2(-inf - 0) = 0, no NaN.
        reference = tl.where(top == float("-inf"), 0.0, top)
        p = tl.math.exp2(logits - reference[:, None])
        fade = tl.math.exp2(m - reference)[:, None]
        part = part * fade + p
        acc = tl.dot(p.to(v.dtype), v, acc * fade, input_precision="ieee")
        m = top
    return acc, m, part


@triton.jit
def split_row(
    q, k_ptr, v_ptr, stride_ks, stride_vs, low, high, edge_ptr, bias_ptr, flag_ptr,
    acc_ptr, state_ptr, sum_ptr, real, side, rows, SEGMENTS, scale, cap,
    D: tl.constexpr, STATES: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, CAPPED: tl.constexpr, MASS: tl.constexpr, TARGET: tl.constexpr,
):  # fmt: skip
    """Attend to keys [low, high) and store the state: acc (STATES, D), state (2, STATES).

    Pointers are at this sequence's edges and flags, at each row's biases, and at this split's own
    state. With MASS every segment's log2 sum is stored too, (SEGMENTS, STATES).
    """
    offs_d = tl.arange(0, BLOCK_D)
    acc = tl.zeros([ROWS, BLOCK_D], tl.float32)
    m = tl.full([ROWS], float("-inf"), tl.float32)
    part = tl.zeros([ROWS, BLOCK_N], tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    step: tl.constexpr = 1 if MASS else PASS
    first, stop = 0, SEGMENTS
    if not MASS and SEGMENTS > PASS:  # the segments that have a part in this split
        offs_e = tl.arange(0, 32)
        first, stop = 0, 0
        for c in range(0, SEGMENTS, 32):
            there = c + offs_e < SEGMENTS
            begins = tl.load(edge_ptr + c + offs_e, mask=there, other=NO_END)
            ends = tl.load(edge_ptr + c + offs_e + 1, mask=there, other=NO_END)
            first += tl.sum((there & (ends <= low)).to(tl.int32), 0)
            stop += tl.sum((there & (begins < high)).to(tl.int32), 0)
    begin = low
    for c in range(first, stop, step):
        # The last segment needs no edge: it ends where the keys do.
        end = tl.load(edge_ptr + c + step, mask=c + step < SEGMENTS, other=NO_END)
        end = tl.minimum(end, high)
        before = m
        if end > begin:
            edge1 = tl.load(edge_ptr + c + 1, mask=c + 1 < SEGMENTS, other=NO_END)
            edge2 = tl.load(edge_ptr + c + 2, mask=c + 2 < SEGMENTS, other=NO_END)
            edge3 = tl.load(edge_ptr + c + 3, mask=c + 3 < SEGMENTS, other=NO_END)
            acc, m, part = attend(
                acc, m, part, q, k_ptr, v_ptr, stride_ks, stride_vs, begin, end,
                edge1, edge2, edge3,
                row_bias(bias_ptr, flag_ptr, c, SEGMENTS, real, side, TARGET),
                row_bias(bias_ptr, flag_ptr, c + 1, SEGMENTS, real, side, TARGET),
                row_bias(bias_ptr, flag_ptr, c + 2, SEGMENTS, real, side, TARGET),
                row_bias(bias_ptr, flag_ptr, c + 3, SEGMENTS, real, side, TARGET),
                scale, cap, D, BLOCK_N, BLOCK_D, CAPPED, MASS,
            )  # fmt: skip
            begin = end
        if MASS:
            reference = tl.where(m == float("-inf"), 0.0, m)
            added = tl.sum(part, 1)
            total = total * tl.math.exp2(before - reference) + added
            part = tl.zeros([ROWS, BLOCK_N], tl.float32)
            tl.store(sum_ptr + c * STATES + rows, reference + log2_or_none(added), mask=real)
    if not MASS:
        total = tl.sum(part, 1)
    in_acc = real[:, None] & (offs_d < D)[None, :]
    tl.store(acc_ptr + rows[:, None] * D + offs_d[None, :], acc, mask=in_acc)
    tl.store(state_ptr + rows, m, mask=real)
    tl.store(state_ptr + STATES + rows, total, mask=real)


@triton.jit
def joined_sum(
    state_ptr, used, GROUP: tl.constexpr, STATES: tl.constexpr, HEADS: tl.constexpr
):  # fmt: skip
    """(HEADS,) reference (finite) and sum over the splits, of one side."""
    offs_g = tl.arange(0, HEADS)
    offs_s = tl.arange(0, 32)
    top = tl.full([HEADS], float("-inf"), tl.float32)
    total = tl.zeros([HEADS], tl.float32)
    for first in range(0, used, 32):
        splits = first + offs_s
        there = (splits < used)[:, None] & (offs_g < GROUP)[None, :]
        at = state_ptr + splits[:, None] * (2 * STATES) + offs_g[None, :]
        m = tl.load(at, mask=there, other=float("-inf"), volatile=True)
        part = tl.load(at + STATES, mask=there, other=0.0, volatile=True)
        before = top
        top = tl.maximum(top, tl.max(m, 0))
        reference = tl.where(top == float("-inf"), 0.0, top)  # no key seen: zeros, no NaN
        total = total * tl.math.exp2(before - reference)
        total += tl.sum(part * tl.math.exp2(m - reference[None, :]), 0)
    return tl.where(top == float("-inf"), 0.0, top), total


@triton.jit
def joined_values(
    acc_ptr, state_ptr, used, reference, factor,
    D: tl.constexpr, GROUP: tl.constexpr, STATES: tl.constexpr, HEADS: tl.constexpr,
    BLOCK_D: tl.constexpr, CHUNK: tl.constexpr, SPARSE: tl.constexpr,
):  # fmt: skip
    """(HEADS, BLOCK_D) weighted values of one side; several splits are in flight at a time."""
    offs_g = tl.arange(0, HEADS)
    offs_d = tl.arange(0, BLOCK_D)
    offs_s = tl.arange(0, CHUNK)
    in_acc = (offs_g < GROUP)[None, :, None] & (offs_d < D)[None, None, :]
    acc_at = acc_ptr + offs_g[None, :, None] * D + offs_d[None, None, :]
    out = tl.zeros([HEADS, BLOCK_D], tl.float32)
    for first in range(0, used, CHUNK):
        splits = first + offs_s
        there = (splits < used)[:, None] & (offs_g < GROUP)[None, :]
        at = state_ptr + splits[:, None] * (2 * STATES) + offs_g[None, :]
        m = tl.load(at, mask=there, other=float("-inf"), volatile=True)
        weight = tl.math.exp2(m - reference[None, :])  # (CHUNK, HEADS)
        wanted = (splits < used)[:, None, None] & in_acc
        if SPARSE:  # most splits lie wholly on one side
            wanted = wanted & (m > float("-inf"))[:, :, None]
        part_at = acc_at + splits[:, None, None] * (STATES * D)
        part = tl.load(part_at, mask=wanted, other=0.0, volatile=True)
        out += tl.sum(part * weight[:, :, None], 0)
    return out * factor[:, None]


@triton.jit
def joined_mass(
    sum_ptr, c, used, reference, factor, SEGMENTS,
    GROUP: tl.constexpr, STATES: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    """(HEADS,) mass of segment c, of one side."""
    offs_g = tl.arange(0, HEADS)
    offs_s = tl.arange(0, 32)
    out = tl.zeros([HEADS], tl.float32)
    for first in range(0, used, 32):
        splits = first + offs_s
        there = (splits < used)[:, None] & (offs_g < GROUP)[None, :]
        at = sum_ptr + (splits[:, None] * SEGMENTS + c) * STATES + offs_g[None, :]
        log_sum = tl.load(at, mask=there, other=float("-inf"), volatile=True)
        out += tl.sum(tl.math.exp2(log_sum - reference[None, :]), 0)
    return out * factor


@triton.jit
def join(
    out_ptr, mass_ptr, target_ptr, acc_ptr, state_ptr, sum_ptr, used, SEGMENTS, stride_oh,
    D: tl.constexpr, GROUP: tl.constexpr, STATES: tl.constexpr, HEADS: tl.constexpr,
    BLOCK_D: tl.constexpr, CHUNK: tl.constexpr, MASS: tl.constexpr, TARGET: tl.constexpr,
):  # fmt: skip
    """Add up the states of ``used`` splits: out (GROUP, D), and the mass (GROUP, SEGMENTS).

    Other programs wrote the states: they are read past the first cache, hence volatile.
    """
    offs_g = tl.arange(0, HEADS)
    offs_d = tl.arange(0, BLOCK_D)
    real = offs_g < GROUP
    reference, total = joined_sum(state_ptr, used, GROUP, STATES, HEADS)
    factor = 1 / tl.where(total == 0, 1.0, total)
    if TARGET:
        span_reference, span_total = joined_sum(state_ptr + GROUP, used, GROUP, STATES, HEADS)
        target = tl.load(target_ptr + offs_g, mask=real, other=0.0)
        odds = span_log_odds(
            reference + log2_or_none(total), span_reference + log2_or_none(span_total),
            target, TARGET,
        )  # fmt: skip
        factor = factor / (1 + tl.math.exp2(odds))
        span_factor = 1 / tl.where(span_total == 0, 1.0, span_total) / (1 + tl.math.exp2(-odds))
    out = joined_values(
        acc_ptr, state_ptr, used, reference, factor, D, GROUP, STATES, HEADS, BLOCK_D, CHUNK,
        TARGET != 0,
    )  # fmt: skip
    if TARGET:
        out += joined_values(
            acc_ptr + GROUP * D, state_ptr + GROUP, used, span_reference, span_factor, D, GROUP,
            STATES, HEADS, BLOCK_D, CHUNK, True,
        )  # fmt: skip
    out_at = out_ptr + offs_g[:, None].to(tl.int64) * stride_oh + offs_d[None, :]
    in_out = real[:, None] & (offs_d < D)[None, :]
    tl.store(out_at, out.to(out_ptr.dtype.element_ty), mask=in_out)
    if MASS:
        for c in range(SEGMENTS):
            mass = joined_mass(
                sum_ptr, c, used, reference, factor, SEGMENTS, GROUP, STATES, HEADS
            )  # fmt: skip
            if TARGET:
                mass += joined_mass(
                    sum_ptr + GROUP, c, used, span_reference, span_factor, SEGMENTS, GROUP,
                    STATES, HEADS,
                )  # fmt: skip
            tl.store(mass_ptr + offs_g * SEGMENTS + c, mass, mask=real)
