"""The options that commands share, and what they come to: a loaded model, a method, the texts.

A command takes ``@model_options``, ``@method_options``, ``@text_options``, ``@config_options`` as
it needs, and calls ``settle`` first; then ``load_model``, ``method_of`` and ``texts_of``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .. import settings
from ..errors import InputError
from .program import Invocation

if TYPE_CHECKING:
    from ..lm import LM
    from ..methods import Method

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
CONTEXT = {"auto_envvar_prefix": settings.PREFIX}
WHERE = ("layers", "heads", "span", "start_layer", "num_middle_layers")
"""Options that every method on the attention has."""
METHOD_NAMES = ("instaboost", "pasta", "guide", "spotlight", "latent")
OWN = {
    "multiplier": "instaboost",
    "alpha": "pasta",
    "scale_position": "pasta",
    "delta": "guide",
    "target": "spotlight",
    "form": "spotlight",
    "factor": "latent",
    "directions": "latent",
    "direction": "latent",
}
"""Options that one method has, and which."""


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order of the help."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


model_options = together(
    click.option("--model", default="demo", show_default=True, help="demo, a folder, or a hub id."),
    click.option("--revision", help="Branch, tag or commit of a hub id."),
    click.option("--device", default="auto", show_default=True, help="auto, cuda, mps or cpu."),
    click.option("--dtype", default="auto", show_default=True,
                 help="auto, float32, bfloat16 or float16."),
    click.option("--impl", default="auto", show_default=True,
                 help="auto, torch, triton (GPU) or reference."),
    click.option("--graph/--no-graph", default=True, show_default=True,
                 help="On CUDA, replay decode steps as one captured graph."),
    click.option("--quantize", type=click.Choice(["none", "int8"]), default="none",
                 show_default=True, help="int8: weights in eight bits, half of bfloat16."),
    click.option("--compile/--no-compile", default=False, show_default=True,
                 help="On a CPU, decode through a function compiled for model and machine."),
    click.option("--calibrate/--no-calibrate", default=True, show_default=True,
                 help="On a CPU, measure once which products are fastest."),
)  # fmt: skip

method_options = together(
    click.option("--method", type=click.Choice(METHOD_NAMES), default="instaboost",
                 show_default=True, help="What steers the model; docs/methods.md."),
    click.option("--multiplier", type=float, default=10.0, show_default=True,
                 help="Of instaboost, m > 0; 1 is the plain model, below 1 plays down."),
    click.option("--alpha", type=float, default=0.01, show_default=True,
                 help="Of pasta, > 0: the factor on what --scale-position names."),
    click.option("--scale-position", type=click.Choice(["exclude", "include", "generation"]),
                 default="exclude", show_default=True, help="Of pasta: the prompt outside of the "
                 "span, the span, or the whole prompt."),
    click.option("--delta", type=float, default=1.0, show_default=True,
                 help="Of guide: added to the logits; tags such as <!!-> … <-!!> may say where."),
    click.option("--target", type=float, default=0.3, show_default=True,
                 help="Of spotlight, in (0, 1): the least attention mass on the span."),
    click.option("--form", type=click.Choice(["exact", "published"]), default="exact",
                 show_default=True, help="Of spotlight: reach the target, or fall short as the "
                 "paper's formula does."),
    click.option("--factor", type=float, default=1.0, show_default=True,
                 help="Of latent: how much of the direction is added."),
    click.option("--directions", type=click.Path(path_type=Path),
                 help="Of latent: a file that minboost directions wrote."),
    click.option("--direction", default="diffmean", show_default=True,
                 help="Of latent: which of them, diffmean, or diffmean.2 for layer 2's."),
    click.option("--layers", help="all, middle, or layers such as 8-12,20.  [default: all]"),
    click.option("--heads", help="all, a share such as 0.2, or PASTA's JSON {layer: [heads]} "
                 "(a bare list names layers), inline or a file.  [default: all]"),
    click.option("--span", default="instruction", show_default=True,
                 help="instruction, prefix, or a text of the prompt."),
    click.option("--seed", type=int, default=42, show_default=True,
                 help="For sampling and head draws."),
    click.option("--start-layer", type=int, default=8, show_default=True,
                 help="Of --layers middle."),
    click.option("--num-middle-layers", type=int, default=5, show_default=True,
                 help="Of --layers middle."),
    click.option("--boost-middle-layers-only", type=bool, hidden=True),
    click.option("--head-boost-percentage", type=float, hidden=True),
)  # fmt: skip

role_option = click.option("--role", type=click.Choice(["system", "user", "raw"]), default="system",
                           show_default=True, help="Where the instruction stands.")  # fmt: skip

text_options = together(
    click.option("--instruction", help="What the model is told to do; - reads stdin."),
    click.option("--query", help="What it is asked; - reads stdin."),
    role_option,
)

generation_options = together(
    click.option("--max-new-tokens", type=int, default=64, show_default=True,
                 help="The answer's length at most."),
    click.option("--temperature", type=float, default=0.0, show_default=True, help="0 is greedy."),
    click.option("--top-p", type=float, default=1.0, show_default=True),
    click.option("--top-k", type=int),
    click.option("--min-p", type=float),
    click.option("--repetition-penalty", type=float, default=1.0, show_default=True),
    click.option("--stop", multiple=True, type=settings.Lines(),
                 help="End the answer before this text; repeatable."),
)  # fmt: skip


def _use_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Read the config file before any other option is settled."""
    if path is None:
        path, ignored = settings.find_config(Path("."))
        if ignored is not None:
            click.echo(f"note: {ignored} is not one of minboost's and is ignored", err=True)
    ctx.meta["config"] = path
    if path is not None:
        ctx.default_map = {**(ctx.default_map or {}), **settings.read_config(path)}


