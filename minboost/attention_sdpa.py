"""Boosted attention through PyTorch's fused scaled_dot_product_attention, without a bias matrix.

Prefill widens q and k by one channel a span: q holds log_multiplier/scale there, k holds 1 on the
span's keys and 0 elsewhere, so q'·k' carries the bias, the fused causal kernel runs unchanged, and
memory stays linear in T. The values widen by the same channels; filled with the spans' indicators,
they come out of the kernel as the attention mass on each span, for nothing.

Later rows of a prompt, on a CPU, go over the keys in parts (attention_parts.py). A target mass
takes a second call, over the keys of the span alone, and joins the two outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention_parts import in_parts
from .span_bias import SpanBias, visible
from .span_channels import CHANNEL_MULTIPLE, as_values, widen, with_indicators
from .target_mass import raise_span, shares

QUERY_BLOCK = 256  # query rows at a time where a mask has to be written out
PARTS_FROM = 1 << 10  # keys from which a mask costs more than the last bit: joining parts by their
# log sum exps, float32 numbers of size 10, leaves an error of 10⁻⁶ in the weights


def sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_start: int | Tensor,
    window: int | None,
    bias: SpanBias | None,
    scale: float,
    return_mass: bool,
) -> tuple[Tensor, Tensor | None]:
    """``attention`` (attention.py) through the fused kernels; arguments as there."""
    if q.shape[2] == 1:
        return _one_row(q, k, v, query_start, window, bias, scale, return_mass)
    if _parts_will_do(q, k, v, query_start, window, bias):
        assert isinstance(query_start, int)
        return in_parts(q, k, v, query_start, bias, scale, return_mass)
    D = q.shape[3]
    boosted = bias is not None and bias.log_multiplier is not None
    if bias is None or not (bias.steers or return_mass):
        return _rows(q, k, v, query_start, window, scale), None
    if bias.target is not None:
        return _targeted(q, k, v, query_start, window, bias, bias.target, scale, return_mass)
    wide_q, wide_k = widen(q, k, bias, scale)
    if boosted:
        wide_v = with_indicators(v, bias, wide_q.shape[3])
        out = _rows(wide_q, wide_k, wide_v, query_start, window, scale)
        return out[..., :D], out[..., D : D + bias.start.shape[1]].float() if return_mass else None
    # Measuring must not change what is measured: the plain output comes from the plain call, and
    # the mass from a second one whose values are the indicators alone.
    indicator = with_indicators(v[..., :0], bias, wide_q.shape[3])
    mass = _rows(wide_q, wide_k, indicator, query_start, window, scale)
    return (
        _rows(q, k, v, query_start, window, scale),
        mass[..., : bias.start.shape[1]].float(),
    )


def _parts_will_do(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_start: int | Tensor,
    window: int | None,
    bias: SpanBias | None,
) -> bool:
    """Whether ``in_parts`` takes these rows, and pays."""
    if q.device.type != "cpu" or not isinstance(query_start, int) or query_start == 0:
        return False
    if query_start + q.shape[2] < PARTS_FROM:
        return False
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        return False  # a log sum exp has no gradient
    if window is not None and window < query_start + q.shape[2]:
        return False
    return bias is None or bias.target is None


def _targeted(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_start: int | Tensor,
    window: int | None,
    bias: SpanBias,
    target: Tensor,
    scale: float,
    return_mass: bool,
) -> tuple[Tensor, Tensor | None]:
    """Rows that reach a target mass: those without it, joined with those over the span alone."""
    B, H, T, D = q.shape
    N = bias.start.shape[1]
    union = bias.union(0, k.shape[2])  # (B, S)
    # The spans' indicators and the union's are values too, and so come out as masses.
    wide_v = torch.cat((with_indicators(v, bias, D + N), as_values(union[..., None], v)), -1)
    wide_q, wide_k = q, k
    if bias.log_multiplier is not None:
        wide_q, wide_k = widen(q, k, bias, scale)
    width = max(wide_q.shape[3], wide_v.shape[3])
    width += -width % CHANNEL_MULTIPLE
    wide_q, wide_k, wide_v = (F.pad(x, (0, width - x.shape[3])) for x in (wide_q, wide_k, wide_v))
    everything = _rows(wide_q, wide_k, wide_v, query_start, window, scale)[..., : D + N + 1].float()

    at = union.int().argsort(dim=1, descending=True, stable=True)  # the span's keys come first
    at = at[:, : max(1, int(union.sum(1).max()))]  # (B, M)
    real = union.gather(1, at)
    span_k, span_v = (
        x.gather(2, at[:, None, :, None].expand(-1, x.shape[1], -1, width))
        for x in (wide_k, wide_v)
    )
    out = torch.empty(B, H, T, D + N + 1, device=q.device)
    for a in range(0, T, QUERY_BLOCK):
        b = min(a + QUERY_BLOCK, T)
        seen = visible(b - a, 0, k.shape[2], query_start + a, window, q.device)  # (1 or B, T, S)
        seen = seen.expand(B, -1, -1).gather(2, at[:, None].expand(-1, b - a, -1)) & real[:, None]
        some = seen.any(-1, keepdim=True)  # (B, T, 1)
        # A row that sees nothing of the span attends to all of it, finitely, and is not used.
        alone = _grouped(wide_q[:, :, a:b], span_k, span_v, scale, mask=seen | ~some)
        alone, rows = alone[..., : D + N + 1].float(), everything[:, :, a:b]
        c, more = shares(rows[..., -1:], some[:, None], target[:, :, None, None], bias.form)
        out[:, :, a:b] = c * rows + more * alone
    mass = out[..., D : D + N].clone() if return_mass else None
    return out[..., :D].to(q.dtype), mass


def _rows(
    q: Tensor, k: Tensor, v: Tensor, query_start: int | Tensor, window: int | None, scale: float
) -> Tensor:
    """Attention of many query rows: fused causal where that says all, else in masked blocks."""
    B, H, T, _ = q.shape
    S = k.shape[2]
    from_zero = isinstance(query_start, int) and query_start == 0
    if from_zero and (window is None or window >= T):
        return _grouped(q, k[:, :, :T], v[:, :, :T], scale, causal=True)
    out = torch.empty(B, H, T, v.shape[3], device=q.device, dtype=q.dtype)
    for a in range(0, T, QUERY_BLOCK):
        b = min(a + QUERY_BLOCK, T)
        first, last, start = 0, S, query_start
        if isinstance(query_start, int):
            last = query_start + b
            first = 0 if window is None else max(0, query_start + a - window + 1)
            start = query_start + a
        else:
            start = query_start + a
        mask = visible(b - a, first, last, start, window, q.device)
        out[:, :, a:b] = _grouped(
            q[:, :, a:b], k[:, :, first:last], v[:, :, first:last], scale, mask=mask
        )
    return out


def _grouped(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    *,
    causal: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """One fused call. Heads that share a KV head become the heads of a (B·H_kv)-batch.

    k and v are then expanded by stride, never copied, on every version of PyTorch.
    """
    B, H, T, D = q.shape
    H_kv = k.shape[1]
    group = H // H_kv
    q = q.reshape(B * H_kv, group, T, D)
    k = k.flatten(0, 1)[:, None].expand(-1, group, -1, -1)  # (B·H_kv, G, S, D)
    v = v.flatten(0, 1)[:, None].expand(-1, group, -1, -1)
    if mask is not None:
        mask = mask.repeat_interleave(H_kv, 0)[:, None] if mask.shape[0] > 1 else mask[None]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale)
    return out.reshape(B, H, T, v.shape[3])


def _one_row(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_start: int | Tensor,
    window: int | None,
    bias: SpanBias | None,
    scale: float,
    return_mass: bool,
) -> tuple[Tensor, Tensor | None]:
    """A decode step: the heads that share a KV head are the rows of one small product."""
    B, H, _, D = q.shape
    H_kv = k.shape[1]
    first, last = 0, k.shape[2]
    if isinstance(query_start, int):
        last = query_start + 1
        first = 0 if window is None else max(0, last - window)
        k, v = k[:, :, first:last], v[:, :, first:last]
    q = q.reshape(B, H_kv, H // H_kv, D)
    mask = bias.dense(first, last) if bias is not None else None  # (B, H, S)
    if not isinstance(query_start, int):
        hidden = ~visible(1, first, last, query_start, window, q.device)  # (B, 1, S)
        plain = torch.zeros(1, device=q.device) if mask is None else mask
        mask = plain.expand(B, H, last - first).masked_fill(hidden, float("-inf"))
    if mask is not None:
        mask = mask.reshape(B, H_kv, -1, last - first)
    mass = None
    aimed = bias is not None and bias.target is not None
    if bias is not None and (return_mass or aimed):
        logits = scale * (q.float() @ k.float().transpose(2, 3))  # (B, H_kv, G, S)
        logits = logits if mask is None else logits + mask
        if bias.target is not None:
            union = bias.union(first, last)[:, None, None]
            logits = raise_span(logits, union, bias.target.view(B, H_kv, -1, 1), bias.form)
        weights = logits.softmax(dim=-1)
        if return_mass:
            mass = (weights @ bias.indicator(first, last).float()[:, None]).reshape(B, H, 1, -1)
        if aimed:
            return (weights @ v.float()).to(q.dtype).reshape(B, H, 1, D), mass
    if mask is not None and q.device.type != "cpu":
        mask = mask.to(q.dtype)  # only the CPU kernel takes a float32 mask beside 16-bit inputs
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return out.reshape(B, H, 1, D), mass
