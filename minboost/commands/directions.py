"""``minboost directions``: contrasting prompts in, directions for latent steering out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..directions import KINDS
from ..errors import InputError
from ..head_choice import parse_ranges
from ..output import check_apart, check_writable
from .describe import header
from .options import CONTEXT, config_file, config_options, load_model, model_options, settle

if TYPE_CHECKING:
    from ..analysis.contrast import Ask, Contrast
    from ..lm import LM

MAX_BYTES = 64 << 20
FIELDS = ("instruction", "query")
EXAMPLES = """
\b
A prompt file has one prompt a line: JSON, {"instruction": "Answer in French.", "query": "Why?"},
the instruction left out where there is none; or plain text, which is the query. The positive
prompts have what is wanted, the negative ones lack it; best is the same otherwise, line by line.
\b
Examples:
  Directions of the middle fifth of the layers, one file; then steer with one of them, diffmean, or
  diffmean.8 for that of layer 8 where there are several:
    minboost directions --positive french.jsonl --negative plain.jsonl --out french.safetensors
    minboost generate --method latent --directions french.safetensors --direction diffmean \\
      --factor 8 --instruction "Answer in French." --query "What colour is the sky?"
\b
  Two kinds on three layers of a model of your own, figures as JSON:
    minboost directions --model ./Llama-3.2-1B-Instruct --layers 7-9 --kinds diffmean,linear \\
      --positive refuse.txt --negative comply.txt --out refusal.safetensors --json
\b
Exit codes: 0 done, 1 output not writable, 2 usage, 3 model not usable, 4 out of memory,
130 interrupted.
"""


# Not called ``layers``: in a config.yaml that is where a method acts.
@click.command(
    "directions",
    short_help="Find directions for --method latent.",
    epilog=EXAMPLES,
    context_settings=CONTEXT,
)
@click.option("--positive", type=click.Path(path_type=Path),
              help="Prompts that have what is wanted.")  # fmt: skip
@click.option("--negative", type=click.Path(path_type=Path),
              help="Prompts that lack it.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path),
              help="The safetensors file to write.")  # fmt: skip
@click.option("--layers", "input_layers", help="At whose input: all, or layers such as 8-12,20.  "
              "[default: the middle fifth]")  # fmt: skip
@click.option("--kinds", default=",".join(KINDS), show_default=True,
              help="Which directions, with commas; pcdiff needs pairs.")  # fmt: skip
@click.option("--seed", type=int, default=42, show_default=True, help="Of the random ones.")
@click.option("--role", type=click.Choice(["system", "user", "raw"]), default="system",
              show_default=True, help="Where instructions stand.")  # fmt: skip
@click.option("--batch-size", type=int, default=16, show_default=True,
              help="How many prompts run together.")  # fmt: skip
@model_options
@click.option("--json", is_flag=True, help="One JSON object on stdout.")
@config_options
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Find directions for --method latent: what tells two sets of prompts apart in the residual
    stream, at the last token of the prompt, on the input of a layer."""
    if not settle(ctx, options):
        run(options)


def run(options: dict[str, Any]) -> None:
    """Read, find, write, print. ``options`` are the command's, settled."""
    for name in ("positive", "negative", "out"):
        if options[name] is None:
            raise InputError(f"--{name} is missing")
    positive, negative = (read_prompts(options[name]) for name in ("positive", "negative"))
    kinds = [kind.strip() for kind in options["kinds"].split(",")]
    check_writable("--out", options["out"])
    inputs = {f"--{name}": options[name] for name in ("positive", "negative")}
    check_apart({"--out": options["out"]}, {**inputs, "the config file": config_file()})
    from ..analysis.contrast import contrast
    from ..directions import save_directions

    lm = load_model(options)
    result = contrast(
        lm,
        positive,
        negative,
        layers=_layers(options["input_layers"], lm.config.num_hidden_layers),
        kinds=kinds,
        seed=options["seed"],
        role=options["role"],
        batch_size=options["batch_size"],
    )
    save_directions(options["out"], result.directions)
    for note in result.notes:
        click.echo(f"note: {note}", err=True)
    if options["json"]:
        click.echo(json.dumps(_as_json(lm, options, result), ensure_ascii=False, indent=2))
    else:
        for line in _table(result):
            click.echo(line)
    count, (high, low) = len(result.directions.found), result.directions.prompts
    click.echo(
        f"wrote {options['out']}: {count} directions of {options['model']}, from {high} positive "
        f"and {low} negative prompts",
        err=True,
    )


