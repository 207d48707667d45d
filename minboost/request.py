"""What users ask for and what they get back: Request in, Generation out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from .errors import InputError
from .methods import Method
from .prompt import Prompt
from .sampling import Sampling
from .span import Span

Boosts = Method | Sequence[Method] | None
"""What steers a request: one method, several together, or None for the plain model."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One thing to generate. Sampling fields as in ``Sampling``.

    ``boost`` is a method of ``minboost.methods``, or several; None is the plain model.

    ``role`` places the instruction: "system", "user" (in front of the query) or "raw" (no chat
    template). ``stop`` strings end the answer and are not part of it.
    """

    query: str
    instruction: str | None = None
    boost: Boosts = None
    role: str = "system"
    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: str | Sequence[str] = ()

    @property
    def sampling(self) -> Sampling:
        return Sampling(**{field.name: getattr(self, field.name) for field in fields(Sampling)})

    @property
    def methods(self) -> tuple[Method, ...]:
        return as_methods(self.boost)


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Counts and times of one run; seconds and rates are the whole batch's."""

    prompt_tokens: int
    new_tokens: int
    prefill_seconds: float
    decode_seconds: float
    prefill_tokens_per_second: float
    decode_tokens_per_second: float
    peak_memory_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Mass:
    """Attention mass on the instruction at the prompt's last position, per layer and head.

    ``baseline`` and ``boosted`` are (L, H) float32, without and with what steers the request.
    """

    baseline: Tensor
    boosted: Tensor


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What came out, and what was done to get it.

    ``boosted_heads`` and ``boosted_spans`` say where the attention was steered, ``boosted_logs`` by
    which log multiplier each span was at the most (0 where it had a target mass instead).
    """

    text: str
    ids: tuple[int, ...]
    finish_reason: str
    prompt: Prompt
    stats: Stats
    notes: tuple[str, ...]
    boosted_heads: dict[int, tuple[int, ...]]
    boosted_spans: tuple[Span, ...]
    boosted_logs: tuple[float, ...]
    attention_mass: Mass | None = None


def as_methods(boost: Boosts) -> tuple[Method, ...]:
    """None, one method or several, as a tuple; InputError for all else, an empty list too."""
    if boost is None:
        return ()
    methods: tuple[Any, ...] = (boost,)
    if isinstance(boost, Iterable):
        methods = tuple(boost)
    if not methods or not all(isinstance(item, Method) for item in methods):
        raise InputError(
            "boost must be a Boost or another method, or a list of at least one, "
            f"got {boost!r}; None is plain"
        )
    return methods
