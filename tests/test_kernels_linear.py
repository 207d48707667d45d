"""The fused decode products and the rotation, in the interpreter where there is no GPU.

Each is compared with its torch reference in float64, and allowed at most twice the error of that
reference in the dtype at hand.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings

from minboost.layers import RMSNorm
from minboost.quantize import int8_linear, quantize_rows
from minboost.rope import rotate

pytest.importorskip("triton")
from minboost.kernels import product as products
from minboost.kernels.frame import frame
from minboost.kernels.gate_up import gate_up, gate_up_reference
from minboost.kernels.linear import linear, linear_reference
from minboost.kernels.qkv import qkv, qkv_reference
from minboost.kernels.rope import rope, rope_reference
from minboost.kernels.segments import Segments

# What the interpreter does with numpy is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = [torch.float32, torch.float16]  # the interpreter has no bfloat16
EPS = 1e-5
SMALL = {"block_n": 8, "block_k": 32, "num_warps": 4, "num_stages": 2, "pdl": 0}


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """What a kernel leaves unwritten is NaN."""
    make = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: make(*a, **k).fill_(float("nan")))


@pytest.fixture(params=["table", "small"])
def tiles(request, monkeypatch):
    """The table's tiles, and some so small that every loop turns more than once."""
    if request.param == "small":
        monkeypatch.setattr(products, "launch", lambda *_: SMALL)


def randn(*shape, seed, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g).to(dtype).to(DEVICE)


def wide(value):
    return (
        value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
    )


def widened(arguments):
    return {name: wide(value) for name, value in arguments.items()}


def near(got, torch_path, want, *, dtype, B=1):
    """``got`` errs at most twice as much as the torch path does, and a rounding.

    The sums behind it are of order 1 even where they come out small. In the interpreter a tl.dot
    (B > 1) is numpy's product: measured alone on 130 terms, its float32 errs 1.6 times as much as
    torch's in the mean, 2 times at the worst.
    """
    assert got.shape == want.shape
    rounding = torch.finfo(dtype).eps * want.abs().max().clamp(min=1.0)
    factor = 4 if B > 1 and dtype == torch.float32 and DEVICE.type == "cpu" else 2
    allowed = factor * (torch_path.double() - want).abs().max() + rounding
    assert (got.double() - want).abs().max() <= allowed


def product_inputs(B, N, K, dtype, *, bias=False, norm=False, residual=False, int8=False, seed=0):
    """x, the weight and the other arguments of a product; with ``int8``, the scale among them."""
    arguments = {
        "bias": randn(N, seed=seed + 3, dtype=dtype) if bias else None,
        "norm": 1 + randn(K, seed=seed + 4, dtype=dtype) / 4 if norm else None,
        "eps": EPS,
    }
    if residual:
        arguments["residual"] = randn(B, N, seed=seed + 5, dtype=dtype)
    weight = randn(N, K, seed=seed + 2, dtype=dtype) / K**0.5
    if int8:
        weight, arguments["scale"] = quantize_rows(weight)
    return randn(B, K, seed=seed + 1, dtype=dtype) * 2, weight, arguments


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "fp16"])
@pytest.mark.parametrize(
    "extras",
    ["", "bias", "residual", "norm", "bias norm residual", "int8", "int8 bias norm residual"],
)
@pytest.mark.parametrize("B", [1, 2, 3, 8])
@pytest.mark.usefixtures("tiles")
def test_linear(B, extras, dtype):
    on = {name: name in extras for name in ("bias", "norm", "residual", "int8")}
    x, weight, arguments = product_inputs(B, 35, 130, dtype, **on)
    want = linear_reference(x.double(), weight.double(), **widened(arguments))
    near(
        linear(x, weight, **arguments),
        linear_reference(x, weight, **arguments),
        want,
        dtype=dtype,
        B=B,
    )


