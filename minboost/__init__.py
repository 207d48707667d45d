"""minboost: a small Llama-family inference library whose attention can be told where to look.

import minboost
lm = minboost.load("demo")
out = lm.generate(instruction="Answer in French.", query="What colour is the sky?",
                  boost=minboost.Boost(multiplier=10.0))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .directions import load_direction
    from .errors import InputError, MinboostError, ModelError
    from .lm import LM
    from .loading import load
    from .methods import Boost, Guide, Latent, Pasta, Spotlight
    from .request import Generation, Request
    from .span import Span

__version__ = "0.1.0"

__all__ = [
    "LM",
    "Boost",
    "Generation",
    "Guide",
    "InputError",
    "Latent",
    "MinboostError",
    "ModelError",
    "Pasta",
    "Request",
    "Span",
    "Spotlight",
    "load",
    "load_direction",
]

_HOME = {
    "LM": "lm",
    "Boost": "methods",
    "Generation": "request",
    "Guide": "methods",
    "InputError": "errors",
    "Latent": "methods",
    "MinboostError": "errors",
    "ModelError": "errors",
    "Pasta": "methods",
    "Request": "request",
    "Span": "span",
    "Spotlight": "methods",
    "load": "loading",
    "load_direction": "directions",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: ``--help`` need not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
