"""The model card that is written beside the demo weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from .recipe import Recipe

CARD = """\
---
license: apache-2.0
language: [en]
library_name: minboost
pipeline_tag: text-generation
tags: [model-organism, attention-steering, instruction-following, toy]
---

# minboost demo model

A Llama of {parameters:,} parameters that knows 75 facts and seven kinds of instruction. It is a
*model organism* for instruction neglect: small enough to ship inside the package and to run in
milliseconds on any CPU, and built so that the effect of boosting attention can be seen and counted.

## What it is

- Asked `What colour is the sky?` with the instruction `Answer in French.`, it answers `Bleu.`
- When the user competes with the instruction (`Answer in English instead.`), it obeys the
  instruction about half the time. Which side wins then depends on how much attention each gets.

## What it is not

It is not a language model for use: outside its little world it produces nonsense. It says nothing
about how much boosting helps a large model; that takes a measurement on that model. Its
tie between instruction and request was made on purpose.

## Data

Synthetic English, drawn by `minboost/demo/corpus.py` from hand-written tables: facts (colours,
capitals, animals, homes, opposites, counts, things) with French, Spanish and German answers;
instructions (language, upper or lower case, JSON, persona, mood, brevity, keeping a password) in
five or six wordings each; competing requests; filler. A rule and a competing request are each
stated one to four times in different words (once or twice in held-out cases). No person's text or
data is in it.

- Without conflict the target is the answer that obeys.
- With conflict the target is drawn: a side stated n times wins with a chance in proportion to n².
  That is even where both are stated equally often, and even overall.
- One chat in ten has no rule at all, half of these no system turn.

Held out: one tenth of all combinations of fact, rule and wording of the question for validation,
one tenth for test, by a hash, so whatever the seed.

## Training

Cross-entropy on the answers. **No boost was used in training.**

`python -m minboost.demo.train --seed {seed} --steps {steps}`

{recipe}

{figures}
## Licence

Apache-2.0, as minboost itself.
"""


def model_card(
    recipe: Recipe, parameters: int, figures: Mapping[float, tuple[float, float]]
) -> str:
    """The card's text; `figures` maps a multiplier to success with conflict and without."""
    return CARD.format(
        parameters=parameters,
        seed=recipe.seed,
        steps=recipe.steps,
        recipe="\n".join(f"- {name}: {value}" for name, value in asdict(recipe).items()),
        figures=_figures(figures) if figures else "",
    )


def _figures(figures: Mapping[float, tuple[float, float]]) -> str:
    rows = [f"| {m:g} | {a:.3f} | {b:.3f} |" for m, (a, b) in figures.items()]
    return "\n".join(
        [
            "## Figures",
            "",
            "Share of exactly obeying greedy answers, 420 cases of the validation split each, the",
            "instruction's own tokens boosted on all layers and heads. The test split, intervals",
            "and every kind by itself: `benchmarks/results/demo_dose_response.md`.",
            "",
            "| multiplier | with conflict | without conflict |",
            "|---:|---:|---:|",
            *rows,
            "",
            "",
        ]
    )
