"""What decides the demo model's weights, the corpus apart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Seed, length and step sizes of one training run."""

    seed: int = 0
    steps: int = 3200
    batch: int = 64
    learning_rate: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.05
    clip: float = 1.0
    tokenizer_cases: int = 20000
