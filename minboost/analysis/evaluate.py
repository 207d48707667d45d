"""Cases answered under a method: what was said, whether it obeys, whether it is fluent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..checks import as_integer
from ..errors import InputError
from ..lm import LM
from ..methods import Method
from ..request import Generation, Request
from ..suites import Case
from .fluency import Fluency, judge
from .intervals import wilson

Interval = tuple[float, float]
Steering = Method | Sequence[Method] | None


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A case and what the model said to it. ``faults`` says why an answer is not fluent."""

    case: Case
    text: str
    finish_reason: str
    passed: bool
    fluent: bool
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """Answers in the order of their cases, and the shares of them; intervals are 95 % Wilson.

    ``success`` is over the cases that are no controls, ``control`` over those that are, each None
    where there are none; ``fluency`` is over all.
    """

    answers: tuple[Answered, ...]

    @property
    def count(self) -> int:
        return len(self.answers)

    @property
    def success(self) -> float | None:
        return _share(self._passed(control=False))

    @property
    def success_interval(self) -> Interval | None:
        return _interval(self._passed(control=False))

    @property
    def control(self) -> float | None:
        return _share(self._passed(control=True))

    @property
    def control_interval(self) -> Interval | None:
        return _interval(self._passed(control=True))

    @property
    def fluency(self) -> float:
        share = _share([answered.fluent for answered in self.answers])
        assert share is not None
        return share

    @property
    def fluency_interval(self) -> Interval:
        interval = _interval([answered.fluent for answered in self.answers])
        assert interval is not None
        return interval

    def _passed(self, *, control: bool) -> list[bool]:
        return [a.passed for a in self.answers if a.case.control is control]


def evaluate(
    lm: LM,
    cases: Sequence[Case],
    method: Steering | Callable[[Case], Steering],
    *,
    max_new_tokens: int = 64,
    batch: int = 64,
    progress: Callable[[int], object] | None = None,
    role: str = "system",
    plain: Evaluation | None = None,
) -> Evaluation:
    """Answer ``cases`` greedily under ``method`` and judge the answers.

    Cases run sorted by length, so that a batch holds little padding. An answer that is empty or
    was cut off neither passes nor is fluent. A case's own ``max_new_tokens`` comes before the
    argument.

    Args:
        method: None is the plain model; a function gives each case its own.
        batch: how many cases run together.
        progress: called with the number of cases that were just answered.
        plain: the plain model's evaluation of the same cases. An answer that is word for word
            its, is judged as it was; the outcome is the same without.

    Raises:
        InputError: no case, or what ``lm.generate_batch`` refuses.
    """
    batch = as_integer("batch", batch, 1)
    if not cases:
        raise InputError("there is no case to evaluate")
    if plain is not None and [answered.case for answered in plain.answers] != list(cases):
        raise InputError("the plain evaluation is of other cases")
    order = sorted(range(len(cases)), key=lambda i: len(cases[i].instruction + cases[i].query))
    answers: dict[int, Answered] = {}
    for at in range(0, len(order), batch):
        chosen = order[at : at + batch]
        outs = lm.generate_batch(
            [
                Request(
                    instruction=cases[i].instruction,
                    query=cases[i].query,
                    boost=method(cases[i]) if callable(method) else method,
                    role=role,
                    max_new_tokens=cases[i].max_new_tokens or max_new_tokens,
                )
                for i in chosen
            ]
        )
        known = {} if plain is None else {i: plain.answers[i] for i in chosen}
        answers |= _answered(lm, cases, dict(zip(chosen, outs, strict=True)), known)
        if progress is not None:
            progress(len(chosen))
    return Evaluation(tuple(answers[i] for i in range(len(cases))))


def _answered(
    lm: LM, cases: Sequence[Case], outs: dict[int, Generation], known: dict[int, Answered]
) -> dict[int, Answered]:
    """The judged answers of one batch, by case number."""
    same = {
        i: known[i]
        for i, out in outs.items()
        if i in known and (known[i].text, known[i].finish_reason) == (out.text, out.finish_reason)
    }
    new = {i: out for i, out in outs.items() if i not in same}
    judged: dict[int, Fluency] = dict(zip(new, judge(lm, list(new.values())), strict=True))
    return same | {
        i: Answered(
            case=cases[i],
            text=out.text,
            finish_reason=out.finish_reason,
            passed=cases[i].passed(out.text, finished=out.finish_reason == "stop"),
            fluent=judged[i].fluent,
            faults=judged[i].faults,
        )
        for i, out in new.items()
    }


def _share(passed: Sequence[bool]) -> float | None:
    return sum(passed) / len(passed) if passed else None


def _interval(passed: Sequence[bool]) -> Interval | None:
    return wilson(sum(passed), len(passed)) if passed else None