@pytest.mark.parametrize("int8", [False, True], ids=["plain", "int8"])
@pytest.mark.parametrize("B", [1, 5])
@pytest.mark.parametrize(("N", "K"), [(1, 1), (1, 200), (33, 1), (5, 31), (4, 64), (17, 2049)])
def test_linear_of_awkward_sizes(N, K, B, int8):
    x, weight, arguments = product_inputs(B, N, K, torch.float32, bias=True, norm=True, int8=int8)
    want = linear_reference(x.double(), weight.double(), **widened(arguments))
    near(
        linear(x, weight, **arguments),
        linear_reference(x, weight, **arguments),
        want,
        dtype=torch.float32,
        B=B,
    )


@pytest.mark.parametrize("B", [1, 3])
def test_many_rows_take_the_wide_tiles(B, monkeypatch):
    monkeypatch.setattr(products, "WIDE", 100)
    x, weight, arguments = product_inputs(B, 133, 40, torch.float16, bias=False, norm=True)
    assert products.shape_class(B, 133, 2).endswith("wide")
    want = linear_reference(x.double(), weight.double(), **widened(arguments))
    torch_path = linear_reference(x, weight, **arguments)
    near(linear(x, weight, **arguments), torch_path, want, dtype=torch.float16)


@pytest.mark.parametrize("B", [1, 2])
def test_the_logits_are_not_rounded_to_the_dtype_of_the_weights(B):
    x, weight, arguments = product_inputs(B, 50, 96, torch.float16, bias=False, norm=True)
    logits = linear(x, weight, out_dtype=torch.float32, **arguments)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.half().float())
    want = linear_reference(x.double(), weight.double(), **widened(arguments))
    near(logits, linear_reference(x, weight, **arguments), want, dtype=torch.float16)


@pytest.mark.parametrize("int8", [False, True], ids=["plain", "int8"])
@pytest.mark.parametrize("op", ["linear", "gate_up"])
@pytest.mark.parametrize("B", [1, 3])
def test_the_norm_of_large_float16_values_does_not_overflow(B, op, int8):
    x, weight, arguments = product_inputs(B, 6, 40, torch.float16, norm=True, int8=int8)
    x, arguments["norm"] = x * 6000, arguments["norm"] * 20  # x · norm is beyond 65504
    assert not (x * arguments["norm"]).isfinite().all()
    kernel, reference = {
        "linear": (linear, linear_reference),
        "gate_up": (gate_up, gate_up_reference),
    }[op]
    want = reference(x.double(), weight.double(), **widened(arguments))
    near(
        kernel(x, weight, **arguments),
        reference(x, weight, **arguments),
        want,
        dtype=torch.float16,
    )


@pytest.mark.parametrize("B", [1, 3])
def test_sums_of_int8_beyond_the_range_of_float16_do_not_overflow(B):
    x, weight, arguments = product_inputs(B, 6, 700, torch.float16, int8=True)
    x, weight = x.abs(), torch.full_like(weight, 127)
    arguments["scale"] /= 100
    want = linear_reference(x.double(), weight, **widened(arguments))
    assert (want / arguments["scale"]).min() > 65504
    torch_path = linear_reference(x, weight, **arguments)
    near(linear(x, weight, **arguments), torch_path, want, dtype=torch.float16)


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "fp16"])
def test_a_row_of_a_batch_does_not_depend_on_the_others(dtype):
    x, weight, arguments = product_inputs(8, 35, 130, dtype, bias=True, norm=True)
    all_rows = linear(x, weight, **arguments)
    assert torch.equal(linear(x, weight, **arguments), all_rows)
    assert torch.equal(linear(x[:3], weight, **arguments), all_rows[:3])


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "fp16"])
@pytest.mark.parametrize("extras", ["", "bias", "int8 bias"])
@pytest.mark.parametrize("B", [1, 2, 3, 8])
@pytest.mark.usefixtures("tiles")
def test_gate_up(B, extras, dtype):
    on = {name: name in extras for name in ("bias", "int8")}
    # Few products are large, and the largest decides: several draws are judged as one.
    draws = [
        product_inputs(B, 2 * 13, 130, dtype, norm=True, seed=seed, **on)
        for seed in range(0, 40, 10)
    ]
    near(
        torch.cat([gate_up(x, weight, **arguments) for x, weight, arguments in draws]),
        torch.cat([gate_up_reference(x, weight, **arguments) for x, weight, arguments in draws]),
        torch.cat([gate_up_reference(wide(x), wide(w), **widened(a)) for x, w, a in draws]),
        dtype=dtype,
        B=B,
    )


