"""Files of IFEval (arXiv 2311.07911): prompts with instructions that a program can verify."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from .case import Case


def is_ifeval(raw: Mapping[str, Any]) -> bool:
    """Whether a line has the fields of google-research's input_data.jsonl."""
    return "instruction_id_list" in raw


def ifeval_case(raw: Mapping[str, Any]) -> Case:
    """The case of one line.

    Raises:
        InputError: a field that is missing or wrong, or an instruction id that is not known.
    """
    raise InputError("IFEval files are not read yet")
