"""Correctness of the kernels, ahead of any timing: against float64, held to torch's own error."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from gpu_lab import Heads, Lab
from gpu_runner import Job, Row
from minboost.kernels.embed import embed, embed_reference
from minboost.kernels.frame import frame
from minboost.kernels.gate_up import gate_up, gate_up_reference
from minboost.kernels.greedy import greedy, greedy_reference
from minboost.kernels.linear import linear, linear_reference
from minboost.kernels.qkv import qkv, qkv_reference
from minboost.kernels.rope import rope, rope_reference
from minboost.kernels.segments import Segments
from torch import Tensor

EPS = 1e-5


@dataclass(frozen=True)
class Layer:
    """The widths of one decoder layer, and of the head above it."""

    name: str
    hidden: int
    inner: int
    vocab: int
    heads: Heads


class Worst:
    """The cases of one check: how many, and which came closest to what is allowed."""

    def __init__(self) -> None:
        self.cases = 0
        self.share = -1.0
        self.case = ""

    def add(self, case: str, got: Tensor, exact: Tensor, torch_path: Tensor) -> None:
        """At most twice the error of torch in the same dtype, and its rounding; never NaN."""
        base = float((torch_path.double() - exact).abs().max())
        rounding = torch.finfo(got.dtype).eps * float(exact.abs().max())
        self.within(case, got, exact, 2 * base + rounding)

    def within(self, case: str, got: Tensor, exact: Tensor, allowed: float) -> None:
        error = float((got.double() - exact).abs().max())
        share = error / allowed if math.isfinite(error) else math.inf
        self.cases += 1
        if share > self.share:
            self.share, self.case = share, case

    def row(self) -> Row:
        return {
            "cases": self.cases,
            "worst_share_of_allowed": round(self.share, 3) if math.isfinite(self.share) else "NaN",
            "worst_case": self.case,
            "passed": self.cases > 0 and self.share <= 1,
        }


def jobs() -> list[Job]:
    named: list[tuple[str, Callable[[Lab], Iterator[Row]]]] = [
        ("linear against float64", check_linear),
        ("gate_up against float64", check_gate_up),
        ("qkv and rope against float64", check_qkv),
        ("embedding, angles and greedy choice", check_ends),
    ]
    return [Job("checks", name, 5, run) for name, run in named]


def layers(lab: Lab) -> Iterator[tuple[str, Layer, torch.dtype, int]]:
    """(case, layer, dtype, batch): the models' widths, then awkward ones in every dtype."""
    odd = Layer("odd", 576, 1536, 300, Heads(9, 3, 64))
    real = [
        Layer("1B", 2048, 8192, 128256, Heads(32, 8, 64)),
        Layer("8B", 4096, 14336, 1024, Heads(32, 8, 128)),
    ]
    if lab.dry:
        odd, real = Layer("tiny", 72, 40, 50, Heads(6, 2, 16)), []
    cases = [(layer, lab.dtype, batch) for layer in real for batch in (1, 8)]
    dtypes = {lab.dtype: None, torch.float16: None, torch.float32: None}
    cases += [(odd, dtype, batch) for dtype in dtypes for batch in (1, 3)]
    for layer, dtype, batch in cases:
        yield f"{layer.name} {str(dtype)[6:]} batch {batch}", layer, dtype, batch


def check_linear(lab: Lab) -> Iterator[Row]:
    worst = Worst()
    for case, layer, dtype, batch in layers(lab):
        width = layer.heads.q * layer.heads.dim
        products: dict[str, tuple[int, int, dict[str, Any]]] = {
            "o_proj": (width, layer.hidden, {"residual": (batch, layer.hidden)}),
            "down": (layer.inner, layer.hidden, {"residual": (batch, layer.hidden)}),
            "head": (layer.hidden, layer.vocab, {"norm": (layer.hidden,)}),
        }
        for name, (K, N, more) in products.items():
            x, weight, args = products_of(lab, batch, K, N, dtype, more)
            out_dtype = torch.float32 if name == "head" else dtype
            with poisoned():
                got = linear(x, weight, eps=EPS, out_dtype=out_dtype, **args)
            path = linear_reference(x, weight, eps=EPS, out_dtype=out_dtype, **args)
            worst.add(f"{name} {case}", got, wide(linear_reference, x, weight, **args), path)
    yield worst.row()


def check_gate_up(lab: Lab) -> Iterator[Row]:
    worst = Worst()
    for case, layer, dtype, batch in layers(lab):
        more = {"norm": (layer.hidden,), "bias": (2 * layer.inner,)}
        if layer.name in ("1B", "8B"):
            del more["bias"]
        x, weight, args = products_of(lab, batch, layer.hidden, 2 * layer.inner, dtype, more)
        with poisoned():
            got = gate_up(x, weight, eps=EPS, **args)
        path = gate_up_reference(x, weight, eps=EPS, **args)
        worst.add(case, got, wide(gate_up_reference, x, weight, **args), path)
    yield worst.row()


