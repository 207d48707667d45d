"""Layers and heads as users write them: ranges, shares, PASTA's {layer: [heads]}."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .checks import as_integer
from .errors import InputError


def parse_heads(text: str) -> str | float | dict[int, Sequence[int] | str]:
    """``Boost.heads`` from a text: "all", a fraction, or PASTA's JSON, inline or the file it is in.

    PASTA (arXiv 2311.02262) writes {"layer": [head, …]}, or a bare list of layers, which means all
    their heads.
    """
    if text == "all":
        return text
    with contextlib.suppress(ValueError):
        return float(text)
    where = "heads"
    if not text.lstrip().startswith(("{", "[")):
        where = f"heads file {text}"
        try:
            text = Path(text).read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise InputError(
                "heads must be 'all', a share, PASTA's JSON or a file that holds it, "
                f"got {text!r}: {error}"
            ) from error
    try:
        raw = json.loads(text, object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} cannot be read as JSON: {error}") from error
    if isinstance(raw, list):
        raw = dict.fromkeys(raw, "all")
    if not isinstance(raw, dict):
        raise InputError(f'{where} must be JSON of the form {{"layer": [head, …]}}, got {raw!r}')
    return {layer_key(layer): head_list(layer, chosen) for layer, chosen in raw.items()}


def parse_ranges(text: str) -> list[int]:
    """Layer numbers of "8-12", both ends included, "3", or several with commas."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last) < 1 << 16):
            raise InputError(
                f"layers {text!r} is not understood: use all, middle, a number, a range such as "
                "8-12 (both ends included) or several with commas"
            )
        numbers.extend(range(int(first), int(last) + 1))
    return numbers


def layer_key(layer: object) -> int:
    """A layer number; JSON writes it as a text."""
    if isinstance(layer, str) and layer.strip().isdecimal():
        return int(layer)
    return as_integer("a layer of heads", layer, 0)


def head_list(layer: object, heads: object) -> Sequence[int] | str:
    """The heads of one layer: numbers, or "all"."""
    if isinstance(heads, str) and heads == "all":
        return "all"
    if isinstance(heads, (str, bytes)) or not isinstance(heads, Iterable):
        raise InputError(f"heads of layer {layer} must be a list of heads, got {heads!r}")
    return tuple(as_integer(f"heads of layer {layer}: each", head, 0) for head in heads)


def mapped_heads(
    mapping: Mapping[int, Sequence[int] | str], n_layers: int, n_heads: int
) -> dict[int, tuple[int, ...]]:
    """The mapping for a model of that size; InputError for what the model does not have."""
    chosen = {}
    for key, heads in mapping.items():
        layer = existing("layer", key, n_layers)
        of_layer = range(n_heads) if isinstance(heads, str) else heads
        where = f" of layer {layer}"
        chosen[layer] = tuple(sorted({existing("head", head, n_heads, where) for head in of_layer}))
    return chosen


def existing(kind: str, index: object, count: int, where: str = "") -> int:
    """``index`` as an int in [0, count), InputError otherwise."""
    try:
        return as_integer(kind, index, 0, count)
    except InputError as error:
        raise InputError(
            f"{kind} {index!r}{where} does not exist: the model has {kind}s 0 to {count - 1}"
        ) from error


def _no_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"a layer is named twice among {names}")
    return dict(pairs)
