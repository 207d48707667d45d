"""The file that answers are kept in: append-only JSON lines that outlive any interruption.

The first line says what all answers in the file share: model, role, generation settings. Then come
runs (a command, its arms, the keys of its answers), answers and ratings, in the order in which they
happened. Where a key stands twice, the later line counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..line_file import Kind, LineFile, as_line, broken, read_lines
from .records import ANSWER, JUDGEMENT, RUN, ArmInfo, Rating, Record, RunInfo

KIND = Kind("minboost results 1", "results", "--results")


@dataclass
class Results:
    """What a results file holds."""

    path: Path
    head: dict[str, Any] = field(default_factory=dict)
    runs: list[RunInfo] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)
    ratings: dict[tuple[str, str], Rating] = field(default_factory=dict)
    """By key and judge."""
    before: frozenset[str] = frozenset()
    """The keys of the answers that were there before the last run began."""

    def only(self, run: int) -> Results:
        """The same with the run of that number alone, counted from 0."""
        return replace(self, runs=[self.runs[run]])

    @property
    def answers(self) -> list[Record]:
        """The answers that its runs are about and that are there, in the order of the runs.

        Of one arm, case and run the newest command's answer counts. A suite that was edited since
        counts as it was in the newest, and so does an arm whose settings changed.
        """
        arms = self.arms
        digests: dict[str, str] = {}
        for run in self.runs:
            digests |= run.suites
        chosen: dict[tuple[str, str, str, int], Record] = {}
        for run in self.runs:
            stale = {name for name, digest in run.suites.items() if digest != digests[name]}
            same = {arm.name for arm in run.arms if arms[arm.name] == arm}
            for arm, keys in run.keys.items():
                for key in keys if arm in same else ():
                    record = self.records.get(key)
                    if record is not None and record.suite not in stale:
                        place = (record.suite, record.case, arm, record.run)
                        chosen[place] = replace(record, arm=arm)
        return list(chosen.values())

    @property
    def arms(self) -> dict[str, ArmInfo]:
        """The arms of all runs by name, the newest of each name, in the order of the runs."""
        return {arm.name: arm for run in self.runs for arm in run.arms}


def read_results(path: Path) -> Results:
    """Read a results file as it is, without writing to it.

    Raises:
        InputError: it is missing or cannot be read, or is no results file.
    """
    head, lines = read_lines(path, KIND)
    return _filled(path, head, lines)


class ResultsFile(LineFile):
    """A results file that one process at a time adds to; what it holds is in ``results``.

    Raises:
        InputError: as ``LineFile``; or a line that is none of a results file.
    """

    def __init__(self, path: Path, head: Mapping[str, Any], *, restart: bool = False) -> None:
        super().__init__(path, KIND, head, restart=restart)
        try:
            self.results = _filled(path, self.head, self.lines)
        except BaseException:
            self.close()
            raise

    def add_run(self, run: RunInfo) -> None:
        """Note a command, unless it is the one that was noted last."""
        run = RunInfo.from_json(json.loads(as_line(run.as_json())))  # tuples in settings are lists
        if not self.results.runs or self.results.runs[-1] != run:
            self.write(run.as_json())
            self.results.runs.append(run)
            self.results.before = frozenset(self.results.records)

    def add(self, records: Iterable[Record]) -> None:
        for record in records:
            self.write(record.as_json())
            self.results.records[record.key] = record

    def add_rating(self, rating: Rating) -> None:
        self.write(rating.as_json())
        self.results.ratings[rating.key, rating.judge] = rating


def _filled(path: Path, head: dict[str, Any], lines: Iterable[tuple[int, Any]]) -> Results:
    """The results of parsed lines."""
    results = Results(path, head)
    for number, raw in lines:
        try:
            kind = raw["record"]
            if kind == ANSWER:
                record = Record.from_json(raw)
                results.records[record.key] = record
            elif kind == RUN:
                results.runs.append(RunInfo.from_json(raw))
                results.before = frozenset(results.records)
            elif kind == JUDGEMENT:
                rating = Rating.from_json(raw)
                results.ratings[rating.key, rating.judge] = rating
            else:
                raise ValueError(kind)
        except (TypeError, KeyError, ValueError) as error:
            raise broken(path, KIND, number) from error
    return results
