"""``minboost sweep``: grids of settings on validation cases, the best of each on test cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..errors import InputError
from ..output import check_apart, check_writable, write_text
from ..settings import Lines
from .answering import Comparison
from .comparing import (
    Chosen,
    arm_defaults,
    check_report,
    results_path,
    suite_options,
    write_report,
)
from .config_block import config_block
from .describe import header
from .options import (
    CONTEXT,
    OWN,
    config_file,
    config_options,
    generation_options,
    invocation,
    method_options,
    model_options,
    role_option,
    settle,
)
from .program import EXIT_USAGE

if TYPE_CHECKING:
    from ..comparison.arms import Arm
    from .sweep_report import Found

EXAMPLES = """
\b
Examples:
  Multipliers on the demo model, on all layers, on the first two, on half of the heads:
    minboost sweep --grid "instaboost multiplier=2,5,10 layers=all|0-1 heads=all|0.5"
  Several methods, each with its own strengths; the best of each meets the test cases:
    minboost sweep --grid instaboost --grid pasta --grid spotlight --html report.html
  Each head alone, for the report's map of heads:
    minboost sweep --grid "instaboost multiplier=7 heads=each" --html heads.html
\b
A grid is an arm's text in which a key may have several values, with | between them; strengths may
have commas. layers=each is every layer alone, heads=each every head alone.
Stopped at any time, the same command goes on where it was.
\b
Exit codes: 0 done, 1 output not writable, 2 usage or no setting passed the floor, 3 model not
usable, 4 out of memory, 130 interrupted.
"""


@click.command(
    "sweep",
    short_help="Try grids of settings, and hold the best to test cases.",
    epilog=EXAMPLES,
    context_settings=CONTEXT,
)
@click.option("--grid", "grids", multiple=True, type=Lines(),
              help="A method and the values to try; repeatable.  [default: --method]")  # fmt: skip
@click.option("--fluency-floor", type=click.FloatRange(0, 1), default=0.95, show_default=True,
              help="The least share of answers that must be fluent, and of controls that "
              "pass.")  # fmt: skip
@click.option("--write-config", type=click.Path(path_type=Path),
              help="Write the config.yaml of the best setting here.")  # fmt: skip
@click.option("--html", type=click.Path(path_type=Path), help="Also write the report here.")
@suite_options
@role_option
@generation_options
@method_options
@model_options
@click.option("--json", is_flag=True, help="One JSON object on stdout.")
@config_options
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Answer validation cases under every setting of a grid, take the most successful one whose
    answers stay fluent and whose controls pass, and answer the test cases with it, once, beside
    the plain model."""
    for name in ("layers", *OWN):
        if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE and name != "directions":
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag} belongs to a grid: --grid 'METHOD {name}=…'")
    if options["grids"] and ctx.get_parameter_source("method") == ParameterSource.COMMANDLINE:
        raise InputError("--method is the default grid; a --grid names its own")
    if settle(ctx, options):
        return
    ctx.exit(run(options, invocation(ctx).command))


def run(options: dict[str, Any], command: str) -> int:
    """Load, answer, choose, test, print, write. ``options`` are the command's, settled."""
    chosen = Chosen(options)
    validation, test = chosen.of("validation"), chosen.of("test")
    if all(case.control for suite in validation for case in suite.cases):
        raise InputError("all validation cases are controls: there is no success to choose by")
    path, config = results_path(options, chosen), options["write_config"]
    check_report(options["html"])
    if config is not None:
        check_writable("--write-config", config)
    inputs = {"the results file": path, "the config file": config_file(), **chosen.files}
    check_apart({"--html": options["html"], "--write-config": config}, inputs)
    from ..comparison.arms import with_plain
    from ..comparison.frontier import choose, points_of
    from ..comparison.grids import parse_grid
    from ..comparison.results import ResultsFile
    from ..comparison.summary import summarise
    from .sweep_report import Found, none_passed, print_sweep

    comparison = Comparison(options, chosen, command)
    comparison.say_notes()
    size = comparison.lm.config.size
    grids = [
        parse_grid(text, arm_defaults(options), **size)
        for text in dict.fromkeys(options["grids"] or (options["method"],))
    ]
    by_name = {arm.name: arm for grid in grids for arm in grid.arms}
    arms = with_plain(by_name.values())
    floor: float = options["fluency_floor"]
    jobs = comparison.jobs(validation, arms)
    comparison.jobs(test, arms)  # what a test case cannot take is said now, not at the end
    with ResultsFile(path, comparison.head, restart=options["restart"]) as file:
        tried = {grid.text: [arm.name for arm in grid.arms] for grid in grids}
        asked = {"floor": floor, "grids": tried}
        points = points_of(comparison.answers(file, arms, jobs, split="validation", sweep=asked))
        best = {
            text: choose([points[name] for name in names if name in points], floor)
            for text, names in tried.items()
        }
        winners = {point.arm: by_name[point.arm] for point in best.values() if point is not None}
        summary = None
        if winners:
            arms = with_plain(winners.values())
            picked = {text: None if point is None else point.arm for text, point in best.items()}
            asked = {"floor": floor, "chosen": picked}
            jobs = comparison.jobs(test, arms)
            comparison.answers(file, arms, jobs, split="test", sweep=asked)
            summary = summarise(file.results.only(-1))
    found = Found(grids=grids, points=points, best=best, floor=floor, summary=summary)
    block = _block(found, by_name, options)
    if options["json"]:
        result = {
            **header(comparison.lm, options),
            "results": str(path),
            **found.as_json(),
            "config": block,
            "notes": comparison.notes,
        }
        click.echo(json.dumps(result, ensure_ascii=False, indent=2))
    else:
        print_sweep(found, block)
    if config is not None and block is not None:
        write_text(config, block)
    elif config is not None and summary is not None:
        click.echo(
            "note: no config is written: directions by concept are many, a config holds one",
            err=True,
        )
    if options["html"] is not None:
        write_report(path, options["html"])
    comparison.say_end([path, options["html"], config if block is not None else None])
    if summary is None:
        click.echo(f"error: {none_passed(found)}", err=True)
        return EXIT_USAGE
    return 0


def _block(found: Found, arms: dict[str, Arm], options: dict[str, Any]) -> str | None:
    """The config.yaml of the best setting of all grids; None where there is none to write."""
    winner = found.winner
    if winner is None:
        return None
    arm = arms[winner.arm]
    if arm.by_concept:
        return None  # it is a different direction for each concept
    from ..comparison.arms import build
    from .sweep_report import remark

    setting = arm.settings[0]
    named = {**options, **{k: setting[k] for k in ("direction", "directions") if k in setting}}
    return config_block(build(setting), named, remark(found))
