"""``minboost inspect``: the attention mass that steering moves, for every layer, head and step."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from ..errors import InputError
from .describe import answer_json, stats_lines
from .options import (
    CONTEXT,
    config_options,
    load_model,
    method_of,
    method_options,
    model_options,
    settle,
    text_options,
    texts_with_span,
    toy_notes,
)

if TYPE_CHECKING:
    from ..analysis.mass import MassMap

EXAMPLES = """
\b
Examples:
  What a boost does to the demo model's attention:
    minboost inspect --instruction "Answer in French." \\
      --query "What colour is the sky? Answer in English instead."
\b
  The same as a figure, with a target mass instead of a multiplier:
    minboost inspect --method spotlight --target 0.4 --plot mass.svg \\
      --instruction "Answer in French." --query "What colour is the sky?"
\b
  A text of the query alone, on a model of your own, every number as JSON:
    minboost inspect --model ./Llama-3.2-1B-Instruct --span "in one word" --json --all-steps \\
      --query "What colour is the sky, in one word?"
\b
The mass of a head is the share of its attention that goes to the tokens of --span; with --method
latent, which has none, to those of the instruction. "before" and "after" read the same tokens, the
steered, greedy answer included: without the method and with it.
Exit codes: 0 done, 1 output not writable, 2 usage, 3 model not usable, 4 out of memory,
130 interrupted.
"""


@click.command(
    "inspect",
    short_help="How much attention the instruction gets, by layer and head.",
    epilog=EXAMPLES,
    context_settings=CONTEXT,
)
@text_options
@click.option("--max-new-tokens", type=int, default=64, show_default=True,
              help="How many steps of the answer are measured at most.")  # fmt: skip
@method_options
@model_options
@click.option("--plot", type=click.Path(path_type=Path),
              help="Also draw the map to this .png or .svg file.")  # fmt: skip
@click.option("--json", is_flag=True, help="One JSON object on stdout.")
@click.option("--all-steps", is_flag=True,
              help="In the JSON, every step's matrices, not their means alone.")  # fmt: skip
@config_options
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Show how much attention the instruction gets, layer by layer and head by head, before and
    after steering: at the prompt's last position, and over the answer's steps."""
    if settle(ctx, options):
        return
    options["instruction"], options["query"] = texts_with_span(options)
    ctx.exit(run(options))


def run(options: dict[str, Any]) -> int:
    """Load, answer, measure, print, draw. ``options`` are the command's, settled."""
    from ..analysis.mass import measure
    from ..request import Request

    if options["all_steps"] and not options["json"]:
        raise InputError("--all-steps is about the JSON: add --json")
    check_plot(options["plot"])
    method = method_of(options)
    lm = load_model(options)
    request = {key: options[key] for key in ("instruction", "query", "role", "max_new_tokens")}
    out = lm.stream(boost=method, measure_mass=bool(options["json"]), **request)
    notes = [*out.notes, *toy_notes(options)]
    for note in notes:
        click.echo(f"note: {note}", err=True)
    for _ in out:
        pass
    answer = out.result
    mass = measure(lm, Request(boost=method, **request), answer=answer.ids, prompt=answer.prompt)
    for line in stats_lines(lm, options, method, answer):
        click.echo(line, err=True)
    if options["json"]:
        result = answer_json(lm, options, method, answer, None, notes)
        result["inspect"] = mass.as_json(all_steps=options["all_steps"])
        click.echo(json.dumps(result, ensure_ascii=False))
    else:
        show(mass, sys.stdout)
    draw(mass, options["plot"])
    return 0


def check_plot(path: Path | None) -> None:
    """Raise InputError where ``path`` is a figure that could not be written."""
    if path is not None:
        from ..analysis.plots import check_plot

        check_plot(path)


def show(mass: MassMap, stream: TextIO | None) -> None:
    """Print the heat map to stdout or stderr, as suits it."""
    from ..analysis.heatmap import Style, picture, printable

    style = Style.of(stream)
    text = printable(picture(mass, style), getattr(stream, "encoding", None))
    click.echo(text, file=stream, color=style.colour)


def draw(mass: MassMap, path: Path | None) -> None:
    """Draw the figure to ``path``, if there is one."""
    if path is not None:
        from ..analysis.mass_figure import draw as draw_figure

        draw_figure(mass, path)
        click.echo(f"wrote {path}", err=True)
