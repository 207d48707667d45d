"""What the GPU measurements share: device, sizes, random models, caches, spans and plans."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from gpu_timing import BANDWIDTH, Clock
from shapes import SHAPES
from torch import Tensor

from minboost.cache import KVCache
from minboost.config import ModelConfig
from minboost.model import Transformer
from minboost.ops import Frame
from minboost.plan import Plan
from minboost.span_bias import SpanBias

MULTIPLIER = 5.0
TINY = {
    "vocab_size": 56,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
}


@dataclass(frozen=True)
class Heads:
    """The shape of an attention layer."""

    q: int
    kv: int
    dim: int


@dataclass(frozen=True)
class Sizes:
    """How large everything is that is checked or measured."""

    heads: dict[str, Heads]  # by the name in the tables
    contexts: tuple[int, ...]  # of decode attention, in keys
    prompts: tuple[int, ...]  # of prefill attention, in tokens
    steps: dict[str, tuple[int, ...]]  # contexts of whole decode steps, by model
    batch: int  # of the larger of the two batches
    compared: tuple[int, ...]  # lengths at which others' attention is measured too
    first_token: tuple[int, ...]
    warm_tokens: int  # the first ones hold captures and what else happens once
    new_tokens: int  # the ones measured after them
    rounds: int
    copy_bytes: int
    cache_bytes: int  # of all layers' keys and values that a chain of decode launches reads


REAL = Sizes(
    heads={"1B": Heads(32, 8, 64), "8B": Heads(32, 8, 128), "32/4/128": Heads(32, 4, 128)},
    contexts=(1024, 2048, 8192, 16384, 32768),
    prompts=(16384, 8192, 4096, 2048),
    steps={"Llama-3.2-1B": (2048, 8192, 32768), "Llama-3.1-8B": (2048, 8192)},
    batch=8,
    compared=(16384, 2048),  # the more telling first: time may run out
    first_token=(128, 2048, 8192),
    warm_tokens=8,
    new_tokens=64,
    rounds=24,
    copy_bytes=4 << 30,
    cache_bytes=512 << 20,
)
DRY = Sizes(
    heads={"1B": Heads(2, 1, 16), "8B": Heads(2, 1, 32), "32/4/128": Heads(4, 1, 16)},
    contexts=(40,),
    prompts=(24,),
    steps={"Llama-3.2-1B": (24,), "Llama-3.1-8B": (24,)},
    batch=2,
    compared=(24,),
    first_token=(24,),
    warm_tokens=1,
    new_tokens=2,
    rounds=1,
    copy_bytes=1 << 20,
    cache_bytes=1 << 15,
)


@dataclass
class Lab:
    """One device to measure on; ``dry`` is the rehearsal on a CPU with tiny sizes."""

    device: torch.device
    dry: bool
    clock: Clock
    sizes: Sizes
    dtype: torch.dtype
    sheet: float | None = None  # bytes a second by the data sheet
    copy: float | None = None  # bytes a second of a copy, measured
    _models: dict[str, Transformer] = field(default_factory=dict)

    @classmethod
    def open(cls, *, dry: bool) -> Lab:
        """The GPU, or for a rehearsal where there is none the CPU."""
        sizes = DRY if dry else REAL
        on_gpu = torch.cuda.is_available()
        device = torch.device("cuda" if on_gpu else "cpu")
        clock = Clock(device, rounds=sizes.rounds, warm=2 if on_gpu else 0)
        # The interpreter has no bfloat16.
        lab = cls(device, dry, clock, sizes, torch.bfloat16 if on_gpu else torch.float16)
        lab.sheet = BANDWIDTH.get(torch.cuda.get_device_name()) if on_gpu else None
        return lab

    def config(self, shape: str, **changes: int) -> ModelConfig:
        """The config of a shape of shapes.py; in the rehearsal, that of a tiny model."""
        return ModelConfig.from_dict({"model_type": "llama", **self.raw(shape), **changes})

    def raw(self, shape: str) -> dict[str, Any]:
        tied = SHAPES[shape]["tie_word_embeddings"]
        return {**TINY, "tie_word_embeddings": tied} if self.dry else dict(SHAPES[shape])

    def model(self, shape: str) -> Transformer:
        """A model of that shape with random weights, kept for the next measurement."""
        if shape not in self._models:
            self._models[shape] = random_model(self.config(shape), self.device, self.dtype)
        return self._models[shape]

    def cache(self, config: ModelConfig, batch: int, length: int) -> KVCache:
        """A cache as if ``length`` tokens had gone in, filled at random."""
        cache = KVCache(config, batch=batch, length=length, device=self.device, dtype=self.dtype)
        for tensor in (cache.k, cache.v):
            tensor.normal_(generator=self.generator(length))
        return cache

    def generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(seed)

    def randn(self, *shape: int, seed: int, dtype: torch.dtype | None = None) -> Tensor:
        made = torch.randn(shape, generator=self.generator(seed), device=self.device)
        return made.to(dtype or self.dtype)

    def prompts(self, config: ModelConfig, lengths: Sequence[int], seed: int) -> list[list[int]]:
        g = torch.Generator().manual_seed(seed)
        return [torch.randint(config.vocab_size, (n,), generator=g).tolist() for n in lengths]

    def percent(self, moved: int, us: float) -> dict[str, float | None]:
        """The bandwidth of ``moved`` bytes in ``us``, and what share of both ceilings it is."""
        rate = moved / (us * 1e-6)
        return {
            "gb_per_s": round(rate / 1e9, 1),
            "percent_of_sheet": round(100 * rate / self.sheet, 1) if self.sheet else None,
            "percent_of_copy": round(100 * rate / self.copy, 1) if self.copy else None,
        }

    def tidy(self) -> None:
        """Give back what the last measurement left in the allocator."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def random_model(
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    *,
    impl: str = "triton",
    deviation: float | None = 0.02,
) -> Transformer:
    """A model with random weights, made on the device itself.

    ``deviation`` None scales each weight to its inputs, so that attention is far from uniform and
    tokens vary: what a check needs and a measurement does not.
    """
    with torch.device("meta"):
        model = Transformer(config, impl=impl).to(dtype)
    model.requires_grad_(False)
    model.to_empty(device=device)
    if config.tie_word_embeddings:  # which to_empty has taken apart
        model.lm_head.weight = model.embed_tokens.weight
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            parameter.normal_(1.0, 0.1, generator=generator)
        else:
            spread = deviation or 2.0 * parameter.shape[-1] ** -0.5
            parameter.normal_(0.0, spread, generator=generator)
    return model.eval()


