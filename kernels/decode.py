"""Decode: attention of one query row a sequence, the keys split over programs, in one launch.

The query heads that share a KV head are the rows of one tile, so each key and value is read once.
Every split keeps a partial state (split.py); the last program of a row to finish joins them.
Lengths, spans and strengths are read from device memory: nothing here depends on host values, and
``decode_framed`` finds even the caches there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from .frame import BIAS, EDGES, LENGTH, TARGET, TARGETED, K, V, address
from .frame import SEGMENTS as COUNT
from .last import is_last
from .launch import attention_shape, free_registers, launch
from .segments import LOG2E, Segments
from .split import join, split_row
from .target_mass import FORMS

PROGRAMS = 256  # in all, about two a multiprocessor of a large GPU: more would only be joined


@triton.jit
def decode_row(
    q_ptr, k_ptr, v_ptr, out_ptr, start_ptr, edge_ptr, bias_ptr, target_ptr, flag_ptr,
    mass_ptr, acc_ptr, state_ptr, sum_ptr, count_ptr,
    stride_qb, stride_qh, stride_ks, stride_vs, stride_ob, stride_oh,
    pair, b, kv_head, H, S, SEGMENTS, SPLITS, LEAST, window, scale, cap,
    D: tl.constexpr, GROUP: tl.constexpr, HEADS: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr,
    WINDOWED: tl.constexpr, CAPPED: tl.constexpr, MASS: tl.constexpr, TARGET: tl.constexpr,
):  # fmt: skip
    """One split of the keys of KV head ``pair``; k_ptr and v_ptr are at that head's first key."""
    STATES: tl.constexpr = 2 * GROUP if TARGET else GROUP
    split = tl.program_id(1)
    position = tl.load(start_ptr + b).to(tl.int32)
    low, high = 0, tl.minimum(position + 1, S)
    if WINDOWED:
        low = tl.maximum(0, position + 1 - window)
    share = tl.cdiv(tl.maximum(tl.cdiv(high - low, SPLITS), LEAST), BLOCK_N) * BLOCK_N
    used = tl.maximum(tl.cdiv(high - low, share), 1)  # splits that have keys
    if split < used:
        rows = tl.arange(0, ROWS)
        offs_d = tl.arange(0, BLOCK_D)
        real = rows < STATES
        first_head = kv_head * GROUP
        heads = first_head + rows % GROUP
        in_q = real[:, None] & (offs_d < D)[None, :]
        q_at = q_ptr + b * stride_qb + heads[:, None].to(tl.int64) * stride_qh
        q = tl.load(q_at + offs_d[None, :], mask=in_q, other=0.0)  # (ROWS, D)
        states = pair * SPLITS
        split_row(
            q, k_ptr, v_ptr, stride_ks, stride_vs,
            low + split * share, tl.minimum(high, low + (split + 1) * share),
            edge_ptr + b * (SEGMENTS + 1), bias_ptr + (b * H + heads) * SEGMENTS,
            flag_ptr + b * SEGMENTS,
            acc_ptr + (states + split) * STATES * D, state_ptr + (states + split) * 2 * STATES,
            sum_ptr + (states + split) * SEGMENTS * STATES,
            real, rows // GROUP, rows, SEGMENTS, scale, cap,
            D, STATES, ROWS, BLOCK_N, BLOCK_D, CAPPED, MASS, TARGET,
        )  # fmt: skip
        if is_last(count_ptr + pair, used):
            join(
                out_ptr + b * stride_ob + first_head.to(tl.int64) * stride_oh,
                mass_ptr + (b * H + first_head) * SEGMENTS, target_ptr + b * H + first_head,
                acc_ptr + states * STATES * D, state_ptr + states * 2 * STATES,
                sum_ptr + states * SEGMENTS * STATES, used, SEGMENTS, stride_oh,
                D, GROUP, STATES, HEADS, BLOCK_D, CHUNK, MASS, TARGET,
            )  # fmt: skip


