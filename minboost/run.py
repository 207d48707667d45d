"""One batch of requests on its way to answers, a token a step."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from .answer import Answer
from .checks import as_integer
from .decode import Decoder, Tokens
from .errors import InputError, ModelError
from .methods import Method
from .model import Transformer
from .placement import place
from .plan import Plan, SequencePlan, sequence_plan
from .prompt import Prompt, build_prompt
from .request import Generation, Mass, Request, Stats
from .sampling import BROKEN
from .span import Span
from .tokenizer import Tokenizer


class Run:
    """Prompts, plan, cache, samplers and answers of one batch.

    Everything a user can get wrong raises in the constructor, before any prefill.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        requests: Sequence[Request],
        *,
        measure_mass: bool,
        graph: bool = True,
        prompts: Prompts | None = None,
    ) -> None:
        self.graph = graph
        self.model = model
        self.config = model.config
        self.device = model.device
        self.requests = requests
        written = [place(r.methods, instruction=r.instruction, query=r.query) for r in requests]
        if prompts is None:
            prompts = Prompts(tokenizer, self.config.vocab_size)
        self.prompts = [
            prompts.of(request.role, texts.instruction, texts.query)
            for request, texts in zip(requests, written, strict=True)
        ]
        fitted = [
            _fit(request, prompt, self.config.context_length)
            for request, prompt in zip(requests, self.prompts, strict=True)
        ]
        self.limits = [limit for limit, _ in fitted]
        self.notes = [
            (*prompt.notes, *notes) for prompt, (_, notes) in zip(self.prompts, fitted, strict=True)
        ]
        placed = [texts.spans(prompt) for texts, prompt in zip(written, self.prompts, strict=True)]
        plans = self._plans(placed, watch=False)
        self.heads = [plan.heads for plan in plans]
        self.spans = [plan.spans for plan in plans]
        self.span_logs = [plan.span_logs for plan in plans]
        self.plan = self._built(plans)
        eos_ids = self.config.eos_token_ids or tokenizer.eos_ids
        self.answers = [
            Answer(tokenizer, eos_ids=eos_ids, stop=r.stop, max_new_tokens=limit)
            for r, limit in zip(requests, self.limits, strict=True)
        ]
        self.samplings = [request.sampling for request in requests]
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        # Holds the KV cache: from the first step to the last.
        self.tokens: Tokens | None = None
        self.masses: list[Mass | None] = [None] * len(requests)
        if measure_mass:
            # A plan of its own: one more span would change the last bits of the answer's run.
            self.masses = self._measure(self._built(self._plans(placed, watch=True)))
        self.prefill_seconds = self.decode_seconds = 0.0
        self.decoded = 0

    @property
    def done(self) -> bool:
        return all(answer.finish_reason for answer in self.answers)

    def step(self) -> list[str]:
        """Choose the next token of every sequence; the new text of each, "" for ended ones."""
        began = time.perf_counter()
        prefill = self.tokens is None
        if self.tokens is None:
            self.tokens = self._decoder(self.plan).tokens(self.samplings, graph=self.graph)
        live = [answer.finish_reason is None for answer in self.answers]
        # The tokens of an ended sequence are not used; it leaves the batch with others (decode.py).
        tokens = next(self.tokens) if prefill else self.tokens.send(live)
        if any(going and token == BROKEN for going, token in zip(live, tokens, strict=True)):
            raise ModelError(
                "the model's logits are not finite: it overflows in this dtype (try bfloat16 or "
                "float32) or its weights are damaged"
            )
        pieces = [
            answer.push(token) if going else ""
            for answer, token, going in zip(self.answers, tokens, live, strict=True)
        ]
        if self.done:
            self.tokens.close()
            self.tokens = None
        elapsed = time.perf_counter() - began
        if prefill:
            self.prefill_seconds = elapsed
        else:
            self.decode_seconds += elapsed
            self.decoded += sum(live)
        return pieces

    def results(self) -> list[Generation]:
        """The answers, so far or in full; an unfinished one has finish_reason "interrupted"."""
        prompt_tokens = sum(len(prompt.ids) for prompt in self.prompts)
        memory = peak_memory(self.device)
        return [
            Generation(
                text=answer.text,
                ids=tuple(answer.ids),
                finish_reason=answer.finish_reason or "interrupted",
                prompt=prompt,
                stats=Stats(
                    prompt_tokens=len(prompt.ids),
                    new_tokens=len(answer.ids),
                    prefill_seconds=self.prefill_seconds,
                    decode_seconds=self.decode_seconds,
                    prefill_tokens_per_second=_rate(prompt_tokens, self.prefill_seconds),
                    decode_tokens_per_second=_rate(self.decoded, self.decode_seconds),
                    peak_memory_bytes=memory,
                ),
                notes=notes,
                boosted_heads=heads,
                boosted_spans=spans,
                boosted_logs=logs,
                attention_mass=mass,
            )
            for answer, prompt, heads, spans, logs, notes, mass in zip(
                self.answers,
                self.prompts,
                self.heads,
                self.spans,
                self.span_logs,
                self.notes,
                self.masses,
                strict=True,
            )
        ]

    def _decoder(self, plan: Plan | None) -> Decoder:
        ids = [prompt.ids for prompt in self.prompts]
        return Decoder(self.model, ids, max_new_tokens=max(self.limits), plan=plan)

    def _plans(
        self, placed: Sequence[Sequence[tuple[Method, Sequence[Span]]]], *, watch: bool
    ) -> list[SequencePlan]:
        """Each sequence's methods compiled, with ``watch`` its instruction in slot 0."""
        return [
            sequence_plan(
                methods,
                tokens=len(prompt.ids),
                watch=prompt.instruction if watch else None,
                hidden_size=self.config.hidden_size,
                **self.config.size,
            )
            for methods, prompt in zip(placed, self.prompts, strict=True)
        ]

    def _built(self, plans: Sequence[SequencePlan]) -> Plan | None:
        if all(plan.empty for plan in plans):
            return None
        return Plan.build(plans, **self.config.size, device=self.device)

    def _measure(self, plan: Plan | None) -> list[Mass | None]:
        """The mass on each instruction, boosted and plain: two prefills of their own."""
        if plan is None:
            return [None] * len(self.requests)
        _, boosted = self._decoder(plan).prefill(return_mass=True)
        _, baseline = self._decoder(plan.without_strengths()).prefill(return_mass=True)
        assert boosted is not None
        assert baseline is not None
        return [
            Mass(baseline=baseline[:, b, :, 0], boosted=boosted[:, b, :, 0])
            if prompt.instruction is not None
            else None
            for b, prompt in enumerate(self.prompts)
        ]


