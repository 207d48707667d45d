"""The family of methods. One file each; each says, in effects, which tokens, heads and strengths.

The model knows none of them: ``plan`` compiles their effects to tensors. A new method is one file
here and one line in ``METHODS``.
"""

from __future__ import annotations

from .base import Method
from .guide import Guide
from .instaboost import Boost
from .latent import Latent
from .pasta import Pasta
from .spotlight import Spotlight

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (Boost, Pasta, Guide, Spotlight, Latent)
}

__all__ = ["METHODS", "Boost", "Guide", "Latent", "Method", "Pasta", "Spotlight"]
