"""Reading the small text files of a checkpoint, never more than a stated number of bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import ModelError

MAX_JSON_BYTES = 4 << 20


def read_text(path: Path, limit: int) -> str:
    """Read a UTF-8 file of at most ``limit`` bytes; `ModelError` naming the file otherwise."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise ModelError(f"{path} is larger than {limit} bytes")
        return data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error


def read_json_object(path: Path, *, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Parse a JSON file of at most ``limit`` bytes that must hold an object.

    Raises:
        ModelError: the file is missing, too large, no JSON, or no object.
    """
    try:
        value = json.loads(read_text(path, limit))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a {type(value).__name__}, not a JSON object")
    return value
