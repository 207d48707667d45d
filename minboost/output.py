"""Files that commands write: checked before the work, then written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


def check_writable(name: str, path: Path) -> None:
    """Refuse a file that could not be written after the work.

    Args:
        name: what the file is to the user: "--out", "the plot".

    Raises:
        InputError: ``path`` is a folder, or its folder is not there or not writable.
    """
    if path.is_dir():
        raise InputError(f"{name} {path} is a folder; name a file")
    if not path.parent.is_dir():
        raise InputError(f"{name} {path}: the folder {path.parent} is not there")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{name} {path}: the folder {path.parent} is not writable")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, which takes its place if all goes well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