@pytest.mark.parametrize("B", [1, 3])
def test_gate_up_of_one_row_is_that_row_of_more(B):
    x, weight, arguments = product_inputs(B, 2 * 5, 33, torch.float32, bias=False, norm=True)
    five = gate_up(x, weight, **arguments)
    for row in range(5):
        one = gate_up(x, weight[[row, 5 + row]], **arguments)
        torch.testing.assert_close(one, five[:, row : row + 1])


T_MAX, LAYERS = 19, 3


def where(B, kv_heads, D, dtype, seed=0):
    """Angles, ragged positions (the last among them) and a cache whose content must stay."""
    g = torch.Generator().manual_seed(seed)
    angles = torch.rand(B, D, generator=g) * 6  # both halves apart: neither may stand for the other
    position = torch.randint(0, T_MAX, (B,), generator=g)
    position[-1] = T_MAX - 1
    shape = (LAYERS, B, kv_heads, T_MAX, D)
    caches = [randn(*shape, seed=seed + i, dtype=dtype) for i in (11, 12)]
    turn = {
        name: f(angles).to(dtype).to(DEVICE) for name, f in (("cos", torch.cos), ("sin", torch.sin))
    }
    return turn, position.to(DEVICE), caches


def writes_as(kernel, reference, first, arguments, *, position, caches, layer, kv_heads, dtype):
    """Compare q and the cache at the positions; everything else in the cache is untouched."""
    B = len(position)
    k, v = (cache.clone() for cache in caches)
    segments = Segments.none(B, 1, T_MAX, DEVICE)
    table = frame(k, v, segments)
    shared = {"position": position, "layer": layer, "kv_heads": kv_heads}
    got = kernel(*first, frame=table, **arguments, **shared)
    exact = [cache.double() for cache in caches]
    want = reference(
        *map(wide, first), k_cache=exact[0], v_cache=exact[1], **widened(arguments), **shared
    )
    rounded = [cache.clone() for cache in caches]
    torch_path = reference(*first, k_cache=rounded[0], v_cache=rounded[1], **arguments, **shared)
    near(got, torch_path, want, dtype=dtype, B=B)
    rows = torch.arange(B, device=DEVICE)
    for cache, before, by_torch, wanted in zip((k, v), caches, rounded, exact, strict=True):
        at = (layer, rows, slice(None), position)
        near(cache[at], by_torch[at], wanted[at], dtype=dtype, B=B)
        cache[at] = before[at]
        assert torch.equal(cache, before), "the cache was written elsewhere"


def qkv_case(B, K, heads, kv_heads, D, dtype, *, bias=False, int8=False, layer=1, seed=0):
    turn, position, caches = where(B, kv_heads, D, dtype, seed)
    x, weight, arguments = product_inputs(
        B, (heads + 2 * kv_heads) * D, K, dtype, bias=bias, norm=True, int8=int8
    )
    arguments |= turn | {"heads": heads, "head_dim": D}
    place = {"position": position, "caches": caches, "layer": layer, "kv_heads": kv_heads}
    writes_as(qkv, qkv_reference, (x, weight), arguments, dtype=dtype, **place)


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "fp16"])
@pytest.mark.parametrize("extras", ["", "bias", "int8 bias"])
@pytest.mark.parametrize("B", [1, 2, 3, 8])
@pytest.mark.usefixtures("tiles")
def test_qkv(B, extras, dtype):
    qkv_case(B, 70, 2, 1, 12, dtype, bias="bias" in extras, int8="int8" in extras)


@pytest.mark.parametrize("group", [1, 4, 7])
@pytest.mark.parametrize("D", [64, 80, 96, 128, 256])
@pytest.mark.parametrize("B", [1, 3])
def test_qkv_of_head_dims_and_groups(B, D, group, monkeypatch):
    monkeypatch.setattr(products, "launch", lambda *_: SMALL | {"block_n": 32})  # few programs
    qkv_case(B, 33, group, 1, D, torch.float32, layer=LAYERS - 1)


