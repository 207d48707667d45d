"""The primitives of a row as calls of PyTorch's own kernels, the products in their chosen forms."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from ..quantize import int8_linear
from .forms import Form, mv
from .layer import Weights


class Eager:
    """``Primitives`` (layer.py) in plain torch; ``forms`` by a matrix's name, ``mv`` by default."""

    def __init__(self, forms: Mapping[str, Form]) -> None:
        self.forms = forms

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, eps)

    def product(self, weights: Weights, name: str, x: Tensor) -> Tensor:
        weight, scale = weights[name], weights.get(f"{name}_scale")
        if scale is not None:
            y = int8_linear(x[None], weight, scale)[0]
        else:
            y = self.forms.get(name, mv)(weight, x)
        bias = weights.get(f"{name}_bias")
        return y if bias is None else y + bias

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, keys: int, scale: float
    ) -> Tensor:
        H, D = q.shape
        H_kv = k.shape[0]
        mask = None if bias is None else bias.t().view(H_kv, H // H_kv, keys)[None]
        out = F.scaled_dot_product_attention(
            q.view(1, H_kv, H // H_kv, D),  # heads that share keys are the rows of one product
            k[None, :, :keys],
            v[None, :, :keys],
            attn_mask=mask,
            scale=scale,
        )
        return out.reshape(H * D)
