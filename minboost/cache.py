"""The static KV cache: every sequence writes at its own absolute positions."""

from __future__ import annotations

import copy
import math
import os

import torch
from torch import Tensor

from .config import ModelConfig


class KVCache:
    """Keys and values of all layers, each (L, B, H_kv, T_max, D), allocated once.

    There is no left padding: sequence b holds its token t at position t, so spans are absolute
    key positions in prefill and decode alike. A shorter sequence of a batch leaves padding after
    its prompt; no query can see a key past its own position, and decode overwrites it.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        batch: int,
        length: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        shape = (
            config.num_hidden_layers,
            batch,
            config.num_key_value_heads,
            length,
            config.head_dim,
        )
        _check_room(2 * dtype.itemsize * math.prod(shape), batch, length, device)
        # Zeros, not empty: a masked key of garbage NaN would still poison softmax · V.
        self.k = torch.zeros(shape, device=device, dtype=dtype)
        self.v = torch.zeros(shape, device=device, dtype=dtype)
        self._rows = torch.arange(batch, device=device)

    @property
    def length(self) -> int:
        """T_max, the positions a sequence can hold."""
        return self.k.shape[3]

    def write(
        self, layer: int, k: Tensor, v: Tensor, *, start: int | Tensor, keys: int
    ) -> tuple[Tensor, Tensor]:
        """Store new keys and values, return views of the first ``keys`` positions.

        Args:
            k, v: (B, H_kv, T, D), for positions start … start + T - 1.
            start: one position for the whole batch, or (B,) positions (then T must be 1).
            keys: how many positions are in use afterwards, at most ``length``.
        """
        if isinstance(start, int):
            self.k[layer, :, :, start : start + k.shape[2]] = k
            self.v[layer, :, :, start : start + v.shape[2]] = v
        else:
            self.k[layer, self._rows, :, start] = k[:, :, 0]
            self.v[layer, self._rows, :, start] = v[:, :, 0]
        return self.k[layer, :, :, :keys], self.v[layer, :, :, :keys]

    def part(self, rows: Tensor) -> KVCache:
        """Those sequences alone, which follow one another, in the same memory."""
        part = copy.copy(self)
        first, count = int(rows[0]), len(rows)
        part.k, part.v = (x[:, first : first + count] for x in (self.k, self.v))
        part._rows = self._rows[:count]
        return part

    def keep(self, rows: Tensor) -> None:
        """Hold on to the sequences of those numbers alone, in that order."""
        self.k, self.v = self.k[:, rows], self.v[:, rows]
        self._rows = self._rows[: len(rows)]


def _check_room(needed: int, batch: int, length: int, device: torch.device) -> None:
    """Refuse what cannot fit in a CPU's memory before the system starts killing processes."""
    if device.type != "cpu" or "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise MemoryError(
            f"the KV cache of {batch} x {length} tokens takes {needed / 1e9:.1f} GB, the machine "
            f"has {there / 1e9:.1f} GB"
        )
