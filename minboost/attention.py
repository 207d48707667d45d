"""Boosted attention: the one entry that every layer calls, and the reference it is held to.

The equation (docs/equation.md): for query head h, query position i and key position j

    logit[h, i, j] = scale · q_i·k_j + Σ_n log_multiplier[h, n] · [start_n ≤ j < stop_n]

then the causal or sliding-window mask, then softmax. Adding log(m) to a key's logit is the same as
multiplying its softmax weight by m and renormalising the row. A target mass adds to that what each
row and head needs to reach it (target_mass.py).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .attention_sdpa import sdpa
from .errors import InputError
from .impl import choose
from .span_bias import SpanBias, visible
from .target_mass import raise_span


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    query_start: int | Tensor = 0,
    window: int | None = None,
    bias: SpanBias | None = None,
    scale: float | None = None,
    return_mass: bool = False,
    impl: str = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Causal attention with a boost, or a target mass, on spans of keys.

    Args:
        q: (B, H, T, D). Row t of sequence b stands at absolute position query_start[b] + t.
        k, v: (B, H_kv, S, D), key j at absolute position j; H must be a multiple of H_kv. A key
            is visible to a query at position p iff j ≤ p and, with a window, p - j < window.
        query_start: one position for the batch, or (B,) integer positions.
        bias: the spans; None is plain attention.
        scale: factor on q·k, 1/√D by default.
        return_mass: also return the softmax weight that falls on each span.
        impl: "reference" (float32 or wider, materialises the weights), "torch" (fused through
            scaled_dot_product_attention, memory linear in T and S), "triton" (the kernels of
            minboost.kernels, on a GPU), or "auto" (impl.py).

    Returns:
        The output (B, H, T, D) in q's dtype, and the mass (B, H, T, N) float32 or None.

    Raises:
        InputError: shapes that do not fit, or an ``impl`` that does not exist or cannot run here.
    """
    impl = choose(impl, q.device)
    _check(q, k, v, query_start, bias, return_mass)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if impl == "reference":
        return reference(q, k, v, query_start, window, bias, scale, return_mass)
    if impl == "triton":
        from .attention_triton import triton_attention

        return triton_attention(q, k, v, query_start, window, bias, scale, return_mass)
    return sdpa(q, k, v, query_start, window, bias, scale, return_mass)


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_start: int | Tensor,
    window: int | None,
    bias: SpanBias | None,
    scale: float,
    return_mass: bool,
) -> tuple[Tensor, Tensor | None]:
    """The equation as it stands, in float32 (float64 for float64 input)."""
    H, T = q.shape[1], q.shape[2]
    S, group = k.shape[2], H // k.shape[1]
    wide = torch.promote_types(q.dtype, torch.float32)
    k = k.to(wide).repeat_interleave(group, dim=1)  # (B, H, S, D)
    v = v.to(wide).repeat_interleave(group, dim=1)
    logits = scale * (q.to(wide) @ k.transpose(2, 3))  # (B, H, T, S)
    dense = bias.dense(0, S) if bias is not None else None
    if dense is not None:
        logits = logits + dense[:, :, None]
    hidden = ~visible(T, 0, S, query_start, window, q.device)
    logits = logits.masked_fill(hidden[:, None], float("-inf"))
    if bias is not None and bias.target is not None:
        union = bias.union(0, S)[:, None, None]
        logits = raise_span(logits, union, bias.target[:, :, None, None], bias.form)
    weights = logits.softmax(dim=-1)
    mass = None
    if return_mass:
        assert bias is not None
        mass = (weights @ bias.indicator(0, S)[:, None].to(wide)).float()
    return (weights @ v).to(q.dtype), mass


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_start: int | Tensor,
    bias: SpanBias | None,
    return_mass: bool,
) -> None:
    if q.dim() != 4 or k.dim() != 4 or k.shape != v.shape:
        raise InputError(
            "attention takes q (B, H, T, D) and k, v (B, H_kv, S, D) alike; got "
            f"{tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3] or q.shape[1] % k.shape[1]:
        raise InputError(
            f"q {tuple(q.shape)} and k {tuple(k.shape)} must share B and D, and H must be a "
            "multiple of H_kv"
        )
    if isinstance(query_start, int) and not 0 <= query_start <= k.shape[2] - q.shape[2]:
        raise InputError(
            f"queries [{query_start}, {query_start + q.shape[2]}) do not lie among "
            f"{k.shape[2]} keys"
        )
    if return_mass and bias is None:
        raise InputError("return_mass needs a bias that names the spans")
    if bias is not None:
        B, H, N = q.shape[0], q.shape[1], bias.start.shape[1]
        for name, given, letters, expected in (
            ("log_multiplier", bias.log_multiplier, "B, H, N", (B, H, N)),
            ("target", bias.target, "B, H", (B, H)),
            ("targeted", bias.targeted, "B, N", (B, N)),
        ):
            if given is not None and tuple(given.shape) != expected:
                raise InputError(
                    f"{name} must be ({letters}) = {expected}, got {tuple(given.shape)}"
                )
        if (bias.target is None) != (bias.targeted is None):
            raise InputError("target and targeted go together: one was given without the other")
