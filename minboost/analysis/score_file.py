"""The file that head scores are kept in while they grow: stop at any time, go on where it ended.

JSON lines. The first says what the scores are of: model, method, the heads that are tried. Each
other is one case:

    {"case": "4f…", "task": "language", "plain": -3.2, "right": false,
     "scores": [[0.51, …], …], "success": [[0, …], …]}

``scores`` and ``success`` are L lists of H: the gain in nats (null where a head was not tried), and
whether the greedy answer is the right one; ``plain`` and ``right`` are the plain model's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..fingerprint import config_digest, weights_digest
from ..line_file import Kind, LineFile, broken

if TYPE_CHECKING:
    from ..lm import LM
    from ..methods import Method
    from .head_scores import Scored

KIND = Kind("minboost head scores 1", "head scores", "--scores")
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


class ScoreFile(LineFile):
    """The scores that are there, by case, and the file to which more are added.

    Raises:
        InputError: as ``LineFile``; or a line that is none of head scores.
    """

    def __init__(self, path: Path, head: Mapping[str, Any], *, restart: bool = False) -> None:
        self.scores: dict[str, CaseScores] = {}
        super().__init__(path, KIND, head, restart=restart)
        try:
            for number, raw in self.lines:
                one = _scores(raw, head["size"])
                if one is None:
                    raise broken(path, KIND, number)
                self.scores.setdefault(one.case, one)
        except BaseException:
            self.close()
            raise

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
        for one in scored:
            if one.case not in self.scores:
                self.write(one.as_json())
                self.scores[one.case] = one


def _scores(raw: Any, size: Sequence[int]) -> CaseScores | None:
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
