"""JSON Schemas of suites: checked when they are read, and closed, so that nothing is ever
fetched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from ..errors import InputError
from .fields import shortened


def needs_jsonschema() -> None:
    """Raise `InputError` if jsonschema is not installed."""
    if find_spec("jsonschema") is None:
        raise InputError(
            'a JSON Schema needs jsonschema, which is not installed: pip install "minboost[suites]"'
        )


def check_schema(schema: Mapping[str, Any]) -> None:
    """Hold ``schema`` to the rules of its draft, which is that of 2020-12 where it names none.

    Raises:
        InputError: it breaks them; it names a draft that is not known; a ``$ref`` leads out of it,
            or nowhere; it has ``format``, which the standard leaves open whether it is checked.
    """
    from jsonschema.exceptions import SchemaError

    _draft(schema)
    try:
        _kind(schema).check_schema(schema)
        for part in _parts(schema):
            if "format" in part:
                raise InputError("schema has format, which is not checked; say it with pattern")
        breach(schema, None)
    except SchemaError as error:
        raise InputError(f"schema is no JSON Schema: {_told(error)}") from error
    except RecursionError as error:
        raise InputError("schema nests too deeply or leads back to itself without end") from error


def breach(schema: Mapping[str, Any], value: Any) -> str | None:
    """What ``value`` breaks of ``schema``, the first that is found; None if it keeps it."""
    for error in _kind(schema)(schema, registry=_registry()).iter_errors(value):
        return _told(error)
    return None


def _kind(schema: Mapping[str, Any]) -> Any:
    """jsonschema's class for the draft that ``schema`` names, or for that of 2020-12."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for

    return validator_for(schema, default=Draft202012Validator)


def _draft(schema: Mapping[str, Any]) -> Any:
    """The draft that ``schema`` names, or that of 2020-12; `InputError` if it is not known."""
    from referencing.jsonschema import DRAFT202012, UnknownDialect, specification_with

    if "$schema" not in schema:
        return DRAFT202012
    try:
        return specification_with(str(schema["$schema"]))
    except UnknownDialect as error:
        raise InputError(
            f"schema is of a draft that is not known: {schema['$schema']!r}"
        ) from error


def _registry() -> Any:
    """What a ``$ref`` can lead to beside the schema itself: the drafts' own schemas, which come
    with jsonschema. Its default would fetch the rest from the network."""
    from jsonschema_specifications import REGISTRY

    return REGISTRY


def _parts(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The schema, every schema in it, and what their references lead to."""
    from referencing.exceptions import Unresolvable

    draft = _draft(schema)
    whole = draft.create_resource(schema)
    todo = [(whole, _registry().resolver_with_root(whole))]
    seen = set()
    while todo:
        part, resolver = todo.pop()
        if id(part.contents) in seen or not isinstance(part.contents, Mapping):
            continue
        seen.add(id(part.contents))
        yield part.contents
        todo += [(one, resolver.in_subresource(one)) for one in part.subresources()]
        for word in ("$ref", "$dynamicRef", "$recursiveRef"):
            if word not in part.contents:
                continue
            try:
                target = resolver.lookup(part.contents[word])
            except Unresolvable as error:
                raise InputError(
                    f"schema has {word} {part.contents[word]!r}, which is not in it; nothing is "
                    "read from other files or addresses"
                ) from error
            todo.append((draft.create_resource(target.contents), target.resolver))


def _told(error: Any) -> str:
    """ "at $.age: 'x' is not of type 'integer'"."""
    return f"at {shortened(error.json_path)}: {shortened(error.message, 160)}"
