"""``minboost tune``: choose a strength on validation cases, and hold it to test cases once."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..errors import InputError
from ..output import check_apart, check_writable, write_text
from .options import (
    CONTEXT,
    config_file,
    config_options,
    load_model,
    method_of,
    method_options,
    model_options,
    settle,
    template_notes,
)
from .program import EXIT_USAGE

EXAMPLES = """
\b
Tasks are a suite (docs/suites.md): YAML, or one case a line, as JSON:
  {"instruction": "Answer in French.", "query": "What colour is the sky?", "answer": "Bleu."}
and, where wanted, "match" ("exact" or "contains"), "split" ("validation" or "test"; by a hash
without it), "control" (true for what the plain model gets right and steering should not break).
\b
Examples:
  The multiplier for the demo model:
    minboost tune
  A target mass on two layers, for cases and a model of your own; then use it:
    minboost tune --method spotlight --layers 8-9 --tasks cases.jsonl \\
      --model ./Llama-3.2-1B-Instruct --out tuned.yaml
    python -m minboost.generate --config tuned.yaml --instruction "Answer in French." \\
      --query "What colour is the sky?"
  Three values only, all of them tried, as JSON:
    minboost tune --values 1,5,25 --full-curve --json
\b
Exit codes: 0 done, 1 output not writable, 2 usage or no value passed the floor, 3 model not
usable, 4 out of memory, 130 interrupted.
"""


@click.command(
    "tune",
    short_help="Choose a method's strength on a task file.",
    epilog=EXAMPLES,
    context_settings=CONTEXT,
)
@click.option(
    "--tasks",
    default="demo",
    show_default=True,
    help="A suite: a shipped one by name, or a .yaml or .jsonl file.",
)
@click.option("--values", help="The strengths to try, such as 1,2,5.  [default: the method's]")
@click.option(
    "--fluency-floor",
    type=click.FloatRange(0, 1),
    default=0.95,
    show_default=True,
    help="The least share of answers that must be fluent, and of controls that pass.",
)
@click.option(
    "--full-curve", is_flag=True, help="Try every value, also past the first below the floor."
)
@click.option("--limit", type=int, help="Draw this many cases of each split.  [default: all]")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write the config.yaml here.  [default: stdout]"
)
@click.option(
    "--role",
    type=click.Choice(["system", "user", "raw"]),
    default="system",
    show_default=True,
    help="Where the instruction stands.",
)
@click.option(
    "--max-new-tokens",
    type=int,
    default=64,
    show_default=True,
    help="An answer that is cut off is no success.",
)
@click.option(
    "--batch-size", type=int, default=64, show_default=True, help="How many cases run together."
)
@method_options
@model_options
@click.option("--json", is_flag=True, help="One JSON object on stdout.")
@config_options
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:  # fmt: skip
    """Choose a method's strength: each value is tried on validation cases, weak to strong, until
    answers lose their fluency; the most successful before that is held to the test cases, once,
    beside the plain model. Prints the curve and the config.yaml that uses the choice."""
    if settle(ctx, options):
        return
    from ..methods import METHODS

    strength = METHODS[options["method"]].strength
    if ctx.get_parameter_source(strength) == ParameterSource.COMMANDLINE:
        raise InputError(f"--{strength} is what is tuned: name the values with --values")
    ctx.exit(run(options))


def run(options: dict[str, Any]) -> int:
    """Load, try the values, print, write. ``options`` are the command's, settled."""
    if options["out"] is not None:
        check_writable("--out", options["out"])
        inputs = {"--tasks": options["tasks"], "the config file": config_file()}
        check_apart({"--out": options["out"]}, inputs)
    from ..analysis.tuning import default_values, ordered, tune
    from ..suites import load_cases, sample
    from .config_block import config_block
    from .describe import echo, ran_on
    from .threads import fitting_threads
    from .tune_report import Display, as_json, none_passed, notes_on, outcome, remark

    validation, test = (load_cases(options["tasks"], split=s) for s in ("validation", "test"))
    if options["limit"] is not None:
        limit, seed = options["limit"], options["seed"]
        validation, test = sample(validation, limit, seed=seed), sample(test, limit, seed=seed)
    method = method_of(options)
    values = ordered(method, _values(options["values"]) or default_values(method))
    lm = load_model(options)
    for note in template_notes(lm, options):
        click.echo(f"note: {note}", err=True)
    began = time.monotonic()
    with Display(options, method, values, [validation, test]) as display, fitting_threads(lm):
        result = tune(
            lm,
            validation,
            test,
            method,
            values=values,
            floor=options["fluency_floor"],
            full_curve=options["full_curve"],
            max_new_tokens=options["max_new_tokens"],
            batch=options["batch_size"],
            role=options["role"],
            progress=display.advance,
            on_plain=display.plain,
            on_point=display.point,
        )
    seconds = time.monotonic() - began
    notes = notes_on(result, options)
    block = None
    if result.best_method is not None:
        block = config_block(result.best_method, options, remark(result, options["tasks"]))
    if options["json"]:
        found = as_json(lm, options, result, [validation, test], block, notes)
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        for line in outcome(result):
            echo(line)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    if block is None:
        click.echo(f"error: {none_passed(result)}", err=True)
        return EXIT_USAGE
    if options["out"] is not None:
        write_text(options["out"], block)
        click.echo(f"wrote {options['out']}", err=True)
    elif not options["json"]:
        echo(f"\n{block}", nl=False)
    click.echo(f"{options['model']} on {ran_on(lm)}; {seconds:.1f} s", err=True)
    return 0


def _values(text: str | None) -> list[float]:
    if text is None:
        return []
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--values must be numbers with commas, got {text!r}") from error
