"""The figures of one arm, by itself and against plain."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import TypeVar

from .paired import Pair, cohens_h, difference, gained_and_lost, odds_ratio, paired_test
from .records import ArmInfo, Rating, Record
from .statistics import SHARE, Estimate, mean_over_cases
from .summary_types import ArmSummary, Mean, Ratings, RelativePerplexity, Versus

Places = Mapping[tuple[str, str, int], Record]
"""An arm's records by case and run."""
SCORE = (0.0, 2.0)
"""Bounds of a judge model's score."""
T = TypeVar("T")


def arm_summary(
    info: ArmInfo,
    records: Places,
    plain: Places | None,
    ratings: Mapping[tuple[str, str], Rating],
) -> ArmSummary:
    """The figures of an arm in one suite and split, p values not yet corrected.

    Args:
        records: the arm's, at least one.
        plain: the plain arm's, of which all places of ``records`` are some; None for the plain arm
            itself, or where nothing is to be compared.
        ratings: by key and judge; those of other answers are passed over.
    """
    own = list(records.values())
    told = [record for record in own if not record.control]
    answered, asked = by_case(own, lambda r: r.run), by_case(told, lambda r: r.run)
    pairs = [] if plain is None else [(record, plain[place]) for place, record in records.items()]
    return ArmSummary(
        name=info.name,
        methods=info.methods,
        cases=len(asked),
        controls=len(answered) - len(asked),
        runs=max(map(len, answered.values())),
        answers=len(own),
        success=success(told),
        control=success(record for record in own if record.control),
        fluency=_mean(by_case(own, lambda r: float(r.fluent)), SHARE),
        checks=_checks(told),
        length=fmean(record.new_tokens for record in own),
        cut_off=fmean(record.finish_reason == "length" for record in own),
        unchanged=fmean(arm.text == other.text for arm, other in pairs) if pairs else None,
        perplexity=_perplexity(own),
        relative_perplexity=_relative_perplexity(pairs),
        repeated=_mean_of(record.repeated for record in own),
        entropy=_mean_of(record.entropy for record in own),
        excess=_mean_of(record.excess for record in own),
        faults=_faults(own),
        ratings=_ratings(own, ratings),
        versus=_versus(paired_outcomes(told, plain)) if plain is not None and told else None,
    )


def by_case(records: Iterable[Record], value: Callable[[Record], T]) -> dict[str, list[T]]:
    """``value`` of each record, by case, in the order of the records."""
    found: dict[str, list[T]] = {}
    for record in records:
        found.setdefault(record.case, []).append(value(record))
    return found


def success(records: Iterable[Record]) -> Estimate | None:
    """The share of the cases that pass, each with its mean over runs; None without a record."""
    passed = by_case(records, lambda record: float(record.passed))
    return _mean(passed, SHARE) if passed else None


def paired_outcomes(records: Iterable[Record], plain: Places) -> list[Pair]:
    """Of each case whether it passed, run by run: the arm's, and plain's in the same runs."""
    both = by_case(
        (record for record in records if record.place in plain),
        lambda record: (record.passed, plain[record.place].passed),
    )
    return [([arm for arm, _ in runs], [other for _, other in runs]) for runs in both.values()]


def _versus(pairs: Sequence[Pair]) -> Versus:
    arm, plain = (
        fmean(sum(sides[at]) / len(sides[at]) for sides in pairs) for at in (0, 1)
    )  # fmt: skip
    gained, lost = gained_and_lost(pairs)
    test = paired_test(pairs)
    return Versus(
        cases=len(pairs),
        runs=max(len(runs) for runs, _ in pairs),
        plain=plain,
        arm=arm,
        gained=gained,
        lost=lost,
        difference=difference(pairs),
        test=test.name,
        p=test.p,
        corrected=test.p,
        family=1,
        cohens_h=cohens_h(arm, plain),
        odds_ratio=odds_ratio(gained, lost),
    )


def _checks(records: Iterable[Record]) -> Estimate | None:
    """The share of single checks that pass, each check of each answer counted once."""
    parts = {
        case: [float(part) for run in runs for part in run]
        for case, runs in by_case(records, lambda record: record.parts).items()
    }
    parts = {case: passed for case, passed in parts.items() if passed}
    return _mean(parts, SHARE, pooled=True) if parts else None


def _perplexity(records: Iterable[Record]) -> float | None:
    surprisals = [record.surprisal for record in records if record.surprisal is not None]
    return _exp(fmean(surprisals)) if surprisals else None


def _relative_perplexity(pairs: Iterable[tuple[Record, Record]]) -> RelativePerplexity | None:
    logs: dict[str, list[float]] = {}
    for arm, plain in pairs:
        if arm.surprisal is not None and plain.surprisal is not None:
            logs.setdefault(arm.case, []).append(arm.surprisal - plain.surprisal)
    if not logs:
        return None
    every = [log for of_case in logs.values() for log in of_case]
    mean = _mean(logs, None)
    return RelativePerplexity(
        median=_exp(median(every)),
        geometric_mean=replace(
            mean, value=_exp(mean.value), low=_exp(mean.low), high=_exp(mean.high)
        ),
        pairs=len(every),
    )


def _faults(records: Iterable[Record]) -> dict[str, int]:
    """The most frequent first, of equals by name."""
    counts = Counter(fault for record in records for fault in record.faults)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _ratings(
    records: Iterable[Record], ratings: Mapping[tuple[str, str], Rating]
) -> tuple[Ratings, ...]:
    cases = {record.key: record.case for record in records}
    scores: dict[str, dict[str, list[float]]] = {}
    for (key, judge), rating in ratings.items():
        if key in cases:
            scores.setdefault(judge, {}).setdefault(cases[key], []).append(rating.score)
    return tuple(
        Ratings(judge=judge, score=_mean(scores[judge], SCORE)) for judge in sorted(scores)
    )


def _mean(
    outcomes: Mapping[str, Sequence[float]],
    bounds: tuple[float, float] | None,
    *,
    pooled: bool = False,
) -> Estimate:
    return mean_over_cases(list(outcomes.values()), bounds=bounds, pooled=pooled)


def _mean_of(values: Iterable[float | None]) -> Mean | None:
    there = [value for value in values if value is not None]
    return Mean(value=fmean(there), answers=len(there)) if there else None


def _exp(log: float) -> float:
    try:
        return math.exp(log)
    except OverflowError:
        return math.inf
