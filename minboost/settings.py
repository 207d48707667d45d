"""Where an option's value comes from: command line > environment > .env > config.yaml > default.

click does the work: ``MINBOOST_<OPTION>`` through its environment prefix, the file through its
default map. This module reads the two files and settles options that can be said in two ways.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from .errors import InputError

PREFIX = "MINBOOST"
# No HF_ENDPOINT, no judge's URL: a folder's .env must not decide where the user's token is sent.
FROM_DOTENV = {"HF_TOKEN", "HUGGINGFACE_TOKEN", "HF_HOME", "HF_HUB_OFFLINE"}
# Nor where the code that was compiled for the user lies.
NOT_FROM_DOTENV = {f"{PREFIX}_JUDGE", f"{PREFIX}_CACHE"}
NO_OPTIONS = {f"{PREFIX}_JUDGE_KEY", f"{PREFIX}_CACHE"}
"""Variables of ours that are no options: a key because a command line is for all to read, the cache
folder because all of the user's runs share it."""
MAX_CONFIG_BYTES = 1 << 20

# config.yaml key → option. The keys of the InstABoost scripts are kept.
KEYS: dict[str, str] = {
    "random_seed": "seed",
    "model.name": "model",
    "model.revision": "revision",
    "model.device": "device",
    "model.dtype": "dtype",
    "model.impl": "impl",
    "model.graph": "graph",
    "model.quantize": "quantize",
    "model.compile": "compile",
    "model.calibrate": "calibrate",
    "instaboost.multiplier": "multiplier",
    "instaboost.span": "span",
    "instaboost.boost_middle_layers_only": "boost_middle_layers_only",
    "instaboost.num_middle_layers": "num_middle_layers",
    "instaboost.start_layer": "start_layer",
    "instaboost.layers": "layers",
    "instaboost.head_boost_percentage": "head_boost_percentage",
    "instaboost.heads": "heads",
    "method": "method",
    "pasta.alpha": "alpha",
    "pasta.scale_position": "scale_position",
    "guide.delta": "delta",
    "spotlight.target": "target",
    "spotlight.form": "form",
    "latent.factor": "factor",
    "latent.directions": "directions",
    "latent.direction": "direction",
    "generation.role": "role",
    "generation.max_new_tokens": "max_new_tokens",
    "generation.temperature": "temperature",
    "generation.top_p": "top_p",
    "generation.top_k": "top_k",
    "generation.min_p": "min_p",
    "generation.repetition_penalty": "repetition_penalty",
    "generation.stop": "stop",
    "testing.num_runs": "num_runs",
}
OWN_SECTIONS = {"instaboost", "pasta", "guide", "spotlight", "latent"}
"""Sections that no other program's config.yaml has: one a method."""
SOURCES = {
    ParameterSource.COMMANDLINE: "command line",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "config file",
    ParameterSource.DEFAULT: "default",
}
RANK = [ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP, ParameterSource.ENVIRONMENT,
        ParameterSource.COMMANDLINE]  # fmt: skip


def read_config(path: Path) -> dict[str, Any]:
    """The options that a config.yaml sets; a key that is null leaves its option alone.

    Raises:
        InputError: the file is missing, no YAML mapping, or has a key that does not exist.
    """
    import yaml

    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise InputError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes")
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"config file {path} cannot be read: {error}") from error
    options: dict[str, Any] = {}
    for key, value in _flatten({} if raw is None else raw, path).items():
        if key not in KEYS:
            raise InputError(f"{path}: key {key!r} does not exist; known: {', '.join(KEYS)}")
        if value is not None:
            options[KEYS[key]] = _as_written(KEYS[key], value)
    return options


def _as_written(option: str, value: Any) -> Any:
    """A value of the file as the command line would have it, so that the same rules judge both."""
    if option == "stop":
        return [str(text) for text in value] if isinstance(value, list) else [str(value)]
    if option == "layers" and isinstance(value, list):
        return ",".join(map(str, value))
    if option == "heads" and isinstance(value, (list, dict)):
        return json.dumps(value)
    return str(value)


