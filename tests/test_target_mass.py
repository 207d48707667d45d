"""Target masses (Spotlight): the mass that is reached, and every implementation against float64."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from minboost import InputError
from minboost.attention import attention
from minboost.span_bias import SpanBias
from minboost.target_mass import raise_span, raised_by, shares

from .conftest import load
from .test_method_proofs import METHODS, ids_of, our_plan

FORMS = ["exact", "published"]


def reached(ψ, target, form):
    return target if form == "exact" else target / (1 + target - ψ)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None)
@given(
    span=st.floats(-60, 60), rest=st.floats(-60, 60), target=st.sampled_from([0.0, 0.05, 0.4, 0.95])
)
def test_a_row_below_its_target_reaches_what_the_form_says_and_others_stay(
    form, span, rest, target
):
    """In float64, from log-sum-exps that differ by up to 120: ψ down to 1e-52."""
    span, rest = torch.tensor([span, rest], dtype=torch.float64)
    by = raised_by(span, rest, torch.tensor(target, dtype=torch.float64), form)
    ψ, now = torch.sigmoid(span - rest), torch.sigmoid(span + by - rest)
    if ψ < target:
        torch.testing.assert_close(now, torch.as_tensor(reached(ψ, target, form)).double())
    else:
        assert by == 0


def test_the_papers_example():
    """A target of .40 from a mass of .20: the published form gives .33, the exact one .40."""
    logits = torch.tensor([0.2, 0.5, 0.3]).log()
    union = torch.tensor([True, False, False])
    for form, mass in (("exact", 0.4), ("published", 1 / 3)):
        weights = raise_span(logits, union, torch.tensor([0.4]), form).softmax(-1)
        torch.testing.assert_close(weights[0], torch.tensor(mass))
        torch.testing.assert_close(weights[1] / weights[2], torch.tensor(5 / 3))  # the rest keeps


def test_a_row_that_sees_nothing_of_the_span_or_nothing_else_stays():
    nothing = torch.tensor(-math.inf)
    some, target = torch.tensor(1.5), torch.tensor(0.9)
    for form in FORMS:
        assert raised_by(nothing, some, target, form) == 0
        assert raised_by(some, nothing, target, form) == 0
        assert raised_by(nothing, nothing, target, form) == 0


@settings(deadline=None)
@given(ψ=st.floats(0, 1, width=32, exclude_max=True), target=st.sampled_from([0.0, 0.3, 0.99]))
@pytest.mark.parametrize("form", FORMS)
def test_the_shares_of_a_joined_row_lie_between_0_and_1(form, ψ, target):
    c, more = shares(torch.tensor(ψ), torch.tensor(True), torch.tensor(target), form)
    assert -1e-7 <= c <= 1 + 1e-7
    assert -1e-7 <= more <= 1 + 1e-7
    want = reached(ψ, target, form) if ψ < target else ψ
    assert float(c * ψ + more) == pytest.approx(want, abs=1e-6)  # the span's mass in the joined row


SHAPES = {
    "prefill": (65, 65, 0, None),
    "two-blocks": (300, 300, 0, None),
    "window": (300, 300, 0, 70),
    "continued": (40, 90, 50, None),
    "ragged": (7, 50, torch.tensor([10, 43]), None),
    "ragged-window": (7, 50, torch.tensor([10, 43]), 12),
    "decode": (1, 50, 49, None),
    "decode-window": (1, 50, 49, 20),
    "decode-ragged": (1, 50, torch.tensor([30, 49]), None),
    "one": (1, 1, 0, None),
}


def inputs(T, S, dtype, group, seed=0):
    g = torch.Generator().manual_seed(seed)
    B, H_kv, D = 2, 2, 16
    q, k, v = (
        torch.randn(B, H_kv * n, length, D, generator=g)
        for n, length in ((group, T), (1, S), (1, S))
    )
    start = torch.tensor([[2, 5, 20], [0, 30, 9]]).clamp(max=S)
    stop = torch.tensor([[9, 12, 31], [4, 41, 9]]).clamp(max=S)
    counted = torch.tensor([[True, False, True], [True, True, False]])
    strength = torch.randn(B, H_kv * group, 3, generator=g)
    targets = torch.tensor([0.0, 0.01, 0.3, 0.5, 0.7, 0.9, 0.99])
    target = targets[torch.arange(H_kv * group) % 7].repeat(B, 1)
    return (q * 2).to(dtype), k.to(dtype), v.to(dtype), start, stop, strength, target, counted


@pytest.mark.parametrize("boosted", [False, True], ids=["alone", "boosted"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("group", [1, 4, 7])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_torch_path_equals_the_written_formula(shape, group, form, boosted):
    T, S, where, window = shape
    q, k, v, start, stop, strength, target, counted = inputs(T, S, torch.float32, group)
    bias = SpanBias(start, stop, strength if boosted else None, target, counted, form)
    call = {"query_start": where, "window": window, "bias": bias}
    want, mass = attention(
        q.double(), k.double(), v.double(), return_mass=True, impl="reference", **call
    )
    got, got_mass = attention(q, k, v, return_mass=True, impl="torch", **call)
    torch.testing.assert_close(got.double(), want, atol=5e-6, rtol=1e-5)
    torch.testing.assert_close(got_mass, mass, atol=2e-6, rtol=1e-5)
    assert torch.equal(attention(q, k, v, impl="torch", **call)[0], got)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", ["prefill", "window", "ragged", "decode"])
def test_in_16_bit_a_target_costs_at_most_twice_plain_attentions_error(shape, dtype):
    T, S, where, window = SHAPES[shape]
    q, k, v, start, stop, strength, target, counted = inputs(T, S, dtype, 4)
    call = {"query_start": where, "window": window}
    bias = SpanBias(start, stop, strength, target, counted)
    wide = [x.double() for x in (q, k, v)]

    def error(bias):
        want, _ = attention(*wide, bias=bias, impl="reference", **call)
        return (attention(q, k, v, bias=bias, impl="torch", **call)[0] - want).abs().max()

    assert error(bias) <= 2 * error(None)


@pytest.mark.parametrize("impl", ["torch", "reference"])
def test_heads_without_a_target_are_those_of_plain_attention(impl):
    q, k, v, start, stop, _, _, counted = inputs(60, 60, torch.float32, 4)
    target = torch.zeros(2, 8)
    target[:, 3] = 0.8
    plain, _ = attention(q, k, v, impl=impl)
    got, _ = attention(q, k, v, bias=SpanBias(start, stop, None, target, counted), impl=impl)
    others = [h for h in range(8) if h != 3]
    torch.testing.assert_close(got[:, others], plain[:, others], atol=1e-6, rtol=0)
    assert (got[:, 3] - plain[:, 3]).abs().max() > 0.1


@pytest.mark.parametrize("impl", ["torch", "reference"])
@pytest.mark.parametrize("name", ["llama", "qwen3", "mistral"])
@torch.inference_mode()
def test_the_measured_mass_is_the_target_wherever_it_was_below(checkpoint, name, impl):
    """Layer 0, whose keys and queries no steering has touched: mass before and after, every row."""
    model = load(checkpoint(name)[0], impl=impl)
    ids = ids_of(60)
    for kind in ("spotlight", "spotlight-published"):
        ((method, (span,)),) = METHODS[kind]
        plan = our_plan(model, METHODS[kind], 60)
        before, after = (
            model(ids, plan=p, return_mass=True).mass[0, 0, :, :, 0]  # (H, T)
            for p in (plan.without_strengths(), plan)
        )
        low = (before > 0) & (before < method.target)
        assert low.sum() > 50  # a window of 12 leaves the later rows nothing of the span
        want = torch.as_tensor(reached(before, method.target, method.form)).expand_as(before)
        torch.testing.assert_close(after[low], want[low], atol=1e-5, rtol=0)
        torch.testing.assert_close(after[~low], before[~low], atol=1e-5, rtol=0)
        assert (after[:, : span.start] == 0).all()


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_finite_where_a_row_sees_the_span_alone(form):
    """A forward without a cache is differentiable; row 0 sees nothing but the span."""
    q, k, v, start, _, _, target, counted = inputs(12, 12, torch.float32, 1)
    q.requires_grad_()
    bias = SpanBias(start * 0, start * 0 + 3, None, target * 0 + 0.4, counted | True, form)
    attention(q, k, v, bias=bias, impl="torch")[0].square().sum().backward()
    assert q.grad.isfinite().all()
    want, q.grad = q.grad, None
    attention(q, k, v, bias=bias, impl="reference")[0].square().sum().backward()
    torch.testing.assert_close(want, q.grad, atol=1e-4, rtol=1e-4)


def test_target_and_targeted_go_together_and_fit():
    q, k, v, start, stop, _, target, counted = inputs(5, 5, torch.float32, 1)
    with pytest.raises(InputError, match="target and targeted go together"):
        attention(q, k, v, bias=SpanBias(start, stop, None, target))
    with pytest.raises(InputError, match=r"target must be \(B, H\) = \(2, 2\), got \(2, 3\)"):
        attention(q, k, v, bias=SpanBias(start, stop, None, torch.zeros(2, 3), counted))
