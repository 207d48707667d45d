"""The lines of a results file, as data: what was asked, what came out, how it was judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

ANSWER, RUN, JUDGEMENT = "answer", "run", "judgement"
MEASURES = ("repeated", "entropy", "excess", "surprisal")
"""Fields that an answer may be too short to have."""
DIGITS = 6
"""Decimals of a measure that are kept: well below what rounding leaves of it."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One answer to one case under one arm in one run.

    Attributes:
        key: a hash of model, prompt, setting and seed; the same answer has the same key.
        suite, case, task, split, control, instruction, query: of the case.
        arm: the name of the arm that it was got for first.
        run, seed: the run's number from 1, and the seed that the answer was sampled with.
        text, finish_reason, new_tokens: the answer, "stop" or "length", and its tokens.
        passed, why, parts: whether all checks passed; why not; and each check.
        fluent, faults: of ``minboost.analysis.fluency``.
        repeated, entropy, excess: the measures behind it, None where the answer is too short.
        surprisal: mean −ln p of the answer's tokens under the plain model, in nats; its
            exponential is the perplexity. None for an answer without tokens.
    """

    key: str
    suite: str
    case: str
    task: str
    split: str
    control: bool
    instruction: str
    query: str
    arm: str
    run: int
    seed: int
    text: str
    finish_reason: str
    new_tokens: int
    passed: bool
    why: str
    parts: tuple[bool, ...]
    fluent: bool
    faults: tuple[str, ...]
    repeated: float | None
    entropy: float | None
    excess: float | None
    surprisal: float | None

    def __post_init__(self) -> None:
        for name in MEASURES:
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, round(value, DIGITS))

    @property
    def place(self) -> tuple[str, str, int]:
        """The case and the run it is of: what arms are paired by."""
        return (self.suite, self.case, self.run)

    def as_json(self) -> dict[str, Any]:
        return {"record": ANSWER, **{name: getattr(self, name) for name in NAMES}}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Record:
        """Raises TypeError, KeyError or ValueError where ``raw`` is no line of an answer."""
        values = {name: raw[name] for name in NAMES}
        for name, kind in KINDS.items():
            optional = name in MEASURES
            if not (optional and values[name] is None) and not isinstance(values[name], kind):
                raise TypeError(f"{name} is {values[name]!r}")
        return cls(**{**values, "parts": tuple(values["parts"]), "faults": tuple(values["faults"])})


NAMES = tuple(field.name for field in fields(Record))
KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(NAMES, str),
    **dict.fromkeys(("control", "passed", "fluent"), bool),
    **dict.fromkeys(("run", "seed", "new_tokens"), int),
    **dict.fromkeys(("parts", "faults"), list),
    **dict.fromkeys(MEASURES, (int, float)),
}


@dataclass(frozen=True, kw_only=True)
class ArmInfo:
    """An arm as a results file knows it: its name, and the settings of its methods.

    A setting is {"method": "instaboost", "multiplier": 7.0, "layers": "all", "heads": "all",
    "span": "instruction"}: the method's own parameters, and where it acts. The plain arm has none.
    """

    name: str
    methods: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """One command that wrote to a results file.

    Attributes:
        command: the exact command line.
        commit: of minboost's source, with "+" where it had changes; None where it is installed.
        versions: of minboost, Python, torch and what else counts.
        suites: {name: digest}; two runs of a suite with one digest had the same cases.
        split: which cases were asked, "validation", "test" or "all".
        arms: in order; the first is the plain one.
        seed, runs: the base seed, and the number of runs.
        keys: by arm, of all answers that the command is about, whichever command got them. Two
            arms of the same settings share their answers.
        sweep: what a sweep was over, {"method", "floor", …}; None for a comparison.
    """

    command: str
    commit: str | None
    versions: dict[str, str]
    suites: dict[str, str]
    split: str
    arms: tuple[ArmInfo, ...]
    seed: int
    runs: int
    keys: dict[str, tuple[str, ...]]
    sweep: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        return {"record": RUN, **asdict(self)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> RunInfo:
        """Raises TypeError, KeyError or ValueError where ``raw`` is no line of a run."""
        values = {field.name: raw[field.name] for field in fields(cls)}
        arms = tuple(ArmInfo(name=a["name"], methods=tuple(a["methods"])) for a in values["arms"])
        keys = {arm: tuple(of) for arm, of in values["keys"].items()}
        return cls(**{**values, "arms": arms, "keys": keys})


@dataclass(frozen=True, kw_only=True)
class Rating:
    """What a judge model said of the answer ``key``: ``score`` in [0, 2], and its words."""

    key: str
    judge: str
    score: float
    words: str

    def as_json(self) -> dict[str, Any]:
        return {"record": JUDGEMENT, **asdict(self)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Rating:
        """Raises TypeError, KeyError or ValueError where ``raw`` is no line of a rating."""
        return cls(
            key=str(raw["key"]), judge=str(raw["judge"]), score=float(raw["score"]),
            words=str(raw["words"]),
        )  # fmt: skip
