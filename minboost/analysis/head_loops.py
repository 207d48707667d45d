"""Scoring heads by plain loops: what the fast way is held to, and measured against."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from ..lm import LM
from ..methods import Method
from ..plan import Plan
from ..request import Request
from ..suites import Case
from .head_scores import Asked, ask, one_head, token_scores
from .profiling import Head

CASES, HEADS, TOGETHER = 3, 4, 32  # what is measured
T = TypeVar("T")


@torch.inference_mode()
def log_prob(lm: LM, asked: Asked) -> float:
    """The log-probability of a case's answer under its plan, by one full forward."""
    plan = Plan.build([asked.plan], **lm.config.size, device=lm.device)
    hidden = lm.model(torch.tensor([asked.ids], device=lm.device), plan=plan).hidden
    targets = torch.tensor(asked.targets, device=lm.device)
    return float(token_scores(lm, hidden[0, asked.answer :], targets)[0].sum())


def loop_seconds(
    lm: LM,
    cases: Sequence[Case],
    method: Method,
    heads: Sequence[Head],
    *,
    role: str = "system",
    max_new_tokens: int = 64,
) -> dict[str, float]:
    """Seconds that one (head, case) takes, measured on a few: by a steered "forward" each, by a
    steered "generation" each, and by generations of many cases together, "batched_generation"."""

    def request(case: Case, head: Head) -> Request:
        return Request(
            instruction=case.instruction,
            query=case.query,
            boost=one_head(method, *head),
            role=role,
            max_new_tokens=max_new_tokens,
        )

    pairs = [(case, head) for case in _spread(cases, CASES) for head in _spread(heads, HEADS)]
    asked = [ask(lm, case, one_head(method, *head), role=role) for case, head in pairs]
    requests = [request(case, head) for case, head in pairs]
    together = [request(case, heads[0]) for case in _spread(cases, TOGETHER)]
    return {
        "forward": _seconds(lambda one: log_prob(lm, one), asked),
        "generation": _seconds(lambda one: lm.generate_batch([one]), requests),
        "batched_generation": _seconds(lm.generate_batch, [together]) / len(together),
    }


def _seconds(work: Callable[[T], object], items: Sequence[T]) -> float:
    """What ``work`` takes for one of the items, after a first time that does not count."""
    work(items[0])
    began = time.perf_counter()
    for item in items:
        work(item)
    return (time.perf_counter() - began) / len(items)


def _spread(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` of the items, evenly from first to last."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]
