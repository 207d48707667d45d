"""LM: the object that users hold. Text in, boosted text out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from .config import ModelConfig
from .errors import InputError
from .methods import Latent
from .model import Transformer
from .plan import Plan, sequence_plan
from .prompt import Prompt
from .request import Boosts, Generation, Request, as_methods
from .run import Prompts, Run
from .span import Span, check_span
from .tokenizer import Tokenizer


class LM:
    """A loaded model with its tokenizer, made by ``minboost.load``; no state between calls.

    On a GPU, ``graph`` says whether decode steps are captured as CUDA graphs.
    """

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, *, name: str = "", graph: bool = True
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.graph = graph

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def impl(self) -> str:
        """The implementation that runs: "torch", "triton" or "reference"."""
        return self.model.impl

    @property
    def compiled(self) -> bool:
        """Whether single sequences are decoded through a compiled function."""
        return self.model.row is not None and self.model.row.compiled is not None

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def generate(
        self,
        *,
        query: str,
        instruction: str | None = None,
        boost: Boosts = None,
        role: str = "system",
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop: str | Sequence[str] = (),
        measure_mass: bool = False,
    ) -> Generation:
        """Generate one answer.

        Args:
            query: what is asked.
            instruction: what the model is told to do; None for none.
            boost: ``Boost``, ``Pasta``, ``Guide``, ``Spotlight``, ``Latent``, or several of them
                together; None is the plain model.
            role: where the instruction stands: "system", "user" (in front of the query), or "raw"
                (no chat template).
            max_new_tokens: the answer's length at most, cut to what the context leaves.
            temperature, top_p, top_k, min_p, repetition_penalty, seed: as in ``Sampling``;
                temperature 0 is greedy.
            stop: texts that end the answer and are not part of it.
            measure_mass: also measure the attention mass on the instruction, with and without the
                boost, at the cost of two more prefills.

        Raises:
            InputError: the request is wrong: an empty text, a boost that touches nothing, a prompt
                longer than the context, a sampling value out of range.
        """
        stream = self.stream(
            query=query,
            instruction=instruction,
            boost=boost,
            role=role,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            stop=stop,
            measure_mass=measure_mass,
        )
        for _ in stream:
            pass
        return stream.result

    def stream(
        self,
        *,
        query: str,
        instruction: str | None = None,
        boost: Boosts = None,
        role: str = "system",
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop: str | Sequence[str] = (),
        measure_mass: bool = False,
    ) -> Stream:
        """As ``generate``, piece by piece; the joined pieces are the answer's text."""
        request = Request(
            query=query,
            instruction=instruction,
            boost=boost,
            role=role,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            stop=stop,
        )
        return Stream(self._run([request], measure_mass))

    def generate_batch(
        self,
        requests: Sequence[Request],
        *,
        measure_mass: bool = False,
        prompts: Prompts | None = None,
    ) -> list[Generation]:
        """Generate all requests as one batch, each with its own boost, length and seed.

        ``prompts`` keeps the prompts that were laid out, for calls that share texts.
        """
        requests = list(requests)
        if not all(isinstance(request, Request) for request in requests):
            raise InputError("generate_batch takes a list of Requests")
        if not requests:
            return []
        run = self._run(requests, measure_mass, prompts)
        while not run.done:
            run.step()
        return run.results()

    @torch.inference_mode()
    def logits(
        self,
        ids: Sequence[int] | Tensor,
        boost: Boosts = None,
        spans: Span | Sequence[Span] | None = None,
    ) -> Tensor:
        """Logits (T, V) float32 of one forward over ``ids`` (T,), without a cache.

        Args:
            boost: one or several; each acts on ``spans`` where given, else on its own ``span``,
                which must then be a ``Span``.
        """
        ids = torch.as_tensor(ids, device=self.device)
        if ids.dim() != 1 or not len(ids):
            raise InputError(f"ids must be one non-empty sequence, got shape {tuple(ids.shape)}")
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise InputError(f"ids must be integers, got {ids.dtype}")
        ids = ids.long()
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= self.config.vocab_size:
            raise InputError(f"ids must lie in [0, {self.config.vocab_size}), got {low} to {high}")
        if len(ids) > self.config.context_length:
            raise InputError(
                f"{len(ids)} ids are more than the model's context of {self.config.context_length}"
            )
        if spans is not None and boost is None:
            raise InputError("spans were given without a boost")
        if not isinstance(spans, (Span, Iterable, type(None))):
            raise InputError(f"spans must be a Span or a list of them, got {spans!r}")
        where = None if spans is None else [spans] if isinstance(spans, Span) else list(spans)
        placed = []
        for method in as_methods(boost):
            named = [method.span] if where is None else where
            if isinstance(method, Latent):
                named = []
            placed.append((method, [check_span(span, len(ids)) for span in named]))
        plan = None
        if placed:
            sequence = sequence_plan(
                placed, tokens=len(ids), hidden_size=self.config.hidden_size, **self.config.size
            )
            plan = Plan.build([sequence], **self.config.size, device=self.device)
        return self.model.logits(self.model(ids[None], plan=plan).hidden)[0]

    def _run(
        self, requests: Sequence[Request], measure_mass: bool, prompts: Prompts | None = None
    ) -> Run:
        return Run(
            self.model,
            self.tokenizer,
            requests,
            measure_mass=measure_mass,
            graph=self.graph,
            prompts=prompts,
        )


class Stream(Iterator[str]):
    """Iterate for the pieces of the answer; ``result`` is the Generation, so far or in full."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while not self._run.done:
            piece = self._run.step()[0]
            if piece:
                return piece
        raise StopIteration

    @property
    def prompt(self) -> Prompt:
        return self._run.prompts[0]

    @property
    def notes(self) -> tuple[str, ...]:
        return self._run.notes[0]

    @property
    def result(self) -> Generation:
        return self._run.results()[0]
