"""Channels that carry spans through a fused attention kernel, in place of a bias matrix.

q holds log_multiplier/scale in a channel a span, k holds 1 there on the span's keys and 0
elsewhere, so q'·k' carries the bias; indicators as values come out as the attention mass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .span_bias import SpanBias

CHANNEL_MULTIPLE = 8  # head dims that fused kernels accept


def widen(q: Tensor, k: Tensor, bias: SpanBias, scale: float) -> tuple[Tensor, Tensor]:
    """q and k with the spans' channels: (B, H, T, D + C) and (B, H_kv, S, D + C)."""
    B, H, T, _ = q.shape
    N = bias.start.shape[1]
    strength = bias.log_multiplier
    if strength is None:
        strength = torch.zeros(B, H, N, device=q.device)
    strength = strength.to(torch.promote_types(q.dtype, torch.float32)) / scale
    ones = bias.indicator(0, k.shape[2]).to(k.dtype)  # (B, S, N)
    if q.dtype in (torch.bfloat16, torch.float16):
        # One 16-bit channel would round the bias; a high and a low part carry it to 2⁻¹⁶ or so.
        high = strength.to(q.dtype)
        strength = torch.cat((high, (strength - high.float()).to(q.dtype)), -1)
        ones = torch.cat((ones, ones), -1)
    pad = -strength.shape[2] % CHANNEL_MULTIPLE
    strength = F.pad(strength.to(q.dtype), (0, pad))[:, :, None].expand(-1, -1, T, -1)
    ones = F.pad(ones, (0, pad))[:, None].expand(-1, k.shape[1], -1, -1)
    return torch.cat((q, strength), -1), torch.cat((k, ones), -1)


def as_values(indicator: Tensor, v: Tensor) -> Tensor:
    """(B, S, N) bool as values of every KV head: (B, H_kv, S, N) in v's dtype."""
    return indicator.to(v.dtype)[:, None].expand(-1, v.shape[1], -1, -1)


def with_indicators(v: Tensor, bias: SpanBias, width: int) -> Tensor:
    """v, then the spans' indicators, then zeros up to ``width`` channels."""
    both = torch.cat((v, as_values(bias.indicator(0, v.shape[2]), v)), -1)
    return F.pad(both, (0, width - both.shape[-1]))
