"""The ops in plain torch: differentiable, on every device."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import attention
from .cache import KVCache
from .layers import Embedding, Linear, RMSNorm, SelfAttention
from .ops import KV, Frame, Step
from .plan import Plan
from .rope import RotaryEmbedding, rotate
from .sampling import greedy_tokens


class TorchOps:
    """``Ops`` (ops.py), the attention through ``impl``: "torch" or "reference"."""

    def __init__(self, impl: str = "torch") -> None:
        self.name = impl

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
        positions = torch.arange(ids.shape[1], device=ids.device) + (
            start if isinstance(start, int) else start[:, None]
        )
        positions = positions.expand(ids.shape[0], -1)  # (B, T)
        ends = positions[:, -1] if last is None else last + start
        x: Tensor = embedding(ids, dtype)
        return x, *rotary(positions, ends + 1, x.dtype)

    def qkv(
        self, x: Tensor, norm: RMSNorm, attn: SelfAttention, step: Step
    ) -> tuple[Tensor, KV | None]:
        B, T, _ = x.shape
        qkv = attn.qkv_proj(norm(x)).view(B, T, -1, attn.head_dim)
        q, k, v = qkv.split((attn.heads, attn.kv_heads, attn.kv_heads), dim=2)  # (B, T, H, D)
        if attn.q_norm is not None and attn.k_norm is not None:
            q, k = attn.q_norm(q), attn.k_norm(k)
        q = rotate(q, step.cos, step.sin).transpose(1, 2)  # (B, H, T, D)
        k = rotate(k, step.cos, step.sin).transpose(1, 2)
        v = v.transpose(1, 2)
        if step.cache is not None:
            k, v = step.cache.write(attn.layer, k, v, start=step.start, keys=step.keys)
        return q, (k, v)

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
        assert kv is not None
        return attention(
            q,
            *kv,
            query_start=start,
            window=attn.window,
            bias=step.plan.layers[attn.layer] if step.plan is not None else None,
            return_mass=return_mass,
            impl=self.name,
        )

    def add_linear(self, x: Tensor, y: Tensor, linear: Linear) -> Tensor:
        out: Tensor = x + linear(y)
        return out

    def gate_up(self, x: Tensor, norm: RMSNorm, linear: Linear) -> Tensor:
        gate, up = linear(norm(x)).chunk(2, dim=-1)
        out: Tensor = F.silu(gate) * up
        return out

    def logits(self, x: Tensor, norm: RMSNorm, head: Linear) -> Tensor:
        logits: Tensor = head(norm(x))
        return logits.float()

    def greedy(self, batch: int, device: torch.device) -> Callable[[Tensor], Tensor]:
        return greedy_tokens

    def frame(self, cache: KVCache, plan: Plan | None, heads: int) -> Frame | None:
        return None
