"""Weights in eight bits: one scale a row, products in the activations' dtype."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError

QUANTIZATIONS = ("int8",)
FEW = 8  # vectors for which a product reads weights rather than multiplies
ROWS = 4096  # of a weight that are widened at a time where a product takes many vectors


def check_quantize(quantize: str | None) -> None:
    """InputError for a quantisation that does not exist."""
    if quantize is not None and quantize not in QUANTIZATIONS:
        raise InputError(
            f"quantize must be None or one of {', '.join(QUANTIZATIONS)}, got {quantize!r}"
        )


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """``weight`` (N, K) as int8 (N, K) and float32 scales (N,): weight ≈ int8 · scale, row by row.

    Symmetric: the largest magnitude of a row becomes 127, so no element errs by more than half of
    its row's scale. A row of zeros has scale 0.
    """
    wide = weight.float()
    scale = wide.abs().amax(1) / 127
    whole = (wide / torch.where(scale == 0, 1.0, scale)[:, None]).round_()
    return whole.clamp_(-127, 127).to(torch.int8), scale


def int8_linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (…, K) @ (weight · scale)ᵀ + bias: (…, N) in x's dtype.

    int8 weights are exact in every dtype of x, so a block of them is widened, multiplied, and its
    sums scaled. float16 would overflow in such sums; there the weights are scaled first.
    """
    if _packed(x):
        y = torch._weight_int8pack_mm(x.reshape(-1, x.shape[-1]), weight, scale.to(x.dtype))
        y = y.view(*x.shape[:-1], -1)
        return y if bias is None else y + bias
    parts = []
    for rows, factor in zip(torch.split(weight, ROWS), torch.split(scale, ROWS), strict=True):
        wide = rows.to(x.dtype)
        if x.dtype == torch.float16:
            parts.append(F.linear(x, wide * factor[:, None].to(x.dtype)))
        else:
            parts.append((F.linear(x, wide) * factor).to(x.dtype))
    y = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
    return y if bias is None else y + bias


def scale_of_a_row(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """``scale`` as ``int8_linear`` of a single vector reads it, for those who call it often."""
    vector = torch.empty(weight.shape[1], dtype=dtype, device=weight.device)
    return scale.to(dtype) if _packed(vector) else scale


def _packed(x: Tensor) -> bool:
    """Whether PyTorch's own int8 kernel takes x: one that is fast for a few bfloat16 vectors.

    It reads past the end of rows of other lengths, and in float32 it is slower than widening.
    """
    few = x.numel() // x.shape[-1] <= FEW
    return x.device.type == "cpu" and x.dtype == torch.bfloat16 and few and x.shape[-1] % 64 == 0
