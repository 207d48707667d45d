"""Logits → the next token: penalties and filters in the order and meaning of transformers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import as_integer, as_number
from .errors import InputError, ModelError

GREEDY_BELOW = 1e-30  # temperatures that no difference of logits survives


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
        """The next token for ``logits`` (V,) float32, on the CPU.

        Raises:
            ModelError: the logits are not finite, as where float16 overflows.
        """
        if not math.isfinite(logits.amax()):
            raise ModelError(
                "the model's logits are not finite: it overflows in this dtype (try bfloat16 or "
                "float32) or its weights are damaged"
            )
        if self.seen is not None:
            logits = penalise(logits, self.seen, self.sampling.repetition_penalty)
        if self.sampling.temperature < GREEDY_BELOW:
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