def rope_case(B, heads, kv_heads, D, dtype, *, norms, layer=1, seed=0):
    turn, position, caches = where(B, kv_heads, D, dtype, seed)
    arguments = turn | {"heads": heads, "head_dim": D}
    if norms:
        arguments["q_norm"] = 1 + randn(D, seed=6, dtype=dtype) / 4
        arguments["k_norm"] = 1 + randn(D, seed=7, dtype=dtype) / 4
        arguments["eps"] = EPS
    product = randn(B, (heads + 2 * kv_heads) * D, seed=8, dtype=dtype) * 3
    place = {"position": position, "caches": caches, "layer": layer, "kv_heads": kv_heads}
    writes_as(rope, rope_reference, (product,), arguments, dtype=dtype, **place)


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "fp16"])
@pytest.mark.parametrize("norms", [False, True], ids=["no norms", "norms"])
@pytest.mark.parametrize("B", [1, 3, 20])
def test_rope(B, norms, dtype):
    rope_case(B, 4, 2, 12, dtype, norms=norms)


@pytest.mark.parametrize("group", [1, 4, 7])
@pytest.mark.parametrize("D", [64, 80, 96, 128, 256])
def test_rope_of_head_dims_and_groups(D, group):
    rope_case(2, group, 1, D, torch.float32, norms=True, layer=0)


@pytest.mark.parametrize("outside", [-1, T_MAX, T_MAX + 1])
@pytest.mark.parametrize("op", ["qkv", "rope"])
def test_a_position_outside_the_cache_is_not_written(op, outside):
    B, heads, kv_heads, D = 2, 2, 1, 8
    turn, _, (k, v) = where(B, kv_heads, D, torch.float32)
    before = k.clone(), v.clone()
    x, weight, arguments = product_inputs(
        B, (heads + 2 * kv_heads) * D, 16, torch.float32, bias=False, norm=True
    )
    arguments = arguments if op == "qkv" else {}
    first = (x, weight) if op == "qkv" else (x @ weight.T,)
    q = {"qkv": qkv, "rope": rope}[op](
        *first,
        frame=frame(k, v, Segments.none(B, heads, T_MAX, DEVICE)),
        position=torch.tensor([outside] * B, device=DEVICE),
        layer=1,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=D,
        **turn,
        **arguments,
    )
    assert q.isfinite().all()
    assert torch.equal(k, before[0])
    assert torch.equal(v, before[1])


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_shape(data, monkeypatch):
    sizes = SMALL | {
        "block_n": data.draw(st.sampled_from([2, 4, 16]), "block_n"),
        "block_k": data.draw(st.sampled_from([16, 64]), "block_k"),
    }
    monkeypatch.setattr(products, "launch", lambda *_: sizes)
    dtype = data.draw(st.sampled_from(DTYPES), "dtype")
    B = data.draw(st.integers(1, 9), "B")
    K = data.draw(st.integers(1, 100), "K")
    bias = data.draw(st.booleans(), "bias")
    kv_heads, group = data.draw(st.integers(1, 2), "H_kv"), data.draw(st.integers(1, 3), "group")
    D = 2 * data.draw(st.integers(1, 12), "half")
    layer = data.draw(st.integers(0, LAYERS - 1), "layer")
    seed = data.draw(st.integers(0, 9), "seed")
    shape = (B, group * kv_heads, kv_heads, D, dtype)
    rope_case(*shape, norms=bias, layer=layer, seed=seed)
    int8 = data.draw(st.booleans(), "int8")
    qkv_case(*shape[:1], K, *shape[1:], bias=bias, int8=int8, layer=layer, seed=seed)


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "fp16"])
def test_the_references_are_what_the_model_computes(dtype):
    """The model's own parts, bit for bit: the error allowed above is that of the model in torch."""
    B, heads, kv_heads, D, K = 3, 4, 2, 16, 40
    x, weight, arguments = product_inputs(
        B, (heads + 2 * kv_heads) * D, K, dtype, bias=True, norm=True
    )
    norm = RMSNorm(K, EPS).to(DEVICE)
    norm.weight.data = arguments["norm"]
    y = F.linear(norm(x), weight, arguments["bias"])
    assert torch.equal(linear_reference(x, weight, **arguments), y)
    gate, up = y.chunk(2, dim=-1)
    assert torch.equal(gate_up_reference(x, weight, **arguments), F.silu(gate) * up)
    turn, position, (k, v) = where(B, kv_heads, D, dtype)
    q = qkv_reference(
        x,
        weight,
        position=position,
        k_cache=k,
        v_cache=v,
        layer=1,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=D,
        **turn,
        **arguments,
    )
    want = y.view(B, 1, -1, D).split((heads, kv_heads, kv_heads), dim=2)
    cos, sin = turn["cos"][:, None], turn["sin"][:, None]  # (B, 1, D)
    assert torch.equal(q, rotate(want[0], cos, sin)[:, 0])
    at = (1, torch.arange(B, device=DEVICE), slice(None), position)
    assert torch.equal(k[at], rotate(want[1], cos, sin)[:, 0])
    assert torch.equal(v[at], want[2][:, 0])


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "fp16"])
@pytest.mark.parametrize("B", [3, 9])
def test_the_int8_references_err_no_more_than_the_model(B, dtype):
    """Theirs is the tighter bound: a rounding where the model, on few rows, has several."""
    x, weight, arguments = product_inputs(B, 35, 130, dtype, bias=True, norm=True, int8=True)
    norm = RMSNorm(130, EPS).to(DEVICE)
    norm.weight.data = arguments["norm"]
    y = int8_linear(norm(x), weight, arguments["scale"], arguments["bias"])
    normed = products.rmsnorm(x.double(), arguments["norm"].double(), EPS)
    dequantised = weight * arguments["scale"].double()[:, None]
    want = F.linear(normed, dequantised, arguments["bias"].double())
    near(linear_reference(x, weight, **arguments), y, want, dtype=dtype)


