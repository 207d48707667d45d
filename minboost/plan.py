"""Boosts compiled to tensors: the only form of a method that the model sees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .boost import Boost, Span
from .errors import InputError
from .span_bias import SpanBias


@dataclass(frozen=True, eq=False)
class Plan:
    """A batch's boosts as tensors: the only form that the model sees.

    ``start`` and ``stop`` (B, N) are absolute key positions, the same for all layers, an unused
    slot having start = stop; ``strength`` (L, B, H, N) float32 holds log multipliers. Slot 0 is
    the watched span of each sequence where there is one; its strength may be 0.
    """

    start: Tensor
    stop: Tensor
    strength: Tensor

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
        return cls(start.to(device), stop.to(device), strength.to(device))

    @cached_property
    def layers(self) -> tuple[SpanBias, ...]:
        """One ``SpanBias`` a layer.

        A layer without a strength gets none at all and runs the plain path itself, so m = 1 is
        plain bit for bit.
        """
        boosted = self.strength.flatten(1).any(1).tolist()
        return tuple(
            SpanBias(self.start, self.stop, layer if any_ else None)
            for layer, any_ in zip(self.strength, boosted, strict=True)
        )

    @property
    def boosts(self) -> bool:
        """Whether any strength differs from 0."""
        return any(layer.log_multiplier is not None for layer in self.layers)

    def without_strengths(self) -> Plan:
        """The same spans, watched and not boosted."""
        return Plan(self.start, self.stop, torch.zeros_like(self.strength))


def log_multipliers(
    boosts: Sequence[tuple[Boost, Sequence[Span]]],
    *,
    watch: Span | None = None,
    n_layers: int,
    n_heads: int,
) -> dict[Span, Tensor]:
    """The boosts of one sequence, span by span: {span: (L, H) float32}, ``watch`` first.

    One boost acts on a key once, however many of its spans hold the key. Several boosts on the same
    keys add their logs, so m and 1/m cancel.
    """
    strengths: dict[Span, Tensor] = {}
    if watch is not None:
        strengths[watch] = torch.zeros(n_layers, n_heads, dtype=torch.float64)
    for boost, spans in boosts:
        if not spans:
            raise InputError(f"the boost {boost} touches no token: its span is empty")
        for layer, heads in boost.heads_by_layer(n_layers, n_heads).items():
            for span in merged(spans):
                target = strengths.setdefault(
                    span, torch.zeros(n_layers, n_heads, dtype=torch.float64)
                )
                target[layer, list(heads)] += math.log(boost.multiplier)
    # Logs that cancel leave a rounding error behind; it is no boost.
    return {
        span: strength.masked_fill(strength.abs() < 1e-12, 0).float()
        for span, strength in strengths.items()
    }


def merged(spans: Sequence[Span]) -> list[Span]:
    """The same tokens as spans that do not overlap, in order."""
    result: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, span.stop)):
        if result and span.start < result[-1].stop:
            result[-1] = Span(result[-1].start, max(span.stop, result[-1].stop))
        else:
            result.append(span)
    return result


def boosted_heads(strengths: Mapping[Span, Tensor]) -> dict[int, tuple[int, ...]]:
    """{layer: heads} on which any span has a strength."""
    if not strengths:
        return {}
    touched = torch.stack(list(strengths.values())).ne(0).any(0)  # (L, H)
    return {
        layer: tuple(row.nonzero().flatten().tolist())
        for layer, row in enumerate(touched)
        if row.any()
    }
