"""Results files that are measured part by part: new rows take the place of old ones."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from machine import describe

from minboost.comparison.provenance import versions

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


def machine() -> dict[str, Any]:
    """``machine.describe`` and the versions of the rivals that it does not know."""
    found = describe()
    rivals = versions(("llama-cpp-python", "gguf"))
    return {**found, "versions": {**found["versions"], **rivals}}


def merged(old: Sequence[Row], new: Sequence[Row], key: Callable[[Row], Any]) -> list[Row]:
    """Both, in the order of their keys; of two rows with one key, the new one."""
    rows = {key(row): row for row in [*old, *new]}
    return [rows[at] for at in sorted(rows)]


def read_rows(path: Path) -> list[Row]:
    """The rows of a results file, none if it does not exist."""
    return list(json.loads(path.read_text())["rows"]) if path.is_file() else []


def store(
    name: str,
    command: str,
    rows: Sequence[Row],
    *,
    key: Callable[[Row], Any],
    markdown: Callable[[Sequence[Row], str], str],
) -> None:
    """Merge the rows into the results files of that name."""
    path = RESULTS / f"{name}.json"
    rows = merged(read_rows(path), rows, key)
    path.write_text(json.dumps({"command": command, "rows": rows}, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(rows, command), encoding="utf-8")


def machines(rows: Sequence[Row]) -> str:
    """The machines and commits that the rows were measured on, a line of Markdown each."""
    found: dict[str, None] = {}
    for row in rows:
        at, of = row["machine"], row["machine"]["versions"]
        named = ", ".join(
            f"{name} {of[name]}"
            for name in ("torch", "transformers", "transformer-lens", "llama-cpp-python")
            if of.get(name)
        )
        kind = f" ({at['instructions']})" if "instructions" in at else ""
        found[
            f"- {at['processor']}{kind}, {at['cores']} cores, {row['threads']} threads, "
            f"Python {at['python']}, {named}, commit {at['commit']}"
        ] = None
    return "\n".join(found)


def lengths(text: str) -> tuple[int, int]:
    """ "128+64" → the tokens of the prompt and the new ones."""
    prompt, _, new = text.partition("+")
    try:
        found = int(prompt), int(new)
    except ValueError:
        found = (0, 0)
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not PROMPT+NEW, as in 128+64")
    return found
