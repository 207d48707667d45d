"""One row through one layer, and through the head: the decode step of a single sequence, as pure
functions of tensors.

Each is written once. Eagerly it runs on ``Eager``'s primitives (eager.py); ``Inductor``'s
(inductor.py) are forms that its compiler turns into one kernel a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from ..layers import Weight

if TYPE_CHECKING:
    from ..model import Block

Weights = dict[str, Tensor]


class Primitives(Protocol):
    """How the parts of a row are computed.

    A result may lie in memory that the next call of the same primitive, for the same ``name``
    where it has one, writes to again.
    """

    def norm(self, weights: Weights, name: str, x: Tensor, eps: float) -> Tensor:
        """RMSNorm of x (…, K) with the weight ``name`` (K,), in x's dtype."""
        ...

    def product(self, weights: Weights, name: str, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """The matrix ``name`` (N, K), with its scale and bias where it has them, on x (K,).

        ``plus`` (N,), the residual stream, is added.
        """
        ...

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Heads (H, D) turned by cos and sin (D,), ``sin`` with its first half negated."""
        ...

    def store(self, cache: Tensor, new: Tensor, row: Row, seen: range) -> None:
        """``new`` (H_kv, D) written to ``cache`` (1, H_kv, T_max, D) at the row's position."""
        ...

    def attend(self, q: Tensor, row: Row, seen: range, scale: float) -> Tensor:
        """Attention of q (H, D) to the keys ``seen`` of the row's cache: (H·D,).

        The row's bias is added to the logits.
        """
        ...

    def gate(self, y: Tensor) -> Tensor:
        """silu(first half) · second half of y (2·K,): (K,). It may write to ``y``."""
        ...


@dataclass(frozen=True)
class Shape:
    """What the layers of a model have in common."""

    heads: int
    kv_heads: int
    head_dim: int
    eps: float


class Row(NamedTuple):
    """Where a row stands, and what it may see: the same for all layers but for cache and bias.

    ``cos`` and ``sin`` (D,), the first half of ``sin`` negated; ``position`` (1,) int64; ``k`` and
    ``v`` (1, H_kv, T_max, D), the layer's cache, written at ``position``; ``bias`` float32 for the
    keys that there are then, None for none, in the layout that its primitives read (biases.py).
    """

    cos: Tensor
    sin: Tensor
    position: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor | None


def layer(
    x: Tensor, row: Row, weights: Weights, shape: Shape, by: Primitives, seen: range
) -> Tensor:
    """The residual stream x (hidden_size,) behind one layer; its keys and values are stored.

    ``weights``: what ``layer_weights`` gives. ``seen``: the keys that the row attends to, its own
    the last of them; compiled code, which has no numbers, goes by the bias instead.
    """
    H, H_kv, D = shape.heads, shape.kv_heads, shape.head_dim
    y = by.product(weights, "qkv", by.norm(weights, "input_norm", x, shape.eps))
    y = y.view(H + 2 * H_kv, D)
    turned, v = y[: H + H_kv], y[H + H_kv :]
    if "q_norm" in weights:
        q, k = turned[:H], turned[H:]
        turned = torch.cat(
            (
                by.norm(weights, "q_norm", q, shape.eps),
                by.norm(weights, "k_norm", k, shape.eps),
            )
        )
    turned = by.rotate(turned, row.cos, row.sin)
    by.store(row.k, turned[H:], row, seen)
    by.store(row.v, v, row, seen)
    x = by.product(weights, "o", by.attend(turned[:H], row, seen, D**-0.5), x)
    y = by.product(weights, "gate_up", by.norm(weights, "post_norm", x, shape.eps))
    return by.product(weights, "down", by.gate(y), x)


def head(x: Tensor, weights: Weights, eps: float, by: Primitives) -> Tensor:
    """Logits (V,) float32 of the residual stream x (hidden_size,) behind the last layer."""
    return by.product(weights, "head", by.norm(weights, "norm", x, eps)).float()


def matrix(weight: Weight, name: str) -> Weights:
    """A matrix as a layer's weights hold it: ``name``, with ``name_scale`` and ``name_bias``."""
    found = {name: weight.weight.data}
    if weight.scale is not None:
        found[f"{name}_scale"] = weight.scale.data
    bias = getattr(weight, "bias", None)
    if bias is not None:
        found[f"{name}_bias"] = bias.data
    return found


def layer_weights(block: Block) -> Weights:
    """The tensors of one block of the model, under the names that ``layer`` uses."""
    attn, mlp = block.self_attn, block.mlp
    norms = {
        "input_norm": block.input_layernorm,
        "post_norm": block.post_attention_layernorm,
        "q_norm": attn.q_norm,
        "k_norm": attn.k_norm,
    }
    return {
        **{name: norm.weight.data for name, norm in norms.items() if norm is not None},
        **matrix(attn.qkv_proj, "qkv"),
        **matrix(attn.o_proj, "o"),
        **matrix(mlp.gate_up_proj, "gate_up"),
        **matrix(mlp.down_proj, "down"),
    }
