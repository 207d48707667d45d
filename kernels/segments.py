"""Spans as segments: the keys cut at every span's ends, so that each piece has one bias a head.

Within a segment the boost of a head is a single number, whatever spans overlap there. The kernels
take keys segment by segment and so need no bias per key. All of it is done on the device, without
a look at the values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LOG2E = 1.4426950408889634  # the kernels count in powers of two


@dataclass(frozen=True)
class Segments:
    """Segment c of sequence b holds keys [edges[b, c], edges[b, c + 1]); many are empty.

    Shapes: ``edges`` (B, C + 1) int32, ascending from 0 to the number of keys; ``bias`` (B, H, C)
    float32, in powers of two; ``inside`` (B, C, N) bool: the segment lies in the span; ``targeted``
    (B, C) int32: 1 where a target mass counts the segment's keys. C = 2N + 1.
    """

    edges: Tensor
    bias: Tensor
    inside: Tensor
    targeted: Tensor

    @classmethod
    def cut(
        cls,
        start: Tensor,
        stop: Tensor,
        log_multiplier: Tensor,
        keys: int,
        targeted: Tensor | None = None,
    ) -> Segments:
        """From spans (B, N) and strengths (B, H, N), natural logarithms, over ``keys`` keys.

        ``targeted`` (B, N) bool: the spans whose union a target mass counts, all by default.
        """
        zero = start.new_zeros(len(start), 1)
        edges = torch.cat((zero, start, stop, zero + keys), 1).clamp(max=keys).sort(1).values
        at = edges[:, :-1, None]
        inside = (at >= start[:, None]) & (at < stop[:, None])
        bias = log_multiplier @ inside.float().transpose(1, 2) * LOG2E
        counted = inside if targeted is None else inside & targeted[:, None]
        return cls(
            edges.int().contiguous(),
            bias.float().contiguous(),
            inside,
            counted.any(2).int().contiguous(),
        )

    @classmethod
    def none(cls, batch: int, heads: int, keys: int, device: torch.device) -> Segments:
        """One segment without a bias: plain attention."""
        edges = torch.tensor([[0, keys]], dtype=torch.int32, device=device).expand(batch, -1)
        bias = torch.zeros(batch, heads, 1, device=device)
        inside = torch.zeros(batch, 1, 0, dtype=torch.bool, device=device)
        return cls(edges.contiguous(), bias, inside, torch.zeros_like(edges[:, :1]).contiguous())

    def mass(self, log_sums: Tensor) -> Tensor:
        """(…, C + 1) log2 sums per segment, the last that of all keys → (…, N) mass per span."""
        everything = log_sums[..., -1:]
        # A row that sees no key has no mass anywhere: 0, not -inf less -inf.
        everything = everything.where(everything > float("-inf"), torch.zeros_like(everything))
        share = torch.exp2(log_sums[..., :-1] - everything)  # (B, H, T, C)
        return share @ self.inside[:, None].to(share.dtype)
