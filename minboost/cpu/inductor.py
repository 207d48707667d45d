"""The primitives of a row in the form that Inductor compiles best.

Everything is computed in float32, whatever the weights' dtype: between one product and the next
nothing is rounded. A product is written as sums over rows taken from several parts of the matrix
at once. Inductor makes one loop of them, which reads as many streams of memory side by side; one
stream alone does not reach the memory's speed on a core (benchmarks/forms.py).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .layer import Row, Weights

STREAMS = 8  # rows of a matrix that one turn of a loop takes
OPTIONS = {
    # A normed x, read by every row of the next product, is stored once and not formed again for
    # each; keys and values, which are only widened, are not stored a second time.
    "realize_reads_threshold": 1,
    # A product and a sum in one instruction, and one rounding; by default Inductor forbids it.
    "cpp.enable_floating_point_contract_flag": "fast",
}


class Inductor:
    """``Primitives`` (layer.py) for Inductor."""

    def norm(self, weights: Weights, name: str, x: Tensor, eps: float) -> Tensor:
        wide = x.float()
        return weights[name] * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps))

    def product(self, weights: Weights, name: str, x: Tensor, plus: Tensor | None = None) -> Tensor:
        weight, scale = weights[name], weights.get(f"{name}_scale")
        wide = x.float()
        part = weight.shape[0] // STREAMS
        whole = STREAMS * part
        sums = [
            (weight[i * part : (i + 1) * part].float() * wide).sum(-1)
            for i in range(STREAMS)
            if part
        ]
        if whole < weight.shape[0]:
            sums.append((weight[whole:].float() * wide).sum(-1))
        y = torch.cat(sums)
        if scale is not None:
            y = y * scale
        bias = weights.get(f"{name}_bias")
        if bias is not None:
            y = y + bias
        return y if plus is None else plus + y

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        half = x.shape[1] // 2
        return x * cos + torch.cat((x[:, half:], x[:, :half]), 1) * sin

    def store(self, cache: Tensor, new: Tensor, row: Row, seen: range) -> None:
        cache.index_copy_(2, row.position, new[None, :, None].to(cache.dtype))

    def attend(self, q: Tensor, row: Row, seen: range, scale: float) -> Tensor:
        assert row.bias is not None
        H, D = q.shape
        H_kv, S = row.k.shape[1], row.bias.shape[0]
        group = H // H_kv
        heads = (q * scale).view(H_kv, group, 1, D).float()
        k, v = row.k[0, :, :S].float(), row.v[0, :, :S].float()
        bias = row.bias.view(S, H_kv, group).permute(1, 2, 0)
        # Loops over the heads that share keys, which Inductor makes one pass over those keys.
        logits = torch.stack([(heads[:, g] * k).sum(-1) + bias[:, g] for g in range(group)], 1)
        weights = (logits - logits.amax(-1, keepdim=True)).exp()
        out = torch.stack([(weights[:, g, :, None] * v).sum(1) for g in range(group)], 1)
        # Normalised at last: heads, and not keys, are divided.
        return (out / weights.sum(-1, keepdim=True)).reshape(H * D)

    def gate(self, y: Tensor) -> Tensor:
        gate, up = y.chunk(2)
        return F.silu(gate) * up