config_options = together(
    click.option("--config", type=click.Path(path_type=Path), is_eager=True, expose_value=False,
                 callback=_use_config, help="A config.yaml; by default the one in this folder."),
    click.option("--show-config", is_flag=True, help="Print the settings that apply, and stop."),
)  # fmt: skip


def config_file() -> Path | None:
    """The config file that the running command has read."""
    ctx = click.get_current_context(silent=True)
    return None if ctx is None else ctx.meta.get("config")


def invocation(ctx: click.Context) -> Invocation:
    """How the running command was called."""
    called = ctx.find_object(Invocation)
    return Invocation(ctx.command_path, set()) if called is None else called


def settle(ctx: click.Context, options: dict[str, Any]) -> bool:
    """Settle options that can be said in two ways, in place; True if that was all (--show-config).

    Raises:
        InputError: on the command line, an option of another method than the one chosen.
    """
    for name in settings.unknown_variables(ctx.command):
        click.echo(f"note: the environment variable {name} names no option", err=True)
    if options.pop("show_config", False):
        click.echo(settings.describe(ctx, ctx.meta["config"], invocation(ctx).from_dotenv))
        return True
    if "method" in options:
        _check_foreign(ctx, options["method"])
        options["layers"] = settings.layers_option(ctx)
        options["heads"] = settings.heads_option(ctx)
        if options["method"] == "latent":
            # It has neither; a setting of them is for when another method is chosen.
            for name, left in (("heads", "all"), ("span", "instruction")):
                if ctx.get_parameter_source(name) != ParameterSource.COMMANDLINE:
                    options[name] = left
    return False


def _check_foreign(ctx: click.Context, method: str) -> None:
    for option, owner in OWN.items():
        given = ctx.get_parameter_source(option) == ParameterSource.COMMANDLINE
        if owner != method and given:
            flag = "--" + option.replace("_", "-")
            raise InputError(f"{flag} belongs to --method {owner}; the method is {method}")


def method_of(options: dict[str, Any], **changes: Any) -> Method:
    """The method that settled options ask for, its fields changed by ``changes``.

    Raises:
        InputError: a value that the method refuses; `ModelError` for a directions file.
    """
    from ..methods import METHODS

    name = options["method"]
    values = {key: options[key] for key in WHERE} | {"head_seed": options["seed"]}
    values |= {key: options[key] for key in METHODS[name].parameters() if key in options}
    if name == "latent":
        from ..directions import load_direction

        if options["directions"] is None:
            raise InputError(
                "--method latent needs --directions, a file that minboost directions writes"
            )
        values["direction"] = load_direction(options["directions"], options["direction"])
    return METHODS[name](**{**values, **changes})


def load_model(options: dict[str, Any]) -> LM:
    """Load what the options of a model name."""
    from ..loading import load

    return load(
        options["model"],
        device=options["device"],
        dtype=options["dtype"],
        revision=options["revision"],
        impl=options["impl"],
        graph=options["graph"],
        quantize=None if options["quantize"] == "none" else options["quantize"],
        compile=options["compile"],
        calibrate=options["calibrate"],
        progress=sys.stderr is not None and sys.stderr.isatty(),
    )


def texts_of(options: dict[str, Any]) -> tuple[str, str]:
    """Instruction and query; InputError where one is missing or both are to be read from stdin."""
    instruction, query = options["instruction"], options["query"]
    for name, text in (("--instruction", instruction), ("--query", query)):
        if text is None:
            raise InputError(f"{name} is missing")
    if instruction == "-" and query == "-":
        raise InputError("--instruction and --query cannot both be read from stdin")
    if "-" in (instruction, query):
        text = _stdin()
        instruction, query = (text if t == "-" else t for t in (instruction, query))
    return instruction, query


def texts_with_span(options: dict[str, Any]) -> tuple[str | None, str]:
    """Instruction and query; the one may be missing where --span or GUIDE's tags name a text."""
    if options["instruction"] is not None or options["query"] is None:
        return texts_of(options)
    needed = options["span"] in ("instruction", "prefix")
    if needed and options["method"] not in ("guide", "latent"):
        raise InputError(
            "--instruction is missing: without one, --span must name a text of the query"
        )
    return None, texts_of({**options, "instruction": ""})[1]


def template_notes(lm: LM, options: dict[str, Any]) -> list[str]:
    """What to say where the model has no chat template for the role that was asked for."""
    if lm.tokenizer.chat_template is not None or options["role"] == "raw":
        return []
    return ["the checkpoint has no chat template; the prompts are the plain texts"]


def _stdin() -> str:
    """All of stdin, without the line break that ends a file or an echo."""
    try:
        text = "" if sys.stdin is None else sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InputError(f"stdin is not valid text: {error}") from error
    return text.removesuffix("\n").removesuffix("\r")


def toy_notes(options: dict[str, Any]) -> list[str]:
    """What to say where the demo model is asked about things that it does not know."""
    if options["model"] != "demo":
        return []
    from ..demo import in_world

    if in_world(options["instruction"] or "", options["query"]):
        return []
    return [
        "the demo model is a toy that knows a few dozen facts, and this does not look like one of "
        "them; name another model with --model"
    ]
