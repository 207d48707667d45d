"""Measurements one after another within a time limit; none can take the others down."""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from gpu_lab import Lab

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One measurement: ``run`` yields its rows. It needs about ``needs`` seconds on a large GPU."""

    group: str
    name: str
    needs: float
    run: Callable[[Lab], Iterable[Row]]


# Not an Exception: libraries that try one thing after another would swallow it.
class OutOfTime(BaseException):
    """The time for all measurements is over, in the middle of one."""


class Budget:
    """The seconds that are left of ``minutes``."""

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.end = clock() + 60 * minutes

    def left(self) -> float:
        return self.end - self.clock()

    @contextmanager
    def limit(self) -> Iterator[None]:
        """Raise OutOfTime in the block when the time is over, where the system can interrupt it."""
        can = hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()
        if not can:
            yield
            return

        def ring(number: int, frame: FrameType | None) -> None:
            raise OutOfTime

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, max(0.01, self.left()))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def run_jobs(
    jobs: Sequence[Job],
    lab: Lab,
    budget: Budget,
    keep: Callable[[Row], None],
    *,
    strict: bool = False,
) -> bool:
    """Run the jobs and hand every row to ``keep`` as soon as it is there.

    A job that raises becomes a row with ``error``, one for which no time is left a row with
    ``skipped``. ``strict`` ends the run after the checks, if one of them has failed.

    Returns:
        Whether all checks passed: one that raised, or that time did not reach, has not.
    """
    passed = True
    for job in jobs:
        if strict and not passed and job.group != "checks":
            say(f"{job.group} and what follows is left out: a check has failed")
            break
        for row in _rows(job, lab, budget):
            keep({"group": job.group, "name": job.name, **row})
            if job.group == "checks" and not row.get("passed"):
                passed = False
                say(f"!!! CHECK FAILED: {job.name}: {row}")
        lab.tidy()
    return passed


def _rows(job: Job, lab: Lab, budget: Budget) -> Iterator[Row]:
    """The job's rows, each with the seconds that it took, whatever happens."""
    left = budget.left()
    if left < job.needs:
        say(f"{job.group}: {job.name}: skipped")
        yield {"skipped": f"{max(0.0, left):.0f} s left, about {job.needs:g} s needed"}
        return
    say(f"{job.group}: {job.name} ({left:.0f} s left)")
    rows: Iterator[Row] | None = None
    while True:
        began = budget.clock()
        try:
            with budget.limit():  # and not while the caller keeps a row
                rows = iter(job.run(lab)) if rows is None else rows
                row = next(rows)
        except StopIteration:
            return
        except OutOfTime:
            yield {"skipped": f"stopped after {budget.clock() - began:.0f} s: no time left"}
            return
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            text = (str(error).strip().splitlines() or [""])[0]
            yield {"error": f"{type(error).__name__}: {text}"[:300]}
            return
        yield {**row, "seconds": round(budget.clock() - began, 2)}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
