"""Files of IFEval (arXiv 2311.07911): prompts with instructions that a program can verify."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..checkers.ifeval import IFEval
from ..errors import InputError
from .case import Case

REQUIRED = ("key", "prompt", "instruction_id_list", "kwargs")
OWN = ("instruction", "query", "loose")
PASSED_ON = ("split", "control", "concept", "max_new_tokens")
"""Fields of a line that mean what they mean in every other suite."""

SEVERAL = "several"


def is_ifeval(raw: Mapping[str, Any]) -> bool:
    """Whether a line has the fields of google-research's input_data.jsonl."""
    return "instruction_id_list" in raw


def ifeval_case(raw: Mapping[str, Any]) -> Case:
    """The case of one line: ``ifeval-{key}``, with a checker for each instruction id.

    The fields are ``key``, ``prompt``, ``instruction_id_list`` and ``kwargs``, a mapping for each
    id. A prompt of IFEval holds its instructions within; so the case's instruction restates them,
    a plain sentence for each, and the whole prompt is the query. A line that also has
    ``instruction`` and ``query``, a prompt split by hand, is taken by these. ``loose`` asks for
    IFEval's loose accuracy.

    The task is the group of the ids, the part in front of the colon, or "several" where the line
    has ids of more than one group: so that a group's figure is of cases of that group alone.

    Raises:
        InputError: a field that is missing or wrong, or an instruction id that is not known.
    """
    _known(raw)
    key = raw["key"]
    if isinstance(key, bool) or not isinstance(key, (int, str)) or not str(key).strip():
        raise InputError(f"key must be an integer or a text, got {key!r}")
    checks = _checks(raw["instruction_id_list"], raw["kwargs"], loose=raw.get("loose", False))
    given = [name for name in ("instruction", "query") if name in raw]
    if len(given) == 1:
        raise InputError(f"instruction and query belong together, only {given[0]} is given")
    groups = list(dict.fromkeys(check.id.partition(":")[0] for check in checks))
    return Case(
        instruction=raw["instruction"] if given else " ".join(one.rule.asks() for one in checks),
        query=raw["query"] if given else raw["prompt"],
        checks=checks,
        name=f"ifeval-{key}",
        task=groups[0] if len(groups) == 1 else SEVERAL,
        **{name: raw[name] for name in PASSED_ON if name in raw},
    )


def _known(raw: Mapping[str, Any]) -> None:
    for name in REQUIRED:
        if name not in raw:
            raise InputError(f"the field {name!r} of IFEval is missing")
    known = REQUIRED + OWN + PASSED_ON
    if unknown := [name for name in raw if name not in known]:
        raise InputError(
            f"the field {unknown[0]!r} does not exist for IFEval; known: {', '.join(known)}"
        )
    if not isinstance(raw["prompt"], str) or not raw["prompt"].strip():
        raise InputError(f"prompt must be a text that is not empty, got {raw['prompt']!r}")


def _checks(ids: Any, kwargs: Any, *, loose: Any) -> tuple[IFEval, ...]:
    if not isinstance(ids, list) or not ids or not all(isinstance(one, str) for one in ids):
        raise InputError(f"instruction_id_list must be a list of ids, not empty, got {ids!r}")
    if not isinstance(kwargs, list) or len(kwargs) != len(ids):
        given = f"{len(kwargs)}" if isinstance(kwargs, list) else repr(kwargs)
        raise InputError(
            f"kwargs must be a list of a mapping for each of the {len(ids)} ids, got {given}"
        )
    return tuple(IFEval(one, its, loose) for one, its in zip(ids, kwargs, strict=True))
