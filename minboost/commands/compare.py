"""``minboost compare``: suites of cases under several arms, side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..errors import InputError
from ..output import check_apart
from ..settings import Lines
from .answering import Comparison, bar
from .comparing import (
    Chosen,
    arm_defaults,
    check_report,
    results_path,
    suite_options,
    write_report,
)
from .describe import echo, header
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

if TYPE_CHECKING:
    from ..comparison.arms import Arm
    from ..comparison.judge import JudgeClient
    from ..comparison.records import Record
    from ..comparison.results import ResultsFile

EXAMPLES = """
\b
Examples:
  The demo model: plain, boosted on all layers, boosted on the middle ones:
    minboost compare
  Your model on two shipped suites, with a report:
    minboost compare --model ./Llama-3.2-1B-Instruct --suite instruction-conflict \\
      --suite confidentiality --html report.html
  Arms of your own: methods, strengths, layers, heads:
    minboost compare --arm "instaboost multiplier=2,5,10" --arm "spotlight target=0.4" \\
      --arm "instaboost multiplier=5 layers=0-1"
  Five sampled answers to each case:
    minboost compare --temperature 0.8 --num-runs 5
\b
An --arms file is YAML, a list of such texts or of mappings such as
  {name: mild, method: instaboost, multiplier: 2, layers: 8-12}.
Stopped at any time, the same command goes on where it was.
\b
Exit codes: 0 done, 1 output not writable, 2 usage, 3 model not usable, 4 out of memory,
130 interrupted.
"""


@click.command(
    "compare",
    short_help="Answer suites of cases under several arms, and compare them.",
    epilog=EXAMPLES,
    context_settings=CONTEXT,
)
@suite_options
@click.option("--split", type=click.Choice(["validation", "test", "all"]), default="all",
              show_default=True, help="Which cases; splits stay apart.")  # fmt: skip
@click.option("--arm", "arm_texts", multiple=True, type=Lines(),
              help="An arm beside the plain one, such as 'pasta alpha=0.1'; repeatable.  "
              "[default: all layers, middle layers]")  # fmt: skip
@click.option("--arms", "arms_file", type=click.Path(path_type=Path), help="A YAML file of arms.")
@click.option("--html", type=click.Path(path_type=Path), help="Also write the report here.")
@click.option("--diffs", type=int, default=5, show_default=True,
              help="How many cases to print that arms gained or lost.")  # fmt: skip
@click.option("--judge", help="Also have answers rated by a model behind this OpenAI-compatible "
              "URL, such as http://localhost:8000/v1 (key: MINBOOST_JUDGE_KEY).")  # fmt: skip
@click.option("--judge-model", help="The name of that model.")
@role_option
@generation_options
@method_options
@model_options
@click.option("--json", is_flag=True, help="One JSON object on stdout.")
@config_options
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Answer every case of a suite plainly and under each arm, with one engine, one dtype and the
    same seeds, and compare: success and fluency with intervals, tests against plain, differences
    case by case. Answers go to a results file as they come, and to a CSV file at the end."""
    own_arms = bool(options["arm_texts"] or options["arms_file"])
    for name in ("layers", "method", *OWN):
        if ctx.get_parameter_source(name) != ParameterSource.COMMANDLINE:
            continue
        if name == "layers":
            raise InputError("layers belong to an arm: --arm 'instaboost layers=8-12'")
        if own_arms:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag} is for the default arms; an --arm names its own")
    if settle(ctx, options):
        return
    told = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    options["middle_told"] = ctx.get_parameter_source("start_layer") in told
    run(options, invocation(ctx).command)


