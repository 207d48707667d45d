"""Running a comparison: what is not in the results file yet is answered, judged and added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ..analysis.fluency import judge
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
        missing = [job for job in jobs_together if job.key not in results.records]
        if missing:
            wanted = {job.key for job in missing}
            file.add(r for r in _answer(lm, jobs_together, prompts) if r.key in wanted)
        file.add(_judged_anew(jobs_together, results.records))
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
        replace(
            _record(job, out),
            fluent=fluency.fluent,
            faults=fluency.faults,
            repeated=fluency.repeated,
            entropy=fluency.entropy,
            excess=fluency.excess,
            surprisal=fluency.surprisal,
        )
        for job, out, fluency in zip(jobs, outs, fluencies, strict=True)
    ]


def _record(job: Job, out: Generation) -> Record:
    case = job.case
    judgement = case.judge(out.text, finished=out.finish_reason == "stop")
    return Record(
        key=job.key,
        suite=job.suite,
        case=case.name,
        task=case.task,
        split=case.split,
        control=case.control,
        instruction=case.instruction,
        query=case.query,
        arm=job.arm.name,
        run=job.run,
        seed=job.request.seed,
        text=out.text,
        finish_reason=out.finish_reason,
        new_tokens=len(out.ids),
        passed=judgement.passed,
        why=judgement.why,
        parts=judgement.parts,
        fluent=False,
        faults=(),
        repeated=None,
        entropy=None,
        excess=None,
        surprisal=None,
    )


def _judged_anew(jobs: Sequence[Job], records: dict[str, Record]) -> list[Record]:
    """The records that their cases, as they are today, would write otherwise."""
    changed = []
    for job in jobs:
        record, case = records[job.key], job.case
        judgement = case.judge(record.text, finished=record.finish_reason == "stop")
        now = replace(
            record,
            task=case.task,
            split=case.split,
            control=case.control,
            instruction=case.instruction,
            query=case.query,
            seed=job.request.seed,
            passed=judgement.passed,
            why=judgement.why,
            parts=judgement.parts,
        )
        if now != record:
            changed.append(now)
    return changed