def weights_read(model: Transformer) -> int:
    """Bytes of weights that a decode step reads: of an embedding of its own, next to nothing."""
    total = sum(parameter.nbytes for parameter in model.parameters())
    return total - (0 if model.config.tie_word_embeddings else model.embed_tokens.weight.nbytes)


def keys_read(config: ModelConfig, batch: int, context: int, dtype: torch.dtype) -> int:
    """Bytes of keys and values that a decode step reads."""
    row = 2 * config.num_key_value_heads * config.head_dim * dtype.itemsize
    return row * config.num_hidden_layers * batch * context


def spans(count: int, length: int) -> list[tuple[int, int]]:
    """``count`` spans of 64 keys (fewer where there is little room), the first at position 16."""
    width, first = min(64, max(1, length // 8)), min(16, length // 4)
    gap = (length - first) // max(1, count)
    return [(first + n * gap, first + n * gap + width) for n in range(count)]


BOOSTS = {"none": 0, "one span": 1, "four spans": 4}


def span_bias(count: int, batch: int, heads: int, length: int, device: torch.device) -> SpanBias:
    """``count`` spans boosted on all heads."""
    ends = torch.tensor(spans(count, length), dtype=torch.int64, device=device).view(1, -1, 2)
    ends = ends.expand(batch, -1, -1)  # (B, N, 2)
    strength = torch.full((batch, heads, count), math.log(MULTIPLIER), device=device)
    return SpanBias(ends[..., 0], ends[..., 1], strength)


def plan(
    count: int, config: ModelConfig, batch: int, length: int, device: torch.device
) -> Plan | None:
    """The same for a model: on all its layers and heads. None without spans."""
    if not count:
        return None
    bias = span_bias(count, batch, config.num_attention_heads, length, device)
    assert bias.log_multiplier is not None
    strength = bias.log_multiplier.expand(config.num_hidden_layers, -1, -1, -1).contiguous()
    return Plan(bias.start, bias.stop, strength)


def frames(model: Transformer, cache: KVCache, batch: int, length: int) -> dict[str, Frame]:
    """The frame of every entry of BOOSTS, all on one cache."""
    made = {}
    for name, count in BOOSTS.items():
        boost = plan(count, model.config, batch, length, model.device)
        frame = model.ops.frame(cache, boost, model.config.num_attention_heads)
        assert frame is not None
        made[name] = frame
    return made
