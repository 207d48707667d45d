"""Append-only files of JSON lines that long work is kept in: stop at any time, go on where it was.

The first line, the head, says what all others share: two files whose heads are alike can be one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from .errors import InputError

FREE = ("name",)
"""Keys of a head that are for people, and not compared."""


@dataclass(frozen=True)
class Kind:
    """What a file holds: its format with a version, "minboost results 1"; a word for users,
    "results"; and the option that names the file, "--results"."""

    format: str
    what: str
    option: str

    def head(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"format": self.format, **values}


Self = TypeVar("Self", bound="LineFile")


class LineFile:
    """A file that one process at a time appends to.

    Opening takes its lock, reads it into ``head`` and ``lines``, (number, parsed line), and cuts
    off the end of a line that a killed run left behind. A line that is no JSON is parsed as None.

    Raises:
        InputError: another process has it open; it has another head (it says what differs), unless
            it is to ``restart``; or it is another kind of file, which is left alone.
    """

    def __init__(
        self, path: Path, kind: Kind, values: Mapping[str, Any], *, restart: bool = False
    ) -> None:
        from filelock import FileLock, Timeout

        self.path, self.kind = path, kind
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(
                f"another process is writing to {path}: wait for it, or name another file with "
                f"{kind.option}"
            ) from error
        try:
            first = as_line(kind.head(values))
            self.head: dict[str, Any] = json.loads(first)
            whole = self._read(first, restart=restart)
            self.lines = [(n, _parsed(line)) for n, line in enumerate(whole.split(b"\n")[1:-1], 2)]
            # Unbuffered: what a full disk refused must not be tried again when the file is closed.
            self._file = path.open("ab", buffering=0)
            if not whole:
                self._append(first)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._lock.release()

    def write(self, value: Mapping[str, Any]) -> None:
        """Append a line and see it on its way to the disk; OSError where that is full."""
        self._append(as_line(value))

    def _append(self, line: bytes) -> None:
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror}: {self.path}; what was written before is whole, and the same "
                "command goes on from there",
            ) from error

    def _read(self, first: bytes, *, restart: bool) -> bytes:
        """The whole lines that stay, nothing else of the file being left."""
        data = _bytes(self.path, self.kind) if self.path.exists() else b""
        sound = data.rfind(b"\n") + 1
        opening = as_line({"format": self.kind.format})[:-2]  # less the brace and the line's end
        if not sound and (opening.startswith(data) or data.startswith(opening)):
            restart = True  # killed in the first line
        else:
            rest = f", and is left alone; name another with {self.kind.option}"
            self._compare(_head(self.path, self.kind, data, rest), restart=restart)
        if restart:
            sound = 0
        if sound < len(data):
            os.truncate(self.path, sound)
        return data[:sound]

    def _compare(self, there: dict[str, Any], *, restart: bool) -> None:
        differs = [
            f"{name} is {there.get(name)!r} there and {self.head.get(name)!r} here"
            for name in {**self.head, **there}
            if name not in FREE and there.get(name) != self.head.get(name)
        ]
        if differs and not restart:
            raise InputError(
                f"the {self.kind.what} in {self.path} are of another run: {'; '.join(differs)}. "
                f"Name another file with {self.kind.option}, or begin anew with --restart"
            )


def read_lines(path: Path, kind: Kind) -> tuple[dict[str, Any], list[tuple[int, Any]]]:
    """The head and the (number, parsed line) of a file, which is neither locked nor changed.

    Raises:
        InputError: it is missing or cannot be read, or is another kind of file.
    """
    data = _bytes(path, kind)
    lines = data.split(b"\n")[1:-1]
    return _head(path, kind, data), [(n, _parsed(line)) for n, line in enumerate(lines, 2)]


def broken(path: Path, kind: Kind, number: int) -> InputError:
    """What to raise where a line is none of its kind."""
    return InputError(f"{path}, line {number} is no line of {kind.what}; --restart begins anew")


def as_line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _bytes(path: Path, kind: Kind) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"the {kind.what} file {path} cannot be read: {error}") from error


def _head(path: Path, kind: Kind, data: bytes, rest: str = "") -> dict[str, Any]:
    """The first line; ``rest`` stands at the end of the error where it is another kind's."""
    head = _parsed(data.split(b"\n")[0])
    family = kind.format.rsplit(" ", 1)[0]  # of another version: named as a difference
    if not isinstance(head, dict) or not str(head.get("format")).startswith(family):
        raise InputError(f"{path} is no file of {kind.what}{rest}")
    return head


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
