"""The residual stream's hook point: what steers it between the layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Stream = Callable[[int, Tensor], Tensor]
"""f(depth, x) → x: called with the stream x (B, T, hidden_size) after ``depth`` layers, 0 to L.

Depth 0 is the embedding, depth l the input of layer l, depth L what the final norm takes.
"""


@dataclass(frozen=True, eq=False)
class Residual:
    """A ``Stream`` that steers each sequence: x − (x·d)·d, then x + v, at the output of layers.

    ``removed`` (L, B, hidden_size) holds unit directions d, ``added`` vectors v, both float32 and
    zero where there is nothing to do; None where that holds everywhere. A stream of lower
    precision is steered in float32 and rounded once.
    """

    added: Tensor | None
    removed: Tensor | None

    def __call__(self, depth: int, x: Tensor) -> Tensor:
        if depth == 0:
            return x
        dtype = x.dtype
        if self.removed is not None:
            d = self.removed[depth - 1][:, None]  # (B, 1, hidden)
            x = x - (x * d).sum(-1, keepdim=True) * d
        if self.added is not None:
            x = x + self.added[depth - 1][:, None]
        return x.to(dtype)

    @property
    def kind(self) -> tuple[bool, bool]:
        """Which of the two there are: what a captured step is made for."""
        return self.added is not None, self.removed is not None

    def of_rows(self, rows: Tensor) -> Residual:
        """For the sequences of those numbers alone, in that order."""
        both = (self.added, self.removed)
        return Residual(*(None if t is None else t[:, rows] for t in both))

    def clone(self) -> Residual:
        return Residual(*(None if t is None else t.clone() for t in (self.added, self.removed)))

    def copy_(self, other: Residual) -> None:
        """Take over the values of ``other``, of the same kind and shapes."""
        for mine, new in ((self.added, other.added), (self.removed, other.removed)):
            if mine is not None and new is not None:
                mine.copy_(new)
