"""The primitives of a row as calls of PyTorch's own kernels, the products in their chosen forms."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..quantize import int8_linear
from .forms import Form, mv
from .layer import Row, Weights


class Eager:
    """``Primitives`` (layer.py) in plain torch; ``forms`` by a matrix's name, ``mv`` by default."""

    def __init__(self, forms: Mapping[str, Form]) -> None:
        self.forms = forms

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        if x.dim() > 1:
            return F.rms_norm(x, weight.shape, weight, eps)
        wide = x if x.dtype.itemsize > 2 else x.float()
        # The factor through Python: fewer calls than a mean of squares and its root.
        square = torch.dot(wide, wide).item() / len(x) + eps
        factor = square**-0.5 if square else math.inf  # NaN, as everywhere
        return weight * (wide * factor).to(x.dtype)

    def product(self, weights: Weights, name: str, x: Tensor, plus: Tensor | None = None) -> Tensor:
        weight, scale = weights[name], weights.get(f"{name}_scale")
        form, bias = self.forms.get(name, mv), weights.get(f"{name}_bias")
        if scale is None and form is mv and plus is not None and bias is None:
            return torch.addmv(plus, weight, x)
        y = form(weight, x) if scale is None else int8_linear(x[None], weight, scale)[0]
        if bias is not None:
            y = y + bias
        return y if plus is None else plus + y

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return torch.addcmul(x * cos, x.roll(x.shape[1] // 2, 1), sin)

    def store(self, cache: Tensor, new: Tensor, row: Row, seen: range) -> None:
        cache.select(2, seen.stop - 1).copy_(new)

    def attend(self, q: Tensor, row: Row, seen: range, scale: float) -> Tensor:
        H, D = q.shape
        H_kv = row.k.shape[1]
        out = F.scaled_dot_product_attention(
            q.view(1, H_kv, H // H_kv, D),  # heads that share keys are the rows of one product
            row.k.narrow(2, seen.start, len(seen)),
            row.v.narrow(2, seen.start, len(seen)),
            attn_mask=row.bias,
            scale=scale,
        )
        return out.reshape(H * D)
