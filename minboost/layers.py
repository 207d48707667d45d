"""The parameters of a decoder, under the names that ``checkpoint`` fills.

What a block does with them stands in model.py; how a heavy step runs, in the ops (ops.py).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig
from .quantize import int8_linear


class Weight(nn.Module):
    """A matrix ``weight`` (N, K), left uninitialised.

    With ``int8`` it holds eight bits an element, and ``scale`` (N,) float32 is the factor of each
    row (quantize.py); without, ``scale`` is None. torch's own modules draw initial weights even on
    the meta device, which takes longer than loading a small model.
    """

    def __init__(self, rows: int, columns: int, *, int8: bool) -> None:
        super().__init__()
        matrix = torch.empty(rows, columns, dtype=torch.int8 if int8 else None)
        self.weight = nn.Parameter(matrix, requires_grad=not int8)
        self.scale = nn.Parameter(torch.empty(rows), requires_grad=False) if int8 else None


class Linear(Weight):
    """x @ weightᵀ + bias."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, int8: bool = False) -> None:
        super().__init__(outputs, inputs, int8=int8)
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.scale is not None:
            return int8_linear(x, self.weight, self.scale, self.bias)
        return F.linear(x, self.weight, self.bias)


class Embedding(Weight):
    """Rows of the weight by id, in ``dtype`` where they are int8."""

    def __init__(self, rows: int, size: int, *, int8: bool = False) -> None:
        super().__init__(rows, size, int8=int8)

    def forward(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        rows = F.embedding(ids, self.weight)
        return rows if self.scale is None else (rows * self.scale[ids][..., None]).to(dtype)


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


class SelfAttention(nn.Module):
    """Grouped-query attention: its products (q, k and v are one) and its shape."""

    def __init__(self, config: ModelConfig, layer: int, *, int8: bool = False) -> None:
        super().__init__()
        self.layer = layer
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        self.window = config.layer_windows[layer] if config.layer_windows else None
        width = (self.heads + 2 * self.kv_heads) * self.head_dim
        hidden, inner = config.hidden_size, self.heads * self.head_dim
        self.qkv_proj = Linear(hidden, width, bias=config.qkv_bias, int8=int8)
        self.o_proj = Linear(inner, hidden, bias=config.o_bias, int8=int8)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else None


class MLP(nn.Module):
    """down(silu(gate(x)) · up(x)); gate and up are one product."""

    def __init__(self, config: ModelConfig, *, int8: bool = False) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.gate_up_proj = Linear(hidden, 2 * inner, bias=config.mlp_bias, int8=int8)
        self.down_proj = Linear(inner, hidden, bias=config.mlp_bias, int8=int8)
