"""Whether an answer is JSON, keeps a schema, is the value expected."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Literal

from ..errors import InputError
from .base import Checker, Verdict
from .fields import flag, shortened
from .json_schema import breach, check_schema, needs_jsonschema

FENCE = re.compile(r"```(?:json)?[ \t]*\r?\n(?P<inside>.*)\n[ \t]*```", re.DOTALL | re.IGNORECASE)


class Absent(Enum):
    """For a value that is not given, where None is one: JSON's null."""

    ABSENT = "absent"


ABSENT: Literal[Absent.ABSENT] = Absent.ABSENT


@dataclass(frozen=True)
class Json(Checker):
    """The whole answer is one JSON value, as RFC 8259 has it: no NaN, no text around it.

    A key that stands twice in an object is refused, since programs differ in which one they take;
    so is a number beyond what a double holds.

    Attributes:
        schema: the value keeps this JSON Schema (jsonschema, the extra "suites"). It is checked
            when the suite is loaded; references lead to nothing outside of it.
        equals: the value is this one: keys in any order, 1 and 1.0 alike, true and 1 not.
        fenced: a Markdown fence (```json or ```) around the whole is no fault.

    A schema's ``pattern`` is not bounded in time as that of ``Regex`` is.
    """

    name: ClassVar[str] = "json"

    schema: Mapping[str, Any] | None = field(default=None, hash=False)
    equals: Any = field(default=ABSENT, hash=False)
    fenced: bool = True

    def __post_init__(self) -> None:
        flag("fenced", self.fenced)
        if self.schema is not None:
            if not isinstance(self.schema, Mapping):
                raise InputError(f"schema must be a mapping, got {self.schema!r}")
            object.__setattr__(self, "schema", _copied("schema", self.schema))
            if _installed():
                check_schema(self.schema)
        if self.equals is not ABSENT:
            object.__setattr__(self, "equals", _copied("equals", self.equals))

    def needs(self) -> None:
        if self.schema is not None:
            needs_jsonschema()

    def check(self, text: str) -> Verdict:
        text = text.strip()
        if text.startswith("```"):
            fence = FENCE.fullmatch(text)
            if not self.fenced or fence is None:
                why = (
                    "a Markdown fence that does not end with it"
                    if self.fenced
                    else "a Markdown fence"
                )
                return Verdict(False, f"not JSON: begins with {why}")
            text = fence["inside"]
        try:
            value = strict_json(text)
            fault = breach(self.schema, value) if self.schema is not None else None
            if fault is None and self.equals is not ABSENT:
                fault = difference(value, self.equals)
        except ValueError as error:
            return Verdict(False, f"not JSON: {error}")
        except RecursionError:
            return Verdict(False, "JSON that nests too deeply to be judged")
        if fault is not None:
            return Verdict(False, f"JSON, but {fault}")
        kept = ["that keeps the schema"] * (self.schema is not None)
        kept += ["with the expected value"] * (self.equals is not ABSENT)
        return Verdict(True, " ".join(["JSON", " and ".join(kept)]).strip())


def strict_json(text: str) -> Any:
    """The value of a JSON text; ValueError with the reason and the place if it is none."""
    try:
        return json.loads(
            text,
            object_pairs_hook=_once,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except json.JSONDecodeError as error:
        if error.pos == 0:
            raise ValueError(f"begins with {shortened(text, 30)!r}") from error
        raise ValueError(f"{error.msg} at line {error.lineno}, column {error.colno}") from error


def difference(found: Any, wanted: Any, at: str = "$") -> str | None:
    """Where and how one JSON value is not another: "at $.day: 3, not 4"; None if it is."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        if missing := [key for key in wanted if key not in found]:
            return f"at {at}: the key {shortened(missing[0])!r} is missing"
        if more := [key for key in found if key not in wanted]:
            return f"at {at}: the key {shortened(more[0])!r} is not wanted"
        pairs = [(found[key], wanted[key], f"{at}.{shortened(key, 30)}") for key in wanted]
    elif isinstance(wanted, list) and isinstance(found, list):
        if len(found) != len(wanted):
            return f"at {at}: a list of {len(found)}, not of {len(wanted)}"
        pairs = [
            (one, other, f"{at}[{i}]")
            for i, (one, other) in enumerate(zip(found, wanted, strict=True))
        ]
    else:
        # Python takes True for 1; JSON does not.
        alike = isinstance(found, bool) is isinstance(wanted, bool) and found == wanted
        return None if alike else f"at {at}: {_written(found)}, not {_written(wanted)}"
    for one, other, place in pairs:
        if (fault := difference(one, other, place)) is not None:
            return fault
    return None


def _installed() -> bool:
    """Whether the schema can be checked already; where not, `Json.needs` says so."""
    try:
        needs_jsonschema()
    except InputError:
        return False
    return True


def _copied(name: str, value: Any) -> Any:
    """A copy of ``value``, as plain JSON data."""
    try:
        text = json.dumps(_as_json(value), allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is no JSON: {error}") from error
    return json.loads(text)


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise InputError(f"the key {odd[0]!r} is no text: put it in quotes")
        return {key: _as_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(one) for one in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise InputError(f"{value!r} is no JSON value")


def _written(value: Any) -> str:
    return shortened(json.dumps(value, ensure_ascii=False))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {shortened(key)!r} stands there twice")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _whole(digits: str) -> int:
    _finite(digits)
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {shortened(digits)} is too large")
    return number
