"""What to boost: spans of the prompt, layers, heads and strengths, compiled to one plan."""

from __future__ import annotations

import contextlib
import json
import math
import operator
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from .errors import InputError
from .span_bias import SpanBias


@dataclass(frozen=True)
class Span:
    """Token positions ``[start, stop)`` of one sequence, counted from its first token."""

    start: int
    stop: int

    def __post_init__(self) -> None:
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
            {layer: heads}, PASTA's form, which names the layers as well.
        span: "instruction"; "prefix" (from position 0 to the instruction's end, the form of the
            paper's code: it takes BOS and the chat header along); a ``Span``; or any other text,
            each occurrence of which in the instruction and the query is boosted.
    """

    multiplier: float = 10.0
    layers: str | Sequence[int] = "all"
    heads: str | float | Mapping[int, Sequence[int]] = "all"
    span: str | Span = "instruction"
    head_seed: int = 42
    start_layer: int = 8
    num_middle_layers: int = 5

    def __post_init__(self) -> None:
        m = self.multiplier
        if (
            isinstance(m, bool)
            or not isinstance(m, (int, float))
            or not (math.isfinite(m) and m > 0)
        ):
            raise InputError(f"multiplier must be a finite number above 0, got {m!r}")
        if isinstance(self.span, str) and not self.span.strip():
            raise InputError("the span to boost is an empty text")

    def heads_by_layer(self, n_layers: int, n_heads: int) -> dict[int, tuple[int, ...]]:
        """The chosen heads of each chosen layer of a model of that size, never empty.

        Raises:
            InputError: a layer or head that does not exist, or a choice that leaves no head.
        """
        if isinstance(self.heads, Mapping):
            chosen = _mapped_heads(self.heads, n_layers, n_heads)
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
            layers = _parse_ranges(layers)
        numbers = sorted(set(layers))
        for layer in numbers:
            _check_index("layer", layer, n_layers)
        if not numbers:
            raise InputError("layers is an empty list: name at least one layer")
        return numbers

    def _middle(self, n_layers: int) -> list[int]:
        if not 0 <= self.start_layer < n_layers:
            raise InputError(
                f"start_layer {self.start_layer} of layers='middle' does not exist: the model has "
                f"layers 0 to {n_layers - 1}"
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
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)):
            raise InputError(
                f"heads must be 'all', a fraction in (0, 1] or a mapping of layer to heads, "
                f"got {fraction!r}"
            )
        if not 0 < fraction <= 1:
            raise InputError(f"the fraction of heads must lie in (0, 1], got {fraction!r}")
        count = max(1, int(n_heads * fraction))
        return tuple(sorted(random.Random(self.head_seed + layer).sample(range(n_heads), count)))


@dataclass(frozen=True)
class Plan:
    """A batch's boosts as tensors, one ``SpanBias`` a layer: the only form that the model sees.

    Span slot 0 is the watched span of each sequence where there is one; its strength may be 0.
    """

    layers: tuple[SpanBias, ...]

    @classmethod
    def build(
        cls,
        sequences: Sequence[Mapping[Span, Tensor]],
        *,
        n_layers: int,
        n_heads: int,
        device: torch.device,
    ) -> Plan:
        """``sequences[b]`` maps each span of sequence b to its log multipliers (L, H)."""
        n_spans = max(1, *(len(spans) for spans in sequences))
        start = torch.zeros(len(sequences), n_spans, dtype=torch.int64)
        stop = torch.zeros_like(start)
        strength = torch.zeros(n_layers, len(sequences), n_heads, n_spans)
        for b, spans in enumerate(sequences):
            for n, (span, log_multiplier) in enumerate(spans.items()):
                start[b, n], stop[b, n] = span.start, span.stop
                strength[:, b, :, n] = log_multiplier
        start, stop = start.to(device), stop.to(device)
        # A layer without a strength runs the plain path itself, so m = 1 is plain bit for bit.
        return cls(
            tuple(
                SpanBias(start, stop, layer.to(device) if layer.any() else None)
                for layer in strength
            )
        )

    def without_strengths(self) -> Plan:
        """The same spans, watched and not boosted."""
        return Plan(tuple(replace(layer, log_multiplier=None) for layer in self.layers))


def log_multipliers(
    boosts: Sequence[tuple[Boost, Sequence[Span]]],
    *,
    watch: Span | None = None,
    n_layers: int,
    n_heads: int,
) -> dict[Span, Tensor]:
    """The boosts of one sequence, span by span: {span: (L, H) float32}, ``watch`` first.

    Boosts that name the same span add their logs, so m and 1/m cancel.
    """
    strengths: dict[Span, Tensor] = {}
    if watch is not None:
        strengths[watch] = torch.zeros(n_layers, n_heads, dtype=torch.float64)
    for boost, spans in boosts:
        if not spans:
            raise InputError(f"the boost {boost} touches no token: its span is empty")
        for layer, heads in boost.heads_by_layer(n_layers, n_heads).items():
            for span in spans:
                target = strengths.setdefault(
                    span, torch.zeros(n_layers, n_heads, dtype=torch.float64)
                )
                target[layer, list(heads)] += math.log(boost.multiplier)
    return {span: strength.float() for span, strength in strengths.items()}


def check_span(span: object, length: int) -> Span:
    """``span`` itself, if it is a Span that lies in a prompt of ``length`` tokens."""
    if not isinstance(span, Span):
        raise InputError(f"on bare ids the span to boost must be a Span, got {span!r}")
    if span.stop > length:
        raise InputError(
            f"span [{span.start}, {span.stop}) does not lie in the prompt of {length} tokens"
        )
    return span


def parse_heads(text: str) -> str | float | dict[int, list[int]]:
    """``Boost.heads`` from a text: "all", a fraction, or PASTA's JSON, inline or the file it is in.

    PASTA (arXiv 2311.02262) writes {"layer": [head, …]}.
    """
    if text == "all":
        return text
    with contextlib.suppress(ValueError):
        return float(text)
    where = "heads"
    if not text.lstrip().startswith("{"):
        where = f"heads file {text}"
        try:
            text = Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"heads {text!r} is neither all, nor a share, nor JSON, nor a file: {error}"
            ) from error
    try:
        raw = json.loads(text)
        return {
            int(layer): [operator.index(head) for head in heads] for layer, heads in raw.items()
        }
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f'{where} must be JSON of the form {{"layer": [head, …]}}: {error}'
        ) from error


def _mapped_heads(
    mapping: Mapping[int, Sequence[int]], n_layers: int, n_heads: int
) -> dict[int, tuple[int, ...]]:
    chosen = {}
    for layer, heads in mapping.items():
        _check_index("layer", layer, n_layers)
        for head in heads:
            _check_index("head", head, n_heads, f" of layer {layer}")
        chosen[layer] = tuple(sorted(set(heads)))
    return chosen


def _parse_ranges(text: str) -> list[int]:
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last) < 1 << 16):
            raise InputError(
                f"layers {text!r} is not understood: use all, middle, a number, a range such as "
                "8-12 (both ends included) or several with commas"
            )
        numbers.extend(range(int(first), int(last) + 1))
    return numbers


def _check_index(kind: str, index: int, count: int, where: str = "") -> None:
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
        raise InputError(
            f"{kind} {index!r}{where} does not exist: the model has {kind}s 0 to {count - 1}"
        )