@triton.jit(do_not_specialize=["S", "SEGMENTS", "SPLITS", "LEAST", "window"])
def decode_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, start_ptr, edge_ptr, bias_ptr, target_ptr, flag_ptr,
    mass_ptr, acc_ptr, state_ptr, sum_ptr, count_ptr,
    stride_qb, stride_qh, stride_kb, stride_kh, stride_ks, stride_vb, stride_vh, stride_vs,
    stride_ob, stride_oh,
    H, S, SEGMENTS, SPLITS, LEAST, window, scale, cap,
    D: tl.constexpr, GROUP: tl.constexpr, HEADS: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr,
    WINDOWED: tl.constexpr, CAPPED: tl.constexpr, MASS: tl.constexpr, TARGET: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """One program: one split of the keys of one KV head of one sequence."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    kv_heads = H // GROUP
    pair = tl.program_id(0).to(tl.int64)
    b, kv_head = pair // kv_heads, pair % kv_heads
    decode_row(
        q_ptr, k_ptr + b * stride_kb + kv_head * stride_kh,
        v_ptr + b * stride_vb + kv_head * stride_vh, out_ptr, start_ptr, edge_ptr, bias_ptr,
        target_ptr, flag_ptr, mass_ptr, acc_ptr, state_ptr, sum_ptr, count_ptr,
        stride_qb, stride_qh, stride_ks, stride_vs, stride_ob, stride_oh,
        pair, b, kv_head, H, S, SEGMENTS, SPLITS, LEAST, window, scale, cap,
        D, GROUP, HEADS, ROWS, BLOCK_N, BLOCK_D, CHUNK, WINDOWED, CAPPED, MASS, TARGET,
    )  # fmt: skip


@triton.jit(do_not_specialize=["layer", "B", "SPLITS", "LEAST", "window"])
def framed_kernel(
    q_ptr, out_ptr, start_ptr, frame_ptr, acc_ptr, state_ptr, count_ptr,
    stride_qb, stride_qh, stride_ob, stride_oh,
    layer, B, H, SPLITS, LEAST, window, scale, cap,
    D: tl.constexpr, GROUP: tl.constexpr, HEADS: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr,
    WINDOWED: tl.constexpr, CAPPED: tl.constexpr, TARGETS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """``decode_kernel`` on the caches and the plan that the frame points to."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    kv_heads = H // GROUP
    pair = tl.program_id(0).to(tl.int64)
    b, kv_head = pair // kv_heads, pair % kv_heads
    T_max = tl.load(frame_ptr + LENGTH)
    SEGMENTS = tl.load(frame_ptr + COUNT).to(tl.int32)
    sequence = layer.to(tl.int64) * B  # the layer's first, of the caches, biases and targets
    head_at = ((sequence + b) * kv_heads + kv_head) * T_max * D
    target_ptr, flag_ptr = acc_ptr, acc_ptr  # unused
    if TARGETS:
        target_ptr = address(frame_ptr, TARGET, tl.float32) + sequence * H
        flag_ptr = address(frame_ptr, TARGETED, tl.int32)
    decode_row(
        q_ptr, address(frame_ptr, K, q_ptr.dtype.element_ty) + head_at,
        address(frame_ptr, V, q_ptr.dtype.element_ty) + head_at, out_ptr, start_ptr,
        address(frame_ptr, EDGES, tl.int32),
        address(frame_ptr, BIAS, tl.float32) + sequence * H * SEGMENTS,
        target_ptr, flag_ptr, acc_ptr, acc_ptr, state_ptr, acc_ptr, count_ptr,
        stride_qb, stride_qh, D, D, stride_ob, stride_oh,
        pair, b, kv_head, H, T_max.to(tl.int32), SEGMENTS, SPLITS, LEAST, window, scale, cap,
        D, GROUP, HEADS, ROWS, BLOCK_N, BLOCK_D, CHUNK, WINDOWED, CAPPED, False, TARGETS,
    )  # fmt: skip


@dataclass(frozen=True)
class Workspace:
    """What the programs of one launch tell each other; launches in turn may share it.

    Shapes: ``acc`` (pairs, splits, states, D) and ``state`` (pairs, splits, 2, states) float32,
    ``arrived`` (pairs,) int32, zero between launches. A pair is a KV head of a sequence.
    """

    acc: Tensor
    state: Tensor
    arrived: Tensor