def run(options: dict[str, Any], command: str) -> None:
    """Load, answer, summarise, print, write. ``options`` are the command's, settled."""
    judge = _judge(options)
    chosen = Chosen(options)
    suites = chosen.of(options["split"])
    custom = _custom_arms(options)
    path = results_path(options, chosen)
    check_report(options["html"])
    inputs = {"the results file": path, "the config file": config_file(), **chosen.files}
    if options["arms_file"] is not None:
        inputs["--arms"] = options["arms_file"]
    check_apart({"--html": options["html"]}, inputs)
    from ..comparison.arms import with_plain
    from ..comparison.results import ResultsFile
    from ..comparison.summary import summarise

    comparison = Comparison(options, chosen, command)
    n_layers = comparison.lm.config.num_hidden_layers
    arms = with_plain(custom or _default_arms(options, n_layers, comparison.notes))
    comparison.say_notes()
    jobs = comparison.jobs(suites, arms)
    with ResultsFile(path, comparison.head, restart=options["restart"]) as file:
        records = comparison.answers(file, arms, jobs, split=options["split"])
        if judge is not None:
            _rate(file, records, judge)
        table = _write_csv(options["out"], arms, records)
        summary = summarise(file.results.only(-1))
    if options["json"]:
        found = {
            **header(comparison.lm, options),
            "results": str(path),
            "csv": str(table),
            "html": None if options["html"] is None else str(options["html"]),
            **summary.as_json(),
            "notes": [*comparison.notes, *summary.notes],
        }
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        from .compare_table import lines

        for line in lines(summary, diffs=options["diffs"]):
            echo(line)
    if options["html"] is not None:
        write_report(path, options["html"])
    comparison.say_end([path, table, options["html"]])


def _custom_arms(options: dict[str, Any]) -> list[Arm]:
    """The arms that --arms and --arm name; their options' defaults are the settled ones."""
    from ..comparison.arms import parse_arms, read_arms

    defaults = arm_defaults(options)
    arms = []
    if options["arms_file"] is not None:
        arms += read_arms(options["arms_file"], defaults)
    for text in options["arm_texts"]:
        arms += parse_arms(text, defaults)
    return arms


def _default_arms(options: dict[str, Any], n_layers: int, notes: list[str]) -> list[Arm]:
    """The method on all layers, and on the middle ones as config.yaml has them.

    Where the built-in start_layer lies beyond a small model's layers, the middle half takes its
    place, with a note; one that the user set is an error then.
    """
    from ..comparison.arms import arms_of
    from ..methods import Method

    built_in = Method.start_layer
    middle = {"layers": "middle"}
    too_small = n_layers <= built_in == options["start_layer"]
    if too_small and not options["middle_told"]:
        first, last = n_layers // 4, max(n_layers // 4, n_layers - n_layers // 4 - 1)
        middle = {"layers": f"{first}-{last}"}
        notes.append(
            f"the model has {n_layers} layers and none from start_layer {built_in} on: its "
            f"middle ones are {first} to {last}; --start-layer says otherwise"
        )
    arms: list[Arm] = []
    for name, where in (("all_layers", {"layers": "all"}), ("middle_layers", middle)):
        arms += arms_of({"name": name, "method": options["method"], **where}, arm_defaults(options))
    return arms


def _write_csv(folder: Path, arms: Sequence[Arm], records: Sequence[Record]) -> Path:
    from ..comparison.csv_file import csv_path, write_csv

    path = csv_path(folder, datetime.now())
    write_csv(path, arms, records)
    return path


def _judge(options: dict[str, Any]) -> JudgeClient | None:
    """The judge that was asked for."""
    if (options["judge"] is None) != (options["judge_model"] is None):
        raise InputError("--judge and --judge-model belong together: one of them is missing")
    if options["judge"] is None:
        return None
    from ..comparison.judge import JudgeClient

    key = os.environ.get("MINBOOST_JUDGE_KEY")
    return JudgeClient(options["judge"], options["judge_model"], api_key=key)


def _rate(file: ResultsFile, records: Sequence[Record], client: JudgeClient) -> None:
    from ..comparison.judge import rate

    with bar(len(records)) as shown:
        rated = rate(file, records, client, progress=shown.update)
    for note in rated.notes:
        click.echo(f"note: {note}", err=True)
