"""Contrasting prompts to directions: what the model makes of them, at their last token.

h+ and h− are the residual stream at the input of a layer, at the last token of prompts that have
what is wanted and of prompts that lack it (InstABoost, arXiv 2506.13734).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import as_integer, as_text
from ..directions import KINDS, MAX_SEED, Directions
from ..errors import InputError
from ..head_choice import existing
from ..lm import LM
from ..model import Transformer
from ..run import checked_prompt
from .direction_formulas import (
    check_paired,
    find_direction,
    mean_difference,
    separation,
    stream_norm,
)

Ask = tuple[str | None, str]
"""An instruction, or None for none, and a query."""
DRAWS = 1000
"""How many draws from the demo world a wanted case may take, on average, before it is given up."""


@dataclass(frozen=True, kw_only=True)
class LayerContrast:
    """The two sets at the input of one layer: the stream's mean norm, and ‖μ+ − μ−‖."""

    layer: int
    stream_norm: float
    difference_norm: float

    @property
    def relative(self) -> float:
        """The difference as a share of the stream."""
        return self.difference_norm / self.stream_norm


@dataclass(frozen=True, eq=False, kw_only=True)
class Contrast:
    """What two sets of prompts gave.

    ``accuracy`` has for each direction, by name, the share of these very prompts that a threshold
    along it tells apart (``separation``); ``notes`` what to say about the prompts.
    """

    directions: Directions
    layers: tuple[LayerContrast, ...]
    accuracy: dict[str, float]
    notes: tuple[str, ...]


def contrast(
    lm: LM,
    positive: Sequence[Ask],
    negative: Sequence[Ask],
    *,
    layers: Sequence[int] | None = None,
    kinds: Collection[str] = KINDS,
    seed: int = 42,
    role: str = "system",
    batch_size: int = 16,
) -> Contrast:
    """Find directions that lead from the negative to the positive prompts.

    Args:
        layers: at whose input; by default those of ``middle_layers``.
        kinds: which, of ``KINDS``; what each is, ``find_direction`` says.
        role, batch_size: where instructions stand, and how many prompts run together.

    Raises:
        InputError: a set is empty, a prompt or layer does not fit the model, the sets do not fit
            together or do not differ.
        ModelError: the model's activations are not finite.
    """
    for name in kinds:
        if name not in KINDS:
            raise InputError(f"the kind {name!r} is none of {', '.join(KINDS)}")
    if not kinds:
        raise InputError("no kind of direction is asked for")
    seed = as_integer("seed", seed, 0, MAX_SEED)
    if "pcdiff" in kinds:
        check_paired(len(positive), len(negative))
    L = lm.config.num_hidden_layers
    chosen = middle_layers(L) if layers is None else layers
    chosen = sorted({existing("layer", layer, L) for layer in chosen})
    if not chosen:
        raise InputError("layers is an empty list: name at least one layer")
    notes: dict[str, None] = {}
    states = [
        last_token_states(
            lm.model, _ids(lm, prompts, name, role, notes), chosen, batch_size=batch_size
        )
        for name, prompts in (("positive", positive), ("negative", negative))
    ]
    found, measured, accuracy = [], [], {}
    for layer, high, low in zip(chosen, *states, strict=True):
        difference = mean_difference(high, low, layer=layer)
        measured.append(
            LayerContrast(
                layer=layer,
                stream_norm=stream_norm(high, low),
                difference_norm=float(difference.norm()),
            )
        )
        for kind in (kind for kind in KINDS if kind in kinds):
            direction = find_direction(kind, high, low, layer=layer, seed=seed)
            found.append(direction)
            accuracy[direction.name] = separation(direction, high, low)
    return Contrast(
        directions=Directions(
            found=tuple(found), model=lm.name, seed=seed, prompts=(len(positive), len(negative))
        ),
        layers=tuple(measured),
        accuracy=accuracy,
        notes=tuple(notes),
    )


