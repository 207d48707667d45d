"""Boosted attention against the equation in float64, and the identities that follow from it."""

from __future__ import annotations

import math
from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from minboost import attention_sdpa
from minboost.attention import attention
from minboost.errors import InputError
from minboost.span_bias import SpanBias
from minboost.span_channels import CHANNEL_MULTIPLE, widen

LENGTHS = [1, 63, 64, 65, 127, 300]


def inputs(B, H, H_kv, T, S, D, *, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    shapes = ((B, H, T, D), (B, H_kv, S, D), (B, H_kv, S, D))
    return tuple(torch.randn(shape, generator=g, dtype=torch.float64).to(dtype) for shape in shapes)


def spans(B, H, pairs, *, seed=0):
    """A bias on the same spans in every sequence, with strengths that differ by head."""
    g = torch.Generator().manual_seed(seed)
    start = torch.tensor([[a for a, _ in pairs]] * B)
    stop = torch.tensor([[b for _, b in pairs]] * B)
    return SpanBias(start, stop, torch.randn(B, H, len(pairs), generator=g) * 2)


def exact(q, k, v, *, start=0, window=None, bias=None):
    """The definition, row by row in float64: multiply the softmax weights and renormalise."""
    q, k, v = q.double(), k.double(), v.double()
    B, H, T, D = q.shape
    group = H // k.shape[1]
    out = torch.zeros_like(q)
    mass = torch.zeros(B, H, T, 0 if bias is None else bias.start.shape[1], dtype=torch.float64)
    starts = [start] * B if isinstance(start, int) else start.tolist()
    for b in range(B):
        for h in range(H):
            keys, values = k[b, h // group], v[b, h // group]
            for t in range(T):
                position = starts[b] + t
                first = 0 if window is None else max(0, position - window + 1)
                weights = (keys[first : position + 1] @ q[b, h, t] / math.sqrt(D)).softmax(0)
                if bias is not None:
                    inside = [
                        torch.tensor([a <= j < z for j in range(first, position + 1)])
                        for a, z in zip(bias.start[b].tolist(), bias.stop[b].tolist(), strict=True)
                    ]
                    if bias.log_multiplier is not None:
                        for n, keys_of_span in enumerate(inside):
                            m = math.exp(bias.log_multiplier[b, h, n].item())
                            weights = torch.where(keys_of_span, weights * m, weights)
                    weights = weights / weights.sum()
                    for n, keys_of_span in enumerate(inside):
                        mass[b, h, t, n] = weights[keys_of_span].sum()
                out[b, h, t] = weights @ values[first : position + 1]
    return out, mass


@pytest.mark.parametrize("impl", ["reference", "torch"])
@pytest.mark.parametrize("window", [None, 17], ids=["full", "window17"])
@pytest.mark.parametrize("T", LENGTHS)
def test_prefill_equals_multiplying_and_renormalising(impl, window, T):
    q, k, v = inputs(1, 4, 2, T, T, 8)
    bias = spans(1, 4, [(0, max(1, T // 3)), (T // 4, T), (T // 2, T // 2 + 1)])
    out, mass = attention(q, k, v, window=window, bias=bias, return_mass=True, impl=impl)
    want, want_mass = exact(q, k, v, window=window, bias=bias)
    torch.testing.assert_close(out.double(), want, atol=3e-6, rtol=0)
    torch.testing.assert_close(mass.double(), want_mass, atol=3e-6, rtol=0)


@pytest.mark.parametrize("impl", ["reference", "torch"])
@pytest.mark.parametrize(
    ("H", "H_kv"), [(1, 1), (4, 4), (8, 2), (7, 1)], ids=["1/1", "4/4", "8/2", "7/1"]
)
@pytest.mark.parametrize("window", [None, 5], ids=["full", "window5"])
def test_decode_rows_at_ragged_positions_equal_the_definition(impl, H, H_kv, window):
    q, k, v = inputs(3, H, H_kv, 1, 20, 8)
    start = torch.tensor([19, 4, 11])
    bias = spans(3, H, [(0, 4), (3, 9)])
    out, mass = attention(
        q, k, v, query_start=start, window=window, bias=bias, return_mass=True, impl=impl
    )
    want, want_mass = exact(q, k, v, start=start, window=window, bias=bias)
    torch.testing.assert_close(out.double(), want, atol=3e-6, rtol=0)
    torch.testing.assert_close(mass.double(), want_mass, atol=3e-6, rtol=0)


@pytest.mark.parametrize("window", [None, 30], ids=["full", "window30"])
def test_a_chunk_behind_a_prefix_equals_the_same_rows_of_one_pass(window):
    q, k, v = inputs(2, 4, 2, 300, 300, 8)
    bias = spans(2, 4, [(3, 200)])
    whole, _ = attention(q, k, v, window=window, bias=bias)
    chunk, _ = attention(q[:, :, 10:], k, v, query_start=10, window=window, bias=bias)
    torch.testing.assert_close(chunk, whole[:, :, 10:], atol=2e-6, rtol=0)
    at = torch.tensor([10, 10])
    ragged, _ = attention(q[:, :, 10:], k, v, query_start=at, window=window, bias=bias)
    torch.testing.assert_close(ragged, whole[:, :, 10:], atol=2e-6, rtol=0)


@pytest.fixture
def in_parts(monkeypatch):
    """Later rows go over the keys in parts (attention_parts.py), however few these are."""
    monkeypatch.setattr(attention_sdpa, "PARTS_FROM", 0)


@pytest.mark.parametrize(("H", "H_kv"), [(4, 4), (8, 2), (7, 1)], ids=["4/4", "8/2", "7/1"])
@pytest.mark.parametrize("start", [1, 8, 33])
@pytest.mark.parametrize("boosted", [False, True], ids=["watched", "boosted"])
@pytest.mark.usefixtures("in_parts")
def test_rows_over_keys_in_parts_equal_the_definition(H, H_kv, start, boosted):
    """Spans before, across and behind the first row, overlapping, empty, other ones a sequence."""
    q, k, v = inputs(2, H, H_kv, 40 - start, 40, 8)
    bias = spans(2, H, [(0, 4), (3, 35), (33, 40), (7, 7)])
    bias = replace(
        bias,
        start=torch.stack((bias.start[0], torch.tensor([2, 0, 8, 0]))),
        stop=torch.stack((bias.stop[0], torch.tensor([9, 40, 33, 1]))),
        log_multiplier=bias.log_multiplier if boosted else None,
    )
    out, mass = attention(q, k, v, query_start=start, bias=bias, return_mass=True)
    want, want_mass = exact(q, k, v, start=start, bias=bias)
    torch.testing.assert_close(out.double(), want, atol=3e-6, rtol=0)
    torch.testing.assert_close(mass.double(), want_mass, atol=3e-6, rtol=0)
    again, none = attention(q, k, v, query_start=start, bias=bias)
    assert none is None
    assert torch.equal(again, out)  # measuring changes nothing
    if not boosted:
        assert torch.equal(attention(q, k, v, query_start=start)[0], out)


@pytest.mark.usefixtures("in_parts")
def test_parts_are_float64_where_the_inputs_are():
    q, k, v = (x.double() for x in inputs(1, 4, 2, 20, 40, 8))
    bias = spans(1, 4, [(3, 30)])
    out, _ = attention(q, k, v, query_start=20, bias=bias)
    torch.testing.assert_close(out, exact(q, k, v, start=20, bias=bias)[0], atol=1e-14, rtol=0)


@pytest.mark.usefixtures("in_parts")
def test_gradients_of_later_rows_are_those_of_the_reference():
    grads = []
    for impl in ("torch", "reference"):
        leaves = [x.double().requires_grad_() for x in inputs(1, 4, 2, 20, 40, 8)]
        attention(*leaves, query_start=20, bias=spans(1, 4, [(3, 30)]), impl=impl)[
            0
        ].sin().sum().backward()
        grads.append([leaf.grad for leaf in leaves])
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, atol=1e-10, rtol=0)


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("start", [20, 235])
def test_sixteen_bit_rows_over_keys_in_parts_err_as_a_whole_pass_does(dtype, start):
    q, k, v = inputs(1, 8, 2, 300, 300, 64, dtype=dtype)
    bias = SpanBias(
        torch.tensor([[5]]), torch.tensor([[260]]), torch.full((1, 8, 1), math.log(7.3))
    )
    want, _ = attention(q.double(), k.double(), v.double(), bias=bias, impl="reference")
    whole, _ = attention(q, k, v, bias=bias)
    parts, _ = attention(q[:, :, start:], k, v, query_start=start, bias=bias)

    def error(out):
        return (out[:, :, start - 300 :].double() - want[:, :, start:]).abs()

    assert error(parts).mean() <= 2 * error(whole).mean()
    assert error(parts).max() <= 2 * error(whole).max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("T", [1, 65, 300])
@pytest.mark.parametrize("m", [0.01, 7.3, 1e4], ids=str)
def test_sixteen_bit_boost_loses_no_more_than_plain_attention_does(dtype, T, m):
    q, k, v = inputs(1, 8, 2, T, 300, 64, dtype=dtype)
    start = 300 - T
    lm = torch.full((1, 8, 1), math.log(m))
    bias = SpanBias(torch.tensor([[5]]), torch.tensor([[40]]), lm)

    def error(bias):
        out, _ = attention(q, k, v, query_start=start, bias=bias)
        want, _ = attention(
            q.double(), k.double(), v.double(), query_start=start, bias=bias, impl="reference"
        )
        rounding = torch.finfo(dtype).eps * want.abs().clamp(min=v.double().abs().mean())
        return ((out.double() - want).abs() / rounding).max().item()

    # In units of the output's own rounding. One span's bias may be rounded and still pass here:
    # that it is not is the claim of the next test.
    assert error(bias) <= 2 * max(error(None), 1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize(
    ("a", "b"), [(69.0776, 68.93), (40.0, 40.07), (9.21034, 9.13)], ids=["1e30", "e40", "1e4"]
)
def test_the_bias_is_carried_beyond_sixteen_bits(dtype, a, b):
    """Two spans of great and nearly equal strength on equal keys: their difference decides."""
    q, k, v = (torch.zeros(1, 1, 2, 64, dtype=dtype) for _ in range(3))
    v[:, :, 0] = 1
    bias = SpanBias(torch.tensor([[0, 1]]), torch.tensor([[1, 2]]), torch.tensor([[[a, b]]]))
    out, mass = attention(q, k, v, bias=bias, return_mass=True)
    want = 1 / (1 + math.exp(b - a))
    # Half a unit of rounding of the result; a bias in one 16-bit channel is many units off.
    allowed = 0.6 * torch.finfo(dtype).eps
    assert abs(out[0, 0, 1, 0].item() - want) <= allowed
    assert abs(mass[0, 0, 1, 0].item() - want) <= allowed


def test_widened_heads_stay_a_multiple_that_fused_kernels_accept():
    q, k, _ = inputs(1, 4, 2, 5, 5, 8)
    for pairs in ([(0, 2)], [(0, 2)] * 8, [(0, 2)] * 9):
        for dtype in (torch.float32, torch.bfloat16):
            wide_q, wide_k = widen(q.to(dtype), k.to(dtype), spans(1, 4, pairs), 1.0)
            assert wide_q.shape[-1] == wide_k.shape[-1]
            assert wide_q.shape[-1] % CHANNEL_MULTIPLE == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_the_mass_of_a_watched_row_is_float32_in_every_dtype(dtype):
    q, k, v = inputs(1, 4, 2, 1, 40, 16, dtype=dtype)
    watched = SpanBias(torch.tensor([[5]]), torch.tensor([[31]]), None)
    _, mass = attention(q, k, v, query_start=39, bias=watched, return_mass=True)
    assert mass.dtype == torch.float32
    _, want = exact(q, k, v, start=39, bias=watched)
    torch.testing.assert_close(mass.double(), want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("impl", ["reference", "torch"])
@pytest.mark.parametrize("T", [1, 9])
def test_the_scale_is_the_callers(impl, T):
    q, k, v = inputs(1, 4, 2, T, 9, 8)
    bias, start = spans(1, 4, [(2, 5)]), 9 - T
    out, mass = attention(
        q, k, v, query_start=start, bias=bias, scale=0.3, return_mass=True, impl=impl
    )
    want, want_mass = exact(q * (0.3 * math.sqrt(8)), k, v, start=start, bias=bias)
    torch.testing.assert_close(out.double(), want, atol=3e-6, rtol=0)
    torch.testing.assert_close(mass.double(), want_mass, atol=3e-6, rtol=0)


def test_the_reference_keeps_float64_and_returns_the_dtype_of_q():
    q, k, v = inputs(1, 4, 2, 9, 9, 8, dtype=torch.float64)
    bias = spans(1, 4, [(2, 5)])
    out, mass = attention(q, k, v, bias=bias, return_mass=True, impl="reference")
    torch.testing.assert_close(out, exact(q, k, v, bias=bias)[0], atol=1e-12, rtol=0)
    assert mass.dtype == torch.float32
    narrow = [t.bfloat16() for t in (q, k, v)]
    assert attention(*narrow, bias=bias, impl="reference")[0].dtype == torch.bfloat16


@pytest.mark.parametrize("T", [5, 9])
@pytest.mark.parametrize("less", [0, 1, 2])
def test_a_window_about_as_long_as_the_prompt_hides_what_it_should(T, less):
    q, k, v = inputs(1, 4, 2, T, T, 8)
    bias = spans(1, 4, [(0, 2)])
    out, _ = attention(q, k, v, window=T - less, bias=bias)
    want, _ = exact(q, k, v, window=T - less, bias=bias)
    torch.testing.assert_close(out.double(), want, atol=3e-6, rtol=0)


def test_chunks_that_start_at_unlike_positions_equal_the_definition():
    q, k, v = inputs(2, 4, 2, 6, 20, 8)
    start, bias = torch.tensor([10, 3]), spans(2, 4, [(2, 7)])
    out, mass = attention(q, k, v, query_start=start, bias=bias, return_mass=True)
    want, want_mass = exact(q, k, v, start=start, bias=bias)
    torch.testing.assert_close(out.double(), want, atol=3e-6, rtol=0)
    torch.testing.assert_close(mass.double(), want_mass, atol=3e-6, rtol=0)


@pytest.mark.parametrize("impl", ["reference", "torch"])
@pytest.mark.parametrize("window", [None, 1, 5, 40], ids=str)
def test_decode_rows_at_one_position_for_all_equal_the_definition(impl, window):
    q, k, v = inputs(2, 4, 2, 1, 20, 8)
    bias = spans(2, 4, [(0, 16), (14, 18)])
    out, mass = attention(
        q, k, v, query_start=17, window=window, bias=bias, return_mass=True, impl=impl
    )
    want, want_mass = exact(q, k, v, start=17, window=window, bias=bias)
    torch.testing.assert_close(out.double(), want, atol=3e-6, rtol=0)
    torch.testing.assert_close(mass.double(), want_mass, atol=3e-6, rtol=0)


@pytest.mark.parametrize("impl", ["reference", "torch"])
@pytest.mark.parametrize("T", [1, 40])
def test_watching_a_span_changes_no_bit_of_the_output(impl, T):
    q, k, v = inputs(2, 4, 2, T, 40, 16)
    watched = SpanBias(torch.tensor([[2], [5]]), torch.tensor([[9], [31]]), None)
    plain, none = attention(q, k, v, query_start=40 - T, impl=impl)
    out, mass = attention(q, k, v, query_start=40 - T, bias=watched, return_mass=True, impl=impl)
    assert none is None
    assert torch.equal(out, plain)
    _, want = exact(q, k, v, start=40 - T, bias=watched)
    torch.testing.assert_close(mass.double(), want, atol=2e-6, rtol=0)


@pytest.mark.parametrize("m", [1e-300, 1e-30, 1e30, 1e300], ids=str)
def test_extreme_multipliers_stay_finite(m):
    q, k, v = inputs(1, 2, 1, 33, 33, 8)
    lm = torch.full((1, 2, 1), math.log(m))
    bias = SpanBias(torch.tensor([[4]]), torch.tensor([[9]]), lm)
    out, mass = attention(q, k, v, bias=bias, return_mass=True)
    assert out.isfinite().all()
    inside = mass[0, :, 8:, 0]
    torch.testing.assert_close(inside, torch.full_like(inside, float(m > 1)), atol=1e-6, rtol=0)


def agrees_with_the_reference(data):
    B = data.draw(st.integers(1, 3), "B")
    H_kv = data.draw(st.integers(1, 3), "H_kv")
    H = H_kv * data.draw(st.integers(1, 4), "group")
    S = data.draw(st.integers(1, 90), "S")
    T = data.draw(st.integers(1, S), "T")
    N = data.draw(st.integers(1, 9), "N")
    D = data.draw(st.sampled_from([2, 16, 20]), "D")
    window = data.draw(st.none() | st.integers(1, S + 3), "window")
    ends = st.lists(st.integers(0, S + 2), min_size=2, max_size=2).map(sorted)
    pairs = torch.tensor([[data.draw(ends) for _ in range(N)] for _ in range(B)])
    strength = st.floats(-8, 8, width=32)
    lm = torch.tensor(
        [[[data.draw(strength) for _ in range(N)] for _ in range(H)] for _ in range(B)]
    )
    bias = SpanBias(pairs[..., 0], pairs[..., 1], lm)
    q, k, v = inputs(B, H, H_kv, T, S, D, seed=data.draw(st.integers(0, 9), "seed"))
    args = {"query_start": S - T, "window": window, "bias": bias, "return_mass": True}
    out, mass = attention(q, k, v, impl="torch", **args)
    want, want_mass = attention(q.double(), k.double(), v.double(), impl="reference", **args)
    torch.testing.assert_close(out.double(), want, atol=2e-5, rtol=0)
    torch.testing.assert_close(mass.double(), want_mass.double(), atol=2e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_spans_and_strengths_agree_with_the_reference(data):
    agrees_with_the_reference(data)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(data=st.data())
def test_very_many_spans_and_strengths_agree_with_the_reference(data):
    agrees_with_the_reference(data)


def test_prefill_memory_grows_linearly_with_length():
    """No tensor of T × T is made: the largest allocation at 4 T is about 4 times that at T."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(tensor, torch.Tensor):
                    size = tensor.untyped_storage().nbytes()
                    self.numel = max(self.numel, size)
            return out

    def largest(T, window=None):
        q, k, v = inputs(1, 2, 1, T, T, 8)
        bias = spans(1, 2, [(0, T // 2)])
        with Largest() as seen:
            attention(q, k, v, window=window, bias=bias, return_mass=True)
        return seen.numel

    assert largest(4096) <= 4.2 * largest(1024)
    assert largest(4096, window=64) <= 4.2 * largest(1024, window=64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"impl": "flash"}, "implementation 'flash' does not exist"),
        ({"query_start": 30}, r"queries \[30, 37\) do not lie among 7 keys"),
        ({"return_mass": True}, "return_mass needs a bias"),
        ({"k": torch.zeros(1, 3, 7, 8), "v": torch.zeros(1, 3, 7, 8)}, "multiple of H_kv"),
        ({"v": torch.zeros(1, 2, 6, 8)}, r"got \(1, 4, 7, 8\)"),
        ({"bias": SpanBias(torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 3, 1))}, "B, H, N"),
        ({"bias": SpanBias(torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 4, 2))}, "B, H, N"),
        ({"bias": SpanBias(torch.zeros(1, 1), torch.ones(1, 1), torch.ones(2, 4, 1))}, "B, H, N"),
        ({"query_start": -1}, r"queries \[-1, 6\)"),
        ({"query_start": 1}, r"queries \[1, 8\)"),
        ({"k": torch.zeros(2, 2, 7, 8), "v": torch.zeros(2, 2, 7, 8)}, "must share B and D"),
        ({"k": torch.zeros(1, 2, 7, 6), "v": torch.zeros(1, 2, 7, 6)}, "must share B and D"),
    ],
    ids=[
        "impl",
        "start",
        "mass",
        "heads",
        "values",
        "strengths",
        "spans",
        "strengths-batch",
        "start-before",
        "start-late",
        "batch",
        "head-dim",
    ],
)
def test_arguments_that_do_not_fit_are_named(change, message):
    q, k, v = inputs(1, 4, 2, 7, 7, 8)
    with pytest.raises(InputError, match=message):
        attention(**({"q": q, "k": k, "v": v} | change))
