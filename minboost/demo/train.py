"""Train the demo model: `python -m minboost.demo.train --seed 0`.

The loss is plain cross-entropy on the answers, with no boost anywhere: a model that had been
trained under a boost would prove nothing about boosting. One seed gives one set of weights on one
machine with one version of torch.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from ..checkpoint import save_weights
from ..config import ModelConfig
from ..model import Transformer
from . import MODEL_FOLDER
from .card import model_card
from .corpus import sample_cases, training_stream
from .examples import Encoder, batches, collate
from .folder import model_config, train_tokenizer, write_files
from .recipe import Recipe
from .scoring import obeys


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minboost.demo.train", description=__doc__)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER, metavar="FOLDER")
    parser.add_argument("--no-figures", action="store_true", help="do not score the model")
    options = parser.parse_args(argv)
    recipe = Recipe(seed=options.seed, steps=options.steps)

    tokenizer = build_tokenizer(recipe)
    config = model_config(tokenizer)
    model = train(recipe, tokenizer, config)
    write_files(options.out, tokenizer, config)
    save_weights(model, options.out / "model.safetensors")
    figures = {} if options.no_figures else validation_figures(model, Encoder(tokenizer))
    card = model_card(recipe, sum(p.numel() for p in model.parameters()), figures)
    (options.out / "README.md").write_text(card, encoding="utf-8")
    _say(f"wrote {options.out}")
    return 0


def build_tokenizer(recipe: Recipe) -> Tokenizer:
    """Train the tokenizer on the texts of training cases."""
    cases = (case for case, _ in islice(training_stream(recipe.seed), recipe.tokenizer_cases))
    return train_tokenizer(
        text
        for case in cases
        for text in (
            case.instruction,
            case.query,
            case.answer_if_instruction,
            case.answer_if_query,
        )
    )


def train(recipe: Recipe, tokenizer: Tokenizer, config: dict[str, object]) -> Transformer:
    """Train from scratch; AdamW, linear warm-up, cosine to 2 %."""
    model = _fresh_model(ModelConfig.from_dict(config), recipe.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    encode = Encoder(tokenizer)
    examples = (encode(case, answer) for case, answer in training_stream(recipe.seed))
    started = time.monotonic()
    for step, batch in enumerate(
        islice(batches(examples, size=recipe.batch, seed=recipe.seed), recipe.steps)
    ):
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(recipe, step)
        ids, labels = collate(batch)
        answers = labels >= 0
        logits = model.logits(model(ids).hidden[answers])
        loss = F.cross_entropy(logits, labels[answers])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        if step % 100 == 0 or step == recipe.steps - 1:
            seconds = time.monotonic() - started
            _say(f"step {step:5d}/{recipe.steps}  loss {loss.item():.4f}  {seconds:.0f} s")
    return model.eval().requires_grad_(False)


def validation_figures(
    model: Transformer, encode: Encoder, *, multipliers: tuple[float, ...] = (1.0, 10.0)
) -> dict[float, tuple[float, float]]:
    """multiplier → share of 420 validation cases that obey, with conflict and without."""
    figures = {}
    for m in multipliers:
        with_conflict, without = (
            obeys(model, encode, sample_cases(0, "validation", 420, conflict=c), m)
            for c in (True, False)
        )
        figures[m] = (sum(with_conflict) / len(with_conflict), sum(without) / len(without))
        _say(f"multiplier {m:g}: {figures[m][0]:.3f} with conflict, {figures[m][1]:.3f} without")
    return figures


def _fresh_model(config: ModelConfig, seed: int) -> Transformer:
    model = Transformer(config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.dim() > 1:  # norms stay at one; there are no biases
            torch.nn.init.normal_(parameter, std=0.02, generator=generator)
    return model


def _learning_rate(recipe: Recipe, step: int) -> float:
    warm = min(1.0, (step + 1) / recipe.warmup)
    fall = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    return recipe.learning_rate * warm * (0.02 + 0.98 * fall)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
