"""The engines that benchmarks compare: the same weights, the same ids, greedy, one token a step.

Each is called at its own level of ids and logits, so tokenizers and generate loops cost nobody
anything. A boosted engine acts on the prompt's first quarter, on all layers and heads.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

MULTIPLIER = 10.0
DTYPES = ("float32", "bfloat16", "int8")  # of the matrices
INT8_ACTIVATIONS = torch.bfloat16


@dataclass(frozen=True)
class Job:
    """What an engine is started with: its name in ``ENGINES``, a checkpoint, and how to run it.

    ``length`` is the longest prompt with its new tokens. ``compile`` concerns minboost alone.
    """

    engine: str
    folder: str
    dtype: str
    threads: int
    length: int
    boosted: bool = False
    compile: bool = False


class Engine(Protocol):
    """A model that has been loaded. Logits are (V,) float32, of the last token."""

    def prefill(self, ids: Sequence[int], new: int) -> Tensor:
        """Begin with these ids, and forget all that was before; ``new`` tokens will follow."""
        ...

    def step(self, token: int) -> Tensor:
        """Append one token."""
        ...

    def rewind(self) -> None:
        """Forget what was appended to the prompt."""
        ...

    def about(self) -> dict[str, Any]:
        """What the results should say of it."""
        ...


def span_of(ids: Sequence[int]) -> tuple[int, int]:
    """The boosted positions of a prompt: its first quarter."""
    return 0, max(1, len(ids) // 4)


class Minboost:
    """minboost's Decoder, plain or boosted, eager or compiled, int8 or not.

    Making the plan is part of prefill, as it is part of a request.
    """

    def __init__(self, job: Job) -> None:
        from minboost.checkpoint import load_model
        from minboost.config import ModelConfig
        from minboost.cpu import prepare

        folder = Path(job.folder)
        int8 = job.dtype == "int8"
        self.model = load_model(
            folder,
            ModelConfig.from_folder(folder),
            device=torch.device("cpu"),
            dtype=INT8_ACTIVATIONS if int8 else getattr(torch, job.dtype),
            quantize="int8" if int8 else None,
        )
        prepare(self.model, compile=job.compile)
        self.boosted = job.boosted
        self.decoder: Any = None
        self.prompt = 0

    def sharing(self, *, boosted: bool) -> Minboost:
        """Another engine on the same model."""
        other = copy.copy(self)
        other.boosted = boosted
        return other

    def prefill(self, ids: Sequence[int], new: int) -> Tensor:
        from minboost.decode import Decoder
        from minboost.methods import Boost
        from minboost.plan import Plan, sequence_plan
        from minboost.span import Span

        plan, size = None, self.model.config.size
        if self.boosted:
            strengths = sequence_plan([(Boost(MULTIPLIER), [Span(*span_of(ids))])], **size)
            plan = Plan.build([strengths], **size, device=self.model.device)
        self.decoder = Decoder(self.model, [list(ids)], max_new_tokens=new, plan=plan)
        self.prompt = len(ids)
        logits: Tensor = self.decoder.prefill()[0][0]
        return logits

    def step(self, token: int) -> Tensor:
        logits: Tensor = self.decoder.step([token])[0]
        return logits

    def rewind(self) -> None:
        self.decoder.positions = [self.prompt]  # later keys are overwritten before they are seen

    def about(self) -> dict[str, Any]:
        return {"activations": str(self.model.dtype).removeprefix("torch.")}


class Transformers:
    """transformers with SDPA and its dynamic cache, as ``generate`` runs it."""

    attention = "sdpa"

    def __init__(self, job: Job) -> None:
        from transformers import AutoModelForCausalLM

        self.model: Any = AutoModelForCausalLM.from_pretrained(
            job.folder, dtype=getattr(torch, job.dtype), attn_implementation=self.attention
        ).eval()
        self.cache: Any = None
        self.prompt = 0

    @torch.inference_mode()
    def prefill(self, ids: Sequence[int], new: int) -> Tensor:
        from transformers import DynamicCache

        self.cache = DynamicCache(config=self.model.config)
        self.prompt = len(ids)
        return self._forward(ids)

    @torch.inference_mode()
    def step(self, token: int) -> Tensor:
        return self._forward([token])

    def rewind(self) -> None:
        _crop(self.cache, self.prompt)

    def about(self) -> dict[str, Any]:
        return {"attention": self.attention}

    def _forward(self, ids: Sequence[int]) -> Tensor:
        out = self.model(
            torch.tensor([list(ids)]),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
            **self._mask(len(ids)),
        )
        logits: Tensor = out.logits[0, -1].float()
        return logits

    def _mask(self, rows: int) -> dict[str, Tensor]:
        """What is passed on as the attention mask of ``rows`` new tokens; nothing when plain."""
        return {}


class TransformersMask(Transformers):
    """transformers with the boost in a 4-D float mask, added to the logits of every layer."""

    attention = "eager"

    def _mask(self, rows: int) -> dict[str, Tensor]:
        before = self.cache.get_seq_length()
        keys, dtype = before + rows, self.model.dtype
        start, stop = span_of(range(self.prompt))
        mask = torch.zeros(rows, keys, dtype=dtype)
        mask[:, start:stop] = math.log(MULTIPLIER)
        if rows > 1:
            later = torch.ones(rows, keys, dtype=torch.bool).triu(before + 1)
            mask.masked_fill_(later, torch.finfo(dtype).min)
        return {"attention_mask": mask[None, None]}


class TransformersMaskSdpa(TransformersMask):
    """The same mask, given to SDPA."""

    attention = "sdpa"


class TransformerLens:
    """TransformerLens with the paper's hook: the pattern multiplied and renormalised.

    The hooks stay on the model from prefill on, and its cache is transformers' own.
    """

    def __init__(self, job: Job) -> None:
        from transformer_lens.model_bridge import TransformerBridge

        if not (Path(job.folder) / "tokenizer.json").exists():
            _write_tokenizer(job.folder)
        self.model: Any = TransformerBridge.boot_transformers(
            job.folder, dtype=getattr(torch, job.dtype), device="cpu"
        ).eval()
        self.cache: Any = None
        self.prompt = 0
        self.hooks = contextlib.ExitStack()

    @torch.inference_mode()
    def prefill(self, ids: Sequence[int], new: int) -> Tensor:
        from transformers import DynamicCache

        self.hooks.close()
        hook = functools.partial(_boost_pattern, span=span_of(ids))
        layers = range(self.model.cfg.n_layers)
        points = [(f"blocks.{layer}.attn.hook_pattern", hook) for layer in layers]
        self.hooks.enter_context(self.model.hooks(fwd_hooks=points))
        self.cache = DynamicCache(config=self.model.original_model.config)
        self.prompt = len(ids)
        return self._forward(ids)

    @torch.inference_mode()
    def step(self, token: int) -> Tensor:
        return self._forward([token])

    def rewind(self) -> None:
        _crop(self.cache, self.prompt)

    def about(self) -> dict[str, Any]:
        return {}

    def _forward(self, ids: Sequence[int]) -> Tensor:
        logits = self.model(
            torch.tensor([list(ids)]),
            return_type="logits",
            past_key_values=self.cache,
            logits_to_keep=1,
        )
        last: Tensor = logits[0, -1].float()
        return last


def _crop(cache: Any, length: int) -> None:
    spare = cache.get_seq_length() - length
    if spare:
        cache.crop(-spare)  # transformers takes the number of tokens to remove, negative


def _write_tokenizer(folder: str) -> None:
    """One of a few words: TransformerLens wants a tokenizer in the folder, though ids need none."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<s>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def _boost_pattern(pattern: Tensor, hook: object, *, span: tuple[int, int]) -> Tensor:
    """(B, H, Q, K) → the same with the span's keys × m and rows that sum to 1."""
    pattern[..., span[0] : span[1]] *= MULTIPLIER
    return pattern / pattern.sum(-1, keepdim=True)


def _llama_cpp(job: Job) -> Engine:
    from engine_llama_cpp import LlamaCpp

    return LlamaCpp(job)


ENGINES: dict[str, Callable[[Job], Engine]] = {
    "minboost": Minboost,
    "transformers": Transformers,
    "transformers-mask": TransformersMask,
    "transformers-mask-sdpa": TransformersMaskSdpa,
    "transformer-lens": TransformerLens,
    "llama.cpp": _llama_cpp,
}
BOOSTED = ("transformers-mask", "transformers-mask-sdpa", "transformer-lens")
PACKAGES = {
    "minboost": ("minboost",),
    "transformer-lens": ("transformer_lens",),
    "llama.cpp": ("llama_cpp", "gguf"),
}


def needs(engine: str) -> tuple[str, ...]:
    """The modules that an engine cannot do without."""
    return PACKAGES.get(engine, ("transformers",))
