"""What is added to the logits of a decode run's keys, laid out once for all its steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..plan import Plan


class Biases:
    """The bias of each layer over all the keys that a run of one sequence will have.

    Layers with the same strengths and window share one tensor. A key that the window has left
    behind has -inf. ``keys_first``: as (T_max, H) lies in memory, else as its transpose.
    ``always``: zeros where there is nothing to add, else None.
    """

    def __init__(
        self,
        plan: Plan | None,
        windows: Sequence[int | None],
        *,
        heads: int,
        length: int,
        keys_first: bool,
        always: bool,
    ) -> None:
        self.always = always
        self._made: list[tuple[Tensor, int | None, bool]] = []  # (T_max, H), window, boosted?
        self._of_layer: list[int] = []
        known: dict[tuple[bytes | None, int | None], int] = {}
        for layer, window in enumerate(windows):
            window = window if window is not None and window < length else None
            bias = None if plan is None else plan.layers[layer]
            strength = None if bias is None else bias.log_multiplier
            key = (None if strength is None else strength.numpy().tobytes(), window)
            if key not in known:
                known[key] = len(self._made)
                dense = None if bias is None else bias.dense(0, length)
                made = torch.zeros(heads, length) if dense is None else dense[0]
                made = made.t().contiguous() if keys_first else made.contiguous().t()
                self._made.append((made, window, strength is not None))
            self._of_layer.append(known[key])

    def at(self, keys: int) -> list[Tensor | None]:
        """By layer, the bias (S, H) of the first ``keys`` keys for a query at the last of them."""
        views: list[Tensor | None] = []
        for made, window, boosted in self._made:
            hidden = 0 if window is None else max(0, keys - window)
            if hidden:
                made[:hidden] = float("-inf")
            needed = self.always or boosted or hidden
            views.append(made[:keys] if needed else None)
        return [views[at] for at in self._of_layer]