def check_qkv(lab: Lab) -> Iterator[Row]:
    worst = Worst()
    for case, layer, dtype, batch in layers(lab):
        heads = layer.heads
        rows = (heads.q + 2 * heads.kv) * heads.dim
        x, weight, args = products_of(
            lab, batch, layer.hidden, rows, dtype, {"norm": (layer.hidden,), "bias": (rows,)}
        )
        shape = {"layer": 1, "heads": heads.q, "kv_heads": heads.kv, "head_dim": heads.dim}
        position = torch.arange(batch, device=lab.device) * 2 + 3
        angles = lab.randn(batch, heads.dim // 2, seed=7, dtype=torch.float32).repeat(1, 2)
        turn = {"cos": angles.cos().to(dtype), "sin": angles.sin().to(dtype), "position": position}
        head_norm = {
            name: 1 + lab.randn(heads.dim, seed=seed, dtype=dtype) / 8
            for name, seed in (("q_norm", 8), ("k_norm", 9))
        }

        def caches(batch: int = batch, heads: Heads = heads, **kind: Any) -> dict[str, Tensor]:
            size = (2, batch, heads.kv, 32, heads.dim)
            return {name: torch.zeros(size, **kind) for name in ("k_cache", "v_cache")}

        def reference(
            run: Callable[..., Tensor], inputs: tuple[Tensor, ...], dtype: torch.dtype, extra: Any,
            turn: Any = turn, shape: Any = shape, caches: Any = caches,
        ) -> Tensor:  # fmt: skip
            kept = caches(dtype=dtype, device=lab.device)
            cast = {name: as_dtype(value, dtype) for name, value in {**extra, **turn}.items()}
            q = run(*(as_dtype(x, dtype) for x in inputs), eps=EPS, **cast, **shape, **kept)
            return torch.cat([q.flatten(), *(cache.flatten() for cache in kept.values())])

        plain = qkv_input(x, weight, args)
        for name, run, torch_run, inputs, extra in (
            ("qkv", qkv, qkv_reference, (x, weight), args),
            ("rope", rope, rope_reference, (plain,), head_norm),
        ):
            kept = caches(dtype=dtype, device=lab.device)
            none = Segments.none(batch, heads.q, 32, lab.device)
            table = frame(*kept.values(), none)
            with poisoned():
                q = run(*inputs, eps=EPS, **extra, **turn, frame=table, **shape)
            got = torch.cat([q.flatten(), *(cache.flatten() for cache in kept.values())])
            path = reference(torch_run, inputs, dtype, extra)
            exact = reference(torch_run, inputs, torch.float64, extra)
            worst.add(f"{name} {case}", got, exact, path)
    yield worst.row()


def check_ends(lab: Lab) -> Iterator[Row]:
    """What a step begins and ends with; the likeliest token and the rows are held to equality."""
    worst = Worst()
    for case, layer, dtype, batch in layers(lab):
        weight = lab.randn(layer.vocab, layer.hidden, seed=1, dtype=dtype)
        half = layer.heads.dim // 2
        inverse = 500000.0 ** -(torch.arange(half, device=lab.device) / half)
        tokens = torch.arange(batch, device=lab.device) * 3 - 1  # the first is no token
        position = torch.arange(batch, device=lab.device) * 4097 + 11
        with poisoned():
            x, *turns = embed(tokens, position, weight, inverse, 1.5)
        _, *paths = embed_reference(tokens, position, weight, inverse, 1.5)
        worst.within(f"embedding {case}", x, weight[tokens.clamp(min=0)].double(), 1e-30)
        angle = (position[:, None].float() * inverse).double().repeat(1, 2)
        for name, got, path, turn in zip(
            ("cos", "sin"), turns, paths, (torch.cos, torch.sin), strict=True
        ):
            worst.add(f"{name} {case}", got, 1.5 * turn(angle), path)
        logits = lab.randn(batch, layer.vocab, seed=2, dtype=torch.float32).round(decimals=1)
        for row, broken in enumerate((None, math.nan, math.inf)[:batch]):
            if broken is not None:
                logits[row, layer.vocab // 2] = broken
        count = torch.zeros(batch, dtype=torch.int32, device=lab.device)
        for turn_ in ("first", "second"):  # which finds what the first has left behind
            with poisoned():
                chosen = greedy(logits, count)
            want = greedy_reference(logits)
            worst.within(f"{turn_} greedy {case}", chosen.float(), want.double(), 1e-30)
    yield worst.row()


def qkv_input(x: Tensor, weight: Tensor, args: dict[str, Tensor]) -> Tensor:
    """What rope turns: the plain product."""
    return linear_reference(x, weight, norm=args["norm"], eps=EPS, bias=args["bias"])


def products_of(
    lab: Lab, batch: int, K: int, N: int, dtype: torch.dtype, more: dict[str, tuple[int, ...]]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """x, weight and the further arguments of a product, random, sums of the order of 1."""
    x = lab.randn(batch, K, seed=1, dtype=dtype)
    weight = (lab.randn(N, K, seed=2, dtype=torch.float32) * K**-0.5).to(dtype)
    args = {
        name: lab.randn(*size, seed=3, dtype=dtype) + (1 if name == "norm" else 0)
        for name, size in more.items()
    }
    return x, weight, args


def wide(reference: Callable[..., Tensor], x: Tensor, weight: Tensor, **args: Tensor) -> Tensor:
    """The reference on the same numbers in float64."""
    args = {name: value.double() for name, value in args.items()}
    return reference(x.double(), weight.double(), eps=EPS, **args)


def as_dtype(value: Any, dtype: torch.dtype) -> Any:
    floats = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(dtype) if floats else value


@contextmanager
def poisoned() -> Iterator[None]:
    """What the kernels in the block leave unwritten of their outputs is NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of operations that are not deterministic: no matter here
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(False)
