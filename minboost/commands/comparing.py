"""What ``compare`` and ``sweep`` are asked: their options, the suites, where the results go."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from ..output import check_writable, write_text
from ..settings import Lines
from .options import OWN, Decorator, together

if TYPE_CHECKING:
    from ..suites import Suite

ALL = "all"

suite_options: Decorator = together(
    click.option("--suite", "suites", multiple=True, type=Lines(), default=("demo",),
                 show_default=True,
                 help="A shipped suite or a .yaml or .jsonl file; repeatable.  (docs/suites.md)"),
    click.option("--limit", type=int,
                 help="Draw this many cases of each suite and split.  [default: all]"),
    click.option("--num-runs", type=int, default=1, show_default=True,
                 help="Answers to each case and arm, each with a seed of its own; needs a "
                 "--temperature."),
    click.option("--results", type=click.Path(path_type=Path),
                 help="The file that answers are added to.  [default: by suites and model, in "
                 "--out]"),
    click.option("--out", type=click.Path(path_type=Path), default=Path("results"),
                 show_default=True, help="The folder to write to; made if it is not there."),
    click.option("--restart", is_flag=True, help="Forget what the results file holds."),
    click.option("--batch-size", type=int,
                 help="How many answers are generated together.  [default: what memory holds]"),
)  # fmt: skip


class Chosen:
    """The suites of a command, whole and cut to a split and a limit."""

    def __init__(self, options: dict[str, Any]) -> None:
        from ..suites import load_suite

        names = list(dict.fromkeys(options["suites"]))
        if not names:
            raise InputError("--suite is missing")
        self.whole: list[Suite] = [load_suite(name) for name in names]
        known = [suite.name for suite in self.whole]
        if twice := [name for name in known if known.count(name) > 1]:
            raise InputError(f"two of the suites are called {twice[0]!r}: give one another name")
        self.limit, self.seed = options["limit"], options["seed"]
        if options["batch_size"] is not None and options["batch_size"] < 1:
            raise InputError(f"--batch-size must be at least 1, got {options['batch_size']}")
        self.files = {f"--suite {name}": name for name in names if Path(name).is_file()}
        """The suites that are files, by what they are to the user."""

    @property
    def digests(self) -> dict[str, str]:
        return {suite.name: suite.digest for suite in self.whole}

    def of(self, split: str) -> list[Suite]:
        """The suites cut to a split, or "all", and to the limit; InputError where one is empty."""
        from ..suites import sample
        from ..suites.case import SPLITS

        cut = []
        for suite in self.whole:
            cases = []
            for one in SPLITS if split == ALL else (split,):
                of_split = [case for case in suite.cases if case.split == one]
                if self.limit is not None and of_split:
                    of_split = sample(of_split, self.limit, seed=self.seed)
                cases += of_split
            if not cases:
                raise InputError(f"the suite {suite.name} holds no case of the {split} split")
            cut.append(replace(suite, cases=tuple(cases)))
        return cut


def results_path(options: dict[str, Any], chosen: Chosen) -> Path:
    """Where the answers go; its folder and --out are made, and checked."""
    folder: Path = options["out"]
    name = "_".join([*chosen.digests, Path(str(options["model"])).name or "model"])
    path: Path = options["results"] or folder / (re.sub(r"[^\w.-]+", "-", name) + ".jsonl")
    for one in (folder, path.parent):
        try:
            one.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the folder {one} cannot be made: {error.strerror}") from error
    check_writable("--results", path)
    check_writable("--out", folder / "instaboost_results.csv")
    return path


def arm_defaults(options: dict[str, Any]) -> dict[str, Any]:
    """What an arm has where it says nothing else: settled options, less layers."""
    names = ("heads", "span", "start_layer", "num_middle_layers", *OWN)
    return {**{name: options[name] for name in names}, "head_seed": options["seed"]}


def check_report(html: Path | None) -> None:
    """Refuse, before the work, a report that could not be made after it."""
    if html is None:
        return
    from ..analysis.plots import need_matplotlib

    check_writable("--html", html)
    need_matplotlib()


def write_report(results: Path, html: Path) -> None:
    """The report of a results file as one HTML page."""
    from ..comparison.results import read_results
    from ..report import html_report

    write_text(html, html_report(read_results(results)))
