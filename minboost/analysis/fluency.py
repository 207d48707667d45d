"""Whether an answer is fluent, judged without another model than the one that gave it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..lm import LM
from ..request import Generation

EMPTY, CUT_OFF, REPETITIVE, SURPRISING = "empty", "cut off", "repetitive", "surprising"
FAULTS = (EMPTY, CUT_OFF, REPETITIVE, SURPRISING)
Pair = tuple[tuple[int, ...], tuple[int, ...]]
"""The ids of a prompt and of an answer."""

MAX_EXCESS = 1.0
"""Nats a token that an answer may surprise the plain model by, beyond what it expects of itself.

Text that the plain model draws has an excess of 0 on average, whatever the model and the question
(``Surprisal``), and greedy text one below. At 1, every token is e times less likely than
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
PADDED_TOKENS = 1 << 12
"""Tokens of a forward, padding included: enough to keep a GPU busy, few enough to stay in a CPU's
cache, and with them the widest activations of an 8B model (2 · 14,336 values a token) take .22 GiB
in bfloat16."""


@dataclass(frozen=True, kw_only=True)
class Fluency:
    """The faults of one answer, of ``FAULTS``, and what was measured.

    ``repeated`` and ``entropy`` are None where the answer is too short to ask; ``surprisal`` and
    ``excess`` are the mean and the excess of ``Surprisal``.
    """

    faults: tuple[str, ...]
    repeated: float | None
    entropy: float | None
    excess: float | None
    surprisal: float | None

    @property
    def fluent(self) -> bool:
        return not self.faults


@dataclass(frozen=True, kw_only=True)
class Surprisal:
    """How unlikely an answer is to the plain model, in nats a token.

    Here p is the plain model's distribution after the prompt and the answer's tokens before.

    Attributes:
        mean: of −ln p(token) over all tokens of the answer; exp(mean) is the answer's perplexity.
            None for an answer without tokens.
        excess: how much less likely the answer is than text that the plain model would draw itself:
            the mean of −ln p(token) − H, where H is the entropy of p. That is surprisal less what
            was to be expected, as in locally typical sampling (Meister et al., arXiv 2202.00666).
            The first token does not count: there the answer's direction is chosen, which is what
            steering is for. None for an answer of fewer than two tokens.
    """

    mean: float | None
    excess: float | None


def judge(lm: LM, outs: Sequence[Generation]) -> list[Fluency]:
    """Judge answers, with one forward of the plain model, or a few where they are many.

    An answer is fluent if it is not empty and was not cut off (finish_reason "stop"), if not more
    than ``MAX_REPEATED`` of its trigrams repeat and ``ngram_entropy`` reaches ``MIN_ENTROPY``, each
    where it is long enough to be asked, and if its excess surprisal is at most ``MAX_EXCESS``. The
    last tells broken text ("Bleu Caire.", '{"answer": " dirtyNEST"}') from an answer that the plain
    model can write well and merely would not have chosen. A sentence that is well-formed and of
    which the plain model is sure that it is wrong ("The capital of France is blue.") counts as
    broken: over-focus makes such sentences.
    """
    found = surprisals(lm, [out.prompt.ids for out in outs], [out.ids for out in outs])
    return [_judged(out, surprisal) for out, surprisal in zip(outs, found, strict=True)]


def _judged(out: Generation, surprisal: Surprisal) -> Fluency:
    excess = surprisal.excess
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
        surprisal=surprisal.mean,
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
def surprisals(
    lm: LM, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> list[Surprisal]:
    """The surprisal of each answer after its prompt, from one forward of the plain model.

    Sequences of like length run together, at most ``PADDED_TOKENS`` at a time (one that is longer
    runs alone). What runs together changes a number by no more than rounding.

    Args:
        prompts: the ids of each prompt, at least one.
        answers: the ids of each answer, the end token included where there is one.

    Raises:
        InputError: a prompt without tokens, or not one prompt for each answer.
    """
    if len(prompts) != len(answers):
        raise InputError(f"there are {len(prompts)} prompts and {len(answers)} answers")
    if empty := [b for b, prompt in enumerate(prompts) if not prompt]:
        raise InputError(f"prompt {empty[0]} has no tokens: nothing predicts the answer's first")
    pairs = [(tuple(p), tuple(a)) for p, a in zip(prompts, answers, strict=True)]
    result = {pair: Surprisal(mean=None, excess=None) for pair in pairs}
    # Arms often answer alike: of one pair, one row.
    lengths = {pair: len(pair[0]) + len(pair[1]) - 1 for pair in result if pair[1]}
    for chunk in _chunks(lengths):
        sequences = [[*prompt, *answer[:-1]] for prompt, answer in chunk]
        found = _surprisals(lm, sequences, [torch.tensor(answer) for _, answer in chunk])
        result |= zip(chunk, found, strict=True)
    return [result[pair] for pair in pairs]


def _chunks(lengths: dict[Pair, int]) -> list[list[Pair]]:
    """The keys by length, in chunks of at most ``PADDED_TOKENS`` with the padding."""
    chunks: list[list[Pair]] = []
    for pair in sorted(lengths, key=lengths.__getitem__):
        # In this order the sequence is its chunk's longest.
        if not chunks or (len(chunks[-1]) + 1) * lengths[pair] > PADDED_TOKENS:
            chunks.append([])
        chunks[-1].append(pair)
    return chunks


def _surprisals(lm: LM, sequences: list[list[int]], answers: list[Tensor]) -> list[Surprisal]:
    """Of sequences that all run together: each a prompt with its answer but the last token."""
    longest = max(map(len, sequences))
    padded = [ids + [0] * (longest - len(ids)) for ids in sequences]  # seen by no row before it
    # ``last`` says where each ends, for a rope whose angles follow the length.
    last = torch.tensor([len(ids) - 1 for ids in sequences], device=lm.device)
    x, step = lm.model.begin(torch.tensor(padded, device=lm.device), last=last)
    hidden = lm.model.blocks(x, step).hidden  # (B, T, hidden_size)
    # Only the rows that predict an answer's tokens go through the head: each sequence's last ones.
    rows = torch.cat(
        [
            hidden[n, len(ids) - len(answer) : len(ids)]
            for n, (ids, answer) in enumerate(zip(sequences, answers, strict=True))
        ]
    )
    targets = torch.cat(answers).to(lm.device)
    size = max(1, HEAD_ELEMENTS // lm.config.vocab_size)
    parts = [
        _surprisal_and_entropy(lm.model.logits(some), wanted)
        for some, wanted in zip(torch.split(rows, size), torch.split(targets, size), strict=True)
    ]
    counts = [len(answer) for answer in answers]
    return [
        Surprisal(
            mean=surprisal.double().mean().item(),
            excess=(surprisal - entropy)[1:].double().mean().item() if len(surprisal) > 1 else None,
        )
        for surprisal, entropy in (
            of_one.unbind() for of_one in torch.split(torch.cat(parts, 1).cpu(), counts, dim=1)
        )
    ]


def _surprisal_and_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """−ln p(target), and the entropy, of each row of ``logits`` (R, V): (2, R)."""
    logs = logits.log_softmax(-1)
    entropy: Tensor = torch.special.entr(logs.exp()).sum(-1)
    chosen = logs.gather(-1, targets[:, None])[:, 0]
    return torch.stack((-chosen, entropy))


def _ngrams(tokens: Sequence[int], n: int) -> Counter[tuple[int, ...]]:
    return Counter(tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1))


def _entropy(counts: Counter[tuple[int, ...]]) -> float:
    total = sum(counts.values())
    return -sum(count / total * math.log2(count / total) for count in counts.values())
