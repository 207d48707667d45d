"""The 25 instructions of IFEval (arXiv 2311.07911), each checked as its strict accuracy does.

The reference is instruction_following_eval of google-research. Three things differ:

- Sentences are counted by a rule of our own; there, by NLTK's Punkt model (``units.py``).
- The language of a text is langdetect's answer to a fixed seed; there, the seed is left open.
- Keywords, section words and postscript markers are texts; there, they are regular expressions. On
  those of the published data, which have no special characters, the two are the same.

And a case never passes with an answer that was cut off (``minboost.suites.Case``), while IFEval
judges what there is: leave room for long answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from ...errors import InputError
from ..base import Checker, Verdict
from ..fields import flag
from . import counts, form, wording
from .rule import Rule

RULES: dict[str, type[Rule]] = {
    rule.name: rule for rule in (*wording.RULES, *counts.RULES, *form.RULES)
}
"""The rules by their instruction id."""


@dataclass(frozen=True)
class IFEval(Checker):
    """One instruction of IFEval.

    Attributes:
        id: the instruction's id, such as "length_constraints:number_words".
        kwargs: what it counts or looks for, as in IFEval's files; nulls are left out, as the
            Hugging Face copy of the data has one for every kwarg of every other instruction.
        loose: pass the answer if any of ``loosened`` passes: IFEval's loose accuracy.
    """

    name: ClassVar[str] = "ifeval"

    id: str
    kwargs: Mapping[str, Any] | None = field(default=None, hash=False)
    loose: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or self.id not in RULES:
            raise InputError(
                f"the instruction {self.id!r} does not exist; known: {', '.join(RULES)}"
            )
        if not isinstance(self.kwargs, (Mapping, type(None))):
            raise InputError(f"kwargs must be a mapping, got {self.kwargs!r}")
        flag("loose", self.loose)
        given = {key: value for key, value in (self.kwargs or {}).items() if value is not None}
        object.__setattr__(self, "kwargs", given or None)
        _ = self.rule  # its errors are due here

    @cached_property
    def rule(self) -> Rule:
        rule = RULES[self.id].parse(self.kwargs)
        assert isinstance(rule, Rule)
        return rule

    def needs(self) -> None:
        self.rule.needs()

    def check(self, text: str) -> Verdict:
        verdict = self.rule.check(text)
        if verdict.passed or not self.loose:
            return verdict
        for name, variant in loosened(text).items():
            if variant.strip() and (found := self.rule.check(variant)).passed:
                return Verdict(True, f"{found.why} ({name})")
        return verdict


def loosened(text: str) -> dict[str, str]:
    """The variants of an answer that IFEval's loose accuracy tries, by what they lack.

    The first line may be an introduction, the last one a farewell, the asterisks markdown.
    """
    lines = text.split("\n")
    parts = {
        "": text,
        "the first line": "\n".join(lines[1:]).strip(),
        "the last line": "\n".join(lines[:-1]).strip(),
        "the first and the last line": "\n".join(lines[1:-1]).strip(),
    }
    variants = {f"without {lacking}": part for lacking, part in parts.items() if lacking}
    for lacking, part in parts.items():
        name = f"without {lacking} and asterisks" if lacking else "without asterisks"
        variants[name] = part.replace("*", "")
    return variants
