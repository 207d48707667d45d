"""The Triton kernels, in the interpreter where there is no GPU, against the float64 reference."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from minboost.attention import attention
from minboost.span_bias import SpanBias

pytest.importorskip("triton")
# What the interpreter does with numpy is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float16]  # the interpreter has no bfloat16
SPANS = {
    "none": None,
    "empty": [(3, 3)],
    "full": [(0, 10**6)],
    "straddling": [(40, 90)],
    "overlapping": [(0, 70), (30, 129), (64, 65)],
    "several": [(0, 1), (5, 9), (63, 64), (64, 128), (200, 280)],
}


def inputs(B, H, H_kv, T, S, D, dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = ((B, H, T, D), (B, H_kv, S, D), (B, H_kv, S, D))
    return tuple(torch.randn(s, generator=g).to(dtype).to(DEVICE) for s in shapes)


def bias_on(pairs, B, H, S, seed=0):
    if pairs is None:
        return None
    g = torch.Generator().manual_seed(seed)
    ends = torch.tensor([[(min(a, S), min(b, S)) for a, b in pairs]] * B, device=DEVICE)
    strength = (torch.randn(B, H, len(pairs), generator=g) * 2).to(DEVICE)
    return SpanBias(ends[..., 0], ends[..., 1], strength)


def agree(q, k, v, *, bias, query_start=0, window=None):
    """At most twice the torch path's error in the same dtype; the mass to float32."""
    where = {"query_start": query_start, "window": window, "bias": bias}
    exact = tuple(x.double() for x in (q, k, v))
    watch = bias is not None
    want, want_mass = attention(*exact, impl="reference", return_mass=watch, **where)
    torch_path, _ = attention(q, k, v, impl="torch", **where)
    got, mass = attention(q, k, v, impl="triton", return_mass=watch, **where)
    # In the interpreter products are numpy's. Measured alone, its float32 products of 256 terms err
    # 1.2 (many rows) to 1.7 times (one row) as much as torch's; up to 128 terms the two are level.
    factor = 4 if q.shape[3] == 256 and DEVICE == "cpu" else 2
    allowed = factor * (torch_path.double() - want).abs().max() + torch.finfo(q.dtype).eps
    assert (got.double() - want).abs().max() <= allowed
    if watch:
        torch.testing.assert_close(mass.double(), want_mass.double(), atol=1e-5, rtol=0)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """What a kernel leaves unwritten is NaN."""
    for name in ("empty", "empty_like"):
        make = getattr(torch, name)

        def poison(*args, make=make, **kwargs):
            out = make(*args, **kwargs)
            return out.fill_(float("nan")) if out.is_floating_point() else out

        monkeypatch.setattr(torch, name, poison)


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "fp16"])
@pytest.mark.parametrize("spans", SPANS.values(), ids=SPANS)
@pytest.mark.parametrize("T", [1, 63, 64, 65, 127, 300])
def test_lengths_and_spans(T, spans, dtype):
    q, k, v = inputs(1, 2, 1, T, T, 64, dtype)
    agree(q, k, v, bias=bias_on(spans, 1, 2, T))


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "fp16"])
@pytest.mark.parametrize("T", [1, 65])
@pytest.mark.parametrize("D", [64, 80, 96, 128, 256])
@pytest.mark.parametrize("group", [1, 4, 7])
def test_head_dims_and_groups(group, D, T, dtype):
    q, k, v = inputs(1, 2 * group, 2, T, 70 + T, D, dtype)
    agree(q, k, v, bias=bias_on([(5, 90)], 1, 2 * group, 70 + T), query_start=70)


@pytest.mark.parametrize("multiplier", [1e-6, 0.5, 1.0, 3.0, 1e6])
@pytest.mark.parametrize("spans", [SPANS["straddling"], SPANS["overlapping"]], ids=["one", "three"])
@pytest.mark.parametrize("T", [1, 65])
def test_strengths_from_next_to_nothing_to_next_to_everything(T, spans, multiplier):
    q, k, v = inputs(1, 4, 2, T, 140, 64, torch.float32)
    bias = bias_on(spans, 1, 4, 140)
    strength = torch.full_like(bias.log_multiplier, math.log(multiplier))
    agree(q, k, v, bias=SpanBias(bias.start, bias.stop, strength), query_start=140 - T)


@pytest.mark.parametrize("T", [1, 65])
@pytest.mark.parametrize("D", [64, 128])
def test_keys_and_values_beyond_a_row_do_not_reach_it(D, T):
    """NaN where no row may look: the rest of a cache is whatever the memory held."""
    q, k, v = inputs(1, 4, 2, T, 200, D, torch.float32)
    bias = bias_on([(5, 60)], 1, 4, 200)
    end = 90 + T
    clean = attention(q, k[:, :, :end], v[:, :, :end], query_start=90, bias=bias, impl="triton")[0]
    k[:, :, end:] = v[:, :, end:] = float("nan")
    assert torch.equal(attention(q, k, v, query_start=90, bias=bias, impl="triton")[0], clean)


