"""Logits → the next token: penalties and filters in the order and meaning of transformers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import InputError


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
        _check("temperature", self.temperature, self.temperature >= 0, "at least 0")
        _check("top_p", self.top_p, 0 < self.top_p <= 1, "in (0, 1]")
        _check(
            "repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0, "above 0"
        )
        if self.min_p is not None:
            _check("min_p", self.min_p, 0 <= self.min_p <= 1, "in [0, 1]")
        if self.top_k is not None and (not isinstance(self.top_k, int) or self.top_k < 0):
            raise InputError(f"top_k must be an integer of at least 0, got {self.top_k!r}")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 1 << 63:
            raise InputError(f"seed must be an integer in [0, 2**63), got {self.seed!r}")


class Sampler:
    """The sampling state of one sequence: its own generator, and the tokens seen so far.

    Draws come from a CPU generator, so a seed means the same on every device and a sequence's
    draws do not depend on what else is in its batch.
    """

    def __init__(self, sampling: Sampling, prompt_ids: Sequence[int], vocab_size: int) -> None:
        self.sampling = sampling
        self.generator = torch.Generator().manual_seed(sampling.seed)
        self.seen: Tensor | None = None
        if sampling.repetition_penalty != 1.0:
            self.seen = torch.zeros(vocab_size, dtype=torch.bool)
            self.seen[list(prompt_ids)] = True

    def pick(self, logits: Tensor) -> int:
        """The next token for ``logits`` (V,) float32, on the CPU."""
        if self.seen is not None:
            logits = penalise(logits, self.seen, self.sampling.repetition_penalty)
        if self.sampling.temperature == 0:
            token = int(logits.argmax())
        else:
            probabilities = filtered(logits, self.sampling).softmax(-1)
            token = int(torch.multinomial(probabilities, 1, generator=self.generator))
        if self.seen is not None:
            self.seen[token] = True
        return token


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Positive logits of seen tokens divided by the penalty, negative ones multiplied.

    CTRL, arXiv 1909.05858; prompt tokens count as seen.
    """
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def filtered(logits: Tensor, sampling: Sampling) -> Tensor:
    """Temperature, top-k, top-p and min-p on ``logits`` (V,): what is cut becomes -inf."""
    # Only differences count; with the maximum at 0 no temperature, however small, overflows.
    logits = (logits - logits.amax()) / sampling.temperature
    cut = float("-inf")
    if sampling.top_k:
        kth = torch.topk(logits, min(sampling.top_k, logits.shape[-1])).values[-1]
        logits = logits.masked_fill(logits < kth, cut)
    if sampling.top_p < 1:
        # Ascending, as transformers: drop the tail whose total stays within 1 - top_p.
        ascending, order = logits.sort()
        drop = ascending.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
        drop[-1] = False
        logits = logits.masked_fill(drop[order.argsort()], cut)
    if sampling.min_p is not None:
        probabilities = logits.softmax(-1)
        drop = probabilities < sampling.min_p * probabilities.amax()
        drop[logits.argmax()] = False
        logits = logits.masked_fill(drop, cut)
    return logits


def _check(name: str, value: float, holds: bool, rule: str) -> None:
    if isinstance(value, bool) or not math.isfinite(value) or not holds:
        raise InputError(f"{name} must be a finite number {rule}, got {value!r}")
