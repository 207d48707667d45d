"""Decode: the likeliest token of each row of logits, and whether it is finite, in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .last import is_last
from .launch import launch

BROKEN = tl.constexpr(-1)  # instead of a token, where the largest logit is not finite


@triton.jit
def greedy_kernel(
    logits_ptr, token_ptr, top_ptr, at_ptr, count_ptr, V,
    PARTS: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """One program: the maximum of BLOCK_V logits; the last of a row to finish joins them."""
    b, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    offs_v = part * BLOCK_V + tl.arange(0, BLOCK_V)
    logits = tl.load(logits_ptr + b * V + offs_v, mask=offs_v < V, other=float("-inf"))
    logits = tl.where(logits == logits, logits, float("inf"))  # NaN breaks the row
    top, at = tl.max(logits, 0, return_indices=True, return_indices_tie_break_left=True)
    tl.store(top_ptr + b * PARTS + part, top)
    tl.store(at_ptr + b * PARTS + part, part * BLOCK_V + at)
    if is_last(count_ptr + b, PARTS):
        offs_p = tl.arange(0, BLOCK_P)
        tops = tl.load(
            top_ptr + b * PARTS + offs_p, mask=offs_p < PARTS, other=float("-inf"), volatile=True
        )
        top, where = tl.max(tops, 0, return_indices=True, return_indices_tie_break_left=True)
        token = tl.load(at_ptr + b * PARTS + where, volatile=True)
        sound = (top > float("-inf")) & (top < float("inf"))
        tl.store(token_ptr + b, tl.where(sound, token, BROKEN).to(tl.int64))


def greedy(logits: Tensor, count: Tensor) -> Tensor:
    """(B, V) float32 → tokens (B,) int64: the first of the largest, BROKEN (-1) in a bad row.

    ``count`` (at least B,) int32 must be 0 and is 0 again afterwards.
    """
    B, V = logits.shape
    assert logits.is_contiguous()
    sizes = launch("greedy", "any", logits.device)
    parts = triton.cdiv(V, sizes["block_v"])
    tokens = torch.empty(B, dtype=torch.int64, device=logits.device)
    top = torch.empty(B, parts, device=logits.device)
    at = torch.empty(B, parts, dtype=torch.int32, device=logits.device)
    greedy_kernel[(B, parts)](
        logits, tokens, top, at, count, V,
        PARTS=parts, BLOCK_V=sizes["block_v"], BLOCK_P=triton.next_power_of_2(parts),
        num_warps=sizes["num_warps"],
    )  # fmt: skip
    return tokens


def greedy_reference(logits: Tensor) -> Tensor:
    """``greedy`` in torch."""
    top, tokens = logits.max(-1)
    return tokens.masked_fill(~top.isfinite(), -1)
