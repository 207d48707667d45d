"""What is added to the logits of a decode run's keys, laid out once for all its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..plan import Plan


@dataclass
class _Made:
    bias: Tensor  # over all keys
    window: int | None
    boosted: bool
    hidden: int = 0  # keys that have -inf, from the first on


class Biases:
    """The bias of each layer over all the keys that a run of one sequence will have.

    Layers with the same strengths and window share one tensor. ``fused`` is for compiled code,
    which takes all keys: there is always a bias, (S, H) as it lies in memory, with -inf for keys
    that the window has left behind. Otherwise those are cut off, None stands for zeros, and what
    is not zero is a mask (1, H_kv, H / H_kv, S), or (1, 1, 1, S) where all heads have the same: it
    is read anew in every layer. Its view is made once a step; once a layer, that would cost more
    than the mask itself.
    """

    def __init__(
        self,
        plan: Plan | None,
        windows: Sequence[int | None],
        *,
        heads: int,
        kv_heads: int,
        length: int,
        fused: bool,
    ) -> None:
        self.fused = fused
        self._made: list[_Made] = []
        self._of_layer: list[int] = []
        known: dict[tuple[bytes | None, int | None], int] = {}
        for layer, window in enumerate(windows):
            bias = None if plan is None else plan.layers[layer]
            strength = None if bias is None else bias.log_multiplier
            key = (None if strength is None else strength.numpy().tobytes(), window)
            if key not in known:
                known[key] = len(self._made)
                dense = None if bias is None else bias.dense(0, length)
                made = torch.zeros(heads, length) if dense is None else dense[0]
                if fused:
                    made = made.t().contiguous()
                elif torch.equal(made, made[:1].expand(heads, length)):
                    made = made[:1].clone().view(1, 1, 1, length)
                else:
                    made = made.reshape(1, kv_heads, heads // kv_heads, length)
                self._made.append(_Made(made, window, strength is not None))
            self._of_layer.append(known[key])

    def at(self, keys: int) -> list[tuple[Tensor | None, range]]:
        """By layer, for a query at the last of ``keys`` keys: a bias, and the S keys it sees."""
        found = [self._at(made, keys) for made in self._made]
        return [found[at] for at in self._of_layer]

    def _at(self, made: _Made, keys: int) -> tuple[Tensor | None, range]:
        first = 0 if made.window is None else max(0, keys - made.window)
        if self.fused:
            if first > made.hidden:
                made.bias[made.hidden : first] = float("-inf")
                made.hidden = first
            return made.bias[:keys], range(keys)
        seen = range(first, keys)
        return made.bias[..., first:keys] if made.boosted else None, seen
