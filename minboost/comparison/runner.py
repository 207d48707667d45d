"""Running a comparison: what is not in the results file yet is answered, judged and added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..analysis.fluency import Fluency, judge
from ..lm import LM
from ..request import Generation
from ..run import Prompts
from .jobs import Job, batches_of
from .records import Record, RunInfo
from .results import ResultsFile


def run_jobs(
    lm: LM,
    file: ResultsFile,
    run: RunInfo,
    jobs: Sequence[Job],
    *,
    batch: int = 64,
    prompts: Prompts | None = None,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Answer ``jobs`` and add each answer to ``file``, a line each, as batches end.

    Jobs whose answers are there are skipped. A batch that an interruption cut in two is answered
    whole, in the shape that it would have had, and what is missing of it added: so the file ends
    as if nothing had happened. An answer that is there and that its case's checks now see
    otherwise is added again with the new verdict.

    Args:
        batch: how many jobs run together; fewer, where the device has no memory for so many.
        prompts: those that ``jobs_of`` laid out.
        progress: called with the number of jobs that were just done, or were there.
    """
    file.add_run(run)
    results = file.results
    there = [job for job in jobs if job.key in results.before]
    file.add(_judged_anew(there, results.records))
    if progress is not None and there:
        progress(len(there))
    for jobs_together in batches_of((j for j in jobs if j.key not in results.before), batch):
        there = [job for job in jobs_together if job.key in results.records]
        file.add(_judged_anew(there, results.records))
        if len(there) < len(jobs_together):
            known = {job.key for job in there}
            file.add(r for r in _answer(lm, jobs_together, prompts) if r.key not in known)
        if progress is not None:
            progress(len(jobs_together))


def _answer(lm: LM, jobs: Sequence[Job], prompts: Prompts | None) -> list[Record]:
    try:
        outs = lm.generate_batch([job.request for job in jobs], prompts=prompts)
        fluencies = judge(lm, outs)
    except torch.OutOfMemoryError:
        if len(jobs) == 1:
            raise
        half = len(jobs) // 2
        return _answer(lm, jobs[:half], prompts) + _answer(lm, jobs[half:], prompts)
    return [
        _record(job, out, fluency) for job, out, fluency in zip(jobs, outs, fluencies, strict=True)
    ]


def _record(job: Job, out: Generation, fluency: Fluency) -> Record:
    return Record(
        key=job.key,
        suite=job.suite,
        case=job.case.name,
        arm=job.arm.name,
        run=job.run,
        text=out.text,
        finish_reason=out.finish_reason,
        new_tokens=len(out.ids),
        fluent=fluency.fluent,
        faults=fluency.faults,
        repeated=fluency.repeated,
        entropy=fluency.entropy,
        excess=fluency.excess,
        surprisal=fluency.surprisal,
        **_of_case(job, out.text, out.finish_reason),
    )


def _of_case(job: Job, text: str, finish_reason: str) -> dict[str, Any]:
    """What a record takes from its case: what was asked, and the verdict of the checks."""
    case = job.case
    judgement = case.judge(text, finished=finish_reason == "stop")
    return {
        "task": case.task,
        "split": case.split,
        "control": case.control,
        "instruction": case.instruction,
        "query": case.query,
        "seed": job.request.seed,
        "passed": judgement.passed,
        "why": judgement.why,
        "parts": judgement.parts,
    }


def _judged_anew(jobs: Sequence[Job], records: dict[str, Record]) -> list[Record]:
    """The records that their cases, as they are today, would write otherwise."""
    changed = []
    for job in jobs:
        record = records[job.key]
        now = _of_case(job, record.text, record.finish_reason)
        if any(getattr(record, name) != value for name, value in now.items()):
            changed.append(replace(record, **now))
    return changed
