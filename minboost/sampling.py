"""Logits → the next token: penalties and filters in the order and meaning of transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import as_integer, as_number
from .errors import InputError

GREEDY_BELOW = 1e-30  # temperatures that no difference of logits survives
BROKEN = -1  # picked instead of a token where the logits are not finite


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is chosen: repetition penalty, temperature, top-k, top-p, min-p, in that order.

    ``temperature`` 0 is greedy (the filters are then without effect, the penalty is not).
    ``top_k`` None or 0, ``top_p`` 1, ``min_p`` None and ``repetition_penalty`` 1 switch off.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[Callable[[float], bool], str]] = {
            "temperature": (lambda x: x >= 0, "at least 0"),
            "top_p": (lambda x: 0 < x <= 1, "in (0, 1]"),
            "min_p": (lambda x: 0 <= x <= 1, "in [0, 1]"),
            "repetition_penalty": (lambda x: x > 0, "above 0"),
        }
        for name, (holds, rule) in ranges.items():
            value = getattr(self, name)
            if value is None and name == "min_p":
                continue
            number = as_number(name, value)
            if not holds(number):
                raise InputError(f"{name} must be {rule}, got {value!r}")
            object.__setattr__(self, name, number)
        if self.top_k is not None:
            object.__setattr__(self, "top_k", as_integer("top_k", self.top_k, 0))
        object.__setattr__(self, "seed", as_integer("seed", self.seed, 0, 1 << 63))


@dataclass(frozen=True)
class Kind:
    """Which stages of sampling a batch needs at all: what a captured step is made for."""

    sampled: bool
    filtered: bool
    penalised: bool

    @classmethod
    def of(cls, samplings: Sequence[Sampling]) -> Kind:
        return cls(
            sampled=any(s.temperature >= GREEDY_BELOW for s in samplings),
            filtered=any(s.top_k or s.top_p < 1 or s.min_p for s in samplings),
            penalised=any(s.repetition_penalty != 1 for s in samplings),
        )


class Sampler:
    """The sampling state of a batch, as tensors on the model's device, one row a sequence.

    A draw is one uniform number looked up in the cumulative distribution. The numbers come from a
    CPU generator a sequence, so a seed means the same on every device, and a sequence's draws do
    not depend on what else is in its batch.
    """

    def __init__(
        self,
        samplings: Sequence[Sampling],
        prompts: Sequence[Sequence[int]],
        *,
        vocab_size: int,
        device: torch.device | None = None,
        kind: Kind | None = None,
        greedy: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """``kind``: more stages than these samplings need; ``greedy``: an implementation of it."""

        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)[:, None]  # (B, 1)

        self.kind = kind or Kind.of(samplings)
        self._greedy = greedy or greedy_tokens
        self.temperature = column([s.temperature for s in samplings])
        self.top_k = column([min(s.top_k or vocab_size, vocab_size) for s in samplings]).long()
        self.tail = column([1 - s.top_p for s in samplings])  # the share that top-p cuts off
        self.min_p = column([s.min_p or 0.0 for s in samplings])
        self.penalty = column([s.repetition_penalty for s in samplings])
        self.uniform = torch.zeros(len(samplings), 1, dtype=torch.float64, device=device)
        seen = torch.zeros(
            len(samplings), vocab_size if self.kind.penalised else 0, dtype=torch.bool
        )
        if self.kind.penalised:
            for row, ids in zip(seen, prompts, strict=True):
                row[list(ids)] = True
        self.seen = seen.to(device)  # (B, V)
        self._generators = [torch.Generator().manual_seed(s.seed) for s in samplings]

    def draws(self) -> Tensor | None:
        """The next uniform number of every sequence, (B, 1) on the CPU, where any is needed."""
        if not self.kind.sampled:
            return None
        return torch.stack(
            [torch.rand(1, generator=g, dtype=torch.float64) for g in self._generators]
        )

    def pick(self, logits: Tensor, draws: Tensor | None = None) -> Tensor:
        """The next tokens (B,) for ``logits`` (B, V) float32: BROKEN where they are not finite.

        ``draws`` go to ``uniform``, from where they are read; without them, it holds them already.
        Nothing here looks at a value from the host, so that a step can be captured.
        """
        if draws is not None:
            self.uniform.copy_(draws, non_blocking=True)
        if self.kind.penalised:
            logits = penalise(logits, self.seen, self.penalty)
        tokens = self._greedy(logits)
        if self.kind.sampled:
            drawn = inverse(self.table(logits).softmax(-1), self.uniform)
            stays = (self.temperature[:, 0] < GREEDY_BELOW) | (tokens == BROKEN)
            tokens = torch.where(stays, tokens, drawn)
        if self.kind.penalised:
            self.seen.scatter_(1, tokens.clamp(min=0)[:, None], True)
        return tokens

    def table(self, logits: Tensor) -> Tensor:
        """Temperature and filters on ``logits`` (B, V): what is cut becomes -inf."""
        # Only differences count; with the maximum at 0 no temperature, however small, overflows.
        logits = (logits - logits.amax(-1, keepdim=True)) / self.temperature.clamp(GREEDY_BELOW)
        if not self.kind.filtered:
            return logits
        return filtered(logits, self.top_k, self.tail, self.min_p)

    def copy_(self, other: Sampler) -> None:
        """Take over the state of ``other``, a sampler of the same kind and batch size."""
        for name in ("temperature", "top_k", "tail", "min_p", "penalty", "uniform", "seen"):
            getattr(self, name).copy_(getattr(other, name))


def greedy_tokens(logits: Tensor) -> Tensor:
    """The likeliest tokens (B,) of ``logits`` (B, V): BROKEN where the largest is not finite."""
    top, tokens = logits.max(-1)  # a NaN anywhere in a row is its maximum
    return tokens.masked_fill(~top.isfinite(), BROKEN)


def penalise(logits: Tensor, seen: Tensor, penalty: Tensor | float) -> Tensor:
    """Positive logits of seen tokens divided by the penalty, negative ones multiplied.

    CTRL, arXiv 1909.05858; prompt tokens count as seen.
    """
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def filtered(logits: Tensor, top_k: Tensor, tail: Tensor, min_p: Tensor) -> Tensor:
    """Top-k, top-p and min-p on ``logits`` (B, V), each (B, 1); V, 0 and 0 switch them off."""
    cut = float("-inf")
    ascending, order = logits.sort(-1)
    kth = ascending.gather(-1, logits.shape[-1] - top_k)
    logits = logits.masked_fill(logits < kth, cut)
    # As transformers: drop the tail whose total stays within 1 - top_p.
    ascending = ascending.masked_fill(ascending < kth, cut)
    drop = (ascending.softmax(-1).cumsum(-1) <= tail) & (tail > 0)
    drop[:, -1:].zero_()
    logits = logits.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), cut)
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < min_p * probabilities.amax(-1, keepdim=True), cut)


def inverse(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The tokens (B,) at which the cumulative (B, V) passes ``uniform`` (B, 1) of its total."""
    cumulative = probabilities.double().cumsum(-1)
    at = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]
    return at.clamp(max=probabilities.shape[-1] - 1)
