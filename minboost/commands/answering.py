"""How ``compare`` and ``sweep`` get their answers: one model, the results file, a progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from .comparing import ALL, Chosen
from .describe import ran_on
from .options import load_model, template_notes

if TYPE_CHECKING:
    from ..comparison.arms import Arm
    from ..comparison.jobs import Job
    from ..comparison.records import Record, RunInfo
    from ..comparison.results import ResultsFile
    from ..suites import Suite


class Comparison:
    """One command's model, suites and settings, and the answers that they come to.

    Loads the model. All that a user can get wrong about them raises here or in ``jobs``.
    """

    def __init__(self, options: dict[str, Any], chosen: Chosen, command: str) -> None:
        from ..comparison.jobs import Generating
        from ..comparison.provenance import commit, versions
        from ..run import Prompts

        self.options, self.chosen, self.command = options, chosen, command
        self.notes: list[str] = []
        self.runs = self._runs()
        self.lm = load_model(options)
        self.notes += template_notes(self.lm, options)
        self.generating = Generating.of(options)
        self.commit, self.versions = commit(), versions()
        self.head = self._head()
        self._prompts = Prompts(self.lm.tokenizer, self.lm.config.vocab_size)
        self.began = time.monotonic()

    def _runs(self) -> int:
        """How often each case is answered; once where answers are greedy, with a note."""
        runs: int = self.options["num_runs"]
        if runs < 1:
            raise InputError(f"--num-runs must be at least 1, got {runs}")
        if runs > 1 and self.options["temperature"] == 0:
            self.notes.append(
                f"greedy answers are the same in every run: 1 run instead of {runs}; for more, "
                "set a --temperature"
            )
            return 1
        return runs

    def _head(self) -> dict[str, Any]:
        """What all answers of a results file share."""
        from ..fingerprint import config_digest, weights_digest

        return {
            "name": str(self.options["model"]),
            "revision": self.options["revision"],
            "config": config_digest(self.lm),
            "weights": weights_digest(self.lm),
            "device": self.lm.device.type,
            "dtype": str(self.lm.dtype).removeprefix("torch."),
            "impl": self.lm.impl,
            "quantize": self.lm.model.quantized,
            "generation": self.generating.as_json(),
        }

    def say_notes(self) -> None:
        for note in self.notes:
            click.echo(f"note: {note}", err=True)

    def jobs(self, suites: Sequence[Suite], arms: Sequence[Arm]) -> list[Job]:
        from ..comparison.jobs import jobs_of

        return jobs_of(
            self.lm,
            suites,
            arms,
            model=self.head["weights"],
            generating=self.generating,
            runs=self.runs,
            seed=self.options["seed"],
            prompts=self._prompts,
        )

    def answers(
        self,
        file: ResultsFile,
        arms: Sequence[Arm],
        jobs: Sequence[Job],
        *,
        split: str,
        sweep: dict[str, Any] | None = None,
    ) -> list[Record]:
        """Get those of ``jobs`` that are not in ``file`` yet, with a bar and an estimate.

        Returns:
            The answers of all jobs, each under the name of its own arm.
        """
        from ..comparison.batch_size import fitting_batch
        from ..comparison.runner import run_jobs

        self._say_plan(file, arms, jobs, "" if split == ALL else split)
        batch = self.options["batch_size"]
        if batch is None:
            longest = max(job.tokens + job.request.max_new_tokens for job in jobs)
            batch = fitting_batch(self.lm, longest)
        run = self._run_info(arms, jobs, split, sweep)
        with bar(len(jobs)) as shown:
            try:
                run_jobs(
                    self.lm, file, run, jobs, batch=batch, prompts=self._prompts,
                    progress=shown.update,
                )  # fmt: skip
            except KeyboardInterrupt:
                there = sum(job.key in file.results.records for job in jobs)
                click.echo(
                    f"\n{there} of {len(jobs)} answers are in {file.path}; the same command goes "
                    "on from there",
                    err=True,
                )
                raise
        return [replace(file.results.records[job.key], arm=job.arm.name) for job in jobs]

    def _run_info(
        self, arms: Sequence[Arm], jobs: Sequence[Job], split: str, sweep: dict[str, Any] | None
    ) -> RunInfo:
        from ..comparison.records import RunInfo

        keys: dict[str, list[str]] = {arm.name: [] for arm in arms}
        for job in jobs:
            keys[job.arm.name].append(job.key)
        return RunInfo(
            command=self.command,
            commit=self.commit,
            versions=self.versions,
            suites=self.chosen.digests,
            split=split,
            arms=tuple(arm.info() for arm in arms),
            seed=self.options["seed"],
            runs=self.runs,
            keys={name: tuple(of) for name, of in keys.items()},
            sweep=sweep,
        )

    def _say_plan(
        self, file: ResultsFile, arms: Sequence[Arm], jobs: Sequence[Job], split: str
    ) -> None:
        """Say what is to be done, and how many of the answers are there already."""
        cases = len({(job.suite, job.case.name) for job in jobs})
        there = sum(job.key in file.results.records for job in jobs)
        click.echo(
            f"{', '.join(self.chosen.digests)}: {cases} {split} cases".replace("  ", " ")
            + f" x {len(arms)} arms"
            + (f" x {self.runs} runs" if self.runs > 1 else "")
            + f" = {len(jobs)} answers"
            + (f"; {there} are there" if there else ""),
            err=True,
        )

    def say_end(self, written: Sequence[Path | None]) -> None:
        """On what it ran, how long it took, and what was written."""
        seconds = time.monotonic() - self.began
        click.echo(f"{self.options['model']} on {ran_on(self.lm)}; {seconds:.1f} s", err=True)
        for path in written:
            if path is not None:
                click.echo(f"wrote {path}", err=True)


@contextmanager
def bar(total: int) -> Iterator[Any]:
    """A progress bar with an estimate on stderr, where that is a terminal."""
    from tqdm import tqdm

    hidden = sys.stderr is None or not sys.stderr.isatty()
    with tqdm(total=total, unit=" answers", file=sys.stderr, leave=False, disable=hidden) as shown:
        yield shown
