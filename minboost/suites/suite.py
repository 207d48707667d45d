"""Suites: cases in a YAML or JSON-lines file, shipped ones, and the demo world's.

docs/suites.md has the schema.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..yaml_file import parse_yaml, read_yaml
from .case import Case
from .demo import demo_cases
from .ifeval import ifeval_case, is_ifeval

MAX_BYTES = 64 << 20
DEMO = "demo"
FIELDS = tuple(field.name for field in fields(Case))
SUITE_FIELDS = ("name", "description", "task", "instruction", "max_new_tokens", "cases")
SHARED_FIELDS = ("task", "instruction", "max_new_tokens")
"""Fields of a YAML suite that its cases have where they say nothing else."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Cases under one name; the name of each is unique."""

    name: str
    cases: tuple[Case, ...]
    description: str = ""

    def __post_init__(self) -> None:
        if not self.cases:
            raise InputError(f"the suite {self.name} holds no case")
        seen: dict[str, int] = {}
        for number, case in enumerate(self.cases, 1):
            if case.name in seen:
                raise InputError(
                    f"the suite {self.name} has the name {case.name!r} twice: cases "
                    f"{seen[case.name]} and {number}"
                )
            seen[case.name] = number

    @property
    def digest(self) -> str:
        """A short name for what the suite holds: 16 hexadecimal digits."""
        keys = "".join(
            f"{case.name}\0{case.key}\0{case.split}\0{case.control}\0{case.concept}\0"
            f"{case.max_new_tokens}\n"
            for case in self.cases
        )
        return hashlib.sha256(keys.encode()).hexdigest()[:16]


def shipped_suites() -> list[str]:
    """The names of the suites that come with minboost, the demo world's first."""
    data = files(__package__) / "data"
    names = [entry.name for entry in data.iterdir() if entry.name.endswith(".yaml")]
    return [DEMO, *sorted(name.removesuffix(".yaml") for name in names)]


def load_suite(source: str | Path) -> Suite:
    """A shipped suite by its name, or the suite of a file: .yaml, .yml or .jsonl.

    A .jsonl file has a case a line; one with the fields of IFEval's input_data.jsonl is read as
    such (``minboost.suites.ifeval``).

    Raises:
        InputError: no such suite or file; a field that is missing, unknown or wrong, a checker
            that does not exist, a name that stands there twice: with its line or case.
    """
    text = str(source)
    if text == DEMO:
        return Suite(name=DEMO, cases=named(demo_cases()), description="The demo model's world.")
    if text in shipped_suites():
        resource = files(__package__) / "data" / f"{text}.yaml"
        what = f"the suite {text}"
        return _from_yaml(text, what, parse_yaml(what, resource.read_text(encoding="utf-8")))
    path = Path(source)
    if not path.suffix and not path.exists():
        raise InputError(
            f"the suite {text} does not exist; shipped: {', '.join(shipped_suites())}; a file is "
            "named by its path"
        )
    if path.suffix in (".yaml", ".yml"):
        return _from_yaml(path.stem, str(path), read_yaml("the suite", path))
    return Suite(name=path.stem, cases=named(_from_lines(path)))


def load_cases(source: str | Path, *, split: str | None = None) -> list[Case]:
    """The cases of a suite, all or those of one split; errors as for ``load_suite``, and no case
    of that split."""
    cases = [case for case in load_suite(source).cases if split in (None, case.split)]
    if not cases:
        raise InputError(f"the suite {source} holds no case of the {split} split")
    return cases


def named(cases: Iterable[Case]) -> tuple[Case, ...]:
    """``cases``, those without a name called after task and number: "language-007"."""
    return tuple(
        case if case.name else replace(case, name=f"{case.task}-{number:03d}")
        for number, case in enumerate(cases, 1)
    )


def _from_yaml(name: str, what: str, raw: Any) -> Suite:
    if not isinstance(raw, Mapping):
        raise InputError(f"{what} must hold a mapping with the key 'cases'")
    _known(what, raw, SUITE_FIELDS)
    cases = raw.get("cases")
    if not isinstance(cases, list):
        raise InputError(f"{what}: cases must be a list, got {cases!r}")
    shared = {field: raw[field] for field in SHARED_FIELDS if field in raw}
    texts = {"name": raw.get("name", name), "description": raw.get("description", "")}
    for field, value in texts.items():
        if not isinstance(value, str):
            raise InputError(f"{what}: {field} must be a text, got {value!r}")
    read = []
    for number, one in enumerate(cases, 1):
        where = f"{what}, case {number}"
        if isinstance(one, Mapping) and isinstance(one.get("name"), str):
            where += f" ({one['name']})"
        read.append(_case(where, {**shared, **one} if isinstance(one, Mapping) else one))
    try:
        return Suite(cases=named(read), **texts)
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def _from_lines(path: Path) -> list[Case]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"the suite {path} is larger than {MAX_BYTES} bytes")
        # Not splitlines: a text may hold characters that it takes for the end of a line.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the suite {path} cannot be read: {error}") from error
    cases = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            raw: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where} is no JSON: {error}") from error
        cases.append(_case(where, raw))
    if not cases:
        raise InputError(f"the suite {path} holds no case")
    return cases


def _case(where: str, raw: Any) -> Case:
    """The case of one mapping; ``where`` stands in front of its errors."""
    if not isinstance(raw, Mapping):
        raise InputError(f"{where} must be a JSON object or a mapping, got a {type(raw).__name__}")
    try:
        if is_ifeval(raw):
            case = ifeval_case(raw)
        else:
            _known("", raw, FIELDS)
            for name in ("instruction", "query"):
                if name not in raw:
                    raise InputError(f"the field {name!r} is missing")
            case = Case(**raw)
        for check in case.checks:
            check.needs()
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return case


def _known(where: str, raw: Mapping[str, Any], names: Sequence[str]) -> None:
    if unknown := [name for name in raw if name not in names]:
        prefix = f"{where}: " if where else ""
        raise InputError(
            f"{prefix}the field {unknown[0]!r} does not exist; known: {', '.join(names)}"
        )
