"""Reading the YAML that users write: bounded, without aliases, every key once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import InputError

MAX_BYTES = 4 << 20


def read_yaml(what: str, path: Path, *, limit: int = MAX_BYTES) -> Any:
    """The plain data of a YAML file.

    Args:
        what: what the file is to the user: "the suite".

    Raises:
        InputError: it is missing, too large, no YAML, uses an alias, or has a key twice.
    """
    try:
        size = path.stat().st_size
        if size > limit:
            raise InputError(f"{what} {path} has {size} bytes, more than {limit}")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{what} {path} cannot be read: {error}") from error
    return parse_yaml(f"{what} {path}", text)


def parse_yaml(what: str, text: str) -> Any:
    """The plain data of a YAML text; errors as for ``read_yaml``."""
    import yaml

    class Strict(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            # A few aliases of aliases stand for more data than memory holds.
            if self.check_event(yaml.AliasEvent):
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise InputError(f"{what}, line {mark.line + 1}: aliases (*name) are not read")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if isinstance(key, (str, int, float, bool)) and key in seen:
                    line = key_node.start_mark.line + 1
                    raise InputError(f"{what}, line {line}: the key {key!r} stands there twice")
                seen.add(key if isinstance(key, (str, int, float, bool)) else id(key))
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Strict)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what} cannot be read as YAML: {error}") from error
