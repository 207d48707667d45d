"""Rotary position embeddings (RoFormer, arXiv 2104.09864) in every form the families use."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .config import ModelConfig, RopeConfig


class RotaryEmbedding:
    """Turns absolute positions into the cos and sin tables of one forward pass.

    Forms: default; linear (positions divided by ``factor``); dynamic NTK (the base grows with the
    sequence once it passes ``max_position_embeddings``); llama3 (arXiv 2407.21783, long waves
    divided, short ones kept, a ramp between); yarn (arXiv 2309.00071). Constants as transformers.
    """

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self.dim = config.head_dim
        self.max_positions = config.max_position_embeddings
        self.rope = config.rope
        inv_freq, self.attention_factor = inverse_frequencies(config.rope, self.dim)
        self.inv_freq = inv_freq.to(device)  # (D/2,)

    @property
    def follows_length(self) -> bool:
        """Whether a sequence's angles change with its length."""
        return self.rope.rope_type == "dynamic"

    def __call__(
        self, positions: Tensor, lengths: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """cos and sin, each (B, T, D) in ``dtype``, for integer ``positions`` (B, T).

        ``lengths`` (B,) are the sequences' lengths so far. Under dynamic NTK a sequence's angles
        follow its own, so a batch gives each sequence what it would get alone.
        """
        inv_freq: Tensor = self.inv_freq
        if self.follows_length:
            inv_freq = self._dynamic(lengths)  # (B, 1, D/2)
        # The product is formed in float32 whatever the model's dtype: bf16 has 8 bits of position.
        angles = positions[..., None].float() * inv_freq  # (B, T, D/2)
        angles = torch.cat((angles, angles), dim=-1)  # (B, T, D)
        scale = self.attention_factor
        return (angles.cos() * scale).to(dtype), (angles.sin() * scale).to(dtype)

    def _dynamic(self, lengths: Tensor) -> Tensor:
        length = lengths.clamp(min=self.max_positions).float()  # (B,)
        growth = self.rope.factor * length / self.max_positions - (self.rope.factor - 1)
        base = self.rope.rope_theta * growth ** (self.dim / (self.dim - 2))
        return 1.0 / base[:, None, None] ** _exponents(self.dim, self.inv_freq.device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate ``x`` (B, T, H, D) by cos and sin (B, T, D): pairs are (i, i + D/2), as in Llama."""
    half = x.shape[-1] // 2
    swapped = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos[:, :, None] + swapped * sin[:, :, None]


def inverse_frequencies(rope: RopeConfig, dim: int) -> tuple[Tensor, float]:
    """Angle per position of each pair, (D/2,) float32, and the factor on cos and sin."""
    inv_freq = 1.0 / rope.rope_theta ** _exponents(dim, torch.device("cpu"))
    if rope.rope_type == "linear":
        return inv_freq / rope.factor, 1.0
    if rope.rope_type == "llama3":
        return _llama3(inv_freq, rope), 1.0
    if rope.rope_type == "yarn":
        return _yarn(inv_freq, rope, dim), _yarn_attention_factor(rope)
    return inv_freq, 1.0


def _exponents(dim: int, device: torch.device) -> Tensor:
    return torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim


def _llama3(inv_freq: Tensor, rope: RopeConfig) -> Tensor:
    assert rope.original_max_position_embeddings is not None
    wavelength = 2 * math.pi / inv_freq
    turns = rope.original_max_position_embeddings / wavelength
    low, high = rope.low_freq_factor, rope.high_freq_factor
    keep = ((turns - low) / (high - low)).clamp(0.0, 1.0)  # 0: divided, 1: kept
    return (1 - keep) * inv_freq / rope.factor + keep * inv_freq


def _yarn(inv_freq: Tensor, rope: RopeConfig, dim: int) -> Tensor:
    context = rope.original_max_position_embeddings
    assert context is not None

    def pair_with_turns(turns: float) -> float:
        """The (fractional) pair that makes ``turns`` full turns over the original context."""
        return dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(rope.rope_theta))

    low, high = pair_with_turns(rope.beta_fast), pair_with_turns(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001  # a step instead of a division by zero
    divided = ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0.0, 1.0)
    return inv_freq / rope.factor * divided + inv_freq * (1 - divided)


def _yarn_attention_factor(rope: RopeConfig) -> float:
    if rope.attention_factor is not None:
        return rope.attention_factor

    def mscale(weight: float) -> float:
        return 1.0 if rope.factor <= 1 else 0.1 * weight * math.log(rope.factor) + 1.0

    if rope.mscale and rope.mscale_all_dim:
        return mscale(rope.mscale) / mscale(rope.mscale_all_dim)
    return mscale(1.0)
