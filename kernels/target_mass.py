"""A target mass (Spotlight, arXiv 2505.12025) as one number a row, from two sums of the row.

The keys of a row are on two sides: the span's, which the target counts, and the rest. Whoever has
both sides apart takes of each what ``span_log_odds`` says; whoever has only their sums adds
``span_bias`` to the logits of the span's keys.

Everything is in the exp2 domain.
"""

from __future__ import annotations

import triton
import triton.language as tl

EXACT = tl.constexpr(1)  # forms of a target mass; 0 is none
PUBLISHED = tl.constexpr(2)
FORMS = {"exact": EXACT.value, "published": PUBLISHED.value}


@triton.jit
def log2_or_none(x):
    """log2(x), and -inf for 0 without taking a logarithm of it."""
    return tl.where(x > 0, tl.math.log2(tl.where(x > 0, x, 1.0)), float("-inf"))


@triton.jit
def span_log_odds(rest, span, target, TARGET: tl.constexpr):
    """log2(a / (1 - a)) for the share a of the span's side, from both sides' log2 sums.

    With ψ the share as the logits have it: a = ψ where ψ ≥ target; else the target (EXACT), or
    target / (1 + target - ψ), which the bias log(target / ψ) gives (PUBLISHED). ψ itself is never
    formed: it may underflow.
    """
    seen = (span > float("-inf")) & (rest > float("-inf"))
    odds = tl.where(seen, span, 0.0) - tl.where(seen, rest, 0.0)
    wanted = log2_or_none(target) - log2_or_none(1 - target)
    if TARGET == EXACT:
        odds = tl.maximum(odds, wanted)
    else:  # ψ·(target / ψ) to (1 - ψ) is target·(1 + odds), 1 / (1 - ψ) being 1 + odds
        raised = log2_or_none(target) + tl.math.log2(1 + tl.math.exp2(tl.minimum(odds, wanted)))
        odds = tl.where(odds < wanted, raised, odds)
    odds = tl.where(rest > float("-inf"), odds, float("inf"))
    return tl.where(span > float("-inf"), odds, float("-inf"))


@triton.jit
def span_bias(rest, span, target, TARGET: tl.constexpr):
    """What steering adds to the logits of the span's keys: 0 where ψ ≥ target, or a side is empty.

    Arguments as ``span_log_odds``.
    """
    seen = (span > float("-inf")) & (rest > float("-inf"))
    odds = tl.where(seen, span, 0.0) - tl.where(seen, rest, 0.0)
    return tl.where(seen, span_log_odds(rest, span, target, TARGET) - odds, 0.0)
