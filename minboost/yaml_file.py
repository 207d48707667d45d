"""Reading the YAML that users write: bounded, without aliases, every key once.

A word without quotes is a number, a truth value or null only as JSON writes them, or as True, False
and ~. YAML 1.1, which PyYAML reads, takes no and yes for truth values, 11:10 for 670, 010 for 8 and
2024-05-01 for a date: here all of these are texts.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .errors import InputError

MAX_BYTES = 4 << 20
SCALARS = (
    ("bool", r"true|True|false|False", "tTfF"),
    ("int", r"-?(?:0|[1-9][0-9]*)", "-0123456789"),
    (
        "float",
        r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)",
        "-0123456789",
    ),
    ("null", r"null|~|", ["n", "~", ""]),
)
"""Type, form and possible first characters of what is no text; an empty value is null."""


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

    Strict.yaml_implicit_resolvers = {}  # none of YAML 1.1's
    for tag, form, first in SCALARS:
        pattern = re.compile(rf"(?:{form})\Z")
        Strict.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", pattern, first)
    try:
        return yaml.load(text, Strict)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what} cannot be read as YAML: {error}") from error
