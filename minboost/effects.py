"""Effects: what a method does, said without reference to any method. ``plan`` compiles them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .span import Span

if TYPE_CHECKING:
    from torch import Tensor

EXACT, PUBLISHED = "exact", "published"


@dataclass(frozen=True)
class Bias:
    """Add ``log_multiplier`` to the logits of the keys in ``spans``, a key once."""

    spans: tuple[Span, ...]
    log_multiplier: float


@dataclass(frozen=True)
class Target:
    """Where the attention mass on the union of ``spans`` lies below ``mass``, raise it.

    ``form`` EXACT reaches ``mass``; PUBLISHED adds log(mass / ψ) for a mass of ψ, and falls short.
    """

    spans: tuple[Span, ...]
    mass: float
    form: str = EXACT


@dataclass(frozen=True, eq=False)
class Shift:
    """Add ``vector`` (hidden_size,) to the residual stream."""

    vector: Tensor


@dataclass(frozen=True, eq=False)
class Removal:
    """Take the part along the unit ``direction`` (hidden_size,) out of the residual stream."""

    direction: Tensor


Effect = Bias | Target | Shift | Removal
