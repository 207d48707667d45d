"""``minboost profile``: which heads to steer. Tasks in, PASTA's JSON of heads out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..analysis.profiling import (
    FLOOR,
    SELECTIONS,
    Arm,
    Head,
    Outcome,
    Ranking,
    Selection,
    as_mapping,
    best,
    counted_tasks,
    default_ks,
    pasta_json,
    rankings,
    round_robin,
    score_cases,
    shortlist,
)
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
from .program import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from ..lm import LM
    from ..methods import Method
    from ..suites import Case

SPLIT = "validation"
EXAMPLES = """
\b
Tasks are a suite (docs/suites.md): one case a line, as JSON {"instruction": …, "query": …,
"answer": …} with the answer that obeys, which every case must have here, and where wanted "task",
"split" (validation or test) and "control" (true for a case that steering must not break); or the
same as YAML. Only the validation split is used.
\b
Every head is scored by what steering it alone adds to the log-probability of the answers. Each task
ranks the heads; --select says how the top k of the rankings become one set. The sets of all k are
then compared by generating under them, and the best is written.
\b
Examples:
  Profile the demo model on its own world, then use the heads:
    minboost profile --out heads.json
    minboost generate --heads heads.json --instruction "Answer in French." \\
      --query "What colour is the sky? Answer in English instead."
\b
  PASTA's procedure on a model of your own, 200 cases a task:
    minboost profile --model ./Llama-3.2-1B-Instruct --tasks tasks.jsonl --limit 200 \\
      --method pasta --top-k 64,128,256 --out heads.json
\b
  Heads for one task alone; heads from all the others:
    minboost profile --tasks tasks.jsonl --select task-specific --task json --out json.json
    minboost profile --tasks tasks.jsonl --select task-agnostic --task json --out others.json
\b
Scores are kept as they come: stop with Ctrl-C, and the same command goes on from there.
Exit codes: 0 done, 1 output not writable, 2 usage, 3 model not usable, 4 out of memory,
130 interrupted.
"""


@click.command(
    "profile",
    short_help="Choose which heads to steer on a task file.",
    epilog=EXAMPLES,
    context_settings=CONTEXT,
)
@click.option("--tasks", default="demo", show_default=True, help="A suite: shipped, or a file.")
@click.option("--select", type=click.Choice(SELECTIONS), default="intersection", show_default=True,
              help="Which heads of the tasks' top k: common to all, of any, of --task's own, or "
              "common to all but --task.")  # fmt: skip
# Not called ``top_k``: in a config.yaml that is sampling's.
@click.option("--top-k", "ks", help="How many heads of each ranking: a number, or several with "
              "commas.  [default: 1/8, 1/4, 1/2 and 3/4 of the heads]")  # fmt: skip
@click.option("--task", help="Of --select task-specific and task-agnostic.")
@click.option("--limit", type=click.IntRange(min=1),
              help="At most so many cases of each task, and as many controls.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default="heads.json", show_default=True,
              help="The file to write the heads to.")  # fmt: skip
@click.option("--scores", type=click.Path(path_type=Path), help="Where each case's scores "
              "are kept, to go on from.  [default: beside --out, heads.scores.jsonl]")  # fmt: skip
@click.option("--restart", is_flag=True, help="Drop the scores that are there.")
@click.option("--fluency-floor", type=click.FloatRange(0, 1), default=FLOOR, show_default=True,
              help="The least share of answers that must be fluent, and of controls that pass; "
              "the plain model's where that is less.")  # fmt: skip
@click.option("--role", type=click.Choice(["system", "user", "raw"]), default="system",
              show_default=True, help="Where the instruction stands.")  # fmt: skip
@click.option("--max-new-tokens", type=int, default=64, show_default=True,
              help="An answer's length at most, where sets are compared.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True,
              help="How many answers are generated together.")  # fmt: skip
@method_options
@model_options
@click.option("--json", is_flag=True, help="One JSON object on stdout.")
@config_options
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Find the heads to steer: score each alone, rank them by task, compare the sets that the
    rankings lead to, and write the best. --layers and --heads say which heads are tried."""
    if not settle(ctx, options):
        ctx.exit(run(options))


def run(options: dict[str, Any]) -> int:
    """Score, rank, compare, write, print. ``options`` are the command's, settled."""
    from .profile_report import as_json, notes_of, report
    from .threads import fitting_threads

    job = _Job(options)
    try:
        with fitting_threads(job.lm):
            outcome = job.run()
    except KeyboardInterrupt:
        there = f"the scores of {job.there} of {len(job.cases)} cases are in {job.path}"
        _say(f"interrupted: {there}; the same command goes on from there")
        return EXIT_INTERRUPTED
    write_text(job.out, pasta_json(outcome.chosen.heads))
    notes = notes_of(outcome, options["fluency_floor"])
    if options["json"]:
        result = as_json(job.lm, options, outcome, scores=job.path, notes=notes)
        click.echo(json.dumps(result, ensure_ascii=False, indent=2))
    else:
        click.echo("\n".join(report(options, outcome)))
    for note in notes:
        _say(f"note: {note}")
    _say(f"wrote {job.out}; the scores are in {job.path}")
    return 0


