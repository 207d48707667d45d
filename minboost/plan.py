"""Effects compiled to tensors: the only form of a method that the model sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from .effects import EXACT, Bias, Removal, Shift, Target
from .errors import InputError
from .methods.base import Method
from .residual import Residual
from .span import Span, merged
from .span_bias import SpanBias


@dataclass
class SequencePlan:
    """The methods of one sequence, compiled: strengths by span, and by layer what else there is."""

    n_layers: int
    n_heads: int
    strengths: dict[Span, Tensor] = field(default_factory=dict)
    """Log multipliers (L, H) float32 of each span, those only watched or targeted included."""
    target: Tensor | None = None
    """(L, H) float32: the least mass on ``targeted`` together, 0 for none."""
    targeted: tuple[Span, ...] = ()
    form: str = EXACT
    added: dict[int, Tensor] = field(default_factory=dict)
    """What is added to the residual stream at a layer's output."""
    removed: dict[int, Tensor] = field(default_factory=dict)
    """The direction that is taken out of it there."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do and nothing to watch."""
        return not (self.strengths or self.added or self.removed)

    @property
    def heads(self) -> dict[int, tuple[int, ...]]:
        """{layer: heads} on which any span has a strength, or the target."""
        touched = torch.zeros(self.n_layers, self.n_heads, dtype=torch.bool)
        for strength in self.strengths.values():
            touched |= strength != 0
        if self.target is not None:
            touched |= self.target > 0
        return {
            layer: tuple(row.nonzero().flatten().tolist())
            for layer, row in enumerate(touched)
            if row.any()
        }

    @property
    def spans(self) -> tuple[Span, ...]:
        """The spans that have a strength, or the target."""
        return tuple(span for span, s in self.strengths.items() if s.any() or span in self.targeted)

    @property
    def span_logs(self) -> tuple[float, ...]:
        """The log multiplier of each of ``spans`` on the head where it is strongest."""
        found = [self.strengths[span].flatten() for span in self.spans]
        return tuple(float(of[of.abs().argmax()]) for of in found)


def sequence_plan(
    placed: Sequence[tuple[Method, Sequence[Span]]],
    *,
    n_layers: int,
    n_heads: int,
    tokens: int = 0,
    hidden_size: int | None = None,
    watch: Span | None = None,
) -> SequencePlan:
    """The methods of one sequence of ``tokens`` prompt tokens, each on its spans; ``watch`` first.

    One method acts on a key once, however many of its spans hold the key. Several on the same keys
    add their logs, so m and 1/m cancel.

    Raises:
        InputError: a method that touches nothing, does not fit the model, or that the others rule
            out.
    """
    plan = SequencePlan(n_layers, n_heads)
    wide: dict[Span, Tensor] = {}  # float64, so that what should cancel does

    def room(span: Span) -> Tensor:
        return wide.setdefault(span, torch.zeros(n_layers, n_heads, dtype=torch.float64))

    if watch is not None:
        room(watch)
    for method, spans in placed:
        for effect in method.effects(spans, tokens):
            if isinstance(effect, (Bias, Target)):
                if not effect.spans:
                    raise InputError(f"the boost {method} touches no token: its span is empty")
                chosen = method.heads_by_layer(n_layers, n_heads)
                covered = merged(effect.spans)
                if isinstance(effect, Bias):
                    for layer, heads in chosen.items():
                        for span in covered:
                            room(span)[layer, list(heads)] += effect.log_multiplier
                else:
                    for span in covered:
                        room(span)
                    _set_target(plan, effect, covered, chosen)
            else:
                _set_stream(plan, effect, method.layer_numbers(n_layers), hidden_size)
    # Logs that cancel leave a rounding error behind; it is no boost.
    plan.strengths = {span: s.masked_fill(s.abs() < 1e-12, 0).float() for span, s in wide.items()}
    return plan


def _set_target(
    plan: SequencePlan, effect: Target, spans: list[Span], chosen: Mapping[int, Sequence[int]]
) -> None:
    if plan.target is None:
        plan.target = torch.zeros(plan.n_layers, plan.n_heads)
        plan.targeted, plan.form = tuple(spans), effect.form
    elif (plan.targeted, plan.form) != (tuple(spans), effect.form):
        raise InputError(
            "one request can have target masses on one span and in one form: "
            f"{', '.join(map(str, plan.targeted))} ({plan.form}) and "
            f"{', '.join(map(str, spans))} ({effect.form}) were asked for"
        )
    near = torch.finfo(torch.float32)  # the nearest to 0 and 1 that a float32 inside of them can be
    mass = min(max(effect.mass, near.tiny), 1 - near.eps / 2)
    for layer, heads in chosen.items():
        at = plan.target[layer, list(heads)]
        plan.target[layer, list(heads)] = at.clamp(min=mass)


