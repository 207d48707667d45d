"""Cases as token ids: the prompt as the chat template writes it, the span, the answer, batches."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from tokenizers import Tokenizer
from torch import Tensor

from .corpus import Case
from .folder import ASSISTANT, BOS, END, SPECIAL_TOKENS, SYSTEM, USER

IGNORED = -100
"""Label of a position that is not part of an answer, as `cross_entropy` skips it by default."""


@dataclass(frozen=True)
class Example:
    """One prompt and its answer; `span` holds the instruction's tokens, None without one."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    span: tuple[int, int] | None

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


class Encoder:
    """Writes cases as the chat template does, turn by turn."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        def encode(text: str) -> tuple[int, ...]:
            return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

        self._encode = cache(encode)
        vocabulary = tokenizer.get_vocab()
        self._ids = {name: vocabulary[name] for name in SPECIAL_TOKENS}

    def __call__(self, case: Case, answer: str) -> Example:
        prompt, span = [self._ids[BOS]], None
        if case.instruction:
            prompt.append(self._ids[SYSTEM])
            told = self._encode(case.instruction)
            span = (len(prompt), len(prompt) + len(told))
            prompt += [*told, self._ids[END]]
        prompt += [self._ids[USER], *self._encode(case.query), self._ids[END], self._ids[ASSISTANT]]
        return Example(tuple(prompt), (*self._encode(answer), self._ids[END]), span)


def collate(examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Ids and labels (B, T), padded on the right; a label is the token that should come next."""
    length = max(len(example) for example in examples)
    ids = torch.zeros(len(examples), length, dtype=torch.long)
    labels = torch.full((len(examples), length), IGNORED)
    for row, example in enumerate(examples):
        ids[row, : len(example)] = torch.tensor(example.prompt + example.answer)
        start = len(example.prompt) - 1
        labels[row, start : start + len(example.answer)] = torch.tensor(example.answer)
    return ids, labels


def batches(
    stream: Iterable[Example], *, size: int, seed: int, pool: int = 8
) -> Iterator[list[Example]]:
    """Batches of like length: `pool` of them are sorted together, then handed out in any order."""
    rng = random.Random(f"{seed}/batches")
    examples = iter(stream)
    while True:
        drawn = sorted((next(examples) for _ in range(size * pool)), key=len)
        cut = [drawn[at : at + size] for at in range(0, len(drawn), size)]
        rng.shuffle(cut)
        yield from cut