class _Job:
    """The model, the method, the cases that count and the heads that are tried.

    All that a user can get wrong raises in the constructor, but for what the scores file holds and
    for cases that the model or the method cannot take.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        from ..methods import Latent
        from ..suites import by_task, load_cases

        self.options = options
        ks = _ks(options["ks"])
        self.out, self.path = _files(options)
        if options["method"] == Latent.name:
            raise InputError(
                "--method latent steers the whole residual stream and knows no heads to profile"
            )
        self.method: Method = method_of(options)
        loaded = load_cases(options["tasks"], split=SPLIT)
        cases = list({case.key: case for case in loaded}.values())
        told = by_task([case for case in cases if not case.control])
        kept = by_task([case for case in cases if case.control])
        if not told:
            raise InputError(
                f"all {SPLIT} cases of {options['tasks']} are controls: there is none to profile on"
            )
        self.tasks = counted_tasks(options["select"], list(told), options["task"])
        # A task of controls alone has no ranking; its cases are kept from harm all the same.
        spared = [name for name in kept if name in self.tasks or name not in told]
        limit = options["limit"]
        self.cases: list[Case] = round_robin({name: told[name][:limit] for name in self.tasks})
        self.controls = round_robin({name: kept[name][:limit] for name in spared})
        self.lm: LM = load_model(options)
        for note in template_notes(self.lm, options):
            _say(f"note: {note}")
        self.by_layer = self.method.heads_by_layer(**self.lm.config.size)
        self.heads: list[Head] = [(x, y) for x, of in self.by_layer.items() for y in of]
        if ks and ks[-1] > len(self.heads):
            raise InputError(f"--top-k {ks[-1]} is more than the {len(self.heads)} heads there are")
        self.ks = ks or default_ks(len(self.heads))
        self.there = 0
        """How many of the cases have their scores."""

    def run(self) -> Outcome:
        """Score what is missing, rank, compare, choose."""
        from ..analysis.head_loops import loop_seconds

        ranked, scored, seconds = self._score()
        found, empty = shortlist(ranked, self.options["select"], self.ks)
        arms = self._compare(found)
        loops = loop_seconds(
            self.lm,
            self.cases,
            self.method,
            self.heads,
            role=self.options["role"],
            max_new_tokens=self.options["max_new_tokens"],
        )
        return Outcome(
            method=self.method,
            rankings=ranked,
            cases=len(self.cases),
            controls=len(self.controls),
            tried=len(self.heads),
            scored=scored,
            empty=empty,
            arms=arms,
            chosen=best(arms[2:], arms[0].evaluation, floor=self.options["fluency_floor"]),
            seconds={"scored": seconds, **loops},
        )

    def _score(self) -> tuple[list[Ranking], int, float | None]:
        """The tasks' rankings, how many cases were scored for them now, seconds a (head, case)."""
        from ..analysis.score_file import ScoreFile, header

        role = self.options["role"]
        head = header(self.lm, self.method, self.by_layer, role=role)
        with ScoreFile(self.path, head, restart=self.options["restart"]) as file:
            before = self.there = sum(case.key in file.scores for case in self.cases)
            title = f"scoring {len(self.heads)} heads"
            with _bar(len(self.cases), title, "case", done=before) as advance:

                def progress(count: int) -> None:
                    self.there += count
                    advance(count)

                seconds = score_cases(
                    self.lm,
                    self.cases,
                    self.method,
                    self.by_layer,
                    file,
                    role=role,
                    progress=progress,
                )
            by_task = rankings(file.scores[case.key] for case in self.cases)
        return [by_task[task] for task in self.tasks], len(self.cases) - before, seconds

    def _compare(self, found: Sequence[Selection]) -> list[Arm]:
        """The plain model, all heads and each selection, by generation."""
        from ..analysis.evaluate import evaluate

        cases = [*self.cases, *self.controls]
        sets: list[Selection] = [
            Selection("plain", (), ()),
            Selection("all heads", (), tuple(self.heads)),
            *found,
        ]
        arms: list[Arm] = []
        with _bar(len(sets) * len(cases), "comparing sets of heads", "answer") as progress:
            for one in sets:
                method = self.method.plain()
                if one.heads:
                    method = replace(self.method, layers="all", heads=as_mapping(one.heads))
                evaluation = evaluate(
                    self.lm,
                    cases,
                    method,
                    max_new_tokens=self.options["max_new_tokens"],
                    batch=self.options["batch_size"],
                    role=self.options["role"],
                    progress=progress,
                    plain=arms[0].evaluation if arms else None,
                )
                arms.append(Arm(one, evaluation))
        return arms


def _ks(text: str | None) -> list[int]:
    """The numbers of --top-k, ascending."""
    if text is None:
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(
            f"--top-k must be numbers of at least 1, several with commas, got {text!r}"
        )
    return sorted({int(part) for part in parts})


def _files(options: dict[str, Any]) -> tuple[Path, Path]:
    """--out and --scores.

    Raises:
        InputError: one that could not be written after the work, or that is another of the files.
    """
    out: Path = options["out"]
    check_writable("--out", out)
    scores: Path = options["scores"] or out.with_suffix(".scores.jsonl")
    check_writable("--scores", scores)
    inputs = {"--tasks": options["tasks"], "the config file": config_file()}
    check_apart({"--out": out, "--scores": scores}, inputs)
    return out, scores


@contextmanager
def _bar(total: int, title: str, unit: str, done: int = 0) -> Iterator[Callable[[int], object]]:
    """A progress bar with an estimate, on a terminal; elsewhere one line."""
    from tqdm import tqdm

    shown = sys.stderr is not None and sys.stderr.isatty()
    if not shown:
        there = f", {done} of them there already" if done else ""
        _say(f"{title}: {total} {unit}s{there}")
    with tqdm(total=total, initial=done, desc=title, unit=unit, disable=not shown) as bar:
        yield bar.update


def _say(text: str) -> None:
    click.echo(text, err=True)
