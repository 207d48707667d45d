"""The file that head scores are kept in while they grow: stop at any time, go on where it ended.

JSON lines. The first says what the scores are of: model, method, the heads that are tried. Each
other is one case:

    {"case": "4f…", "task": "language", "plain": -3.2, "right": false,
     "scores": [[0.51, …], …], "success": [[0, …], …]}

``scores`` and ``success`` are L lists of H: the gain in nats (null where a head was not tried), and
whether the greedy answer is the right one; ``plain`` and ``right`` are the plain model's.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..fingerprint import config_digest, weights_digest

if TYPE_CHECKING:
    from ..lm import LM
    from ..methods import Method
    from .head_scores import Scored

FORMAT = "minboost head scores 1"
FREE = ("name",)  # of a header: for people, and not compared
DIGITS = 6  # of a gain that are kept: well below what rounding leaves of it


@dataclass(frozen=True)
class CaseScores:
    """One line: gains (L, H) in nats, None where not tried, and outcomes (L, H)."""

    case: str
    task: str
    gains: tuple[tuple[float | None, ...], ...]
    success: tuple[tuple[bool, ...], ...]
    plain: float
    right: bool

    @classmethod
    def of(cls, scored: Scored) -> CaseScores:
        gains = tuple(
            tuple(None if math.isnan(gain) else round(gain, DIGITS) for gain in layer)
            for layer in scored.gains.tolist()
        )
        success = tuple(map(tuple, scored.right.tolist()))
        return cls(
            scored.case.key,
            scored.case.task,
            gains,
            success,
            round(scored.plain, DIGITS),
            scored.plain_right,
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "case": self.case,
            "task": self.task,
            "plain": self.plain,
            "right": self.right,
            "scores": self.gains,
            "success": [[int(right) for right in layer] for layer in self.success],
        }


def header(
    lm: LM, method: Method, heads: Mapping[int, Sequence[int]], *, role: str
) -> dict[str, Any]:
    """What scores depend on: two files whose headers are alike can be one."""
    span = method.span if isinstance(method.span, str) else str(method.span)
    L, H = lm.config.num_hidden_layers, lm.config.num_attention_heads
    every = all(len(heads.get(layer, ())) == H for layer in range(L))
    return {
        "format": FORMAT,
        "name": lm.name,
        "config": config_digest(lm),
        "weights": weights_digest(lm),
        "dtype": str(lm.dtype).removeprefix("torch."),
        "method": method.name,
        **method.parameter_values(),
        "span": span,
        "role": role,
        "size": [L, H],
        "heads": "all" if every else {str(layer): list(of) for layer, of in heads.items()},
    }


class ScoreFile:
    """The scores that are there, by case, and the file to which more are added.

    Opening reads it; the end of a line that a killed run left behind is cut off.

    Raises:
        InputError: the file is of other scores (it says which and what differs), or is no file of
            scores at all.
    """

    def __init__(self, path: Path, head: Mapping[str, Any], *, restart: bool = False) -> None:
        self.path = path
        self.scores: dict[str, CaseScores] = {}
        first = _line(head)
        whole = b""
        if path.exists():
            whole, sound = self._read(first, restart=restart)
            if sound < len(whole):
                os.truncate(path, sound)
                whole = whole[:sound]
        self._file = path.open("ab")
        if not whole:
            self._write([first])

    def __enter__(self) -> ScoreFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def missing(self, batch: Sequence[str]) -> list[str]:
        """The cases of ``batch`` to score: those not there.

        Where an interrupted run wrote a batch in part, all of it: products of another shape round
        otherwise, and the file is to be what it would have been.
        """
        there = [case for case in batch if case in self.scores]
        last = list(self.scores)[-len(there) :] == there
        if last and 0 < len(there) < len(batch):
            return list(batch)
        return [case for case in batch if case not in self.scores]

    def add(self, scored: Iterable[CaseScores]) -> None:
        """Append what is not there yet, and see it on its way to the disk."""
        new = {one.case: one for one in scored if one.case not in self.scores}
        self._write([_line(one.as_json()) for one in new.values()])
        self.scores |= new

    def _write(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self._file.write(line)
            self._file.flush()

    def _read(self, first: bytes, *, restart: bool) -> tuple[bytes, int]:
        """What the file holds, and how much of it to keep; fills ``scores``."""
        try:
            whole = self.path.read_bytes()
        except OSError as error:
            raise InputError(f"the scores file {self.path} cannot be read: {error}") from error
        sound = whole.rfind(b"\n") + 1
        if not sound and first.startswith(whole):
            return whole, 0  # killed in the first line
        head, *lines = whole[:sound].split(b"\n")[:-1] or [whole]
        self._compare(_parsed(head), json.loads(first), restart=restart)
        if restart:
            return whole, 0
        size: tuple[int, int] = tuple(json.loads(first)["size"])
        for number, line in enumerate(lines, 2):
            one = _scores(_parsed(line), size)
            if one is None:
                raise InputError(
                    f"{self.path}, line {number} is no line of head scores; --restart begins anew"
                )
            self.scores.setdefault(one.case, one)
        return whole, sound

    def _compare(self, there: Any, here: dict[str, Any], *, restart: bool) -> None:
        if not isinstance(there, dict) or not str(there.get("format")).startswith(FORMAT[:-2]):
            raise InputError(
                f"{self.path} is no file of head scores, and is left alone; name another with "
                "--scores"
            )
        differs = [
            f"{name} is {there.get(name)!r} there and {here.get(name)!r} here"
            for name in {**here, **there}
            if name not in FREE and there.get(name) != here.get(name)
        ]
        if differs and not restart:
            raise InputError(
                f"the scores in {self.path} are of another run: {'; '.join(differs)}. Name another "
                "file with --scores, or begin anew with --restart"
            )


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _scores(raw: Any, size: tuple[int, int]) -> CaseScores | None:
    """The scores of a parsed line, None where it holds none of a model of (L, H) ``size``."""
    try:
        gains = tuple(tuple(None if g is None else float(g) for g in row) for row in raw["scores"])
        success = tuple(tuple(bool(right) for right in row) for row in raw["success"])
        shapes = {(len(rows), *map(len, rows)) for rows in (gains, success)}
        if shapes != {(size[0], *[size[1]] * size[0])}:
            return None
        return CaseScores(
            str(raw["case"]), str(raw["task"]), gains, success, float(raw["plain"]),
            bool(raw["right"]),
        )  # fmt: skip
    except (TypeError, KeyError, ValueError):
        return None