@pytest.mark.parametrize("window", [1, 17, 64, 500])
@pytest.mark.parametrize("T", [1, 130])
def test_sliding_windows(T, window):
    q, k, v = inputs(2, 4, 2, T, 200, 64, torch.float32)
    agree(
        q, k, v, bias=bias_on([(0, 40), (90, 150)], 2, 4, 200), query_start=200 - T, window=window
    )


@pytest.mark.parametrize("T", [1, 40])
def test_ragged_batches(T):
    q, k, v = inputs(3, 4, 2, T, 700, 64, torch.float32)
    start = torch.tensor([700 - T, 0, 333], device=DEVICE)
    agree(q, k, v, bias=bias_on([(0, 12), (300, 340)], 3, 4, 700), query_start=start)


@pytest.mark.parametrize("T", [1, 20])
def test_a_row_that_sees_no_key_is_zero_and_finite(T):
    q, k, v = inputs(1, 2, 1, T, 30, 64, torch.float32)
    start = torch.tensor([-T], device=DEVICE)  # every row stands before the first key
    out, mass = attention(
        q,
        k,
        v,
        query_start=start,
        bias=bias_on([(0, 9)], 1, 2, 30),
        return_mass=True,
        impl="triton",
    )
    assert (out == 0).all()
    assert (mass == 0).all()


def test_a_decode_step_is_the_same_every_time():
    q, k, v = inputs(2, 8, 2, 1, 3000, 64, torch.float32)
    bias = bias_on([(100, 900)], 2, 8, 3000)
    outs = [attention(q, k, v, query_start=2999, bias=bias, impl="triton")[0] for _ in range(3)]
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


def test_a_soft_cap_comes_before_the_bias():
    from minboost.kernels.decode import decode
    from minboost.kernels.prefill import prefill
    from minboost.kernels.segments import Segments

    for T in (1, 50):
        q, k, v = inputs(1, 2, 1, T, 50, 64, torch.float32)
        bias, start = bias_on([(4, 20)], 1, 2, 50), torch.tensor([50 - T], device=DEVICE)
        segments = Segments.cut(bias.start, bias.stop, bias.log_multiplier, 50)
        kernel = decode if T == 1 else prefill
        out, _ = kernel(q, k, v, start, segments, scale=0.3, soft_cap=2.0)
        wide = [x.double() for x in (q, k.expand(-1, 2, -1, -1), v.expand(-1, 2, -1, -1))]
        logits = 2.0 * torch.tanh(0.3 * wide[0] @ wide[1].transpose(2, 3) / 2.0)
        logits = logits + bias.dense(0, 50)[:, :, None]
        rows = torch.arange(50 - T, 50, device=DEVICE)[:, None]
        seen = torch.arange(50, device=DEVICE) <= rows
        want = logits.masked_fill(~seen, float("-inf")).softmax(-1) @ wide[2]
        torch.testing.assert_close(out.double(), want, atol=3e-6, rtol=0)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_shape_and_plan(data):
    B = data.draw(st.integers(1, 2), "B")
    H_kv = data.draw(st.integers(1, 2), "H_kv")
    H = H_kv * data.draw(st.sampled_from([1, 2, 7]), "group")
    S = data.draw(st.integers(1, 150), "S")
    T = data.draw(st.sampled_from([1, S]), "T")
    window = data.draw(st.none() | st.integers(1, S + 3), "window")
    ends = st.lists(st.integers(0, S), min_size=2, max_size=2).map(sorted)
    pairs = data.draw(st.lists(ends, min_size=1, max_size=4), "spans")
    q, k, v = inputs(B, H, H_kv, T, S, 32, torch.float32, data.draw(st.integers(0, 9), "seed"))
    agree(q, k, v, bias=bias_on(pairs, B, H, S), query_start=S - T, window=window)


@pytest.mark.parametrize("T", [1, 40])
def test_spans_that_are_only_watched_add_nothing(T):
    q, k, v = inputs(2, 4, 2, T, 90, 64, torch.float32)
    bias = bias_on([(5, 30), (20, 70)], 2, 4, 90)
    agree(q, k, v, bias=SpanBias(bias.start, bias.stop, None), query_start=90 - T)


@pytest.mark.parametrize("T", [1, 40])
def test_keys_and_values_may_lie_differently(T):
    """Without a cache the model's keys are a copy and its values a view of the product."""
    q, k, v = inputs(2, 4, 2, T, 90, 64, torch.float32)
    v = v.transpose(1, 2).contiguous().transpose(1, 2)
    agree(q, k, v, bias=bias_on([(5, 30)], 2, 4, 90), query_start=90 - T)
