"""Boosted attention through the Triton kernels of ``minboost.kernels``."""

from __future__ import annotations

import torch
from torch import Tensor

from .effects import EXACT
from .impl import on
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
        segments = Segments.cut(bias.start, bias.stop, strength, k.shape[2], bias.targeted)
    return in_segments(
        q, k, v, segments, start=query_start, window=window, scale=scale, return_mass=return_mass,
        target=None if bias is None else bias.target, form=EXACT if bias is None else bias.form,
    )  # fmt: skip


def in_segments(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segments: Segments,
    *,
    start: int | Tensor,
    window: int | None,
    scale: float,
    return_mass: bool,
    target: Tensor | None = None,
    form: str = EXACT,
) -> tuple[Tensor, Tensor | None]:
    """``triton_attention`` with the spans cut already; ``start`` is its ``query_start``."""
    if isinstance(start, int):  # filled on the device: a copy from the host would wait for it
        start = torch.full((q.shape[0],), start, device=q.device)
    kernel = decode if q.shape[2] == 1 else prefill
    start = start.expand(q.shape[0]).contiguous()
    with on(q.device):
        out, mass = kernel(
            q, k, v, start, segments, scale=scale, window=window, return_mass=return_mass,
            target=target, form=form,
        )  # fmt: skip
    return out, mass
