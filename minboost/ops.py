"""The heavy steps of a block, with two implementations: torch (ops_torch) and Triton (ops_triton).

The model (model.py) is written once, on these. An op takes activations (B, T, …), the parameters
it needs and, where position matters, the ``Step``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .cache import KVCache
from .layers import Embedding, Linear, RMSNorm, SelfAttention
from .plan import Plan
from .residual import Residual
from .rope import RotaryEmbedding

KV = tuple[Tensor, Tensor]  # keys and values, each (B, H_kv, S, D)


@dataclass(frozen=True)
class Frame:
    """What the decode kernels read from device memory: where a run's cache and plan lie.

    ``table`` is kernels/frame.py's; ``workspace`` what the kernels share between launches;
    ``holds`` keeps alive what the table points to. ``targets`` is the form of the target masses
    that the table points to, None without; ``residual`` the plan's.
    """

    table: Tensor
    workspace: object
    holds: tuple[object, ...] = ()
    targets: str | None = None
    residual: Residual | None = None

    @property
    def kind(self) -> tuple[object, ...]:
        """What a captured step is made for: other frames of the same kind go through it too."""
        return self.targets, None if self.residual is None else self.residual.kind

    def twin(self) -> Frame:
        """A frame with tensors of its own, which ``copy_`` fills; the workspace is shared."""
        residual = None if self.residual is None else self.residual.clone()
        return Frame(self.table.clone(), self.workspace, (), self.targets, residual)

    def copy_(self, other: Frame) -> None:
        """Point to what ``other``, of the same kind, points to; it must keep that alive."""
        self.table.copy_(other.table)
        if self.residual is not None and other.residual is not None:
            self.residual.copy_(other.residual)


@dataclass(frozen=True)
class Step:
    """What all layers of one forward share; see ``Transformer.forward``."""

    cos: Tensor
    sin: Tensor
    start: int | Tensor
    keys: int
    cache: KVCache | None
    plan: Plan | None
    frame: Frame | None

    @property
    def residual(self) -> Residual | None:
        """What steers the residual stream."""
        if self.frame is not None:
            return self.frame.residual
        return None if self.plan is None else self.plan.residual


class Ops(Protocol):
    """One implementation of the heavy steps."""

    name: str

    def embed(
        self,
        ids: Tensor,
        embedding: Embedding,
        rotary: RotaryEmbedding,
        *,
        start: int | Tensor,
        last: Tensor | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What a forward begins with, in ``dtype``: x (B, T, hidden), cos and sin (B, T, D)."""
        ...

    def qkv(
        self, x: Tensor, norm: RMSNorm, attn: SelfAttention, step: Step
    ) -> tuple[Tensor, KV | None]:
        """Norm, product, rotation, cache write: (B, T, hidden) → q (B, H, T, D), and k and v.

        With a frame, k and v lie in its cache and None is returned.
        """
        ...

    def attention(
        self,
        q: Tensor,
        kv: KV | None,
        attn: SelfAttention,
        step: Step,
        *,
        start: int | Tensor,
        return_mass: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Boosted attention of rows at ``start``: (B, H, T, D), and the mass (B, H, T, N)."""
        ...

    def add_linear(self, x: Tensor, y: Tensor, linear: Linear) -> Tensor:
        """x + linear(y): output projection or down, and the residual."""
        ...

    def gate_up(self, x: Tensor, norm: RMSNorm, linear: Linear) -> Tensor:
        """silu(gate) · up of the normed x: (B, T, hidden) → (B, T, inner)."""
        ...

    def logits(self, x: Tensor, norm: RMSNorm, head: Linear) -> Tensor:
        """The normed x through the head: (…, hidden) → (…, V) float32."""
        ...

    def greedy(self, batch: int, device: torch.device) -> Callable[[Tensor], Tensor]:
        """A function of logits (B, V) that gives ``sampling.greedy_tokens`` of them."""
        ...

    def frame(self, cache: KVCache, plan: Plan | None, heads: int) -> Frame | None:
        """The frame of a decode run, or None where this implementation has no use for one."""
        ...


def ops(impl: str) -> Ops:
    """The ops of a chosen implementation (impl.py)."""
    if impl == "triton":
        from .ops_triton import TritonOps

        return TritonOps()
    from .ops_torch import TorchOps

    return TorchOps(impl)