@pytest.mark.parametrize(
    ("B", "dtype", "int8", "block_k"),
    [
        (1, torch.bfloat16, False, 64),
        (1, torch.bfloat16, True, 128),
        (1, torch.float32, False, 32),
        (1, torch.float32, True, 64),
        (8, torch.bfloat16, True, 64),
        (8, torch.float32, True, 32),
    ],
)
def test_a_tile_holds_as_many_bytes_in_any_dtype(B, dtype, int8, block_k, monkeypatch):
    """Of the weights with one vector, of what they are multiplied with in a batch."""
    monkeypatch.setattr(products, "launch", lambda *_: SMALL | {"block_k": 64})
    x, weight, arguments = product_inputs(B, 8, 16, dtype, int8=int8)
    tile, _ = products.sizes(x, weight, arguments.get("scale"))
    assert tile["BLOCK_K"] == block_k


def test_a_scale_belongs_to_int8_and_to_every_row_of_it():
    x, weight, arguments = product_inputs(1, 4, 16, torch.float32, int8=True)
    scale = arguments["scale"]
    for matrix, factor in ((weight, None), (weight.float(), scale), (weight, scale[:3])):
        with pytest.raises(AssertionError):
            linear(x, matrix, scale=factor)


def test_more_rows_than_a_tile_holds_are_refused():
    x, weight, arguments = product_inputs(17, 4, 16, torch.float32, bias=False, norm=False)
    with pytest.raises(AssertionError, match="1 to 16 rows, not 17"):
        linear(x, weight, **arguments)


