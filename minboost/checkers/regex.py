"""Whether an answer matches a regular expression, in bounded time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from dataclasses import dataclass
from typing import ClassVar

from ..checks import as_text
from ..errors import InputError
from .base import Checker, Verdict
from .fields import flag, shortened

MAX_CHARACTERS = 20_000
"""An answer of 4096 new tokens has about as many. A pattern whose time grows with the square of the
answer's length takes seconds there; on a longer answer it is not tried."""

MAX_SECONDS = 10.0
"""What a pattern gets that may take much longer than that. One that ends at all takes milliseconds
on such answers, so that the verdict does not depend on the machine."""

PROGRAM = """
import json, re, sys
pattern, text, whole = json.load(sys.stdin)
found = re.fullmatch(pattern, text) if whole else re.search(pattern, text)
print(json.dumps(found and found.span()))
"""


class _EndlessError(Exception):
    pass


@dataclass(frozen=True)
class Regex(Checker):
    """Some part of the answer matches ``pattern``, or with ``whole`` all of it.

    The pattern is Python's; ``(?i)``, ``(?m)`` and ``(?s)`` at its start are its flags. White space
    at the ends of the answer does not count. An answer of more than 20,000 characters fails, and so
    does one on which the pattern has come to no end after 10 seconds, as ``(a+)+b`` does not on
    forty "a".
    """

    name: ClassVar[str] = "regex"

    pattern: str
    whole: bool = False

    def __post_init__(self) -> None:
        flag("whole", self.whole)
        if not as_text("pattern", self.pattern):
            raise InputError("pattern is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of what a later Python will read in another way
            try:
                re.compile(self.pattern)
            except (re.error, Warning, OverflowError, RecursionError) as error:
                raise InputError(f"pattern {self.pattern!r} is refused: {error}") from error

    def check(self, text: str) -> Verdict:
        text = text.strip()
        length, what = len(text), shortened(self.pattern)
        if length > MAX_CHARACTERS:
            why = f"{length} characters, more than the {MAX_CHARACTERS} that a pattern is tried on"
            return Verdict(False, why)
        try:
            span = _found(self.pattern, text, self.whole)
        except _EndlessError:
            why = f"no end of {what} within {MAX_SECONDS:g} s on {length} characters"
            return Verdict(False, why)
        if span is None:
            return Verdict(False, f"{'is' if self.whole else 'has'} no match of {what}")
        return Verdict(True, f"{shortened(text[slice(*span)])!r} matches {what}")


def _found(pattern: str, text: str, whole: bool) -> tuple[int, int] | None:
    """Where ``pattern`` matches; `_EndlessError` if that was still open after ``MAX_SECONDS``."""
    if not _may_run_away(pattern):
        found = re.fullmatch(pattern, text) if whole else re.search(pattern, text)
        return found and found.span()
    # A match cannot be stopped from within Python. A process that imports nothing but re can, for
    # some milliseconds more.
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", PROGRAM],
            input=json.dumps([pattern, text, whole]),
            capture_output=True,
            text=True,
            timeout=MAX_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise _EndlessError from None
    span = json.loads(done.stdout)
    return span and (span[0], span[1])


def _may_run_away(pattern: str) -> bool:
    """Whether the time of ``pattern`` may grow faster than with the square of the text's length.

    It cannot where at most one thing is repeated, and there are no alternatives and no references
    to groups. More is not looked into: characters that are no repeats where they stand are counted
    as such.
    """
    repeats = len(re.findall(r"[*+?{]", re.sub(r"(?<!\\)\(\?", "(", pattern)))
    return repeats > 1 or (repeats == 1 and re.search(r"\||\\\d|\?P=", pattern) is not None)
