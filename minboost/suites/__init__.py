"""Suites: named cases with checks, from files, shipped, or drawn from the demo world."""

from .case import Case, Judgement
from .selection import by_task, sample
from .suite import Suite, load_cases, load_suite, shipped_suites

__all__ = [
    "Case",
    "Judgement",
    "Suite",
    "by_task",
    "load_cases",
    "load_suite",
    "sample",
    "shipped_suites",
]
