"""The primitives of a row as calls of PyTorch's own kernels, the products in their chosen forms.

What they compute goes into buffers that are made in the first layer and used again in all others,
so a step allocates no more than those kernels do themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..quantize import int8_linear
from .forms import Form, mv
from .layer import Row, Weights


class Eager:
    """``Primitives`` (layer.py) in plain torch; ``forms`` by a matrix's name, ``mv`` by default.

    For one run alone: two at a time would write to the same buffers.
    """

    def __init__(self, forms: Mapping[str, Form]) -> None:
        self.forms = forms
        self._buffers: dict[str, Tensor] = {}

    def norm(self, weights: Weights, name: str, x: Tensor, eps: float) -> Tensor:
        weight = weights[name]
        if x.dim() > 1:
            return F.rms_norm(x, weight.shape, weight, eps)
        wide = x if x.dtype.itemsize > 2 else self._out("wide", x.shape, torch.float32).copy_(x)
        # The factor through Python: fewer calls than a mean of squares and its root.
        square = torch.dot(wide, wide).item() / len(x) + eps
        factor = square**-0.5 if square else math.inf  # NaN, as everywhere
        out = self._out(name, x.shape, x.dtype)
        if wide is x:
            torch.mul(x, factor, out=out)
        else:
            out.copy_(wide.mul_(factor))
        return out.mul_(weight)

    def product(self, weights: Weights, name: str, x: Tensor, plus: Tensor | None = None) -> Tensor:
        weight, scale = weights[name], weights.get(f"{name}_scale")
        form, bias = self.forms.get(name, mv), weights.get(f"{name}_bias")
        if scale is not None:
            y = int8_linear(x[None], weight, scale)[0]
        else:
            y = self._out(name, weight.shape[:1], x.dtype)
            if form is mv and plus is not None and bias is None:
                return torch.addmv(plus, weight, x, out=y)
            form(weight, x, y)
        if bias is not None:
            y += bias
        if plus is not None:
            y += plus
        return y

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        out = torch.mul(x, cos, out=self._out("turned", x.shape, x.dtype))
        return out.addcmul_(x.roll(x.shape[1] // 2, 1), sin)

    def store(self, cache: Tensor, new: Tensor, row: Row, seen: range) -> None:
        cache.select(2, seen.stop - 1).copy_(new)

    def attend(self, q: Tensor, row: Row, seen: range, scale: float) -> Tensor:
        H, D = q.shape
        H_kv = row.k.shape[1]
        heads = F.scaled_dot_product_attention(
            q.view(1, H_kv, H // H_kv, D),  # heads that share keys are the rows of one product
            row.k.narrow(2, seen.start, len(seen)),
            row.v.narrow(2, seen.start, len(seen)),
            attn_mask=row.bias,
            scale=scale,
        )
        out = self._out("heads", heads.shape, heads.dtype)
        return out.copy_(heads).view(H * D)

    def gate(self, y: Tensor) -> Tensor:
        gate, up = y.chunk(2)
        return F.silu(gate, inplace=True).mul_(up)

    def _out(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """The buffer of that name. All layers have the same shapes (layer.Shape)."""
        out = self._buffers.get(name)
        if out is None:
            out = self._buffers[name] = torch.empty(shape, dtype=dtype)
        return out
