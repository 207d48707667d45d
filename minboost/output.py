"""Files that commands write: checked before the work, then written whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
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


def check_apart(outputs: Mapping[str, Path | None], inputs: Mapping[str, object]) -> None:
    """Refuse to write over a file that the same command reads, or twice to one file.

    Args:
        outputs, inputs: paths by what they are to the user, "--out"; None where there is none.

    Raises:
        InputError: two of them are the same file.
    """
    seen: dict[str, str] = {}
    for name, path in [*inputs.items(), *outputs.items()]:
        if path is None:
            continue
        other = seen.setdefault(os.path.realpath(str(path)), name)
        if name in outputs and other != name:
            raise InputError(f"{other} and {name} are the same file, {path}")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to: a temporary one that takes the place of ``path`` if all goes well.

    A link stays a link, and a file keeps its mode. What is no regular file, a device or a pipe, is
    written to itself.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        yield path
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if path.exists():
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