def workspace(
    batch: int, heads: int, kv_heads: int, head_dim: int, device: torch.device, **sizes: int
) -> Workspace:
    """Room for ``decode_framed`` with or without targets; ``sizes`` as there."""
    pairs = batch * kv_heads
    return _workspace(
        pairs,
        # Any dtype will do: ``splits`` is the same for all of a head dim (tests/test_launch.py).
        _splits(pairs, _sizes(head_dim, torch.bfloat16, device, sizes)),
        2 * heads // kv_heads,
        head_dim,
        device,
    )


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
    target: Tensor | None = None,
    form: str = "exact",
    **sizes: int,
) -> tuple[Tensor, Tensor | None]:
    """Attention of one row per sequence, at position start[b]; arguments as ``prefill``.

    Args:
        target: (B, H) float32 in [0, 1), the least mass on the targeted segments together;
            0 is none. Spotlight, arXiv 2505.12025.
        form: "exact" reaches the target; "published" adds log(target / ψ) and falls short.
        sizes: the launch, in place of what launch.json says: splits, least, block_n, num_warps,
            num_stages, pdl. ``splits`` programs share the keys of a KV head, ``least`` keys each
            at the least.
    """
    B, H, _, D = q.shape
    kv_heads, keys = k.shape[1:3]
    count, pairs = segments.bias.shape[2], B * kv_heads
    sizes = _sizes(D, q.dtype, q.device, sizes)
    splits = min(_splits(pairs, sizes), max(1, triton.cdiv(keys, sizes["least"])))
    states = H // kv_heads * (1 if target is None else 2)
    room = _workspace(pairs, splits, states, D, q.device)
    out = torch.empty(B, H, 1, D, dtype=q.dtype, device=q.device)
    shares, sums = room.state, room.state
    if return_mass:
        shares = torch.empty(B, H, count, device=q.device)
        sums = torch.empty(pairs, splits, count, states, device=q.device)
    decode_kernel[(pairs, splits)](
        q, k, v, out, start, segments.edges, segments.bias,
        room.state if target is None else target.contiguous(), segments.targeted,
        shares, room.acc, room.state, sums, room.arrived,
        *q.stride()[:2], *k.stride()[:3], *v.stride()[:3], *out.stride()[:2],
        H, keys, count, splits, sizes["least"], window or 0, scale * LOG2E,
        (soft_cap or 0.0) * LOG2E,
        **tile(D, H // kv_heads, states, sizes),
        WINDOWED=window is not None, CAPPED=soft_cap is not None, MASS=return_mass,
        TARGET=0 if target is None else FORMS[form], **options(sizes),
    )  # fmt: skip
    if not return_mass:
        return out, None
    return out, shares[:, :, None] @ segments.inside[:, None].to(shares.dtype)


def decode_framed(
    q: Tensor,
    start: Tensor,
    frame: Tensor,
    *,
    layer: int,
    kv_heads: int,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
    targets: str | None = None,
    workspace: Workspace | None = None,
    **sizes: int,
) -> Tensor:
    """``decode`` on layer ``layer`` of the caches and plan of a frame (frame.py).

    Args:
        q: (B, H, 1, D), last dimension contiguous, in the caches' dtype.
        start: (B,) integer, each below T_max.
        targets: the form of the frame's target masses, "exact" or "published"; None is without.
        workspace: room that launches one after another share, from ``workspace``.
        sizes: as ``decode``.

    Returns:
        out (B, H, 1, D).
    """
    B, H, _, D = q.shape
    group, pairs = H // kv_heads, B * kv_heads
    sizes = _sizes(D, q.dtype, q.device, sizes)
    splits = _splits(pairs, sizes)
    states = group if targets is None else 2 * group
    room = workspace or _workspace(pairs, splits, states, D, q.device)
    assert len(room.arrived) >= pairs
    assert room.acc.numel() >= pairs * splits * states * D, "the workspace is of another launch"
    out = torch.empty(B, H, 1, D, dtype=q.dtype, device=q.device)
    framed_kernel[(pairs, splits)](
        q, out, start, frame, room.acc, room.state, room.arrived,
        *q.stride()[:2], *out.stride()[:2],
        layer, B, H, splits, sizes["least"], window or 0, scale * LOG2E,
        (soft_cap or 0.0) * LOG2E,
        **tile(D, group, states, sizes),
        WINDOWED=window is not None, CAPPED=soft_cap is not None,
        TARGETS=0 if targets is None else FORMS[targets], **options(sizes),
    )  # fmt: skip
    return out


def _sizes(
    head_dim: int, dtype: torch.dtype, device: torch.device, given: dict[str, int]
) -> dict[str, int]:
    return {**launch("decode", attention_shape(head_dim, dtype), device), **given}


def _splits(pairs: int, sizes: dict[str, int]) -> int:
    """Programs of one KV head; no length of a cache has a say."""
    return max(1, min(sizes["splits"], PROGRAMS // pairs))


def _workspace(
    pairs: int, splits: int, states: int, head_dim: int, device: torch.device
) -> Workspace:
    return Workspace(
        torch.empty(pairs, splits, states, head_dim, device=device),
        torch.empty(pairs, splits, 2, states, device=device),
        torch.zeros(pairs, dtype=torch.int32, device=device),
    )


def tile(head_dim: int, group: int, states: int, sizes: dict[str, int]) -> dict[str, int]:
    """The constants of a launch; a join holds at most 4096 numbers at a time."""
    heads, wide = triton.next_power_of_2(group), max(16, triton.next_power_of_2(head_dim))
    return {
        "D": head_dim,
        "GROUP": group,
        "HEADS": heads,
        "ROWS": max(16, triton.next_power_of_2(states)),
        "BLOCK_N": sizes["block_n"],
        "BLOCK_D": wide,
        "CHUNK": max(1, min(16, 4096 // (heads * wide))),
    }


def options(sizes: dict[str, int]) -> dict[str, int]:
    """The compiler's options of a launch."""
    # More programs than the grid has would not help: let each have all the registers there are.
    chosen = {name: sizes[name] for name in ("num_warps", "num_stages")} | free_registers()
    pdl = sizes.get("pdl", 0)
    if pdl:
        chosen["launch_pdl"] = True
    return {"PDL": pdl, **chosen}