def checked_prompt(
    tokenizer: Tokenizer, role: str, instruction: str | None, query: str, vocab_size: int
) -> Prompt:
    """``build_prompt``; `ModelError` where the tokenizer writes an id that the model lacks."""
    prompt = build_prompt(tokenizer, instruction=instruction, query=query, role=role)
    if max(prompt.ids) >= vocab_size:
        name = tokenizer.decode([max(prompt.ids)], skip_special_tokens=False)
        raise ModelError(
            f"the tokenizer writes {name!r} as id {max(prompt.ids)}, but the model has "
            f"{vocab_size} tokens: tokenizer.json and config.json do not belong together"
        )
    return prompt


class Prompts:
    """The prompts of many requests, each text laid out once: arms of a comparison share theirs."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer, self._vocab_size = tokenizer, vocab_size
        self._made: dict[tuple[str, str | None, str], Prompt] = {}

    def of(self, role: str, instruction: str | None, query: str) -> Prompt:
        """As ``checked_prompt``."""
        texts = (role, instruction, query)
        if texts not in self._made:
            self._made[texts] = checked_prompt(
                self._tokenizer, role, instruction, query, self._vocab_size
            )
        return self._made[texts]


def peak_memory(device: torch.device) -> int | None:
    """Bytes: the device's peak on CUDA, the process's peak resident size elsewhere."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _fit(request: Request, prompt: Prompt, context: int) -> tuple[int, tuple[str, ...]]:
    """How many tokens may be generated, and what to say about it."""
    wanted, used = as_integer("max_new_tokens", request.max_new_tokens, 1), len(prompt.ids)
    if used >= context:
        raise InputError(
            f"the prompt has {used} tokens, and the model's context holds {context} with the answer"
        )
    room = context - used
    if wanted <= room:
        return wanted, ()
    note = (
        f"max_new_tokens cut from {wanted} to {room}: the prompt has {used} tokens, "
        f"the context holds {context}"
    )
    return room, (note,)


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
