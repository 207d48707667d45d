"""The demo model: a toy Llama that ships with minboost, and the little world it was trained on."""

from __future__ import annotations

import re
from pathlib import Path

MODEL_FOLDER = Path(__file__).parent / "model"


def in_world(instruction: str, query: str) -> bool:
    """Whether the demo model can be expected to understand: a question it knows, a rule it knows.

    The query must hold one of the world's questions and the instruction, unless it is empty, one
    of its rules. Case, punctuation and everything around them are free.
    """
    from . import phrasings
    from .world import FACTS, SECRETS

    asked, told = _plain(query), _plain(instruction)
    questions = [q for fact in FACTS for q in fact.questions] + [*phrasings.PASSWORD_QUESTIONS]
    if not any(_plain(question) in asked for question in questions):
        return False
    rules = (
        rule.format(v=value, s=secret)
        for kind, texts in phrasings.INSTRUCTIONS.items()
        for rule in texts
        for value in phrasings.VALUES[kind]
        for secret in (SECRETS if kind == "secret" else ("",))
    )
    return not told.strip() or any(_plain(rule) in told for rule in rules)


def _plain(text: str) -> str:
    """Lower-case words between single spaces, with one at either end: whole words match."""
    return f" {' '.join(re.findall(r'[a-z]+', text.lower()))} "