def middle_layers(n_layers: int) -> list[int]:
    """The middle fifth of a model's layers, at least one: where the paper's code looks."""
    count = max(1, int(0.2 * n_layers))
    start = (n_layers - count) // 2
    return list(range(start, start + count))


@torch.inference_mode()
def last_token_states(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    layers: Sequence[int],
    *,
    batch_size: int = 16,
) -> Tensor:
    """The residual stream at the input of ``layers``, at the last token of each prompt.

    Returns:
        (len(layers), len(prompts), hidden_size) float32 on the CPU.
    """
    batch_size = as_integer("batch_size", batch_size, 1)
    rows = {layer: row for row, layer in enumerate(layers)}
    out = torch.empty(len(layers), len(prompts), model.config.hidden_size)
    # Prompts of like length together: a shorter one is padded to the longest of its batch.
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    for begin in range(0, len(order), batch_size):
        batch = order[begin : begin + batch_size]
        longest = len(prompts[batch[-1]])
        ids = [[*prompts[at], *[0] * (longest - len(prompts[at]))] for at in batch]
        last = torch.tensor([len(prompts[at]) - 1 for at in batch], device=model.device)
        each, where = torch.arange(len(batch), device=model.device), torch.tensor(batch)

        def record(
            depth: int, x: Tensor, each: Tensor = each, last: Tensor = last, where: Tensor = where
        ) -> Tensor:
            if depth in rows:
                out[rows[depth], where] = x[each, last].float().cpu()
            return x

        model(torch.tensor(ids, device=model.device), last=last, stream=record)
    return out


def demo_contrast(kind: str, value: str, count: int, seed: int) -> tuple[list[Ask], list[Ask]]:
    """Contrasting prompts for an instruction of the demo world, from its training split.

    The positive ones ask a question under an instruction of ``kind`` and ``value`` ("language",
    "French"), in its many wordings and without a competing request; the negative ones are the same
    questions without an instruction, in the same order.

    Raises:
        InputError: a kind or value that is not there, or not ``count`` different prompts.
    """
    from ..demo.corpus import sample_case
    from ..demo.phrasings import VALUES

    if value not in VALUES.get(kind, ()):
        known = ", ".join(f"{k} ({' / '.join(values)})" for k, values in VALUES.items())
        raise InputError(f"the demo world has no {kind!r} {value!r}; it has {known}")
    rng = random.Random(f"contrast/{as_integer('seed', seed, 0)}/{kind}/{value}")
    asks: dict[tuple[str, str], None] = {}
    for _ in range(DRAWS * as_integer("count", count, 1)):
        case = sample_case(rng, "train", kind=kind, conflict=False)
        if case.value == value:
            asks[case.instruction, case.query] = None
        if len(asks) == count:
            return list(asks), [(None, query) for _, query in asks]
    raise InputError(f"the demo world has only {len(asks)} prompts of {kind!r} {value!r}")


def _ids(
    lm: LM, prompts: Sequence[Ask], name: str, role: str, notes: dict[str, None]
) -> list[tuple[int, ...]]:
    """The token ids of one set of prompts, and what to note about them."""
    if not prompts:
        raise InputError(f"there is no {name} prompt")
    ids = []
    for number, (instruction, query) in enumerate(prompts, 1):
        where = f"{name} prompt {number}"
        if instruction is not None:
            instruction = as_text(f"the instruction of {where}", instruction)
        query = as_text(f"the query of {where}", query)
        try:
            prompt = checked_prompt(lm.tokenizer, role, instruction, query, lm.config.vocab_size)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        if len(prompt.ids) > lm.config.context_length:
            raise InputError(
                f"{where} has {len(prompt.ids)} tokens, more than the model's context of "
                f"{lm.config.context_length}"
            )
        notes.update(dict.fromkeys(prompt.notes))
        ids.append(tuple(prompt.ids))
    return ids
