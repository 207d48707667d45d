"""The attention mass that a request's methods move: before and after, for every head and step.

The mass of a row is the softmax weight that it gives to the keys of a span. It comes out of the
attention itself (``return_mass`` of ``Transformer.forward``), so nothing of the size of the
attention matrix is ever held: memory grows with the number of tokens, not with its square.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checks import as_integer
from ..errors import InputError
from ..lm import LM
from ..methods import Guide, Latent, Method
from ..placement import place
from ..plan import Plan, sequence_plan
from ..prompt import Prompt
from ..request import Request
from ..run import checked_prompt
from ..span import Span, merged
from ..tokenizer import Tokenizer

DIGITS = 6  # of a mass in JSON
LONGEST_TEXT = 40


@dataclass(frozen=True, kw_only=True, eq=False)
class MassMap:
    """Attention mass on ``spans`` together, for the same tokens without and with the methods.

    ``baseline`` and ``steered`` are (L, H, R) float32 on the CPU, each in [0, 1]. Row 0 is the
    prompt's last position, rows 1 … R - 1 the decode steps; ``tokens[r]`` is the text of the token
    that was chosen at row r. An answer without tokens has row 0 alone.
    """

    baseline: Tensor
    steered: Tensor
    tokens: tuple[str, ...]
    spans: tuple[Span, ...]
    measured: str
    """What the spans are, for people: "the instruction", "the prefix", the text itself."""

    def as_json(self, *, all_steps: bool = False) -> dict[str, Any]:
        """Plain data: (L, H) matrices of the prompt's last position, and the means of each step.

        With ``all_steps`` every step has its matrices too.
        """
        steps: list[dict[str, Any]] = []
        for row, token in enumerate(self.tokens):
            baseline, steered = self.baseline[:, :, row], self.steered[:, :, row]
            step = {
                "token": token,
                "baseline_mean": _mean(baseline),
                "steered_mean": _mean(steered),
            }
            if all_steps:
                step |= {"baseline": _matrix(baseline), "steered": _matrix(steered)}
            steps.append(step)
        baseline, steered = self.baseline[:, :, 0], self.steered[:, :, 0]
        return {
            "measured": self.measured,
            "spans": [[span.start, span.stop] for span in self.spans],
            "baseline_mean": _mean(baseline),
            "steered_mean": _mean(steered),
            "baseline": _matrix(baseline),
            "steered": _matrix(steered),
            "steps": steps,
        }


def measure(
    lm: LM,
    request: Request,
    *,
    answer: Sequence[int] | None = None,
    prompt: Prompt | None = None,
) -> MassMap:
    """Measure the mass on the spans that the request's methods name, or else on its instruction.

    One forward over prompt and answer without the methods, and one with them; its rows are those
    of decoding step by step. (Not so with dynamic rope past the original context, whose angles
    follow the length: there all rows have those of the whole sequence.)

    Args:
        answer: ids whose steps are measured; by default the request is answered first.
        prompt: the request's, where it has been built before.

    Raises:
        InputError: a request that has neither an instruction nor a span of text, ids that are none
            of the model, an answer that does not fit in the context, or what ``generate`` refuses.
    """
    _check_measurable(request)
    if answer is None:
        (out,) = lm.generate_batch([request])
        prompt, answer = out.prompt, out.ids
    texts = place(request.methods, instruction=request.instruction, query=request.query)
    if prompt is None:
        prompt = checked_prompt(
            lm.tokenizer, request.role, texts.instruction, texts.query, lm.config.vocab_size
        )
    answer = [as_integer("an id of the answer", i, 0, lm.config.vocab_size) for i in answer]
    ids = [*prompt.ids, *answer[:-1]]  # nothing follows the last token: it has no row
    if len(ids) > lm.config.context_length:
        raise InputError(
            f"a prompt of {len(prompt.ids)} tokens and an answer of {len(answer)} are more than "
            f"the model's context of {lm.config.context_length}"
        )
    placed = texts.spans(prompt)
    spans, measured = _measured(placed, prompt)
    size = lm.config.size
    sequence = sequence_plan(
        placed, tokens=len(prompt.ids), hidden_size=lm.config.hidden_size, **size
    )
    # What is measured comes first, whether or not it is steered.
    watched = {span: torch.zeros(size["n_layers"], size["n_heads"]) for span in spans}
    sequence.strengths = watched | sequence.strengths
    plan = Plan.build([sequence], **size, device=lm.device)
    tokens = torch.tensor([ids], device=lm.device)
    rows = range(len(prompt.ids) - 1, len(ids))
    baseline, steered = (
        _mass(lm, tokens, each, rows, len(spans)) for each in (plan.without_strengths(), plan)
    )
    return MassMap(
        baseline=baseline,
        steered=steered,
        tokens=tuple(_text(lm.tokenizer, token) for token in answer),
        spans=tuple(spans),
        measured=measured,
    )


@torch.inference_mode()
def _mass(lm: LM, ids: Tensor, plan: Plan, rows: range, spans: int) -> Tensor:
    """(L, H, R): the mass on the first ``spans`` spans of the plan together."""
    mass: Tensor = lm.model(ids, plan=plan, return_mass=True, rows=rows).mass  # (L, 1, H, R, N)
    return mass[:, 0, :, :, :spans].sum(-1).clamp(max=1).cpu()  # a sum of rounded shares


def _measured(
    placed: Sequence[tuple[Method, Sequence[Span]]], prompt: Prompt
) -> tuple[list[Span], str]:
    """The spans that are measured, and what to call them."""
    named = [span for _, spans in placed for span in spans]
    if not named:
        assert prompt.instruction is not None
        named = [prompt.instruction]
    spans = merged(named)
    if prompt.instruction is not None and spans == [prompt.instruction]:
        return spans, "the instruction"
    if prompt.instruction is not None and spans == [prompt.prefix]:
        return spans, "the prefix"
    texts = {method.span for method, spans in placed if spans}
    text = texts.pop()
    if texts or not isinstance(text, str) or any(isinstance(m, Guide) for m, _ in placed):
        return spans, "the named text"  # several, positions, or what stood between tags
    return spans, repr(textwrap.shorten(text, LONGEST_TEXT, placeholder="…"))


def _check_measurable(request: Request) -> None:
    acting = [method for method in request.methods if not isinstance(method, Latent)]
    if request.instruction is None and not acting:
        raise InputError(
            "there is nothing whose attention mass could be measured: the request has no "
            "instruction, and no method of it names a text"
        )


def _text(tokenizer: Tokenizer, token: int) -> str:
    return tokenizer.decode([token], skip_special_tokens=False)


def _mean(mass: Tensor) -> float:
    return round(mass.mean().item(), DIGITS)


def _matrix(mass: Tensor) -> list[list[float]]:
    return [[round(value, DIGITS) for value in row] for row in mass.tolist()]
