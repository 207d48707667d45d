"""Latent steering, the InstABoost paper's baselines: a direction in the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from ..checks import as_number
from ..directions import Direction
from ..effects import Effect, Removal, Shift
from ..errors import InputError
from ..span import Span
from .base import Method


@dataclass(frozen=True)
class Latent(Method):
    """x + ``factor`` · d at the output of every chosen layer, for every token.

    The latent baselines of arXiv 2506.13734. As in its code, d is a unit vector found on one layer
    and acts at the output of every layer, on every token of the prompt and of the answer. There,
    layer and factor are chosen on a validation set: layers of the middle fifth, factors .1, .2, …
    1. A unit vector is a different push in each model: ``minboost directions`` prints how long the
    stream is, and how far the prompts that d was found from lie apart.

    Attributes:
        factor: a finite number; 0 is the plain model, below 0 steers away. A direction of kind
            "projection" has no use for it: its part is taken out, x − (x·d)·d.
        direction: the unit vector d, from ``minboost.directions``.

    ``layers`` as in ``Method``; the stream has neither heads nor spans, so ``heads`` and ``span``
    must be left at what they are.
    """

    name: ClassVar[str] = "latent"
    strength: ClassVar[str] = "factor"

    factor: float = 1.0
    _: KW_ONLY
    direction: Direction

    def __post_init__(self) -> None:
        self._set("factor", as_number("factor", self.factor))
        if not isinstance(self.direction, Direction):
            raise InputError(f"direction must be a Direction, got {self.direction!r}")
        super().__post_init__()
        for field, left in (("heads", "all"), ("span", "instruction")):
            if getattr(self, field) != left:
                raise InputError(
                    f"latent steering acts on the whole residual stream: {field} has no meaning, "
                    f"got {getattr(self, field)!r}"
                )

    def effects(self, spans: Sequence[Span], tokens: int) -> list[Effect]:
        if self.direction.kind == "projection":
            return [Removal(self.direction.vector)]
        return [Shift(self.factor * self.direction.vector)]

    def describe(self, span: str, tokens: str) -> str:
        kind = f"the {self.direction.kind} direction of layer {self.direction.layer}"
        layers = self.layers if isinstance(self.layers, str) else ", ".join(map(str, self.layers))
        where = {"all": "every layer", "middle": "each middle layer"}.get(
            layers, f"layers {layers}"
        )
        if self.direction.kind == "projection":
            return f"took {kind} out of the residual stream after {where}"
        return f"added {self.factor:g} x {kind} to the residual stream after {where}"
