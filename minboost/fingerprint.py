"""Short names for what a model is, by which results of one are told from those of another."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .lm import LM

SAMPLE = 1024  # values of each weight that tell one checkpoint from another
DIGITS = 16


def config_digest(lm: LM) -> str:
    """Of the model's configuration: 16 hexadecimal digits."""
    return hashlib.sha256(repr(lm.config).encode()).hexdigest()[:DIGITS]


def weights_digest(lm: LM) -> str:
    """Of some values of every weight, the same on every device: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, weight in sorted(lm.model.state_dict().items()):
        flat = weight.flatten()
        values = flat[:: max(1, len(flat) // SAMPLE)].float().cpu().numpy()
        digest.update(name.encode() + str(tuple(weight.shape)).encode() + values.tobytes())
    return digest.hexdigest()[:DIGITS]
