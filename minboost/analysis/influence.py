"""Influence (GUIDE, arXiv 2409.19001): how much of a span reaches a position, layer by layer.

Beside it stands attention rollout, which weighs the stream and the attention equally, and the
share of tokens: in the GUIDE authors' data 1 / context length predicts success about as well as
influence does, so influence is never to be read alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import ModelConfig
from ..errors import InputError, ModelError
from ..impl import on
from ..layers import SelfAttention
from ..model import Block, Transformer
from ..ops import Ops, Step
from ..plan import Plan
from ..span import Span, check_span

Average = Callable[[Tensor], Tensor]
"""f(values) → the head-mean attention weights times ``values``, both (C, T) float32."""
Visit = Callable[[Tensor, Tensor, Average], None]
"""f(stream before the block, attention output after o_proj, average): tensors (T, hidden_size)."""


@dataclass(frozen=True, eq=False)
class Influence:
    """The influence of ``span`` on every position, and its rollout.

    Both are (L + 1, T) float32 on the CPU, in [0, 1]: row l is the stream after l layers, so row 0
    is 1 on the span and 0 elsewhere. Their log is the unit of the paper.
    """

    span: Span
    influence: Tensor
    rollout: Tensor

    @property
    def at_last(self) -> Tensor:
        """(L + 1,): the influence on the last position, whose stream the next token is read off."""
        return self.influence[:, -1]


def influence(
    model: Transformer,
    ids: Sequence[int] | Tensor,
    spans: Sequence[Span],
    *,
    plan: Plan | None = None,
) -> list[Influence]:
    """The influence of each of ``spans`` on each position of ``ids`` (T,), in one walk.

    At the input I is 1 on the span and 0 elsewhere. A layer with head-mean attention weights Ā (as
    steered by ``plan``), stream x before it and attention output a after o_proj makes of it, for
    each position, (‖x‖₁·I + ‖a‖₁·Ā·I) / (‖x‖₁ + ‖a‖₁); rollout makes (I + Ā·I) / 2. MLP and norms
    pass it through (GUIDE, arXiv 2409.19001).

    Ā·I is attention with I for values: no T × T matrix, memory linear in T. It is computed in
    float32 whatever the model's dtype.

    Raises:
        InputError: no ids, ids that the model does not have, a span outside of them.
        ModelError: the stream is not finite.
    """
    ids = _checked(model, ids)
    T, device = len(ids), ids.device
    if not spans:
        raise InputError("there is no span to take the influence of")
    at = torch.arange(T, device=device)
    input_ = torch.stack(
        [(at >= span.start) & (at < span.stop) for span in (check_span(s, T) for s in spans)]
    ).float()  # (N, T)
    depths = [torch.stack((input_, input_))]  # of influence and rollout, (2, N, T)

    def visit(x: Tensor, a: Tensor, average: Average) -> None:
        before = depths[-1]
        # A mean of values in [0, 1] lies there too, but for rounding.
        attended = average(before.flatten(0, 1)).view_as(before).clamp(0, 1)
        kept, taken = (t.float().abs().sum(-1) for t in (x, a))  # (T,)
        total = kept + taken
        mixed = (kept * before[0] + taken * attended[0]) / total
        mixed = mixed.where(total > 0, before[0]).clamp(max=1)
        depths.append(torch.stack((mixed, (before[1] + attended[1]) / 2)))

    hidden = walk(model, ids, visit, plan=plan)
    if not hidden.isfinite().all():
        raise ModelError(
            "the model's stream is not finite: it overflows in this dtype (try bfloat16 or "
            "float32) or its weights are damaged"
        )
    measured, rolled_out = torch.stack(depths, 2).cpu()  # each (N, L + 1, T)
    return [Influence(*of) for of in zip(spans, measured, rolled_out, strict=True)]


@torch.inference_mode()
def walk(model: Transformer, ids: Tensor, visit: Visit, *, plan: Plan | None = None) -> Tensor:
    """``model(ids[None], plan=plan)``, calling ``visit`` in every layer; ids (T,).

    Returns:
        The stream (T, hidden_size) after the last layer, the same as the model's.
    """
    ops = model.ops
    x, step = model.begin(ids[None], plan=plan)
    stream = step.residual
    with on(ids.device):
        if stream is not None:
            x = stream(0, x)
        for depth, block in enumerate(model.layers, 1):
            assert isinstance(block, Block)
            attn, mlp = block.self_attn, block.mlp
            q, kv = ops.qkv(x, block.input_layernorm, attn, step)
            assert kv is not None  # only a decode step's lie elsewhere
            out, _ = ops.attention(q, kv, attn, step, start=0)
            out = out.transpose(1, 2).reshape(1, len(ids), -1)  # (1, T, H * D)
            visit(x[0], attn.o_proj(out)[0], partial(_average, ops, q, kv[0], attn, step))
            x = ops.add_linear(x, out, attn.o_proj)
            x = ops.add_linear(
                x, ops.gate_up(x, block.post_attention_layernorm, mlp.gate_up_proj), mlp.down_proj
            )
            if stream is not None:
                x = stream(depth, x)
    return x[0]


def _average(
    ops: Ops, q: Tensor, k: Tensor, attn: SelfAttention, step: Step, values: Tensor
) -> Tensor:
    """``Average`` of one layer: the model's own attention, with ``values`` for v's channels."""
    wide = torch.promote_types(q.dtype, torch.float32)
    q, k, averages = q.to(wide), k.to(wide), []
    for some in torch.split(values.to(wide), attn.head_dim):
        v = F.pad(some.T, (0, attn.head_dim - len(some))).contiguous()  # (T, D)
        v = v.expand(1, attn.kv_heads, -1, -1)
        heads, _ = ops.attention(q, (k, v), attn, step, start=0)  # (1, H, T, D)
        averages.append(heads[0].mean(0)[:, : len(some)].T)
    return torch.cat(averages).float()


def token_share(config: ModelConfig, span: Span, length: int) -> Tensor:
    """(L, length) float32: of the tokens that a position sees in a layer, the share in ``span``.

    It is what the attention on the span would be were it even, and changes with the layer only
    where windows do.
    """
    last = torch.arange(length)
    rows = []
    for window in config.layer_windows or [None] * config.num_hidden_layers:
        first = torch.zeros_like(last) if window is None else (last - window + 1).clamp(min=0)
        of_span = last.clamp(max=span.stop - 1) + 1 - first.clamp(min=span.start)
        rows.append(of_span.clamp(min=0) / (last + 1 - first))
    return torch.stack(rows)


def _checked(model: Transformer, ids: Sequence[int] | Tensor) -> Tensor:
    ids = torch.as_tensor(ids, device=model.device)
    if ids.dim() != 1 or not len(ids) or ids.is_floating_point() or ids.dtype == torch.bool:
        raise InputError(
            f"ids must be one non-empty sequence of integers, got {ids.dtype} {tuple(ids.shape)}"
        )
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= model.config.vocab_size:
        raise InputError(f"ids must lie in [0, {model.config.vocab_size}), got {low} to {high}")
    return ids.long()
