"""Directions in the residual stream, as latent steering takes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("diffmean", "linear", "pcact", "pcdiff", "random", "projection")


@dataclass(frozen=True, eq=False)
class Direction:
    """A unit vector (hidden_size,) float32, how it was found and on which layer's input."""

    kind: str
    layer: int
    vector: Tensor


def load_direction(path: Path, name: str) -> Direction:
    """The direction called ``name`` of a file."""
    raise AssertionError(path, name)
