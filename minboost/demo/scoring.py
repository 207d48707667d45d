"""Exact success of a demo model at a multiplier, by one forward per batch.

A greedy answer equals a given one if and only if, fed that answer, the model's first choice at
every position is its next token. So one pass over prompt and answer decides what generating would.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..methods import Boost
from ..model import Transformer
from ..plan import Plan, sequence_plan
from ..span import Span
from .corpus import Case
from .examples import IGNORED, Encoder, Example, collate


@torch.no_grad()
def obeys(
    model: Transformer, encode: Encoder, cases: Sequence[Case], multiplier: float, *, size: int = 64
) -> list[bool]:
    """For each case: is the greedy answer, with its instruction boosted, the obeying one?"""
    examples = [encode(case, case.answer_if_instruction) for case in cases]
    order = sorted(range(len(cases)), key=lambda index: len(examples[index]))
    results = [False] * len(cases)
    for at in range(0, len(order), size):
        chosen = order[at : at + size]
        ids, labels = collate([examples[index] for index in chosen])
        plan = _plan(model, [examples[index] for index in chosen], multiplier)
        best = model.logits(model(ids, plan=plan).hidden).argmax(-1)
        right = ((best == labels) | (labels == IGNORED)).all(1)
        for index, good in zip(chosen, right.tolist(), strict=True):
            results[index] = good
    return results


def _plan(model: Transformer, examples: Sequence[Example], multiplier: float) -> Plan:
    size = model.config.size
    boost = Boost(multiplier=multiplier)
    placed = [
        sequence_plan([] if e.span is None else [(boost, [Span(*e.span)])], **size)
        for e in examples
    ]
    return Plan.build(placed, **size, device=model.device)
