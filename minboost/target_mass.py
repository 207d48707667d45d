"""Target masses (Spotlight, arXiv 2505.12025): how far a row's span must be raised.

With ψ the softmax mass of the span, its odds ψ / (1 − ψ) are exp(span − rest) for the log-sum-exps
of its keys and of the others. Adding b to the logits of the span multiplies the odds by exp(b).
Rows and heads whose ψ reaches the target stay as they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .effects import EXACT


def raised_by(span: Tensor, rest: Tensor, target: Tensor, form: str) -> Tensor:
    """What to add to the logits of the span, at least 0.

    EXACT reaches the target: logit(target) − logit(ψ). PUBLISHED adds log(target / ψ), which
    reaches target / (1 + target − ψ).

    Args:
        span, rest: log-sum-exps of a row's logits inside and outside, -inf where it sees no key;
            a row that sees nothing inside cannot be raised, one that sees nothing else need not.
        target: in [0, 1), 0 for none; broadcast over the rows.
    """
    odds = span - rest
    goal = torch.logit(target)
    low = (odds < goal) & span.isfinite() & rest.isfinite()
    odds = odds.where(low, torch.zeros_like(odds))
    # log(ψ) is -softplus(-odds): no division, so a ψ that underflows does no harm.
    by = goal - odds if form == EXACT else target.log() + F.softplus(-odds)
    return by.where(low, torch.zeros_like(by))


def raise_span(logits: Tensor, union: Tensor, target: Tensor, form: str) -> Tensor:
    """``logits`` (…, S), -inf where masked, with the span's raised to ``target`` (…, 1).

    ``union`` (…, S) bool says which keys are the span's.
    """
    nothing = float("-inf")
    span = logits.masked_fill(~union, nothing).logsumexp(-1, keepdim=True)
    rest = logits.masked_fill(union, nothing).logsumexp(-1, keepdim=True)
    return logits + raised_by(span, rest, target.to(logits.dtype), form) * union


def shares(mass: Tensor, seen: Tensor, target: Tensor, form: str) -> tuple[Tensor, Tensor]:
    """How a steered row follows from the plain one and from the span by itself.

    With o the row's plain output, o_span the output over the span's keys alone, ψ its mass and a
    the mass to be reached, the steered output is c·o + (a − c·ψ)·o_span, c = (1 − a) / (1 − ψ): the
    rest keeps its proportions. Both factors lie in [0, 1], so nothing is lost to cancellation.

    Args:
        mass: ψ; seen: bool, whether the row sees a key of the span; target: as ``raised_by``.

    Returns:
        c and a − c·ψ, as ``mass``.
    """
    low = (mass < target) & seen
    goal = target if form == EXACT else target / (1 + target - mass)
    reached = goal.where(low, mass)
    rest = (1 - mass).where(low, torch.ones_like(mass))  # not 0: its gradient would be NaN
    c = ((1 - reached) / rest).where(low, torch.ones_like(mass))
    return c, (reached - c * mass).where(low, torch.zeros_like(mass))