def _set_stream(
    plan: SequencePlan, effect: Shift | Removal, layers: Sequence[int], hidden_size: int | None
) -> None:
    vector = effect.vector if isinstance(effect, Shift) else effect.direction
    if vector.dim() != 1 or (hidden_size is not None and len(vector) != hidden_size):
        raise InputError(
            f"a direction of shape {tuple(vector.shape)} does not fit the model, whose residual "
            f"stream has {hidden_size} numbers a token: it belongs to another model"
        )
    for layer in layers:
        if isinstance(effect, Shift):
            plan.added[layer] = plan.added[layer] + vector if layer in plan.added else vector
        elif layer in plan.removed:
            raise InputError("one request can project one direction out of a layer, got several")
        else:
            plan.removed[layer] = vector


@dataclass(frozen=True, eq=False)
class Plan:
    """A batch's methods as tensors: the only form that the model sees.

    ``start`` and ``stop`` (B, N) are absolute key positions, the same for all layers, an unused
    slot having start = stop; ``strength`` (L, B, H, N) float32 holds log multipliers. Slot 0 is
    the watched span of each sequence where there is one; its strength may be 0.

    ``target`` (L, B, H) float32 is the least mass that a row gives to the union of the spans of
    ``targeted`` (B, N) bool, 0 for none; both None where there is none at all. ``residual`` steers
    the residual stream.
    """

    start: Tensor
    stop: Tensor
    strength: Tensor
    target: Tensor | None = None
    targeted: Tensor | None = None
    form: str = EXACT
    residual: Residual | None = None

    def of_rows(self, rows: Tensor) -> Plan:
        """The plan of the sequences of those numbers alone, in that order."""
        return Plan(
            start=self.start[rows],
            stop=self.stop[rows],
            strength=self.strength[:, rows],
            target=None if self.target is None else self.target[:, rows],
            targeted=None if self.targeted is None else self.targeted[rows],
            form=self.form,
            residual=None if self.residual is None else self.residual.of_rows(rows),
        )

    @classmethod
    def build(
        cls,
        sequences: Sequence[SequencePlan],
        *,
        n_layers: int,
        n_heads: int,
        device: torch.device,
    ) -> Plan:
        """The plan of a batch; InputError where its targets are of different forms."""
        B = len(sequences)
        n_spans = max(1, *(len(sequence.strengths) for sequence in sequences))
        start = torch.zeros(B, n_spans, dtype=torch.int64)
        stop = torch.zeros_like(start)
        strength = torch.zeros(n_layers, B, n_heads, n_spans)
        target = torch.zeros(n_layers, B, n_heads)
        targeted = torch.zeros(B, n_spans, dtype=torch.bool)
        for b, sequence in enumerate(sequences):
            for n, (span, log_multiplier) in enumerate(sequence.strengths.items()):
                start[b, n], stop[b, n] = span.start, span.stop
                strength[:, b, :, n] = log_multiplier
                targeted[b, n] = span in sequence.targeted
            if sequence.target is not None:
                target[:, b] = sequence.target
        forms = {sequence.form for sequence in sequences if sequence.target is not None}
        if len(forms) > 1:
            raise InputError("one batch cannot mix exact and published targets: make two batches")
        return cls(
            start.to(device),
            stop.to(device),
            strength.to(device),
            target.to(device) if forms else None,
            targeted.to(device) if forms else None,
            forms.pop() if forms else EXACT,
            _residual(sequences, n_layers, device),
        )

    @cached_property
    def layers(self) -> tuple[SpanBias, ...]:
        """One ``SpanBias`` a layer.

        A layer without a strength gets none at all and runs the plain path itself, so m = 1 is
        plain bit for bit.
        """
        boosted = self.strength.flatten(1).any(1).tolist()
        L = len(boosted)
        aims: list[bool] = [False] * L
        if self.target is not None:
            aims = self.target.flatten(1).any(1).tolist()
        return tuple(
            SpanBias(
                self.start,
                self.stop,
                self.strength[layer] if boosted[layer] else None,
                self.target[layer] if self.target is not None and aims[layer] else None,
                self.targeted if aims[layer] else None,
                self.form,
            )
            for layer in range(L)
        )

    @property
    def steers_attention(self) -> bool:
        """Whether any strength or target differs from 0."""
        return any(layer.steers for layer in self.layers)

    def without_strengths(self) -> Plan:
        """The same spans, watched and not steered."""
        return Plan(self.start, self.stop, torch.zeros_like(self.strength))


def _residual(
    sequences: Sequence[SequencePlan], n_layers: int, device: torch.device
) -> Residual | None:
    def stacked(of: Sequence[dict[int, Tensor]]) -> Tensor | None:
        vectors = [vector for sequence in of for vector in sequence.values()]
        if not vectors:
            return None
        out = torch.zeros(n_layers, len(of), len(vectors[0]))
        for b, sequence in enumerate(of):
            for layer, vector in sequence.items():
                out[layer, b] = vector
        return out.to(device)

    added = stacked([sequence.added for sequence in sequences])
    removed = stacked([sequence.removed for sequence in sequences])
    return None if added is None and removed is None else Residual(added, removed)
