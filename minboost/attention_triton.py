"""Boosted attention through the Triton kernels of ``minboost.kernels``."""

from __future__ import annotations

import torch
from torch import Tensor

from .kernels.decode import decode
from .kernels.prefill import prefill
from .kernels.segments import Segments
from .span_bias import SpanBias


def triton_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_start: int | Tensor,
    window: int | None,
    bias: SpanBias | None,
    scale: float,
    return_mass: bool,
) -> tuple[Tensor, Tensor | None]:
    """``attention`` (attention.py) through the kernels; arguments as there."""
    B, H = q.shape[:2]
    if bias is None:
        segments = Segments.none(B, H, k.shape[2], q.device)
    else:
        strength = bias.log_multiplier
        if strength is None:
            strength = torch.zeros(B, H, bias.start.shape[1], device=q.device)
        segments = Segments.cut(bias.start, bias.stop, strength, k.shape[2])
    start = torch.as_tensor(query_start, device=q.device).expand(B).contiguous()
    kernel = decode if q.shape[2] == 1 else prefill
    out, mass = kernel(
        q, k, v, start, segments, scale=scale, window=window, return_mass=return_mass
    )
    return out, mass