def read_prompts(path: Path) -> list[Ask]:
    """The prompts of a file, in order; empty lines are left out.

    Where the first line opens with a brace, each is a JSON object with a "query" and perhaps an
    "instruction"; otherwise each is a query.

    Raises:
        InputError: the file is missing, too large, or no such lines; the message has the line.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"the prompt file {path} is larger than {MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the prompt file {path} cannot be read: {error}") from error
    # Not splitlines: a query may hold characters that it takes for the end of a line.
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise InputError(f"the prompt file {path} holds no prompt")
    if not lines[0][1].startswith("{"):
        return [(None, line) for _, line in lines]
    return [_ask(line, f"{path}, line {number}") for number, line in lines]


def _ask(line: str, where: str) -> Ask:
    try:
        raw: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is no JSON: {error}") from error
    if not isinstance(raw, dict):
        raise InputError(f"{where} must be a JSON object, got a {type(raw).__name__}")
    if unknown := sorted(raw.keys() - set(FIELDS)):
        raise InputError(
            f"{where}: the field {unknown[0]!r} does not exist; known: {', '.join(FIELDS)}"
        )
    instruction: Any = raw.get("instruction")
    query: Any = raw.get("query")
    for name, value in (("query", query), ("instruction", instruction)):
        none = name == "instruction" and value is None
        if not none and (not isinstance(value, str) or not value.strip()):
            raise InputError(f"{where}: {name} must be a text that is not empty, got {value!r}")
    return instruction, query


def _layers(text: str | None, n_layers: int) -> list[int] | None:
    if text is None:
        return None
    # At the first layer's input the last token of every chat is the same: nothing to tell apart.
    return list(range(1, n_layers)) if text == "all" else parse_ranges(text)


def _table(result: Contrast) -> list[str]:
    lines = []
    for at in result.layers:
        lines += [
            f"input of layer {at.layer}: the stream's norm is {at.stream_norm:.3g}, the means of "
            f"the two sets lie {at.difference_norm:.3g} apart ({at.relative:.2f} of it)",
            "  direction      separates",
        ]
        lines += [
            f"  {direction.name:<13}  {result.accuracy[direction.name]:.3f}"
            for direction in result.directions.found
            if direction.layer == at.layer
        ]
    lines.append(
        "separates: the share of these prompts that a threshold along it tells apart; .5 is chance"
    )
    lines.append(
        "--factor of --method latent is in the units of these norms, and acts after every layer"
    )
    return lines


def _as_json(lm: LM, options: dict[str, Any], result: Contrast) -> dict[str, Any]:
    high, low = result.directions.prompts
    return {
        **header(lm, options),
        "role": options["role"],
        "seed": options["seed"],
        "positive_prompts": high,
        "negative_prompts": low,
        "out": str(options["out"]),
        "layers": [
            {
                "layer": at.layer,
                "stream_norm": at.stream_norm,
                "difference_norm": at.difference_norm,
                "relative_difference": at.relative,
            }
            for at in result.layers
        ],
        "directions": [
            {
                "name": direction.name,
                "kind": direction.kind,
                "layer": direction.layer,
                "accuracy": result.accuracy[direction.name],
            }
            for direction in result.directions.found
        ],
        "notes": list(result.notes),
    }
