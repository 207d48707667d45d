"""The table of a comparison as CSV: a row for each case and run, the arms side by side."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

from ..output import write_text
from .arms import PLAIN, Arm
from .records import Record

FIRST = (
    "test_case",
    "run_index",
    "instruction",
    "query",
    "original_length",
    "all_layers_length",
    "middle_layers_length",
    "original_output",
    "all_layers_output",
    "middle_layers_output",
)
"""The columns of the InstABoost scripts; lengths count characters."""
CASE = ("suite", "task", "split", "control", "seed")
JUDGED = ("passed", "why", "fluent", "faults", "finish_reason", "new_tokens", "surprisal")
ORIGINAL = "original"
"""What those columns call the plain arm."""
_NAME = re.compile(r"instaboost_results_(\d{3,})_\d{8}_\d{6}\.csv")


def csv_path(folder: Path, now: datetime) -> Path:
    """The next file of a folder: instaboost_results_{NNN}_{YYYYmmdd_HHMMSS}.csv."""
    numbers = [int(m[1]) for entry in folder.iterdir() if (m := _NAME.fullmatch(entry.name))]
    number = max(numbers, default=0) + 1
    return folder / f"instaboost_results_{number:03d}_{now:%Y%m%d_%H%M%S}.csv"


def write_csv(path: Path, arms: Sequence[Arm], records: Iterable[Record]) -> None:
    """Write ``records``, whole or not at all: same records, same bytes, in whatever order.

    Besides the columns of ``FIRST`` each arm has ``JUDGED``, and its length and output where they
    are not among the former. What was not asked is empty.
    """
    names = {arm.name: ORIGINAL if arm.name == PLAIN else arm.column for arm in arms}
    columns = [*FIRST, *CASE]
    for column in names.values():
        columns += [f"{column}_{name}" for name in ("length", "output", *JUDGED)]
    columns = list(dict.fromkeys(columns))
    rows: dict[tuple[str, str, int], dict[str, Any]] = {}
    for record in records:
        row = rows.setdefault(record.place, _case(record))
        row |= _answer(names[record.arm], record)
    text = StringIO()
    # All texts in quotes: a lone carriage return would else end a row.
    writer = csv.DictWriter(
        text, columns, restval="", lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC
    )
    writer.writeheader()
    writer.writerows(rows[place] for place in sorted(rows))
    write_text(path, text.getvalue())


def _case(record: Record) -> dict[str, Any]:
    return {
        "test_case": record.case,
        "run_index": record.run,
        "instruction": record.instruction,
        "query": record.query,
        "suite": record.suite,
        "task": record.task,
        "split": record.split,
        "control": _plain(record.control),
        "seed": record.seed,
    }


def _answer(column: str, record: Record) -> dict[str, Any]:
    values = {"length": len(record.text), "output": record.text}
    values |= {name: getattr(record, name) for name in JUDGED}
    return {f"{column}_{name}": _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.6f}"
    return "" if value is None else value