COMPILE = r"""
    import json, os, re, subprocess, sys, tempfile
    import torch
    import triton
    import triton.backends.nvidia as nvidia
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from minboost.kernels import product
    from minboost.kernels.gate_up import gate_up_kernel
    from minboost.kernels.launch import TABLE
    from minboost.kernels.linear import linear_kernel
    from minboost.kernels.qkv import qkv_kernel
    from minboost.kernels.rope import rope_kernel

    target = GPUTarget(*json.loads(sys.argv[1]))
    KINDS = {"frame_ptr": "*i64", "position_ptr": "*i64", "eps": "fp32"}
    INT8 = {"weight_ptr": "*i8", "scale_ptr": "*fp32"}

    def report(name, kernel, constants, options, pdl, kinds=KINDS):
        names = kernel.arg_names
        constants = {**constants, "PDL": pdl}
        signature = {
            n: "constexpr" if n in constants
            else kinds.get(n, "*bf16" if n.endswith("_ptr") else "i32")
            for n in names
        }
        aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names)
                   if n not in constants and (n.endswith("_ptr") or n in ("N", "K", "INNER"))}
        source = ASTSource(fn=kernel, signature=signature, attrs=aligned,
                           constexprs={(names.index(n),): v for n, v in constants.items()})
        options = options | ({"launch_pdl": True} if pdl else {})
        asm = triton.compile(source, target=target, options=options).asm
        found = {"name": name, "pdl": pdl}
        if target.backend == "cuda":
            with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
                file.write(asm["cubin"])
                file.flush()
                tool = os.path.join(os.path.dirname(nvidia.__file__), "bin", "cuobjdump")
                text = subprocess.run([tool, "--dump-resource-usage", file.name],
                                      capture_output=True, text=True, check=True).stdout
            found["stack"] = int(text.split("STACK:")[1].split()[0])
            found["memory"] = re.findall(
                r"ld\.global\S*|cp\.async\.cg\S* .*0x10|griddepcontrol\.wait", asm["ptx"])
            found["bytewise"] = re.findall(r"ld\.global\S*[bsu]8\b", asm["ptx"])
        else:
            found["stack"] = int(re.search(r"private_segment_fixed_size:\s*(\d+)",
                                           asm["amdgcn"]).group(1))
        print(json.dumps(found))

    arch = f"sm_{target.arch}" if target.backend == "cuda" else target.arch
    table = {**TABLE["default"]["linear"], **TABLE.get(arch, {}).get("linear", {})}
    for shape, entry in table.items():
        product.launch = lambda *_, entry=entry: entry
        for suffix, dtype, kinds in (("", torch.bfloat16, {}), (" int8", torch.int8, INT8)):
            x = torch.empty(1 if shape.startswith("b1") else 8, 64, dtype=torch.bfloat16)
            scale = torch.empty(64) if kinds else None
            tile, options = product.sizes(x, torch.empty(64, 64, dtype=dtype), scale)
            if tile["BLOCK_B"] == 1:
                tile["B"] = 1  # as the launcher specialises it
            if not kinds:
                tile["scale_ptr"] = None
            kernels = {
                "residual": (linear_kernel, {"norm_ptr": None, "bias_ptr": None}),
                "norm": (linear_kernel, {"residual_ptr": None, "bias_ptr": None}),
                "gate_up": (gate_up_kernel, {"bias_ptr": None}),
                "qkv": (qkv_kernel, {}),
            }
            for name, (kernel, absent) in kernels.items():
                for pdl in (False, True) if target.arch == 90 else (False,):
                    report(f"{shape} {name}{suffix}", kernel, {**tile, **absent}, options, pdl,
                           {**KINDS, **kinds})
    for pdl in (False, True) if target.arch == 90 else (False,):
        report("rope", rope_kernel, {"BLOCK_I": 64}, {"num_warps": 1}, pdl)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [*(["cuda", arch, 32] for arch in (80, 86, 89, 90, 100, 120)), ["hip", "gfx942", 64]],
    ids=["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "gfx942"],
)
def test_the_products_compile_without_spills_and_load_16_bytes_at_once(
    target, tmp_path, monkeypatch
):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(COMPILE), json.dumps(target)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == (66 if target[1] == 90 else 33)
    assert not [case["name"] for case in found if case["stack"]], "registers were spilled"
    if target[0] == "cuda":
        for case in found:
            if case["name"] != "rope":
                assert any("cp.async" in access or "v4" in access for access in case["memory"])
                assert not case["bytewise"]
            if case["pdl"] and case["name"] != "rope":  # the weights do not wait
                early = case["memory"][: case["memory"].index("griddepcontrol.wait")]
                assert any("v4" in access for access in early)
            assert ("griddepcontrol.wait" in case["memory"]) == case["pdl"]
