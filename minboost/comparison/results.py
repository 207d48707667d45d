"""The file that answers are kept in: append-only JSON lines that outlive any interruption.

The first line says what all answers in the file share: model, role, generation settings. Then come
runs (a command, its arms, the keys of its answers), answers and ratings, in the order in which they
happened. Where a key stands twice, the later line counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import InputError
from .records import ANSWER, JUDGEMENT, RUN, ArmInfo, Rating, Record, RunInfo

FORMAT = "minboost results 1"
FREE = ("name",)  # of a header: for people, and not compared


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
    results = Results(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"the results file {path} cannot be read: {error}") from error
    _fill(results, data)
    if not results.head:
        raise InputError(f"the results file {path} is empty")
    return results


class ResultsFile:
    """A results file that one process at a time adds to.

    Opening takes its lock, reads it, and cuts off the end of a line that a killed run left behind.

    Raises:
        InputError: another process has it open; it is of another model or other settings (it says
            what differs); or it is no results file.
    """

    def __init__(self, path: Path, head: Mapping[str, Any], *, restart: bool = False) -> None:
        from filelock import FileLock, Timeout

        self.path = path
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(
                f"another process is writing to {path}: wait for it, or name another file with "
                "--results"
            ) from error
        try:
            self.results = self._opened(head, restart=restart)
            # Unbuffered: what a full disk refused must not be tried again when the file is closed.
            self._file = path.open("ab", buffering=0)
            if not self.results.head:
                self.results.head = json.loads(_line(_head(head)))
                self._write(_head(head))
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._lock.release()

    def add_run(self, run: RunInfo) -> None:
        """Note a command, unless it is the one that was noted last."""
        line = run.as_json()
        if not self.results.runs or _line(self.results.runs[-1].as_json()) != _line(line):
            self._write(line)
            self.results.runs.append(run)
            self.results.before = frozenset(self.results.records)

    def add(self, records: Iterable[Record]) -> None:
        for record in records:
            line = record.as_json()
            self._write(line)
            self.results.records[record.key] = Record.from_json(json.loads(_line(line)))

    def add_rating(self, rating: Rating) -> None:
        self._write(rating.as_json())
        self.results.ratings[rating.key, rating.judge] = rating

    def _write(self, value: Mapping[str, Any]) -> None:
        """Append one line and see it on its way to the disk."""
        line = _line(value)
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror}: {self.path}; what was written before is whole, and the same "
                "command goes on from there",
            ) from error

    def _opened(self, head: Mapping[str, Any], *, restart: bool) -> Results:
        results = Results(self.path)
        if not self.path.exists():
            return results
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise InputError(f"the results file {self.path} cannot be read: {error}") from error
        sound = data.rfind(b"\n") + 1
        if not sound and _line(_head(head)).startswith(data):
            os.truncate(self.path, 0)  # killed in the first line
            return results
        _fill(results, data, skim=restart)
        here = json.loads(_line(_head(head)))
        differs = [
            f"{name} is {results.head.get(name)!r} there and {here.get(name)!r} here"
            for name in {**here, **results.head}
            if name not in FREE and results.head.get(name) != here.get(name)
        ]
        if restart:
            os.truncate(self.path, 0)
            return Results(self.path)
        if differs:
            raise InputError(
                f"the results in {self.path} are of another model or of other settings: "
                f"{'; '.join(differs)}. Name another file with --results, or begin anew with "
                "--restart"
            )
        if sound < len(data):
            os.truncate(self.path, sound)
        return results


def _head(head: Mapping[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, **head}


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _fill(results: Results, data: bytes, *, skim: bool = False) -> None:
    """Put the lines of ``data`` in their places; ``skim`` only looks whether it is ours."""
    lines = data.split(b"\n")[:-1]
    head = _parsed(lines[0]) if lines else None
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise InputError(f"{results.path} is no results file of minboost's, and is left alone")
    results.head = head
    for number, line in enumerate([] if skim else lines[1:], 2):
        raw = _parsed(line)
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
            raise InputError(
                f"{results.path}, line {number} is no line of a results file; --restart begins anew"
            ) from error


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
