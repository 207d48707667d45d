"""Decoding one sequence on a CPU: a token in, logits out, with as little as possible between."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from ..cache import KVCache
from ..plan import Plan
from ..quantize import scale_of_a_row
from ..rope import RotaryEmbedding
from .biases import Biases
from .compiled import Run
from .eager import Eager
from .forms import Form
from .layer import Row, Shape, Weights, head, layer, layer_weights, matrix

if TYPE_CHECKING:
    from ..model import Block, Transformer

TABLE = 256  # positions whose rotation is computed at a time
LayerRun = Callable[[Tensor, Row, range], Tensor]
HeadRun = Callable[[Tensor], Tensor]


class RowDecoder:
    """How a model decodes a single sequence: eagerly, its products in ``forms``, or ``compiled``.

    Held by ``Transformer.row``; ``minboost.cpu.prepare`` makes it.
    """

    def __init__(
        self,
        forms: dict[str, Form],
        compiled: tuple[Run, Run] | None = None,
        made_for: object = None,
    ) -> None:
        """``made_for``: ``layouts`` of the model that ``compiled`` was made for."""
        self.forms = forms
        self.compiled = compiled
        self.made_for = made_for

    def start(self, model: Transformer, cache: KVCache, plan: Plan | None) -> RowRun | None:
        """A run on ``cache``, whose prompt is there already; None where ``forward`` has to do it.

        That is for target masses, which need a look at every logit, and for a model that has been
        moved off the CPU or, where it was compiled, to another dtype.
        """
        if model.device.type != "cpu" or cache.k.shape[1] != 1 or cache.k.dtype != model.dtype:
            return None
        if plan is not None and plan.target is not None:
            return None
        if self.compiled is not None and layouts(model) != self.made_for:
            return None  # the library looks at neither dtypes nor strides
        return RowRun(self, model, cache, plan)

    def __deepcopy__(self, memo: dict[int, object]) -> RowDecoder:
        return self  # nothing in it changes, and a library cannot be copied

    def functions(self, model: Transformer) -> tuple[list[LayerRun], HeadRun]:
        """The layers and the head of ``model``."""
        shape = shape_of(model)
        weights = all_layer_weights(model)
        ends = head_weights(model)
        if self.compiled is None:
            eager = Eager(self.forms)
            weights = [with_ready_scales(of, model.dtype) for of in weights]
            ends = with_ready_scales(ends, model.dtype)

            def plain(of: Weights) -> LayerRun:
                return lambda x, row, seen: layer(x, row, of, shape, eager, seen)

            # A copy, since they are the caller's: in float32 they lie in a buffer of eager's.
            return [plain(of) for of in weights], lambda x: head(x, ends, shape.eps, eager).clone()
        run_layer, run_head = self.compiled

        def fused(tensors: list[Tensor]) -> LayerRun:
            return lambda x, row, _: run_layer([x, *row, *tensors])[0]

        tail = list(ends.values())
        return [fused(list(of.values())) for of in weights], lambda x: run_head([x, *tail])[0]


class RowRun:
    """One sequence's steps: ``step`` with the token at the next position."""

    def __init__(
        self, decoder: RowDecoder, model: Transformer, cache: KVCache, plan: Plan | None
    ) -> None:
        fused = decoder.compiled is not None
        # Compiled, everything between the weights is float32.
        self.dtype = torch.float32 if fused else model.dtype
        self.embedding = model.embed_tokens
        self.residual = None if plan is None else plan.residual
        self.caches = list(zip(cache.k.unbind(), cache.v.unbind(), strict=True))
        config = model.config
        self.biases = Biases(
            plan,
            config.layer_windows or [None] * config.num_hidden_layers,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            length=cache.length,
            fused=fused,
        )
        self.layers, self.head = decoder.functions(model)
        self.rotary = RotaryEmbedding(config, model.device)
        self.position = torch.zeros(1, dtype=torch.int64)
        self._first, self._cos, self._sin = -TABLE, torch.empty(0), torch.empty(0)

    def step(self, token: int, position: int) -> Tensor:
        """Logits (V,) float32 behind ``token``, which stands at ``position``."""
        cos, sin = self._rotation(position)
        self.position.fill_(position)
        x = self.embedding(torch.tensor([token]), self.dtype)[0].to(self.dtype)
        biases = self.biases.at(position + 1)
        for depth, (run, (k, v), (bias, seen)) in enumerate(
            zip(self.layers, self.caches, biases, strict=True), 1
        ):
            x = run(x, Row(cos, sin, self.position, k, v, bias), seen)
            if self.residual is not None:
                x = self.residual(depth, x[None, None])[0, 0]
        return self.head(x)

    def _rotation(self, position: int) -> tuple[Tensor, Tensor]:
        at = position - self._first
        if not 0 <= at < TABLE:
            positions = torch.arange(position, position + TABLE)
            # Each position as a sequence that ends there: some angles follow the length so far.
            cos, sin = self.rotary(positions[:, None], positions + 1, self.dtype)
            sin[..., : sin.shape[-1] // 2].neg_()
            self._first, self._cos, self._sin, at = position, cos[:, 0], sin[:, 0], 0
        return self._cos[at], self._sin[at]


def shape_of(model: Transformer) -> Shape:
    """What all layers of ``model`` have in common."""
    config = model.config
    return Shape(
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        config.rms_norm_eps,
    )


def all_layer_weights(model: Transformer) -> list[Weights]:
    """The tensors of every layer."""
    return [layer_weights(cast("Block", block)) for block in model.layers]


def with_ready_scales(weights: Weights, dtype: torch.dtype) -> Weights:
    """int8's scales converted now, and not at every step."""
    scales = {
        f"{name}_scale": scale_of_a_row(matrix, weights[f"{name}_scale"], dtype)
        for name, matrix in weights.items()
        if f"{name}_scale" in weights
    }
    return {**weights, **scales}


def layouts(model: Transformer) -> list[tuple[str, tuple[int, ...], torch.dtype, bool]]:
    """Name, shape, dtype and contiguity of every tensor that a decode step reads."""
    return [
        (name, tuple(of.shape), of.dtype, of.is_contiguous())
        for weights in (*all_layer_weights(model), head_weights(model))
        for name, of in weights.items()
    ]


def head_weights(model: Transformer) -> Weights:
    """The tensors of the final norm and the head."""
    return {"norm": model.norm.weight.data, **matrix(model.lm_head, "head")}
