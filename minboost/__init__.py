"""minboost: a small Llama-family inference library whose attention can be told where to look.

import minboost
lm = minboost.load("demo")
out = lm.generate(instruction="Answer in French.", query="What colour is the sky?",
                  boost=minboost.Boost(multiplier=10.0))
"""

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
