"""Whether an answer is fluent, judged without another model than the one that gave it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..lm import LM
from ..request import Generation

EMPTY, CUT_OFF, REPETITIVE, SURPRISING = "empty", "cut off", "repetitive", "surprising"
FAULTS = (EMPTY, CUT_OFF, REPETITIVE, SURPRISING)

MAX_EXCESS = 1.0
"""Nats a token that an answer may surprise the plain model by, beyond what it expects of itself.

Text that the plain model draws has an excess of 0 on average, whatever the model and the question
(``excess_surprisal``), and greedy text one below. At 1, every token is e times less likely than
such text's. Calibrated on the demo world (tests/test_fluency.py): of the obeying and the
disobeying answers of held-out cases none comes near it; of the same with a token doubled, two
tokens swapped, or the end of another answer, more than 99 in 100 lie above.
"""
MAX_REPEATED = 0.5
"""The share of trigrams that may be repetitions."""
REPEATED_FROM = 10
"""Tokens from which that share is looked at: at least eight trigrams."""
MIN_ENTROPY = 3.0
"""PASTA's floor, in bits."""
ENTROPY_FROM = 16
"""Tokens from which it is held to: a text without any repetition reaches 3.0 with 10 tokens, and
3.8 with 16."""
HEAD_ELEMENTS = 1 << 24
"""Logits (rows · V) that are held at a time."""


@dataclass(frozen=True, kw_only=True)
class Fluency:
    """The faults of one answer, of ``FAULTS``, and what was measured.

    ``repeated`` and ``entropy`` are None where the answer is too short to ask, ``excess`` where it
    has fewer than two tokens.
    """

    faults: tuple[str, ...]
    repeated: float | None
    entropy: float | None
    excess: float | None

    @property
    def fluent(self) -> bool:
        return not self.faults


def judge(lm: LM, outs: Sequence[Generation]) -> list[Fluency]:
    """Judge answers, all in one forward of the plain model.

    An answer is fluent if it is not empty and was not cut off (finish_reason "stop"), if not more
    than ``MAX_REPEATED`` of its trigrams repeat and ``ngram_entropy`` reaches ``MIN_ENTROPY``, each
    where it is long enough to be asked, and if ``excess_surprisal`` is at most ``MAX_EXCESS``. The
    last tells broken text ("Bleu Caire.", '{"answer": " dirtyNEST"}') from an answer that the plain
    model can write well and merely would not have chosen. A sentence that is well-formed and of
    which the plain model is sure that it is wrong ("The capital of France is blue.") counts as
    broken: over-focus makes such sentences.
    """
    excesses = excess_surprisal(lm, [out.prompt.ids for out in outs], [out.ids for out in outs])
    return [_judged(out, excess) for out, excess in zip(outs, excesses, strict=True)]


def _judged(out: Generation, excess: float | None) -> Fluency:
    count = len(out.ids)
    repeated = repeated_trigrams(out.ids) if count >= REPEATED_FROM else None
    entropy = ngram_entropy(out.ids) if count >= ENTROPY_FROM else None
    repetitive = (repeated is not None and repeated > MAX_REPEATED) or (
        entropy is not None and entropy < MIN_ENTROPY
    )
    found = {
        EMPTY: not out.text.strip(),
        CUT_OFF: out.finish_reason != "stop",
        REPETITIVE: repetitive,
        SURPRISING: excess is not None and not excess <= MAX_EXCESS,
    }
    return Fluency(
        faults=tuple(fault for fault in FAULTS if found[fault]),
        repeated=repeated,
        entropy=entropy,
        excess=excess,
    )


def repeated_trigrams(tokens: Sequence[int]) -> float:
    """The share of the trigrams of at least three tokens that have occurred before, in [0, 1).

    Seq-rep-3 of Welleck et al. (arXiv 1908.04319).
    """
    trigrams = _ngrams(tokens, 3)
    return 1 - len(trigrams) / trigrams.total()


def ngram_entropy(tokens: Sequence[int]) -> float:
    """PASTA's fluency (arXiv 2311.02262) of at least three tokens, in bits.

    The mean of 2/3 · H₂ and 4/3 · H₃, as in its public code, where Hₙ is the entropy of the
    frequencies of the text's n-grams: (H₂ + 2 · H₃) / 3. Tokens are the model's, not NLTK's words.
    """
    return (_entropy(_ngrams(tokens, 2)) + 2 * _entropy(_ngrams(tokens, 3))) / 3


@torch.inference_mode()
def excess_surprisal(
    lm: LM, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> list[float | None]:
    """How much less likely answers are to the plain model than text that it would draw itself.

    The mean over an answer's tokens of −ln p(token) − H, where p is the plain model's distribution
    after the prompt and the tokens before, and H its entropy: surprisal less what was to be
    expected, as in locally typical sampling (Meister et al., arXiv 2202.00666). The first token
    does not count: there the answer's direction is chosen, which is what steering is for.

    Args:
        prompts: the ids of each prompt.
        answers: the ids of each answer, the end token included where there is one.

    Returns:
        Nats a token; None for an answer of fewer than two tokens.
    """
    scored = [b for b, answer in enumerate(answers) if len(answer) > 1]
    result: list[float | None] = [None] * len(answers)
    if not scored:
        return result
    sequences = [[*prompts[b], *answers[b][:-1]] for b in scored]
    longest = max(map(len, sequences))
    padded = [ids + [0] * (longest - len(ids)) for ids in sequences]  # seen by no row before it
    # ``last`` says where each ends, for a rope whose angles follow the length.
    last = torch.tensor([len(ids) - 1 for ids in sequences], device=lm.device)
    x, step = lm.model.begin(torch.tensor(padded, device=lm.device), last=last)
    hidden = lm.model.blocks(x, step).hidden  # (B, T, hidden_size)
    # Only the rows that predict an answer's tokens, from its second on, go through the head.
    rows = torch.cat([hidden[n, len(prompts[b]) : len(sequences[n])] for n, b in enumerate(scored)])
    targets = torch.tensor([token for b in scored for token in answers[b][1:]], device=lm.device)
    size = max(1, HEAD_ELEMENTS // lm.config.vocab_size)
    excess = torch.cat(
        [
            _excess(lm.model.logits(some), wanted)
            for some, wanted in zip(
                torch.split(rows, size), torch.split(targets, size), strict=True
            )
        ]
    )
    counts = [len(answers[b]) - 1 for b in scored]
    for b, of_one in zip(scored, torch.split(excess.cpu(), counts), strict=True):
        result[b] = of_one.double().mean().item()
    return result


def _excess(logits: Tensor, targets: Tensor) -> Tensor:
    """−ln p(target) − H of each row of ``logits`` (R, V): (R,)."""
    logs = logits.log_softmax(-1)
    entropy: Tensor = torch.special.entr(logs.exp()).sum(-1)
    chosen = logs.gather(-1, targets[:, None])[:, 0]
    return -chosen - entropy


def _ngrams(tokens: Sequence[int], n: int) -> Counter[tuple[int, ...]]:
    return Counter(tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1))


def _entropy(counts: Counter[tuple[int, ...]]) -> float:
    total = sum(counts.values())
    return -sum(count / total * math.log2(count / total) for count in counts.values())