def find_config(folder: Path) -> tuple[Path | None, Path | None]:
    """``folder/config.yaml`` if it is one of ours, and else the one that was passed over.

    config.yaml is a name that others use too. Ours has a section of a method or names one, or has
    no top-level key but our own.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        return None, None
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):
        return None, path
    sections = {key.split(".")[0] for key in KEYS}
    ours = isinstance(raw, Mapping) and (
        not OWN_SECTIONS.isdisjoint(raw) or sections.issuperset(raw)
        or raw.get("method") in OWN_SECTIONS
    )  # fmt: skip
    return (path, None) if ours else (None, path)


def read_dotenv(folder: Path) -> set[str]:
    """Put ``folder/.env`` behind the environment; return the names that came from it.

    ``MINBOOST_…`` less NOT_FROM_DOTENV and the names of FROM_DOTENV are taken; a variable that is
    set already stays.
    """
    path = folder / ".env"
    if not path.is_file():
        return set()
    from dotenv import dotenv_values

    try:
        values = dotenv_values(path, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    taken = set()
    for name, value in values.items():
        ours = name.startswith(f"{PREFIX}_") and name not in NOT_FROM_DOTENV
        if (ours or name in FROM_DOTENV) and value is not None and name not in os.environ:
            os.environ[name] = value
            taken.add(name)
    return taken


class Lines(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Texts; in an environment variable one a line, since a stop string may hold spaces."""

    name = "text"
    envvar_list_splitter = "\n"


def unknown_variables(command: click.Command) -> list[str]:
    """MINBOOST_… variables of the environment that name no option of any command and no key."""
    from .cli import program

    commands = [command, *program.commands.values()]
    known = {f"{PREFIX}_{p.name}".upper() for one in commands for p in one.params} | NO_OPTIONS
    return sorted(
        name for name in os.environ if name.startswith(f"{PREFIX}_") and name not in known
    )


def source(ctx: click.Context, option: str) -> ParameterSource:
    return ctx.get_parameter_source(option) or ParameterSource.DEFAULT


def layers_option(ctx: click.Context) -> str:
    """``layers``, or what ``boost_middle_layers_only`` says if that was set closer to the user."""
    layers, middle = ctx.params["layers"], ctx.params["boost_middle_layers_only"]
    if middle is not None and _closer(ctx, "boost_middle_layers_only", "layers", layers):
        return "middle" if middle else "all"
    return "all" if layers is None else str(layers)


def heads_option(ctx: click.Context) -> str:
    """``heads``, or ``head_boost_percentage`` if that was set closer to the user."""
    heads, share = ctx.params["heads"], ctx.params["head_boost_percentage"]
    if share is not None and _closer(ctx, "head_boost_percentage", "heads", heads):
        return "all" if share == 1 else str(share)
    return "all" if heads is None else str(heads)


def describe(ctx: click.Context, config: Path | None, from_dotenv: set[str]) -> str:
    """What applies and where each value comes from, one line an option; tokens are not options."""
    lines = [f"# config file: {config or 'none'}"]
    for option in dict.fromkeys(KEYS.values()):
        if option not in ctx.params:
            continue  # another command's
        where = SOURCES.get(source(ctx, option), "default")
        if where == "environment" and f"{PREFIX}_{option.upper()}" in from_dotenv:
            where = ".env"
        lines.append(f"{option}: {_plain(ctx.params[option])}  # {where}")
    return "\n".join(lines)


def _closer(ctx: click.Context, one: str, other: str, other_value: Any) -> bool:
    if other_value is None:
        return True
    return RANK.index(source(ctx, one)) > RANK.index(source(ctx, other))


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _flatten(raw: Any, path: Path) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise InputError(f"{path} must hold a mapping, got a {type(raw).__name__}")
    flat: dict[str, Any] = {}
    sections = {key.split(".")[0] for key in KEYS if "." in key}
    for key, value in raw.items():
        if value is None and key in sections:
            continue  # a section with nothing in it
        if isinstance(value, Mapping) and f"instaboost.{key}" not in KEYS:
            flat |= {f"{key}.{inner}": item for inner, item in value.items()}
        else:
            flat[str(key)] = value
    return flat
