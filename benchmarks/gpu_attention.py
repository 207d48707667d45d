"""Attention alone: decode and prefill kernels, with the boost and without, and other people's."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from gpu_lab import BOOSTS, MULTIPLIER, Heads, Lab, span_bias, spans
from gpu_runner import Job, Row
from gpu_timing import Run, spread, versus
from minboost.kernels import decode as kernels
from minboost.kernels.decode import decode_framed
from minboost.kernels.frame import frame
from minboost.kernels.prefill import prefill
from minboost.kernels.segments import Segments
from torch import Tensor

CONTENDERS = ("sdpa float mask", "flex score_mod", "sdpa plain")
MASK_SHARE = 0.4  # of the free memory that a float mask may take


def decode_jobs(lab: Lab) -> list[Job]:
    return [
        Job("decode", f"{shape}, {keys} keys", 6, functools.partial(_decode, shape, keys))
        for keys in lab.sizes.contexts
        for shape in lab.sizes.heads
    ]


def prefill_jobs(lab: Lab) -> list[Job]:
    return [
        Job("prefill", f"{shape}, {tokens} tokens", 6, functools.partial(_prefill, shape, tokens))
        for tokens in sorted(lab.sizes.prompts, reverse=True)
        for shape in ("1B", "8B")
    ]


def compare_jobs(lab: Lab) -> list[Job]:
    """One job a contender, so that each runs in turn with ours and fails alone."""
    made = []
    for length in lab.sizes.compared:
        for stage, run in (("prefill", _compare_prefill), ("decode", _compare_decode)):
            for shape in ("1B", "8B"):
                for contender in CONTENDERS:
                    # FlexAttention is compiled for every shape.
                    needs = 25 if contender.startswith("flex") else 6
                    name = f"{stage}, {shape}, {length}, {contender}"
                    part = functools.partial(run, shape, length, contender)
                    made.append(Job("compare", name, needs, part))
    return made


def _decode(shape: str, keys: int, lab: Lab) -> Iterator[Row]:
    """A chain of launches, each on the cache of another layer: none finds its keys in a cache."""
    heads = lab.sizes.heads[shape]
    chain = Chain(lab, heads, keys)
    runs = {name: chain.run(chain.frame(count)) for name, count in BOOSTS.items()}
    times = lab.clock.in_turn({name: lab.clock.captured(run) for name, run in runs.items()})
    moved = 2 * heads.kv * heads.dim * keys * lab.dtype.itemsize
    for name, run in runs.items():
        row = {"shape": shape, "keys": keys, "boost": name, **spread(times[name], chain.layers)}
        row |= lab.percent(moved, row["us"])
        if name != "none":
            row |= versus(times[name], times["none"])
        yield {**row, "eager_us": round(lab.clock.calls(run, 1) / chain.layers, 3)}


class Chain:
    """Decode attention of one query a layer, over so many layers that no cache holds them all."""

    def __init__(self, lab: Lab, heads: Heads, keys: int) -> None:
        self.lab, self.heads, self.keys = lab, heads, keys
        one = 2 * heads.kv * keys * heads.dim * lab.dtype.itemsize
        low, high = (2, 3) if lab.dry else (8, 256)
        self.layers = min(high, max(low, math.ceil(lab.sizes.cache_bytes / one)))
        size = (self.layers, 1, heads.kv, keys, heads.dim)
        self.k, self.v = lab.randn(*size, seed=1), lab.randn(*size, seed=2)
        self.q = lab.randn(1, heads.q, 1, heads.dim, seed=3)
        self.start = torch.tensor([keys - 1], device=lab.device)
        self.room = kernels.workspace(1, heads.q, heads.kv, heads.dim, lab.device)

    def frame(self, count: int) -> tuple[Tensor, Segments]:
        """The frame with that many spans, and what it must hold alive."""
        if count:
            bias = span_bias(count, 1, self.heads.q, self.keys, self.lab.device)
            assert bias.log_multiplier is not None
            strength = bias.log_multiplier.expand(self.layers, -1, -1, -1)
            segments = Segments.cut(bias.start, bias.stop, strength, self.keys)
        else:
            none = Segments.none(1, self.heads.q, self.keys, self.lab.device)
            zeros = torch.zeros(self.layers, 1, self.heads.q, 1, device=self.lab.device)
            segments = replace(none, bias=zeros)
        return frame(self.k, self.v, segments), segments

    def run(self, framed: tuple[Tensor, Segments]) -> Run:
        def run() -> None:
            for layer in range(self.layers):
                decode_framed(
                    self.q,
                    self.start,
                    framed[0],
                    layer=layer,
                    kv_heads=self.heads.kv,
                    scale=self.heads.dim**-0.5,
                    workspace=self.room,
                )

        return run


def _prefill(shape: str, tokens: int, lab: Lab) -> Iterator[Row]:
    heads = lab.sizes.heads[shape]
    inputs = _prompt(lab, heads, tokens)
    runs = {name: ours(lab, heads, tokens, inputs, count) for name, count in BOOSTS.items()}
    captured = {name: lab.clock.captured(run) for name, run in runs.items()}
    times = lab.clock.in_turn(captured, before=lab.clock.flush)
    for name, run in runs.items():
        row = {"shape": shape, "head_dim": heads.dim, "tokens": tokens, "boost": name}
        row |= spread(times[name])
        row["tflop_per_s"] = round(causal_flop(heads, tokens) / row["us"] / 1e6, 2)
        if name != "none":
            row |= versus(times[name], times["none"])
        yield {**row, "eager_us": round(lab.clock.calls(run, 1 if lab.dry else 10), 3)}


def causal_flop(heads: Heads, tokens: int) -> float:
    """Multiplications and additions of both products, the hidden half left out."""
    return 4 * heads.q * tokens * tokens * heads.dim / 2


def _prompt(lab: Lab, heads: Heads, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    q = lab.randn(1, heads.q, tokens, heads.dim, seed=1)
    k, v = (lab.randn(1, heads.kv, tokens, heads.dim, seed=seed) for seed in (2, 3))
    return q, k, v


def ours(
    lab: Lab, heads: Heads, tokens: int, inputs: tuple[Tensor, Tensor, Tensor], count: int
) -> Run:
    """The prefill kernel with that many boosted spans."""
    start = torch.zeros(1, dtype=torch.int64, device=lab.device)
    segments = Segments.none(1, heads.q, tokens, lab.device)
    if count:
        bias = span_bias(count, 1, heads.q, tokens, lab.device)
        assert bias.log_multiplier is not None
        segments = Segments.cut(bias.start, bias.stop, bias.log_multiplier, tokens)
    return lambda: prefill(*inputs, start, segments, scale=heads.dim**-0.5)[0]


def _compare_prefill(shape: str, tokens: int, contender: str, lab: Lab) -> Iterator[Row]:
    heads = lab.sizes.heads[shape]
    q, k, v = _prompt(lab, heads, tokens)
    group = heads.q // heads.kv
    if contender == "sdpa plain":
        boosted, run = (
            0,
            lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True),
        )
    elif contender == "sdpa float mask":
        needed = heads.q * tokens * tokens * lab.dtype.itemsize
        if reason := _too_large(lab, needed):
            yield {"shape": shape, "tokens": tokens, "contender": contender, "skipped": reason}
            return
        mask = float_mask(lab, heads, tokens)
        # Repeated beforehand and untimed: on grouped heads no fused backend takes a mask.
        wide_k, wide_v = (x.repeat_interleave(group, 1) for x in (k, v))
        boosted, run = 1, lambda: F.scaled_dot_product_attention(q, wide_k, wide_v, attn_mask=mask)
    else:
        boosted, run = 1, flex(lab, q, k, v, causal=True)
    mine = ours(lab, heads, tokens, (q, k, v), boosted)
    row = _against(lab, {"minboost": mine, contender: run}, flush=True)
    yield {"stage": "prefill", "shape": shape, "tokens": tokens, **row}


def _compare_decode(shape: str, keys: int, contender: str, lab: Lab) -> Iterator[Row]:
    heads = lab.sizes.heads[shape]
    chain = Chain(lab, heads, keys)
    boosted = 0 if contender == "sdpa plain" else 1
    mask = None
    if contender == "sdpa float mask":
        bias = span_bias(1, 1, heads.q, keys, lab.device).dense(0, keys)
        assert bias is not None
        mask = bias[:, :, None].to(lab.dtype).contiguous()  # (B, H, 1, S)
    call: Any = functools.partial(F.scaled_dot_product_attention, attn_mask=mask, enable_gqa=True)
    if contender == "flex score_mod":
        call = compiled_flex(lab, keys)

    def run() -> Tensor:
        for layer in range(chain.layers):
            out = call(chain.q, chain.k[layer], chain.v[layer])
        return out

    mine = chain.run(chain.frame(boosted))
    row = _against(lab, {"minboost": mine, contender: run}, per=chain.layers)
    yield {"stage": "decode", "shape": shape, "tokens": keys, **row}


def _against(lab: Lab, runs: dict[str, Run], *, flush: bool = False, per: int = 1) -> Row:
    """Ours and theirs in turn: theirs as the row, and how many times ours it is."""
    mine, contender = runs
    how = "graph" if lab.clock.on_gpu else "eager"
    made = {mine: lab.clock.captured(runs[mine])}
    try:
        made[contender] = lab.clock.captured(runs[contender])
    except RuntimeError as error:  # what cannot be captured is measured as it is called
        how = f"eager: {str(error).splitlines()[0]}"[:120]
        made[contender] = runs[contender]
    times = lab.clock.in_turn(made, before=lab.clock.flush if flush else None)
    return {
        "contender": contender,
        **spread(times[contender], per),
        "minboost_us": round(statistics.median(times[mine]) / per, 3),
        **versus(times[contender], times[mine]),
        "how": how,
    }


def float_mask(lab: Lab, heads: Heads, tokens: int) -> Tensor:
    """What is usually written: boost and causal mask in one tensor (B, H, T, T)."""
    dense = span_bias(1, 1, heads.q, tokens, lab.device).dense(0, tokens)
    assert dense is not None
    mask = dense[:, :, None].to(lab.dtype).expand(-1, -1, tokens, -1).contiguous()
    hidden = torch.ones(tokens, tokens, dtype=torch.bool, device=lab.device).triu(1)
    return mask.masked_fill_(hidden, -math.inf)


def flex(lab: Lab, q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Run:
    call = compiled_flex(lab, q.shape[2], causal=causal)
    return lambda: call(q, k, v)


def compiled_flex(lab: Lab, tokens: int, *, causal: bool = False) -> Any:
    """FlexAttention with the boost as a score_mod: one span, all heads."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    ((first, last),) = spans(1, tokens)
    strength = math.log(MULTIPLIER)

    def boost(score: Tensor, b: Tensor, h: Tensor, row: Tensor, key: Tensor) -> Tensor:
        return score + torch.where((key >= first) & (key < last), strength, 0.0)

    def visible(b: Tensor, h: Tensor, row: Tensor, key: Tensor) -> Tensor:
        return row >= key

    block_mask = None
    if causal:
        block_mask = create_block_mask(visible, None, None, tokens, tokens, device=lab.device)
    call: Any = functools.partial(
        flex_attention, score_mod=boost, block_mask=block_mask, enable_gqa=True
    )
    if lab.dry:  # to compile it for a CPU would take the rehearsal's time
        return call
    torch._dynamo.reset()  # after a few shapes it would fall back to a form that is not fused
    return torch.compile(call, dynamic=False)


def _too_large(lab: Lab, needed: int) -> str | None:
    if not lab.clock.on_gpu:
        return None
    free = torch.cuda.mem_get_info()[0]
    if needed <= MASK_SHARE * free:
        return None
    return f"the mask takes {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
