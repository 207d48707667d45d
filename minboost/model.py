"""The Llama-family decoder: weights under fused parameters, one forward for prefill and decode."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import attention, resolve
from .cache import KVCache
from .config import ModelConfig
from .plan import Plan
from .rope import RotaryEmbedding, rotate


@dataclass(frozen=True)
class Output:
    """``hidden`` (B, T, hidden_size) after the final norm; ``mass`` (L, B, H, T, N) or None."""

    hidden: Tensor
    mass: Tensor | None


class Transformer(nn.Module):
    """A decoder of any supported family, built from its ModelConfig.

    Build it on the meta device and fill it with ``checkpoint.load_weights``, or on a real device
    for training (initialise it yourself): ``forward`` without a cache is differentiable.
    """

    def __init__(self, config: ModelConfig, *, impl: str = "auto") -> None:
        super().__init__()
        self.config = config
        self.impl = resolve(impl)
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            Block(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        self._rotary: RotaryEmbedding | None = None

    def forward(
        self,
        ids: Tensor,
        *,
        cache: KVCache | None = None,
        start: int | Tensor = 0,
        keys: int | None = None,
        plan: Plan | None = None,
        last: Tensor | None = None,
        return_mass: bool = False,
    ) -> Output:
        """Run ``ids`` (B, T), which stand at positions start … start + T - 1.

        Args:
            cache: read and written at those positions; without one, the ids are all there is.
            start: one position for the batch, or (B,) positions (decode: T = 1).
            keys: positions of the cache in use afterwards; start + T where ``start`` is an int.
            plan: the boost.
            last: (B,) the row of each sequence's last token; what follows it is padding, and only
                this row is returned. By default all rows are, and none is padding.
            return_mass: also return the attention mass on the plan's spans, for the rows returned.
        """
        if keys is None:
            assert isinstance(start, int), "per-sequence starts need the number of keys"
            keys = start + ids.shape[1]
        offsets = torch.arange(ids.shape[1], device=ids.device)
        positions = torch.as_tensor(start, device=ids.device).reshape(-1, 1) + offsets
        positions = positions.expand(ids.shape[0], -1)  # (B, T)
        x: Tensor = self.embed_tokens(ids)
        if self._rotary is None or self._rotary.inv_freq.device != ids.device:
            self._rotary = RotaryEmbedding(self.config, ids.device)
        ends = positions[:, -1] if last is None else last + start
        cos, sin = self._rotary(positions, ends + 1, x.dtype)
        step = Step(cos, sin, cache, start, keys, plan, last, return_mass, self.impl)
        masses: list[Tensor] = []
        for block in self.layers:
            x = block(x, step, masses)
        if last is not None:
            x = x[torch.arange(x.shape[0], device=x.device), last][:, None]
        return Output(self.norm(x), torch.stack(masses) if return_mass else None)

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, hidden_size) → (…, V) float32."""
        logits: Tensor = self.lm_head(hidden)
        return logits.float()


@dataclass(frozen=True)
class Step:
    """What all layers of one forward share."""

    cos: Tensor
    sin: Tensor
    cache: KVCache | None
    start: int | Tensor
    keys: int
    plan: Plan | None
    last: Tensor | None
    return_mass: bool
    impl: str


class Block(nn.Module):
    """Pre-norm attention and MLP, each added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = SelfAttention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, step: Step, masses: list[Tensor]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), step, masses)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class SelfAttention(nn.Module):
    """Grouped-query attention with rotary positions; q, k and v are one product."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        self.window = config.layer_windows[layer] if config.layer_windows else None
        width = (self.heads + 2 * self.kv_heads) * self.head_dim
        self.qkv_proj = Linear(config.hidden_size, width, bias=config.qkv_bias)
        self.o_proj = Linear(self.heads * self.head_dim, config.hidden_size, bias=config.o_bias)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else None

    def forward(self, x: Tensor, step: Step, masses: list[Tensor]) -> Tensor:
        B, T, _ = x.shape
        qkv = self.qkv_proj(x).view(B, T, -1, self.head_dim)
        q, k, v = qkv.split((self.heads, self.kv_heads, self.kv_heads), dim=2)  # (B, T, H, D)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q = rotate(q, step.cos, step.sin).transpose(1, 2)  # (B, H, T, D)
        k = rotate(k, step.cos, step.sin).transpose(1, 2)
        v = v.transpose(1, 2)
        if step.cache is not None:
            k, v = step.cache.write(self.layer, k, v, start=step.start, keys=step.keys)
        bias = step.plan.layers[self.layer] if step.plan is not None else None
        one_row = step.last is not None and T > 1
        out, mass = attention(
            q,
            k,
            v,
            query_start=step.start,
            window=self.window,
            bias=bias,
            return_mass=step.return_mass and not one_row,
            impl=step.impl,
        )
        if step.return_mass and one_row:
            # One row's mass is one more row of attention: cheap, and the output stays untouched.
            assert step.last is not None
            row = q[torch.arange(B, device=q.device), :, step.last][:, :, None]  # (B, H, 1, D)
            _, mass = attention(
                row,
                k,
                v,
                query_start=step.last + step.start,
                window=self.window,
                bias=bias,
                return_mass=True,
                impl=step.impl,
            )
        if mass is not None:
            masses.append(mass)
        result: Tensor = self.o_proj(out.transpose(1, 2).reshape(B, T, -1))
        return result


class MLP(nn.Module):
    """down(silu(gate(x)) · up(x)); gate and up are one product."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.gate_up_proj = Linear(hidden, 2 * inner, bias=config.mlp_bias)
        self.down_proj = Linear(inner, hidden, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        result: Tensor = self.down_proj(F.silu(gate) * up)
        return result


class Linear(nn.Module):
    """x @ weightᵀ + bias; weight (N, K), left uninitialised.

    torch's own module draws initial weights even on the meta device, which takes longer than
    loading a small model.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Embedding(nn.Module):
    """Rows of weight (V, hidden_size) by id, left uninitialised as ``Linear``'s."""

    def __init__(self, rows: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, size))

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight)


class RMSNorm(nn.Module):
    """x / √(mean(x²) + eps) · weight, formed in float32 (arXiv 1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)
