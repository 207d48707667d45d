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
    from .boost import Boost, Span
    from .errors import InputError, MinboostError, ModelError
    from .lm import LM
    from .loading import load
    from .request import Generation, Request

__version__ = "0.1.0"

__all__ = [
    "LM",
    "Boost",
    "Generation",
    "InputError",
    "MinboostError",
    "ModelError",
    "Request",
    "Span",
    "load",
]

_HOME = {
    "LM": "lm",
    "Boost": "boost",
    "Generation": "request",
    "InputError": "errors",
    "MinboostError": "errors",
    "ModelError": "errors",
    "Request": "request",
    "Span": "boost",
    "load": "loading",
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
