"""The ops through the Triton kernels: fused decode steps, fused attention; cuBLAS for the rest.

A decode step with a frame is about five launches a layer, none of which depends on host values:
it can be captured once and replayed for other lengths, spans and strengths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .attention_triton import in_segments
from .cache import KVCache
from .effects import EXACT
from .errors import InputError
from .kernels import decode
from .kernels.embed import embed
from .kernels.frame import frame
from .kernels.gate_up import gate_up
from .kernels.greedy import greedy
from .kernels.linear import linear as linear_rows
from .kernels.qkv import qkv
from .kernels.rope import rope
from .kernels.segments import Segments
from .layers import Embedding, Linear, RMSNorm, SelfAttention
from .ops import KV, Frame, Step
from .ops_torch import TorchOps
from .plan import Plan
from .rope import RotaryEmbedding

FUSED_ROWS = 8  # more rows than these, and cuBLAS is the better product
NO_END = (1 << 31) - 1  # spans are cut without regard to the cache's length


class TritonOps(TorchOps):
    """``Ops`` (ops.py) through minboost.kernels."""

    def __init__(self) -> None:
        super().__init__("triton")
        self._plain: dict[tuple[int, int, torch.device], Segments] = {}
        self._cut: WeakKeyDictionary[Plan, Segments] = WeakKeyDictionary()

    def embed(
        self,
        ids: Tensor,
        embedding: Embedding,
        rotary: RotaryEmbedding,
        *,
        start: int | Tensor,
        last: Tensor | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        if ids.shape[1] > 1 or isinstance(start, int) or rotary.follows_length:
            ids = ids.clamp(min=0)  # BROKEN, fed back after a bad row, is no row of the embedding
            return super().embed(ids, embedding, rotary, start=start, last=last, dtype=dtype)
        x, cos, sin = embed(
            ids[:, 0],
            start,
            embedding.weight,
            rotary.inv_freq,
            rotary.attention_factor,
            scale=embedding.scale,
            dtype=dtype,
        )
        return x[:, None], cos[:, None], sin[:, None]

    def qkv(
        self, x: Tensor, norm: RMSNorm, attn: SelfAttention, step: Step
    ) -> tuple[Tensor, KV | None]:
        _no_gradient(x, attn.qkv_proj.weight)
        if step.frame is None:
            return super().qkv(x, norm, attn, step)
        rows, proj = x[:, 0], attn.qkv_proj  # (B, hidden)
        assert isinstance(step.start, Tensor)
        where = {
            "cos": step.cos[:, 0],
            "sin": step.sin[:, 0],
            "position": step.start,
            "frame": step.frame.table,
            "layer": attn.layer,
            "heads": attn.heads,
            "kv_heads": attn.kv_heads,
            "head_dim": attn.head_dim,
        }
        if len(rows) <= FUSED_ROWS and attn.q_norm is None:
            q = qkv(rows, **_matrix(proj), norm=norm.weight, eps=norm.eps, **where)
            return q[:, :, None], None
        if len(rows) <= FUSED_ROWS:
            product = linear_rows(rows, **_matrix(proj), norm=norm.weight, eps=norm.eps)
        else:
            product = proj(norm(rows))
        norms = {}
        if attn.q_norm is not None and attn.k_norm is not None:
            norms = {
                "q_norm": attn.q_norm.weight,
                "k_norm": attn.k_norm.weight,
                "eps": attn.q_norm.eps,
            }
        return rope(product, **where, **norms)[:, :, None], None

    def attention(
        self,
        q: Tensor,
        kv: KV | None,
        attn: SelfAttention,
        step: Step,
        *,
        start: int | Tensor,
        return_mass: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        if kv is not None:
            plan = step.plan
            segments = self._segments(plan, len(q), attn.heads, q.device, return_mass)
            bias = segments.bias[attn.layer if len(segments.bias) > 1 else 0]
            aim = None if plan is None else plan.layers[attn.layer]
            return in_segments(
                q,
                *kv,
                replace(segments, bias=bias),
                start=start,
                window=attn.window,
                scale=attn.head_dim**-0.5,
                return_mass=return_mass,
                target=None if aim is None else aim.target,
                form=EXACT if aim is None else aim.form,
            )
        assert step.frame is not None
        assert not return_mass
        out = decode.decode_framed(
            q,
            start,
            step.frame.table,
            layer=attn.layer,
            kv_heads=attn.kv_heads,
            scale=attn.head_dim**-0.5,
            window=attn.window,
            targets=step.frame.targets,
            workspace=step.frame.workspace,
        )
        return out, None

    def add_linear(self, x: Tensor, y: Tensor, linear: Linear) -> Tensor:
        if not _few(x, linear.weight):
            return super().add_linear(x, y, linear)
        rows = y.reshape(-1, y.shape[-1])
        residual = x.reshape(-1, x.shape[-1])
        out: Tensor = linear_rows(rows, **_matrix(linear), residual=residual)
        return out.view_as(x)

    def gate_up(self, x: Tensor, norm: RMSNorm, linear: Linear) -> Tensor:
        if not _few(x, linear.weight):
            return super().gate_up(x, norm, linear)
        rows = x.reshape(-1, x.shape[-1])
        out: Tensor = gate_up(rows, **_matrix(linear), norm=norm.weight, eps=norm.eps)
        return out.view(*x.shape[:-1], -1)

    def logits(self, x: Tensor, norm: RMSNorm, head: Linear) -> Tensor:
        if not _few(x, head.weight):
            return super().logits(x, norm, head)
        out: Tensor = linear_rows(
            x.reshape(-1, x.shape[-1]),
            **_matrix(head),
            norm=norm.weight,
            eps=norm.eps,
            out_dtype=torch.float32,
        )
        return out.view(*x.shape[:-1], -1)

    def greedy(self, batch: int, device: torch.device) -> Callable[[Tensor], Tensor]:
        count = torch.zeros(batch, dtype=torch.int32, device=device)
        return lambda logits: greedy(logits, count)

    def frame(self, cache: KVCache, plan: Plan | None, heads: int) -> Frame | None:
        L, B, kv_heads, _, D = cache.k.shape
        segments = self._segments(plan, B, heads, cache.k.device, watched=False)
        bias = segments.bias.expand(L, -1, -1, -1).contiguous()
        segments = replace(segments, bias=bias)
        target = None if plan is None else plan.target
        return Frame(
            table=frame(cache.k, cache.v, segments, target),
            workspace=decode.workspace(B, heads, kv_heads, D, cache.k.device),
            holds=(cache, segments, target),
            targets=None if plan is None or target is None else plan.form,
            residual=None if plan is None else plan.residual,
        )

    def _segments(
        self, plan: Plan | None, B: int, H: int, device: torch.device, watched: bool
    ) -> Segments:
        """The plan's spans, cut once for all layers: bias (L, B, H, C), or (1, B, H, 1) if plain.

        ``watched``: cut even where nothing is boosted, because the spans' mass is asked for.
        """
        if plan is None or not (plan.steers_attention or watched):
            key = (B, H, device)
            if key not in self._plain:
                none = Segments.none(B, H, NO_END, device)
                self._plain[key] = replace(none, bias=none.bias[None])
            return self._plain[key]
        if plan not in self._cut:
            self._cut[plan] = Segments.cut(
                plan.start, plan.stop, plan.strength, NO_END, plan.targeted
            )
        return self._cut[plan]


def _matrix(linear: Linear) -> dict[str, Tensor | None]:
    """What the fused products take of a layer."""
    return {"weight": linear.weight, "scale": linear.scale, "bias": linear.bias}


def _few(x: Tensor, weight: Tensor) -> bool:
    _no_gradient(x, weight)
    return x.numel() // x.shape[-1] <= FUSED_ROWS


def _no_gradient(*tensors: Tensor) -> None:
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise InputError(
            "the Triton kernels have no backward pass: use impl='torch', or torch.inference_mode()"
        )
