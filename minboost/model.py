"""The Llama-family decoder: one forward for prefill and decode, written on the ops (ops.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .cache import KVCache
from .config import ModelConfig
from .impl import on
from .layers import MLP, Embedding, Linear, RMSNorm, SelfAttention
from .ops import Frame, Ops, Step, ops
from .plan import Plan
from .residual import Stream
from .rope import RotaryEmbedding

if TYPE_CHECKING:
    from .cpu import RowDecoder


@dataclass(frozen=True)
class Output:
    """``hidden`` (B, T, hidden_size) after the last block; ``mass`` (L, B, H, T, N) or None."""

    hidden: Tensor
    mass: Tensor | None


class Transformer(nn.Module):
    """A decoder of any supported family, built from its ModelConfig.

    Build it on the meta device and fill it with ``checkpoint.load_model``, or on a real device
    for training (initialise it yourself): ``forward`` without a cache is differentiable under the
    torch implementation. ``impl`` is a chosen name (impl.py), not "auto". ``int8``: matrices in
    eight bits (quantize.py).
    """

    def __init__(self, config: ModelConfig, *, impl: str = "torch", int8: bool = False) -> None:
        super().__init__()
        self.config = config
        self.ops: Ops = ops(impl)
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, int8=int8)
        self.layers = nn.ModuleList(
            Block(config, layer, int8=int8) for layer in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False, int8=int8)
        self.tie_head()
        self._rotary: RotaryEmbedding | None = None
        self.device_steps: dict[
            tuple[Any, ...], list[Any]
        ] = {}  # kept between runs (device_step.py)
        self.row: RowDecoder | None = None  # a faster way for a single sequence (cpu/row.py)

    @property
    def impl(self) -> str:
        """The implementation that runs: "torch", "triton" or "reference"."""
        return self.ops.name

    @property
    def device(self) -> torch.device:
        return self.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the activations and the cache; the matrices' own, unless they are int8."""
        return self.norm.weight.dtype

    @property
    def quantized(self) -> str | None:
        """How the matrices are quantised: "int8" or None."""
        return None if self.embed_tokens.scale is None else "int8"

    def tie_head(self) -> None:
        """Make the head and the embedding one matrix, where the config says so."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
            self.lm_head.scale = self.embed_tokens.scale

    def forward(
        self,
        ids: Tensor,
        *,
        cache: KVCache | None = None,
        start: int | Tensor = 0,
        keys: int | None = None,
        plan: Plan | None = None,
        frame: Frame | None = None,
        last: Tensor | None = None,
        return_mass: bool = False,
        rows: range | None = None,
        stream: Stream | None = None,
    ) -> Output:
        """Run ``ids`` (B, T), which stand at positions start … start + T - 1.

        Args:
            cache: read and written at those positions; without one, the ids are all there is.
            start: one position for the batch, or (B,) positions (decode: T = 1).
            keys: positions of the cache in use afterwards; start + T where ``start`` is an int.
            plan: the boost.
            frame: cache and plan of a decode step (T = 1, ``start`` (B,)), in place of both: made
                by ``ops.frame``, read on the device.
            last: (B,) the row of each sequence's last token; what follows it is padding, and only
                this row is returned. By default all rows are, and none is padding.
            return_mass: also return the attention mass on the plan's spans, for the rows returned.
            rows: the rows, one after another, whose mass is returned in their stead.
            stream: sees, and may change, the residual stream between the layers (residual.py); by
                default what the plan steers it with.
        """
        x, step = self.begin(
            ids, cache=cache, start=start, keys=keys, plan=plan, frame=frame, last=last
        )
        return self.blocks(x, step, last=last, return_mass=return_mass, rows=rows, stream=stream)

    def begin(
        self,
        ids: Tensor,
        *,
        cache: KVCache | None = None,
        start: int | Tensor = 0,
        keys: int | None = None,
        plan: Plan | None = None,
        frame: Frame | None = None,
        last: Tensor | None = None,
    ) -> tuple[Tensor, Step]:
        """The stream that a forward begins with, and what its layers share; as ``forward``."""
        if keys is None:
            assert isinstance(start, int) or frame is not None, (
                "per-sequence starts need the number of keys"
            )
            keys = start + ids.shape[1] if isinstance(start, int) else 0
        if self._rotary is None or self._rotary.inv_freq.device != ids.device:
            self._rotary = RotaryEmbedding(self.config, ids.device)
        with on(ids.device):
            x, cos, sin = self.ops.embed(
                ids, self.embed_tokens, self._rotary, start=start, last=last, dtype=self.dtype
            )
        return x, Step(cos, sin, start, keys, cache, plan, frame)

    def blocks(
        self,
        x: Tensor,
        step: Step,
        *,
        first: int = 0,
        last: Tensor | None = None,
        return_mass: bool = False,
        rows: range | None = None,
        stream: Stream | None = None,
    ) -> Output:
        """Run the layers from ``first`` on, over the stream (B, T, hidden_size) that enters it."""
        stream = stream or step.residual
        masses: list[Tensor] = []
        with on(x.device):
            if stream is not None and first == 0:
                x = stream(0, x)
            for layer in range(first, len(self.layers)):
                x, mass = self.layers[layer](x, step, self.ops, last, return_mass, rows)
                if mass is not None:
                    masses.append(mass)
                if stream is not None:
                    x = stream(layer + 1, x)
        if last is not None:
            x = x[torch.arange(x.shape[0], device=x.device), last][:, None]
        return Output(x, torch.stack(masses) if return_mass else None)

    def logits(self, hidden: Tensor) -> Tensor:
        """The final norm and the head: (…, hidden_size) → (…, V) float32."""
        with on(hidden.device):
            return self.ops.logits(hidden, self.norm, self.lm_head)


class Block(nn.Module):
    """Pre-norm attention and MLP, each added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int, *, int8: bool = False) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = SelfAttention(config, layer, int8=int8)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config, int8=int8)

    def forward(
        self,
        x: Tensor,
        step: Step,
        ops: Ops,
        last: Tensor | None,
        return_mass: bool,
        rows: range | None,
    ) -> tuple[Tensor, Tensor | None]:
        B, T, _ = x.shape
        attn, mlp = self.self_attn, self.mlp
        q, kv = ops.qkv(x, self.input_layernorm, attn, step)
        some: Tensor | None = None  # the rows whose mass is asked for, where those are not all
        at: int | Tensor = step.start
        if return_mass and rows is not None:
            some, at = q[:, :, rows.start : rows.stop], rows.start + step.start
        elif return_mass and last is not None and T > 1:
            some = q[torch.arange(B, device=q.device), :, last][:, :, None]  # (B, H, 1, D)
            at = last + step.start
        out, mass = ops.attention(
            q, kv, attn, step, start=step.start, return_mass=return_mass and some is None
        )
        if some is not None:
            # Their mass is a few more rows of attention: cheap, and the output stays untouched.
            _, mass = ops.attention(some, kv, attn, step, start=at, return_mass=True)
        if mass is not None:
            mass = mass.contiguous()  # a few channels of the output: as a view it would keep all
        x = ops.add_linear(x, out.transpose(1, 2).reshape(B, T, -1), attn.o_proj)
        x = ops.add_linear(
            x, ops.gate_up(x, self.post_attention_layernorm, mlp.gate_up_proj), mlp.down_proj
        )
        return x, mass
