"""What a comparison asks: every case under every arm, and how it falls into batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..checks import as_integer
from ..errors import InputError
from ..lm import LM
from ..methods import Spotlight
from ..placement import place
from ..plan import sequence_plan
from ..request import Request
from ..run import Prompts
from ..suites import Case, Suite
from .arms import Arm, setting_of

MAX_SEED = 1 << 31


@dataclass(frozen=True, kw_only=True)
class Generating:
    """How every answer of a comparison is generated: fields as in ``Request``.

    A case's own ``max_new_tokens`` comes before this one.
    """

    role: str = "system"
    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", tuple(self.stop))

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Generating:
        """From a command's options."""
        return cls(**{field.name: options[field.name] for field in fields(cls)})

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "stop": list(self.stop)}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One answer to get: ``case`` of ``suite`` under ``arm``, in run number ``run`` from 1.

    ``key`` is a hash of what the answer depends on, and ``tokens`` the prompt's length.
    """

    key: str
    suite: str
    case: Case
    arm: Arm
    run: int
    request: Request
    tokens: int
    published: bool
    """Whether it has a target mass in the published form, which no other form shares a batch
    with."""


def jobs_of(
    lm: LM,
    suites: Sequence[Suite],
    arms: Sequence[Arm],
    *,
    model: str,
    generating: Generating,
    runs: int = 1,
    seed: int = 42,
    prompts: Prompts | None = None,
) -> list[Job]:
    """Every case under every arm and in every run, checked, in the order of suites, cases, arms.

    A run's seed comes from ``seed``, the case and the run's number, and is the same in every arm:
    the order of cases and the other arms have no part in it.

    Args:
        model: a short name for the weights, for the keys.
        prompts: keeps the prompts that were laid out, for ``run_jobs``.

    Raises:
        InputError: a case that the model or an arm cannot take: a prompt beyond the context, a
            span, layer or head that is not there; the message names suite, case and arm.
    """
    as_integer("runs", runs, 1)
    as_integer("seed", seed, 0)
    if prompts is None:
        prompts = Prompts(lm.tokenizer, lm.config.vocab_size)
    jobs = []
    for suite in suites:
        for case in suite.cases:
            for run in range(1, runs + 1):
                own = _digest([seed, suite.name, case.name, run])
                for arm in arms:
                    request = _request(case, arm, generating, int(own, 16) % MAX_SEED)
                    try:
                        jobs.append(_job(lm, prompts, suite.name, case, arm, run, request, model))
                    except InputError as error:
                        raise InputError(
                            f"suite {suite.name}, case {case.name}, arm {arm.name}: {error}"
                        ) from error
    return jobs


def batches_of(jobs: Iterable[Job], size: int) -> list[list[Job]]:
    """``jobs`` in batches of at most ``size``, prompts of like length together; of one key, one.

    The batches depend on the set of jobs alone, not on its order.
    """
    size = as_integer("the batch size", size, 1)
    kinds: dict[bool, list[Job]] = {False: [], True: []}
    for job in {job.key: job for job in jobs}.values():
        kinds[job.published].append(job)
    batches = []
    for kind in kinds.values():
        kind.sort(key=lambda job: (job.tokens, job.suite, job.case.name, job.run, job.key))
        batches += [kind[at : at + size] for at in range(0, len(kind), size)]
    return batches


def _request(case: Case, arm: Arm, generating: Generating, seed: int) -> Request:
    values = {**asdict(generating), "stop": generating.stop}
    if case.max_new_tokens is not None:
        values["max_new_tokens"] = case.max_new_tokens
    methods = arm.methods(case)
    return Request(
        instruction=case.instruction,
        query=case.query,
        boost=methods or None,
        seed=seed,
        **values,
    )


def _job(
    lm: LM,
    prompts: Prompts,
    suite: str,
    case: Case,
    arm: Arm,
    run: int,
    request: Request,
    model: str,
) -> Job:  # fmt: skip
    config = lm.config
    methods = request.methods
    texts = place(methods, instruction=case.instruction, query=case.query)
    prompt = prompts.of(request.role, texts.instruction, texts.query)
    used = len(prompt.ids)
    if used >= config.context_length:
        raise InputError(
            f"the prompt has {used} tokens, and the model's context holds "
            f"{config.context_length} with the answer"
        )
    placed = texts.spans(prompt)
    sequence_plan(placed, tokens=used, hidden_size=config.hidden_size, **config.size)
    values = request.sampling
    key = _digest(
        [
            model,
            suite,
            case.name,
            list(prompt.ids),
            # Where it acts: tags are no part of the prompt, and decide on strength and place.
            [[setting_of(method), *map(str, spans)] for method, spans in placed],
            # Greedy answers do not depend on the seed.
            asdict(values) if request.temperature > 0 else {**asdict(values), "seed": 0},
            [request.max_new_tokens, list(request.stop)],
            run,
        ]
    )
    published = any(isinstance(m, Spotlight) and m.form == "published" for m in methods)
    return Job(
        key=key,
        suite=suite,
        case=case,
        arm=arm,
        run=run,
        request=request,
        tokens=used,
        published=published,
    )


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
