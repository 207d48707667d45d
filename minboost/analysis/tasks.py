"""Task files: cases with the answer that obeys, which profiling and tuning are done on.

One JSON object a line:

    {"instruction": "Answer in French.", "query": "What colour is the sky?", "answer": "Bleu."}

and, where wanted, "task" (cases of one kind; "default"), "match" ("exact", the default, or
"contains"), "split" ("validation" or "test"; by a hash without it) and "control" (true for a case
that the plain model gets right and that steering should not break).
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import InputError

SPLITS = ("validation", "test")
MATCHES = ("exact", "contains")
MAX_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to ask, and the answer that obeys."""

    instruction: str
    query: str
    answer: str
    task: str = "default"
    match: str = "exact"
    split: str = ""
    control: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), bool if field.name == "control" else str
            if not isinstance(value, kind):
                raise InputError(f"{field.name} must be a {kind.__name__}, got {value!r}")
            if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
                raise InputError(f"{field.name} holds half a character, got {value!r}")
        for name in ("instruction", "query", "answer", "task"):
            if not getattr(self, name).strip():
                raise InputError(f"{name} is empty")
        if self.match not in MATCHES:
            raise InputError(f"match must be {' or '.join(MATCHES)}, got {self.match!r}")
        if not self.split:
            digest = hashlib.sha256(f"{self.instruction}\0{self.query}".encode()).digest()
            object.__setattr__(self, "split", SPLITS[digest[0] % 2])
        if self.split not in SPLITS:
            raise InputError(f"split must be {' or '.join(SPLITS)}, got {self.split!r}")

    @property
    def key(self) -> str:
        """A short name for the case, the same wherever its texts are."""
        text = "\0".join((self.task, self.instruction, self.query, self.answer, self.match))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def passed(self, text: str, *, finished: bool) -> bool:
        """Whether ``text`` obeys; runs of white space are all alike.

        An empty answer, or one that was cut off, never does.
        """
        said, wanted = " ".join(text.split()), " ".join(self.answer.split())
        if not finished or not said:
            return False
        return said == wanted if self.match == "exact" else wanted in said


def load_cases(source: str | Path, *, split: str | None = None) -> list[Case]:
    """The cases of a task file, or of the demo world ("demo"), all or those of one split.

    Raises:
        InputError: a file that is missing or no JSON lines, a field that is missing, unknown or
            wrong, with its line; or no case at all.
    """
    cases = demo_cases() if str(source) == "demo" else _read(Path(source))
    chosen = [case for case in cases if split in (None, case.split)]
    if not chosen:
        of = "" if split is None else f" of the {split} split"
        raise InputError(f"the task file {source} holds no case{of}")
    return chosen


def demo_cases(*, conflict: int = 210, control: int = 70, seed: int = 1) -> list[Case]:
    """Held-out cases of the demo world, so many of each split with a competing request and without.

    The seed is not that of the published figures (benchmarks/dose_response.py).
    """
    from ..demo.corpus import Split, sample_cases

    splits: tuple[Split, ...] = ("validation", "test")
    return [
        Case(
            instruction=case.instruction,
            query=case.query,
            answer=case.answer_if_instruction,
            task=case.kind,
            split=split,
            control=not conflicting,
        )
        for split in splits
        for conflicting, count in ((True, conflict), (False, control))
        for case in sample_cases(seed, split, count, conflict=conflicting)
    ]


def by_task(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """The cases of each task, in the order in which the tasks first appear."""
    tasks: dict[str, list[Case]] = {}
    for case in cases:
        tasks.setdefault(case.task, []).append(case)
    return tasks


def sample(cases: Sequence[Case], count: int, *, seed: int = 42) -> list[Case]:
    """At most ``count`` of ``cases``, drawn, with the share of controls that they have; in order.

    Of a few cases at least one is no control, where there is any.
    """
    if count < 1:
        raise InputError(f"the limit must be at least 1 case, got {count}")
    if count >= len(cases):
        return list(cases)
    rng = random.Random(seed)
    groups = [[i for i, case in enumerate(cases) if case.control is kind] for kind in (False, True)]
    controls = min(round(count * len(groups[1]) / len(cases)), len(groups[1]))
    if groups[0]:
        controls = min(controls, count - 1)
    chosen = rng.sample(groups[0], count - controls) + rng.sample(groups[1], controls)
    return [cases[i] for i in sorted(chosen)]


def _read(path: Path) -> list[Case]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"the task file {path} is larger than {MAX_BYTES} bytes")
        # Not splitlines: a text may hold characters that it takes for the end of a line.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the task file {path} cannot be read: {error}") from error
    known = {field.name for field in fields(Case)}
    cases = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            raw: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where} is no JSON: {error}") from error
        if not isinstance(raw, dict):
            raise InputError(f"{where} must be a JSON object, got a {type(raw).__name__}")
        if unknown := sorted(raw.keys() - known):
            raise InputError(
                f"{where}: the field {unknown[0]!r} does not exist; known: "
                f"{', '.join(field.name for field in fields(Case))}"
            )
        for name in ("instruction", "query", "answer"):
            if name not in raw:
                raise InputError(f"{where}: the field {name!r} is missing")
        try:
            cases.append(Case(**raw))
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    return cases
