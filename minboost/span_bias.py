"""What one layer does to the attention on which keys, and which keys a query may see."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .effects import EXACT


@dataclass(frozen=True)
class SpanBias:
    """The spans of one layer and what is done to the logits of their keys.

    Shapes: ``start`` and ``stop`` (B, N) integer absolute key positions, an unused slot having
    start = stop; ``log_multiplier`` (B, H, N) float32, which is added, or None where the spans are
    only watched (their mass is measured) or targeted.

    ``target`` (B, H) float32: the least mass on the union of the spans that ``targeted`` (B, N)
    bool names, 0 for none (target_mass.py); both or neither are None.
    """

    start: Tensor
    stop: Tensor
    log_multiplier: Tensor | None
    target: Tensor | None = None
    targeted: Tensor | None = None
    form: str = EXACT

    @property
    def steers(self) -> bool:
        return self.log_multiplier is not None or self.target is not None

    def indicator(self, first: int, last: int) -> Tensor:
        """(B, S, N) bool: key j of [first, last) lies in span n."""
        keys = torch.arange(first, last, device=self.start.device)[None, :, None]
        return (keys >= self.start[:, None]) & (keys < self.stop[:, None])

    def union(self, first: int, last: int) -> Tensor:
        """(B, S) bool: key j of [first, last) lies in a targeted span."""
        assert self.targeted is not None
        return (self.indicator(first, last) & self.targeted[:, None]).any(-1)

    def dense(self, first: int, last: int) -> Tensor | None:
        """(B, H, S) float32: what is added to the logits of keys [first, last)."""
        if self.log_multiplier is None:
            return None
        return self.log_multiplier @ self.indicator(first, last).float().transpose(1, 2)


def visible(
    rows: int,
    first: int,
    last: int,
    query_start: int | Tensor,
    window: int | None,
    device: torch.device,
) -> Tensor:
    """(1 or B, rows, S) bool: may the query row see key j of [first, last)?"""
    start = torch.as_tensor(query_start, device=device).reshape(-1, 1, 1)
    position = start + torch.arange(rows, device=device)[None, :, None]
    distance = position - torch.arange(first, last, device=device)
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)
