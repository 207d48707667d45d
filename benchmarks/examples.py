"""Calls of every kernel, as the library makes them: what is compiled, and what is tuned.

Each example belongs to one entry of kernels/launch.json. To add a kernel, write the function that
prepares a call of its launcher, and name it in ``examples``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BF16, FP32 = torch.bfloat16, torch.float32
ATTENTION = {
    "d64": (64, BF16),
    "d128": (128, BF16),
    "d256": (256, BF16),
    "d64-fp32": (64, FP32),
    "d128-fp32": (128, FP32),
    "d256-fp32": (256, FP32),
}
EPS = 1e-5
ROTATED = {"heads": 32, "kv_heads": 8, "layer": 1}


@dataclass(frozen=True)
class Where:
    """The device that inputs lie on ("meta" for none), whether they are tiny, and their seed."""

    device: torch.device
    tiny: bool = False
    seed: int = 0

    def size(self, full: int, tiny: int) -> int:
        return tiny if self.tiny else full

    def dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Triton's interpreter, on the CPU, has no bfloat16."""
        narrow = dtype == BF16 and self.device.type == "cpu"
        return torch.float16 if narrow else dtype

    def randn(self, *shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
        if self.device.type == "meta":
            return torch.empty(shape, dtype=dtype, device=self.device)
        generator = torch.Generator(self.device).manual_seed(97 * self.seed + seed)
        out = torch.randn(shape, generator=generator, device=self.device)
        return out.to(self.dtype(dtype))

    def integers(self, *values: int) -> Tensor:
        return torch.tensor(values, device=self.device)


@dataclass(frozen=True)
class Call:
    """One launch, ready to be made again and again; ``run`` gives what can be compared.

    ``moved`` is bytes that it must read at the least, ``flop`` multiplications and additions.
    """

    run: Callable[[], Tensor]
    moved: float
    flop: float = 0.0


Prepare = Callable[[Where], Call]


@dataclass(frozen=True)
class Example:
    """``prepare(where)`` allocates inputs and gives the call; ``form`` says what is switched on.

    ``timed`` are the calls, by name, whose times decide what benchmarks/tune.py chooses.
    """

    kernel: str
    shape: str
    form: str
    prepare: Prepare
    timed: tuple[tuple[str, Prepare], ...] = ()


def examples() -> list[Example]:
    """Every example, in the order of the table of figures."""
    return [
        *(e for shape, (D, dtype) in ATTENTION.items() for e in _prefills(shape, D, dtype)),
        *(e for shape, (D, dtype) in ATTENTION.items() for e in _decodes(shape, D, dtype)),
        *(e for batch in (1, 8) for wide in (False, True) for e in _products(batch, wide)),
        Example("rope", "any", "plain", _part(_rope), (("64 heads", _part(_rope)),)),
        Example("rope", "any", "head norms", _part(_rope, head_norms=True)),
        Example("embed", "any", "plain", _embed, (("8 x 4096", _embed),)),
        Example("embed", "any", "int8", _part(_embed, int8=True)),
        Example("greedy", "any", "plain", _greedy, (("8 x 128256", _greedy),)),
    ]


_part = functools.partial


def _prefills(shape: str, D: int, dtype: torch.dtype) -> list[Example]:
    """A head dim that is no power of two is padded, and its loads are masked."""

    def example(form: str, D: int = D, **switches: Any) -> Example:
        timed = ((f"8191 tokens, d {D}", _part(_prefill, D, dtype)),) if form == "boost" else ()
        return Example("prefill", shape, form, _part(_prefill, D, dtype, **switches), timed)

    return [
        example("boost"),
        example("boost window, padded", D * 3 // 4, window=1000),
        example("boost mass cap", mass=True, cap=30.0),
        example("boost mass window", mass=True, window=1000),
        example("boost target", target=True),
        example("boost target window, padded", D * 3 // 4, target=True, window=1000),
        example("boost mass target cap", mass=True, target=True, cap=30.0),
        example("boost mass target window", mass=True, target=True, window=1000),
    ]


def _prefill(
    D: int, dtype: torch.dtype, where: Where, *,
    mass: bool = False, target: bool = False, window: int | None = None, cap: float | None = None,
) -> Call:  # fmt: skip
    from minboost.kernels.prefill import prefill
    from minboost.kernels.segments import Segments

    T = where.size(8191, 70)
    heads = where.size(32 * 64 // min(D, 64), 2)
    q = where.randn(1, heads, T, D, dtype=dtype, seed=1)
    k, v = (where.randn(1, max(1, heads // 4), T, D, dtype=dtype, seed=s) for s in (2, 3))
    segments, start = Segments.cut(*_spans(where, heads, T), T), where.integers(0)
    wanted = torch.full((1, heads), 0.5, device=where.device) if target else None

    def run() -> Tensor:
        out, _ = prefill(
            q, k, v, start, segments,
            scale=D**-0.5, window=window, soft_cap=cap, return_mass=mass, target=wanted,
        )  # fmt: skip
        return out

    return Call(run, moved=q.nbytes + k.nbytes + v.nbytes, flop=2.0 * heads * T * T * D)


def _decodes(shape: str, D: int, dtype: torch.dtype) -> list[Example]:
    def example(form: str, function: Callable[..., Call], D: int = D, **switches: Any) -> Example:
        timed = ()
        if form == "framed boost":
            timed = tuple(
                (f"{keys} keys, d {D}", _part(function, D, dtype, keys=keys))
                for keys in (1024, 8192)
            )
        return Example("decode", shape, form, _part(function, D, dtype, **switches), timed)

    return [
        example("framed boost", _framed),
        example("framed target", _framed, targets="exact"),
        example("framed target window, padded", _framed, D * 3 // 4, targets="exact", window=1000),
        example("boost", _decode),
        example("boost mass window cap", _decode, mass=True, window=1000, cap=30.0),
        example("boost mass target", _decode, mass=True, target=True),
    ]


def _caches(D: int, dtype: torch.dtype, where: Where, keys: int) -> tuple[Tensor, ...]:
    """q (B, H, 1, D), k and v (L, B, H_kv, T_max, D)."""
    kv_heads, keys = where.size(8, 2), where.size(keys, 70)
    q = where.randn(1, 4 * kv_heads, 1, D, dtype=dtype, seed=1)
    k, v = (where.randn(2, 1, kv_heads, keys, D, dtype=dtype, seed=s) for s in (2, 3))
    return q, k, v


def _framed(
    D: int, dtype: torch.dtype, where: Where, *,
    keys: int = 8192, targets: str | None = None, window: int | None = None,
) -> Call:  # fmt: skip
    from minboost.kernels import decode as kernels
    from minboost.kernels.frame import frame
    from minboost.kernels.segments import Segments

    q, k, v = _caches(D, dtype, where, keys)
    heads, kv_heads, keys = q.shape[1], k.shape[2], k.shape[3]
    start, stop, strength = _spans(where, heads, keys)
    segments = Segments.cut(start, stop, strength.expand(2, -1, -1, -1), keys)
    target = torch.full((2, 1, heads), 0.5, device=where.device)
    table, position = frame(k, v, segments, target), where.integers(keys - 1)
    room = kernels.workspace(1, heads, kv_heads, D, where.device)

    def run(holds: object = (k, v, segments, target)) -> Tensor:
        return kernels.decode_framed(
            q, position, table, layer=1, kv_heads=kv_heads, scale=D**-0.5, window=window,
            targets=targets, workspace=room,
        )  # fmt: skip

    return Call(run, moved=k[0].nbytes + v[0].nbytes)


def _decode(
    D: int, dtype: torch.dtype, where: Where, *, mass: bool = False, target: bool = False,
    window: int | None = None, cap: float | None = None,
) -> Call:  # fmt: skip
    from minboost.kernels.decode import decode
    from minboost.kernels.segments import Segments

    q, k, v = _caches(D, dtype, where, 8192)
    heads, keys = q.shape[1], k.shape[3]
    segments = Segments.cut(*_spans(where, heads, keys), keys)
    wanted = torch.full((1, heads), 0.5, device=where.device) if target else None
    position = where.integers(keys - 1)

    def run() -> Tensor:
        out, _ = decode(
            q, k[0], v[0], position, segments, scale=D**-0.5, window=window,
            soft_cap=cap, return_mass=mass, target=wanted,
        )  # fmt: skip
        return out

    return Call(run, moved=k[0].nbytes + v[0].nbytes)


def _spans(where: Where, heads: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    """One boosted span: start and stop (1, 1), strength (1, H, 1)."""
    start, stop = (where.integers(at)[None] for at in (keys // 8, keys // 3))
    return start, stop, torch.full((1, heads, 1), 1.9, device=where.device)


def _products(batch: int, wide: bool) -> list[Example]:
    """Every product of a decode step, at the widths of Llama 3's 1B (and 8B, where timed)."""
    shape = f"b{batch}-{'wide' if wide else 'narrow'}"
    made = []
    for suffix, dtype, int8 in (
        ("", BF16, False),
        (", fp32", FP32, False),
        (", int8", BF16, True),
        (", fp32 int8", FP32, True),
    ):
        if batch > 1 and wide and dtype == FP32:
            continue  # taken for narrow (kernels/product.py)

        def timed(
            kind: Callable[..., Call], *widths: tuple[int, int], plain: bool = not suffix
        ) -> tuple[tuple[str, Prepare], ...]:
            if not plain:
                return ()
            return tuple(
                (f"{kind.__name__.strip('_')} {N} x {K}", _part(kind, batch, N, K, BF16))
                for N, K in widths
            )

        if wide:
            gates, heads = ((16384, 2048), (28672, 4096)), ((128256, 2048),)
            kinds = [("gate_up", _gate_up, gates), ("norm", _head, heads)]
        else:
            kinds = [
                ("residual", _residual, ((2048, 2048), (2048, 8192), (4096, 14336))),
                ("qkv", _qkv, ((3072, 2048), (6144, 4096))),
                ("norm", _head, ()),
                ("gate_up", _gate_up, ()),
            ]
        for form, kind, widths in kinds:
            N, K = (16384, 2048) if wide else (3072, 2048)
            prepare = _part(kind, batch, N, K, dtype, int8=int8)
            made.append(Example("linear", shape, form + suffix, prepare, timed(kind, *widths)))
    return made


def _operands(
    batch: int, N: int, K: int, dtype: torch.dtype, where: Where, int8: bool
) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
    """x (B, K), weight (N, K), with its scale (N,) where it is int8, norm (K,) and bias (N,)."""
    weight = where.randn(N, K, dtype=dtype, seed=2)
    weight *= K**-0.5
    matrix = {"weight": weight}
    if int8:
        matrix["weight"] = (weight * K**0.5 * 40).clamp(-127, 127).to(torch.int8)
        matrix["scale"] = torch.full((N,), K**-0.5 / 40, device=where.device)
    x, norm = (where.randn(*s, dtype=dtype, seed=3) for s in ((batch, K), (K,)))
    return x, matrix, norm, where.randn(N, dtype=dtype, seed=4)


def _tiny(where: Where, N: int, K: int) -> tuple[int, int]:
    """Small widths of the same shape class."""
    return (where.size(N, 8192 if N >= 8192 else 96), where.size(K, 64))


def _residual(
    batch: int, N: int, K: int, dtype: torch.dtype, where: Where, *, int8: bool = False
) -> Call:
    from minboost.kernels.linear import linear

    N, K = _tiny(where, N, K)
    x, matrix, _, bias = _operands(batch, N, K, dtype, where, int8)
    residual = where.randn(batch, N, dtype=dtype, seed=5)
    return Call(lambda: linear(x, **matrix, bias=bias, residual=residual), matrix["weight"].nbytes)


def _head(
    batch: int, N: int, K: int, dtype: torch.dtype, where: Where, *, int8: bool = False
) -> Call:
    from minboost.kernels.linear import linear

    N, K = _tiny(where, N, K)
    x, matrix, norm, _ = _operands(batch, N, K, dtype, where, int8)
    return Call(
        lambda: linear(x, **matrix, norm=norm, eps=EPS, out_dtype=FP32), matrix["weight"].nbytes
    )


def _gate_up(
    batch: int, N: int, K: int, dtype: torch.dtype, where: Where, *, int8: bool = False
) -> Call:
    from minboost.kernels.gate_up import gate_up

    N, K = _tiny(where, N, K)
    x, matrix, norm, bias = _operands(batch, N, K, dtype, where, int8)
    return Call(
        lambda: gate_up(x, **matrix, norm=norm, eps=EPS, bias=bias), matrix["weight"].nbytes
    )


def _qkv(
    batch: int, N: int, K: int, dtype: torch.dtype, where: Where, *, int8: bool = False
) -> Call:
    from minboost.kernels.qkv import qkv

    D = where.size(N, 768) // 48  # 32 + 2 · 8 heads
    K = where.size(K, 64)
    x, matrix, norm, bias = _operands(batch, 48 * D, K, dtype, where, int8)
    place = _place(batch, D, dtype, where)
    return Call(
        lambda: qkv(x, **matrix, norm=norm, eps=EPS, bias=bias, **place, head_dim=D),
        matrix["weight"].nbytes,
    )


def _rope(where: Where, *, head_norms: bool = False) -> Call:
    from minboost.kernels.rope import rope

    batch, D = 8, where.size(128, 16)
    rows = where.randn(batch, 48 * D, dtype=BF16, seed=1)
    norms = {}
    if head_norms:
        norms = {name: where.randn(D, dtype=BF16, seed=2) for name in ("q_norm", "k_norm")}
    place = _place(batch, D, BF16, where)
    return Call(lambda: rope(rows, **place, head_dim=D, eps=EPS, **norms), rows.nbytes)


def _place(batch: int, D: int, dtype: torch.dtype, where: Where) -> dict[str, Any]:
    """Angles, positions and a frame over a small cache, which holds on to the cache itself."""
    from minboost.kernels.frame import frame
    from minboost.kernels.segments import Segments

    keys = 16
    k, v = (torch.zeros(2, batch, 8, keys, D, dtype=where.dtype(dtype), device=where.device)
            for _ in "kv")  # fmt: skip
    segments = Segments.none(batch, 32, keys, where.device)
    table = frame(k, v, segments)
    table.holds = (k, v, segments)  # type: ignore[attr-defined]
    return {
        "cos": where.randn(batch, D, dtype=dtype, seed=6),
        "sin": where.randn(batch, D, dtype=dtype, seed=7),
        "position": where.integers(*range(batch)),
        "frame": table,
        **ROTATED,
    }


def _embed(where: Where, *, int8: bool = False) -> Call:
    from minboost.kernels.embed import embed

    batch, K = 8, where.size(4096, 64)
    weight = where.randn(where.size(2048, 50), K, dtype=BF16, seed=1)
    dtype, scale = weight.dtype, None
    if int8:
        weight = (weight * 40).clamp(-127, 127).to(torch.int8)
        scale = torch.full((len(weight),), 1 / 40, device=where.device)
    tokens = where.integers(*range(1, batch + 1))
    frequencies = where.randn(64, dtype=FP32, seed=2)

    def run() -> Tensor:
        return embed(tokens, tokens, weight, frequencies, 1.0, scale=scale, dtype=dtype)[0]

    return Call(run, moved=float(batch * K * weight.element_size()))


def _greedy(where: Where) -> Call:
    from minboost.kernels.greedy import greedy

    logits = where.randn(8, where.size(128256, 5000), dtype=FP32, seed=1)
    count = torch.zeros(8, dtype=torch.int32, device=where.device)
    return Call(lambda: greedy(logits, count), logits.nbytes)
