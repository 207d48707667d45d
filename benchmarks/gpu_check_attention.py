"""Correctness of the attention kernels: boosts, windows, masses and targets against float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from gpu_checks import Worst, poisoned
from gpu_lab import BOOSTS, Heads, Lab, span_bias
from gpu_runner import Job, Row
from minboost.kernels.decode import decode_framed
from minboost.kernels.frame import frame
from minboost.kernels.segments import Segments
from torch import Tensor

from minboost.attention import attention


def jobs() -> list[Job]:
    named: list[tuple[str, Callable[[Lab], Iterator[Row]]]] = [
        ("decode attention against float64", check_decode),
        ("target mass against float64", check_target),
        ("prefill attention against float64", check_prefill),
    ]
    return [Job("checks", name, 5, run) for name, run in named]


def attention_cases(lab: Lab) -> Iterator[tuple[str, Heads, torch.dtype, int, str, int | None]]:
    """(case, heads, dtype, keys, boost, window)."""
    keys = (70,) if lab.dry else (257, 4100)
    for name, heads in lab.sizes.heads.items():
        for length in keys:
            for boost in BOOSTS:
                yield f"{name} {length} keys, {boost}", heads, lab.dtype, length, boost, None
    heads = lab.sizes.heads["1B"]
    for dtype in (torch.float16, torch.float32):
        yield f"1B {str(dtype)[6:]} {keys[0]} keys", heads, dtype, keys[0], "four spans", None
    yield f"1B {keys[0]} keys, window", heads, lab.dtype, keys[0], "four spans", keys[0] // 3


def check_decode(lab: Lab) -> Iterator[Row]:
    """With a frame, as a captured step runs it, and without, with the mass on the spans."""
    worst = Worst()
    B = 1 if lab.dry else 3
    for case, heads, dtype, keys, boost, window in attention_cases(lab):
        q, k, v = attention_inputs(lab, B, heads, 1, keys, dtype, layers=2)
        start = torch.tensor([keys - 1, keys // 2, 0][:B], device=lab.device)
        bias = span_bias(BOOSTS[boost], B, heads.q, keys, lab.device)
        scale = heads.dim**-0.5
        table, holds = frame_of(k, v, bias)
        with poisoned():
            framed = decode_framed(
                q, start, table, layer=1, kv_heads=heads.kv, scale=scale, window=window
            )
        del holds
        where = {"query_start": start, "window": window, "bias": bias if BOOSTS[boost] else None}
        exact, mass = attention(
            q.double(), k[1].double(), v[1].double(), impl="reference",
            return_mass=bool(BOOSTS[boost]), **where,
        )  # fmt: skip
        path, _ = attention(q, k[1], v[1], impl="torch", **where)
        with poisoned():
            plain, shares = attention(
                q, k[1], v[1], impl="triton", return_mass=bool(BOOSTS[boost]), **where
            )
        worst.add(f"framed, {case}", framed, exact, path)
        worst.add(case, plain, exact, path)
        if shares is not None and mass is not None:
            worst.within(f"mass, {case}", shares, mass.double(), 1e-5)
    yield worst.row()


def check_target(lab: Lab) -> Iterator[Row]:
    """A least mass on the spans, given as a share of each row's softmax (arXiv 2505.12025)."""
    worst = Worst()
    B = 1 if lab.dry else 3
    for case, heads, dtype, keys, boost, window in attention_cases(lab):
        if boost == "none" or window is not None:
            continue
        q, k, v = attention_inputs(lab, B, heads, 1, keys, dtype, layers=2)
        start = torch.tensor([keys - 1, keys // 2, keys // 4][:B], device=lab.device)
        bias = span_bias(BOOSTS[boost], B, heads.q, keys, lab.device)
        target = torch.linspace(0.1, 0.9, heads.q, device=lab.device).expand(2, B, -1).contiguous()
        table, holds = frame_of(k, v, bias, target)
        scale = heads.dim**-0.5
        with poisoned():
            got = decode_framed(
                q, start, table, layer=1, kv_heads=heads.kv, scale=scale, targets="exact"
            )
        del holds
        inside = bias.indicator(0, keys).any(2)[:, None]  # (B, 1, S)
        seen = torch.arange(keys, device=lab.device) <= start[:, None]

        def formula(
            dtype: torch.dtype, q: Tensor = q, k: Tensor = k, v: Tensor = v, bias: Any = bias,
            inside: Tensor = inside, seen: Tensor = seen, heads: Heads = heads,
            target: Tensor = target, keys: int = keys,
        ) -> Tensor:  # fmt: skip
            group = heads.q // heads.kv
            k1, v1 = (t[1].to(dtype).repeat_interleave(group, 1) for t in (k, v))  # (B, H, S, D)
            logits = heads.dim**-0.5 * (q.to(dtype) @ k1.transpose(2, 3))[:, :, 0]
            logits = logits + bias.dense(0, keys).to(dtype)
            weights = logits.masked_fill(~seen[:, None], -math.inf).softmax(-1)  # (B, H, S)
            on = (weights * inside).sum(-1, keepdim=True)
            wanted = torch.maximum(on, target[1, :, :, None].to(dtype))
            wanted = wanted.where(on > 0, on)  # where no key of a span is seen, nothing to raise
            factor = torch.where(inside, wanted / on.clamp(1e-30), (1 - wanted) / (1 - on))
            return (weights * factor)[:, :, None] @ v1

        exact = formula(torch.float64)
        worst.add(case, got, exact, formula(torch.float32).to(dtype))
    yield worst.row()


def check_prefill(lab: Lab) -> Iterator[Row]:
    """With a boost, and with a target mass beside it."""
    worst = Worst()
    for case, heads, dtype, keys, boost, window in attention_cases(lab):
        keys = min(keys, 1100)  # float64 weights of all rows are what this is held to
        rows = keys - 13
        q, k, v = attention_inputs(lab, 1, heads, rows, keys, dtype, layers=1)
        count = BOOSTS[boost]
        bias = span_bias(count, 1, heads.q, keys, lab.device) if count else None
        where = {"query_start": 13, "window": window, "bias": bias}
        inputs = (q, k[0], v[0])
        exact, mass = attention(
            *(x.double() for x in inputs), impl="reference", return_mass=bool(count), **where
        )
        path, _ = attention(*inputs, impl="torch", **where)
        with poisoned():
            got, shares = attention(*inputs, impl="triton", return_mass=bool(count), **where)
        worst.add(case, got, exact, path)
        if shares is not None and mass is not None:
            worst.within(f"mass, {case}", shares, mass.double(), 1e-5)
        if bias is not None:
            where["bias"] = replace(
                bias,
                target=torch.linspace(0.1, 0.9, heads.q, device=lab.device)[None],
                targeted=torch.ones_like(bias.start, dtype=torch.bool),
            )
            exact, _ = attention(*(x.double() for x in inputs), impl="reference", **where)
            path, _ = attention(*inputs, impl="torch", **where)
            with poisoned():
                got, _ = attention(*inputs, impl="triton", **where)
            worst.add(f"target, {case}", got, exact, path)
    yield worst.row()


def attention_inputs(
    lab: Lab, B: int, heads: Heads, T: int, S: int, dtype: torch.dtype, *, layers: int
) -> tuple[Tensor, Tensor, Tensor]:
    q = lab.randn(B, heads.q, T, heads.dim, seed=4, dtype=dtype)
    k, v = (lab.randn(layers, B, heads.kv, S, heads.dim, seed=s, dtype=dtype) for s in (5, 6))
    return q, k, v


def frame_of(
    k: Tensor, v: Tensor, bias: Any, target: Tensor | None = None
) -> tuple[Tensor, Segments]:
    """The frame of caches (L, B, …) with that bias on all layers, and what it must hold alive."""
    L, keys = k.shape[0], k.shape[3]
    strength = bias.log_multiplier.expand(L, -1, -1, -1)
    segments = Segments.cut(bias.start, bias.stop, strength, keys)
    return frame(k, v, segments, target), segments
