"""A request's influence and what to read it by: upper case, a control span, the token share.

GUIDE (arXiv 2409.19001) chooses its delta so that the influence of the instruction becomes that of
the same instruction in upper case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from ..errors import InputError
from ..lm import LM
from ..methods import Guide
from ..placement import place
from ..plan import Plan, sequence_plan
from ..prompt import Prompt
from ..request import Boosts, Request, as_methods
from ..run import Run
from ..span import Span
from .influence import Influence, influence, token_share

REACHED, NOT_HIGHER = "reached", "not_higher"
OUT_OF_REACH, NOT_SEEN = "out_of_reach", "not_seen"
MOST = 10
"""The largest delta that is tried."""
STEPS = 100
"""Deltas tried between two whole numbers."""


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """Which GUIDE delta lifts an influence curve to another, and the curves' levels.

    A level is the mean over the layers of the log influence, over those layers alone where neither
    curve is 0; ``layers`` says how many these are.

    Attributes:
        outcome: "reached"; "not_higher", the goal lies no higher than the plain curve, so delta is
            0; "out_of_reach" of every delta tried; "not_seen", one of the curves is 0 everywhere.
        delta: the least that was found to reach the goal, in steps of .01; None without one.
        level: of the curve with that delta; the highest tried where the goal is out of reach.
    """

    outcome: str
    delta: float | None
    plain: float | None
    goal: float | None
    level: float | None
    layers: int


def suggest_delta(curve: Callable[[float], Tensor], plain: Tensor, goal: Tensor) -> Suggestion:
    """Raise delta from 0 until ``curve(delta)`` is level with ``goal``.

    Whole numbers up to 10 are tried first, then the unit below the first that reaches the goal is
    bisected to .01, so a curve that falls again at large deltas is no obstacle.

    Args:
        curve: delta → the influence on one position, (L + 1,) by depth; row 0 does not count.
        plain, goal: the same without a delta, and the curve to reach.
    """
    seen = (plain[1:] > 0) & (goal[1:] > 0)
    layers = int(seen.sum())
    if not layers:
        return Suggestion(outcome=NOT_SEEN, delta=None, plain=None, goal=None, level=None, layers=0)

    def level(values: Tensor) -> float:
        return float(values[1:][seen].double().log().mean())

    low, high = level(plain), level(goal)

    def suggestion(outcome: str, delta: float | None, reached: float) -> Suggestion:
        return Suggestion(
            outcome=outcome, delta=delta, plain=low, goal=high, level=reached, layers=layers
        )

    if high <= low:
        return suggestion(NOT_HIGHER, 0.0, low)
    best = low
    for unit in range(1, MOST + 1):
        reached = level(curve(float(unit)))
        if reached >= high:
            break
        best = max(best, reached)
    else:
        return suggestion(OUT_OF_REACH, None, best)
    below, above = (unit - 1) * STEPS, unit * STEPS
    while above - below > 1:
        middle = (below + above) // 2
        there = level(curve(middle / STEPS))
        if there >= high:
            above, reached = middle, there
        else:
            below = middle
    return suggestion(REACHED, above / STEPS, reached)


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """The influence of a request's instruction, and everything to read it by.

    Attributes:
        prompt, upper_prompt: as given, and with the instruction in upper case.
        run: the request as it would run, with what is steered.
        plain, boosted, upper: of the instruction; ``upper`` is of ``upper_prompt``, unsteered.
        control: of as many tokens at the query's beginning, plain and boosted; None where the
            query has fewer.
        share, upper_share: ``token_share`` of the instruction in either prompt.
    """

    run: Run
    prompt: Prompt
    upper_prompt: Prompt
    plain: Influence
    boosted: Influence
    upper: Influence
    control: tuple[Influence, Influence] | None
    share: Tensor
    upper_share: Tensor
    suggestion: Suggestion


def compare(
    lm: LM,
    *,
    instruction: str,
    query: str,
    boost: Boosts = None,
    role: str = "system",
    guide: Guide | None = None,
) -> Comparison:
    """The influence of ``instruction`` plain, under ``boost`` and in upper case, with baselines.

    Args:
        guide: the method whose delta is suggested, on its layers and heads; by default on all. Its
            span is the instruction whatever it says.

    Raises:
        InputError: what ``lm.generate`` refuses, in upper case too.
    """
    guide = replace(guide or Guide(), span="instruction")
    texts = place(as_methods(boost), instruction=instruction, query=query)
    run = _run(lm, Request(instruction=instruction, query=query, boost=boost, role=role))
    prompt, plan = run.prompts[0], run.plan
    assert texts.instruction is not None
    upper_case = Request(instruction=texts.instruction.upper(), query=texts.query, role=role)
    try:
        upper_prompt = _run(lm, upper_case).prompts[0]
    except InputError as error:
        raise InputError(f"with the instruction in upper case: {error}") from error
    span, upper_span = prompt.instruction, upper_prompt.instruction
    assert span is not None
    assert upper_span is not None
    control = control_span(prompt)
    spans = [span] if control is None else [span, control]
    plain = influence(lm.model, prompt.ids, spans)
    boosted = influence(lm.model, prompt.ids, spans, plan=plan)
    (upper,) = influence(lm.model, upper_prompt.ids, [upper_span])

    def curve(delta: float) -> Tensor:
        sequence = sequence_plan([(replace(guide, delta=delta), [span])], **lm.config.size)
        plan = Plan.build([sequence], **lm.config.size, device=lm.device)
        return influence(lm.model, prompt.ids, [span], plan=plan)[0].at_last

    return Comparison(
        run=run,
        prompt=prompt,
        upper_prompt=upper_prompt,
        plain=plain[0],
        boosted=boosted[0],
        upper=upper,
        control=None if control is None else (plain[1], boosted[1]),
        share=token_share(lm.config, span, len(prompt.ids)),
        upper_share=token_share(lm.config, upper_span, len(upper_prompt.ids)),
        suggestion=suggest_delta(curve, plain[0].at_last, upper.at_last),
    )


def control_span(prompt: Prompt) -> Span | None:
    """As many tokens of the query as the instruction has, those nearest to it; None if too few.

    Nearest, because influence falls with distance: a control further on would have less to cross.
    """
    span, query = prompt.instruction, prompt.query
    assert span is not None
    if span.start <= query.start:
        first = max(query.start, span.stop)
        stop = first + len(span)
        return Span(first, stop) if stop <= query.stop else None
    stop = min(query.stop, span.start)
    return Span(stop - len(span), stop) if stop - len(span) >= query.start else None


def _run(lm: LM, request: Request) -> Run:
    """The request checked, written as a prompt and compiled; nothing is computed yet."""
    return Run(lm.model, lm.tokenizer, [replace(request, max_new_tokens=1)], measure_mass=False)
