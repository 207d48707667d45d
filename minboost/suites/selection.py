"""Some of many cases: by task, or drawn."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..errors import InputError
from .case import Case


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
