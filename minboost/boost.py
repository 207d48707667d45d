"""What to boost: a span of the prompt, layers, heads, and how strongly."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .checks import as_integer, as_number
from .errors import InputError
from .head_choice import existing, head_list, layer_key, mapped_heads, parse_heads, parse_ranges


@dataclass(frozen=True)
class Span:
    """Token positions ``[start, stop)`` of one sequence, counted from its first token."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        for end in ("start", "stop"):
            object.__setattr__(self, end, as_integer(f"span {end}", getattr(self, end), -(1 << 62)))
        if not 0 <= self.start < self.stop:
            raise InputError(
                f"span [{self.start}, {self.stop}) is empty or negative: "
                "0 <= start < stop must hold"
            )

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Boost:
    """Multiply the attention weight on a span by ``multiplier`` and renormalise.

    Attributes:
        multiplier: m > 0. Above 1 emphasises, below 1 plays down, 1 is the plain model, bit for
            bit (InstABoost, arXiv 2506.13734).
        layers: "all"; "middle" (``num_middle_layers`` layers from ``start_layer``); a range such as
            "8-12", both ends included, or several, "0-3,6"; or a sequence of layer numbers.
        heads: "all"; a fraction in (0, 1], drawn per layer from ``head_seed``; or a mapping
            {layer: heads}, PASTA's form, which names the layers as well. A text is read by
            ``parse_heads``.
        span: "instruction"; "prefix" (from position 0 to the instruction's end, the form of the
            paper's code: it takes BOS and the chat header along); a ``Span``; or any other text,
            each occurrence of which in the instruction and the query is boosted. A token in which
            it occurs twice is boosted once.
    """

    multiplier: float = 10.0
    layers: str | Sequence[int] = "all"
    heads: str | float | Mapping[int, Sequence[int] | str] = "all"
    span: str | Span = "instruction"
    head_seed: int = 42
    start_layer: int = 8
    num_middle_layers: int = 5

    def __post_init__(self) -> None:
        try:
            multiplier = as_number("multiplier", self.multiplier)
        except InputError:
            multiplier = 0.0
        if multiplier <= 0:
            raise InputError(f"multiplier must be a finite number above 0, got {self.multiplier!r}")
        heads = parse_heads(self.heads) if isinstance(self.heads, str) else self.heads
        if isinstance(heads, Mapping):
            heads = {layer_key(layer): head_list(layer, chosen) for layer, chosen in heads.items()}
        elif heads != "all":
            heads = as_number("the fraction of heads", heads)
        layers = self.layers
        if not isinstance(layers, str):
            if not isinstance(layers, Iterable):
                raise InputError(f"layers must be a text or a list of numbers, got {layers!r}")
            layers = tuple(layers)
        if not isinstance(self.span, (str, Span)):
            raise InputError(f"span must be a text or a Span, got {self.span!r}")
        if isinstance(self.span, str) and not self.span.strip():
            raise InputError("the span to boost is an empty text")
        for name, value in (("multiplier", multiplier), ("heads", heads), ("layers", layers)):
            object.__setattr__(self, name, value)

    def heads_by_layer(self, n_layers: int, n_heads: int) -> dict[int, tuple[int, ...]]:
        """The chosen heads of each chosen layer of a model of that size, never empty.

        Raises:
            InputError: a layer or head that does not exist, or a choice that leaves no head.
        """
        if isinstance(self.heads, Mapping):
            chosen = mapped_heads(self.heads, n_layers, n_heads)
            if self.layers != "all":
                kept = set(self._layer_numbers(n_layers))
                chosen = {layer: heads for layer, heads in chosen.items() if layer in kept}
        else:
            chosen = {
                layer: self._heads_of(layer, n_heads) for layer in self._layer_numbers(n_layers)
            }
        if not any(chosen.values()):
            raise InputError(
                f"the boost touches no head: layers={self.layers!r}, heads={self.heads!r}"
            )
        return chosen

    def _layer_numbers(self, n_layers: int) -> list[int]:
        layers = self.layers
        if isinstance(layers, str):
            if layers == "all":
                return list(range(n_layers))
            if layers == "middle":
                return self._middle(n_layers)
            layers = parse_ranges(layers)
        numbers = sorted({existing("layer", layer, n_layers) for layer in layers})
        if not numbers:
            raise InputError("layers is an empty list: name at least one layer")
        return numbers

    def _middle(self, n_layers: int) -> list[int]:
        if not 0 <= self.start_layer < n_layers:
            raise InputError(
                f"start_layer {self.start_layer} of layers='middle' does not exist: the model has "
                f"layers 0 to {n_layers - 1}; choose another start_layer"
            )
        if self.num_middle_layers < 1:
            raise InputError(f"num_middle_layers must be at least 1, got {self.num_middle_layers}")
        return list(
            range(self.start_layer, min(self.start_layer + self.num_middle_layers, n_layers))
        )

    def _heads_of(self, layer: int, n_heads: int) -> tuple[int, ...]:
        fraction = self.heads
        if fraction == "all":
            return tuple(range(n_heads))
        assert isinstance(fraction, float)
        if not 0 < fraction <= 1:
            raise InputError(f"the fraction of heads must lie in (0, 1], got {fraction!r}")
        count = max(1, int(n_heads * fraction))
        return tuple(sorted(random.Random(self.head_seed + layer).sample(range(n_heads), count)))


def check_span(span: object, length: int) -> Span:
    """``span`` itself, if it is a Span that lies in a prompt of ``length`` tokens."""
    if not isinstance(span, Span):
        raise InputError(f"on bare ids the span to boost must be a Span, got {span!r}")
    if span.stop > length:
        raise InputError(
            f"span [{span.start}, {span.stop}) does not lie in the prompt of {length} tokens"
        )
    return span
