"""Attention of a prompt's later rows on a CPU, over the keys in parts, with no mask at all.

Rows that do not start at position 0 see all of the keys before them and, causally, their own. The
fused kernel has no mode for that; as two calls it has, and their outputs are joined by their log
sum exps. The earlier keys are cut at the spans' edges: a part that lies in a span is boosted by
adding the log multiplier to its log sum exp, a number a row. Memory is linear in the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from .span_bias import SpanBias
from .span_channels import widen, with_indicators


def in_parts(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_start: int,
    bias: SpanBias | None,
    scale: float,
    return_mass: bool,
) -> tuple[Tensor, Tensor | None]:
    """As ``attention`` (attention.py), on a CPU, without window and target; query_start > 0."""
    if bias is None or not (bias.steers or return_mass):
        return _joined(q, k, v, query_start, None, scale)[0], None
    # Each sequence has spans, and so parts, of its own.
    each = [
        _joined(q[b : b + 1], k[b : b + 1], v[b : b + 1], query_start, _of_row(bias, b), scale)
        for b in range(len(q))
    ]
    out = torch.cat([out for out, _ in each])
    if not bias.steers:
        # Measuring must not change what is measured: the plain output comes from the plain parts.
        out = _joined(q, k, v, query_start, None, scale)[0]
    return out, torch.cat([mass for _, mass in each]) if return_mass else None


def _joined(
    q: Tensor, k: Tensor, v: Tensor, start: int, bias: SpanBias | None, scale: float
) -> tuple[Tensor, Tensor]:
    """The output (B, H, T, D), and the mass (B, H, T, N): with N = 0 where there is no bias."""
    D, T = q.shape[3], q.shape[2]
    N = 0 if bias is None else bias.start.shape[1]
    own_k, own_v = k[:, :, start : start + T], v[:, :, start : start + T]
    near = None if bias is None else _shifted(bias, start)
    if near is None:
        own, total = flash(q, own_k, own_v, scale, causal=True)
        sums = own
        mass = sums.new_zeros(*q.shape[:3], N)
    else:
        wide_q, wide_k = widen(q, own_k, near, scale)
        wide_v = with_indicators(own_v, near, wide_q.shape[3])
        own, total = flash(wide_q, wide_k, wide_v, scale, causal=True)
        sums, mass = own[..., :D], own[..., D : D + N]
    for first, last, strength, inside in _parts(bias, start):
        part, lse = flash(q, k[:, :, first:last], v[:, :, first:last], scale)
        if strength is not None:
            lse = lse + strength[:, :, None]
        both = torch.logaddexp(total, lse)
        kept, taken = (total - both).exp()[..., None], (lse - both).exp()[..., None]
        sums = torch.addcmul(sums * kept, part, taken)
        if N:
            mass = mass * kept + taken * inside
        total = both
    return sums.to(q.dtype), mass.float()


def flash(
    q: Tensor, k: Tensor, v: Tensor, scale: float, *, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """PyTorch's fused CPU kernel: the output (B, H, T, D) and the log sum exp (B, H, T), both wide.

    Wide is float32, or float64 for float64 inputs. Causal is from the top left: row t sees keys
    0 … t.
    """
    B, H, T, D = q.shape
    H_kv = k.shape[1]
    if causal:
        # Heads that share a KV head are a batch of their own, with that head's keys by stride.
        q = q.reshape(B * H_kv, H // H_kv, T, D)
        k, v = (x.flatten(0, 1)[:, None].expand(-1, H // H_kv, -1, -1) for x in (k, v))
    else:
        q = q.reshape(B, H_kv, H // H_kv * T, D)  # … or more rows of it
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, causal, scale=scale
    )
    wide = torch.promote_types(q.dtype, torch.float32)
    return out.reshape(B, H, T, -1).to(wide), lse.reshape(B, H, T).to(wide)


def _parts(bias: SpanBias | None, start: int) -> Iterator[tuple[int, int, Tensor | None, Tensor]]:
    """Keys [first, last) before ``start``, the strength there (1, H), and the spans around them."""
    if bias is None:
        yield 0, start, None, torch.empty(0)
        return
    ends = torch.stack((bias.start, bias.stop)).flatten().tolist()
    edges = sorted({0, start, *(min(edge, start) for edge in ends)})
    for first, last in pairwise(edges):
        inside = ((bias.start <= first) & (bias.stop >= last))[0].float()  # (N,)
        strength = None if bias.log_multiplier is None else bias.log_multiplier @ inside
        yield first, last, strength, inside


def _shifted(bias: SpanBias, start: int) -> SpanBias | None:
    """The spans as seen from position ``start``; None where none reaches it."""
    if not (bias.stop > start).any():
        return None
    first, last = ((edge - start).clamp(min=0) for edge in (bias.start, bias.stop))
    return replace(bias, start=first, stop=last)


def _of_row(bias: SpanBias, b: int) -> SpanBias:
    strength = bias.log_multiplier
    return replace(
        bias,
        start=bias.start[b : b + 1],
        stop=bias.stop[b : b + 1],
        log_multiplier=None if strength is None else strength[b : b + 1],
    )
