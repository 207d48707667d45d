"""What every method has: where it acts, and the effects that it comes to on a prompt."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from ..checks import as_number
from ..effects import Effect
from ..errors import InputError
from ..head_choice import existing, head_list, layer_key, mapped_heads, parse_heads, parse_ranges
from ..span import Span


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A way of steering, and the layers, heads and tokens it is used on.

    Attributes:
        layers: "all"; "middle" (``num_middle_layers`` layers from ``start_layer``); a range such as
            "8-12", both ends included, or several, "0-3,6"; or a sequence of layer numbers.
        heads: "all"; a fraction in (0, 1], drawn per layer from ``head_seed``; or a mapping
            {layer: heads}, PASTA's form, which names the layers as well. A text is read by
            ``parse_heads``.
        span: "instruction"; "prefix" (from position 0 to the instruction's end, the form of the
            InstABoost code: it takes BOS and the chat header along); a ``Span``; or any other
            text, each occurrence of which in the instruction and the query is meant. A token in
            which it occurs twice is steered once.
    """

    name: ClassVar[str]
    """The method's name on the command line and in config.yaml."""
    strength: ClassVar[str]
    """The field that says how strongly: "multiplier", "alpha", "delta", "target", "factor"."""

    layers: str | Sequence[int] = "all"
    heads: str | float | Mapping[int, Sequence[int] | str] = "all"
    span: str | Span = "instruction"
    head_seed: int = 42
    start_layer: int = 8
    num_middle_layers: int = 5

    def __post_init__(self) -> None:
        heads = parse_heads(self.heads) if isinstance(self.heads, str) else self.heads
        if isinstance(heads, Mapping):
            heads = {layer_key(layer): head_list(layer, chosen) for layer, chosen in heads.items()}
        elif heads != "all":
            heads = as_number("the fraction of heads", heads)
        layers = self.layers
        if not isinstance(layers, str):
            try:
                layers = tuple(layers)
            except TypeError as error:
                raise InputError(
                    f"layers must be a text or a list of numbers, got {layers!r}"
                ) from error
        if not isinstance(self.span, (str, Span)):
            raise InputError(f"span must be a text or a Span, got {self.span!r}")
        if isinstance(self.span, str) and not self.span.strip():
            raise InputError("the span to boost is an empty text")
        self._set("heads", heads)
        self._set("layers", layers)

    @abstractmethod
    def effects(self, spans: Sequence[Span], tokens: int) -> list[Effect]:
        """What the method does where its ``span`` means ``spans`` in a prompt of ``tokens`` tokens.

        Every effect acts on ``heads_by_layer``, or on ``layer_numbers`` if it knows no heads.
        """

    def plain(self) -> Method | None:
        """What stands for the plain model beside this method: None, unless it reads the texts."""
        return None

    @abstractmethod
    def describe(self, span: str, tokens: str) -> str:
        """One phrase for people: what was done, for a ``span`` such as "'instruction'" and the
        ``tokens`` that were steered, such as "[2, 6)"."""

    @classmethod
    def parameters(cls) -> tuple[str, ...]:
        """The names of the method's own fields, its strength first."""
        shared = {field.name for field in fields(Method)}
        own = [field.name for field in fields(cls) if field.name not in shared]
        return (cls.strength, *(name for name in own if name != cls.strength))

    def parameter_values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.parameters()}

    def heads_by_layer(self, n_layers: int, n_heads: int) -> dict[int, tuple[int, ...]]:
        """The chosen heads of each chosen layer of a model of that size, never empty.

        Raises:
            InputError: a layer or head that does not exist, or a choice that leaves no head.
        """
        if isinstance(self.heads, Mapping):
            chosen = mapped_heads(self.heads, n_layers, n_heads)
            if self.layers != "all":
                kept = set(self.layer_numbers(n_layers))
                chosen = {layer: heads for layer, heads in chosen.items() if layer in kept}
        else:
            chosen = {
                layer: self._heads_of(layer, n_heads) for layer in self.layer_numbers(n_layers)
            }
        if not any(chosen.values()):
            raise InputError(
                f"the boost touches no head: layers={self.layers!r}, heads={self.heads!r}"
            )
        return chosen

    def layer_numbers(self, n_layers: int) -> list[int]:
        """The chosen layers of a model of that size, ascending; InputError where there are none."""
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

    def _positive(self, name: str) -> None:
        """Hold field ``name`` to a finite number above 0, as a float."""
        value = getattr(self, name)
        try:
            number = as_number(name, value)
        except InputError:
            number = 0.0
        if number <= 0:
            raise InputError(f"{name} must be a finite number above 0, got {value!r}")
        self._set(name, number)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the dataclass is frozen
