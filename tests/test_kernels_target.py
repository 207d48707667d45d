"""Target masses in the prefill kernel, against Spotlight's bias written out in float64.

In the interpreter where there is no GPU; what a decode step does with a target is in
test_kernels_decode.
"""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings

pytest.importorskip("triton")
from minboost.kernels.decode import decode
from minboost.kernels.prefill import prefill
from minboost.kernels.segments import Segments

# What the interpreter does with numpy is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = [torch.float32, torch.float16]  # the interpreter has no bfloat16
FORMS = ["exact", "published"]
NO_END = (1 << 31) - 1
FEW = {"block_n": 64}  # few steps a row: the interpreter's time goes by them
SPANS = {
    "empty": [(7, 7)],
    "full": [(0, NO_END)],
    "unseen": [(150, 180)],
    "one key": [(64, 65)],
    "overlapping": [(0, 30), (10, 66), (64, 65)],
    "several": [(0, 3), (10, 40), (30, 60), (61, 70), (71, 71)],
}


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """What a kernel leaves unwritten is NaN."""
    for name in ("empty", "empty_like"):
        make = getattr(torch, name)

        def poison(*args, make=make, **kwargs):
            out = make(*args, **kwargs)
            return out.fill_(float("nan")) if out.is_floating_point() else out

        monkeypatch.setattr(torch, name, poison)


def inputs(B, H, H_kv, T, D, starts, dtype=torch.float32, seed=0):
    """q, k, v and start (B,); k and v are NaN where no row of their sequence looks."""
    g = torch.Generator().manual_seed(seed)
    S = max(starts) + T
    shapes = ((B, H, T, D), (B, H_kv, S, D), (B, H_kv, S, D))
    q, k, v = (torch.randn(shape, generator=g) for shape in shapes)
    for b, start in enumerate(starts):
        k[b, :, start + T :] = v[b, :, start + T :] = float("nan")
    q, k, v = (x.to(dtype).to(DEVICE) for x in (q, k, v))
    return q, k, v, torch.tensor(starts, device=DEVICE)


def ends(pairs, B):
    """Starts and stops (B, N), each sequence's shifted by its number."""
    at = torch.tensor([[(a + b, e + b) for a, e in pairs] for b in range(B)], device=DEVICE)
    at = at.reshape(B, len(pairs), 2)
    return at[..., 0].contiguous(), at[..., 1].contiguous()


def strengths(B, H, N, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, H, N, generator=g).to(DEVICE)


def mixed_targets(B, H):
    """(B, H) targets, none among them."""
    some = torch.tensor([0.3, 0.0, 0.9, 0.05, 0.6, 0.99, 0.0], device=DEVICE)
    return some.repeat(B * H)[: B * H].view(B, H)


class Case:
    """One problem, its answer as METHODS writes it, in float64, and what torch makes of that.

    ``want`` (B, H, T, D); ``mass`` (B, H, T, N); ``ψ`` and ``reached`` (B, H, T): the mass of the
    targeted spans' union before and after steering; ``steered`` (B, H, T) bool: the row is raised.
    ``rounding``: a strength that is added to a float32 logit rounds it by so much, and the weights
    with it, before the target comes in.
    """

    def __init__(
        self, q, k, v, start, spans, strength, target, *,
        form="exact", window=None, soft_cap=None, counted=None, scale=None,
    ):  # fmt: skip
        _, H, T, D = q.shape
        scale = D**-0.5 if scale is None else scale
        begin, stop = spans
        keys = torch.arange(k.shape[2], device=DEVICE)
        distance = (start[:, None] + torch.arange(T, device=DEVICE))[..., None] - keys  # (B, T, S)
        seen = ((distance >= 0) & (distance < (window or NO_END)))[:, None]  # (B, 1, T, S)
        inside = (keys >= begin[..., None]) & (keys < stop[..., None])  # (B, N, S)
        union = (inside if counted is None else inside & counted[..., None]).any(1)
        union = union[:, None, None]  # (B, 1, 1, S)
        k, v = (x.nan_to_num().repeat_interleave(H // k.shape[1], 1) for x in (k, v))
        products = scale * q.double() @ k.double().transpose(2, 3)  # (B, H, T, S)
        if soft_cap is not None:
            products = soft_cap * torch.tanh(products / soft_cap)
        bias = (strength.double() @ inside.double())[:, :, None]  # (B, H, 1, S)
        plain = (products + bias).masked_fill(~seen, -math.inf)
        weights = plain.softmax(-1).nan_to_num(0.0)
        self.ψ = (weights * union).sum(-1)  # (B, H, T)
        goal = target.double()[..., None]
        self.steered = (self.ψ < goal) & (seen & union).any(-1) & (seen & ~union).any(-1)
        raised = goal.log() - self.ψ.log()
        if form == "exact":
            raised = goal.logit() - self.ψ.logit()
        raised = raised.where(self.steered, torch.zeros_like(raised))
        self.rounding = torch.finfo(torch.float32).eps * bias.abs().max().item()
        bias = bias + raised[..., None] * union
        weights = (plain + raised[..., None] * union).softmax(-1).nan_to_num(0.0)
        self.want = weights @ v.double()
        self.mass = weights @ inside.double().transpose(1, 2)[:, None]
        self.reached = (weights * union).sum(-1)
        if soft_cap is None:  # torch's fused attention takes no cap
            mask = bias.expand_as(plain).masked_fill(~seen, -math.inf).float()
            mask = mask if DEVICE.type == "cpu" else mask.to(q.dtype)
            rows = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
            self.torch_error = (rows.nan_to_num(0.0).double() - self.want).abs().max()


def agree(q, k, v, start, pairs, target, *, strength=None, counted=None, **how):
    """At most twice the error of torch's path in the same dtype, watched or not; mass to 1e-5."""
    B, H = q.shape[:2]
    spans = ends(pairs, B)
    strength = strengths(B, H, len(pairs)) if strength is None else strength
    case = Case(q, k, v, start, spans, strength, target, counted=counted, **how)
    segments = Segments.cut(*spans, strength, k.shape[2], counted)
    how.setdefault("scale", q.shape[3] ** -0.5)
    got, mass = prefill(q, k, v, start, segments, target=target, return_mass=True, **how, **FEW)
    unwatched, _ = prefill(q, k, v, start, segments, target=target, **how, **FEW)
    allowed = 2 * case.torch_error + torch.finfo(q.dtype).eps
    for out in (got, unwatched):
        assert (out.double() - case.want).abs().max() <= allowed
    torch.testing.assert_close(mass.double(), case.mass, atol=1e-5, rtol=0)
    return case, mass


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pairs", SPANS.values(), ids=SPANS)
def test_steered_rows_follow_the_written_formula(pairs, form):
    q, k, v, start = inputs(1, 2, 1, 67, 32, [0])
    target = torch.tensor([[0.3, 0.9]], device=DEVICE)
    agree(q, k, v, start, pairs, target, form=form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "fp16"])
@pytest.mark.parametrize("T", [1, 63, 64, 65, 127])
def test_lengths_and_dtypes(T, dtype, form):
    q, k, v, start = inputs(1, 1, 1, T, 64, [9], dtype)
    target = torch.full((1, 1), 0.7, device=DEVICE)
    agree(q, k, v, start, [(5, 40), (64, 90)], target, form=form)


@pytest.mark.parametrize(("group", "D"), [(1, 80), (4, 64), (7, 16)])
def test_groups_and_head_dims(group, D):
    q, k, v, start = inputs(1, 2 * group, 2, 5, D, [70])
    agree(q, k, v, start, [(5, 73)], mixed_targets(1, 2 * group))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("window", [1, 17, 64, 500])
def test_sliding_windows_and_ragged_starts(window, form):
    q, k, v, start = inputs(3, 2, 1, 20, 32, [0, 95, 41])
    target = torch.full((3, 2), 0.6, device=DEVICE)
    agree(q, k, v, start, [(0, 12), (40, 100)], target, window=window, form=form)


@pytest.mark.parametrize("form", FORMS)
def test_the_mass_is_the_target_wherever_it_was_below(form):
    q, k, v, start = inputs(1, 4, 2, 64, 64, [0])
    target = mixed_targets(1, 4)
    case, mass = agree(q, k, v, start, [(3, 20)], target, form=form)
    goal = target.double()[..., None].expand_as(case.ψ)
    if form == "published":
        goal = goal / (1 + goal - case.ψ)
    assert case.steered.any()
    assert ((case.ψ > goal) & (goal > 0)).any()
    reached = mass[..., 0].double()
    torch.testing.assert_close(reached[case.steered], goal[case.steered], atol=1e-5, rtol=0)
    torch.testing.assert_close(reached[~case.steered], case.ψ[~case.steered], atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_a_head_without_a_target_keeps_its_bits(form):
    q, k, v, start = inputs(2, 2, 1, 40, 32, [0, 9])
    spans, strength = ends([(3, 20), (30, 44)], 2), strengths(2, 2, 2)
    segments = Segments.cut(*spans, strength, k.shape[2])
    where = {"scale": 0.2, "return_mass": True, **FEW}
    plain, mass = prefill(q, k, v, start, segments, **where)
    target = mixed_targets(2, 2)
    got, steered = prefill(q, k, v, start, segments, target=target, form=form, **where)
    none = target == 0
    assert torch.equal(got[none], plain[none])
    assert torch.equal(steered[none], mass[none])
    assert not torch.equal(got[~none], plain[~none])


@pytest.mark.parametrize("form", FORMS)
def test_a_target_already_reached_changes_nothing(form):
    q, k, v, start = inputs(1, 4, 1, 40, 32, [40])
    segments = Segments.cut(*ends([(0, 38)], 1), strengths(1, 4, 1), k.shape[2])
    where = {"scale": 0.2, "return_mass": True, **FEW}
    plain, mass = prefill(q, k, v, start, segments, **where)
    least = mass[..., 0].amin(2)  # (B, H)
    target = least * torch.tensor([0.1, 0.5, 0.9, 0.999], device=DEVICE)
    got, steered = prefill(q, k, v, start, segments, target=target, form=form, **where)
    torch.testing.assert_close(got, plain, atol=1e-6, rtol=0)
    torch.testing.assert_close(steered, mass, atol=1e-6, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_a_row_with_an_empty_side_stays_as_it_is(form):
    """The first rows see targeted keys only, or none; the rows before the keys see nothing."""
    q, k, v, start = inputs(2, 2, 1, 40, 32, [0, 0])
    start = torch.tensor([0, -3], device=DEVICE)
    target = torch.full((2, 2), 0.9, device=DEVICE)
    for pairs in ([(0, 10)], [(10, 20)]):
        case, mass = agree(q, k, v, start, pairs, target, form=form)
        first = mass[0, :, :10, 0]
        assert torch.equal(first, torch.full_like(first, 1.0 if pairs[0][0] == 0 else 0.0))
        assert (mass[1, :, :3] == 0).all()
        assert (case.want[1, :, :3] == 0).all()


@pytest.mark.parametrize("form", FORMS)
def test_a_target_can_be_on_some_of_the_spans(form):
    q, k, v, start = inputs(2, 2, 1, 40, 32, [0, 30])
    counted = torch.tensor([[True, False, True], [False, True, False]], device=DEVICE)
    target = torch.full((2, 2), 0.6, device=DEVICE)
    pairs = [(2, 30), (20, 50), (51, 52)]
    agree(q, k, v, start, pairs, target, counted=counted, form=form)


@pytest.mark.parametrize("log_multiplier", [-60.0, -200.0])
@pytest.mark.parametrize("target", [0.05, 0.95])
def test_a_target_is_reached_from_next_to_nothing(target, log_multiplier):
    """ψ underflows to 0 in float32, but keys of the span are there."""
    q, k, v, start = inputs(1, 1, 1, 33, 64, [50])
    spans, goal = ends([(20, 45)], 1), torch.full((1, 1), target, device=DEVICE)
    strength = torch.full((1, 1, 1), log_multiplier, device=DEVICE)
    segments = Segments.cut(*spans, strength, k.shape[2])
    for form in FORMS:
        case = Case(q, k, v, start, spans, strength, goal, form=form)
        got, mass = prefill(
            q, k, v, start, segments, scale=0.125, target=goal, form=form, return_mass=True
        )
        share = target if form == "exact" else target / (1 + target)
        torch.testing.assert_close(mass, torch.full_like(mass, share), atol=1e-5, rtol=0)
        torch.testing.assert_close(got.double(), case.want, atol=3e-6 + case.rounding, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_a_soft_cap_comes_before_the_steering(form):
    q, k, v, start = inputs(1, 2, 1, 50, 32, [0])
    spans, strength = ends([(4, 20)], 1), strengths(1, 2, 1)
    target = torch.tensor([[0.5, 0.9]], device=DEVICE)
    how = {"scale": 0.4, "soft_cap": 2.0, "form": form}
    case = Case(q, k, v, start, spans, strength, target, **how)
    segments = Segments.cut(*spans, strength, k.shape[2])
    got, mass = prefill(q, k, v, start, segments, target=target, return_mass=True, **how)
    torch.testing.assert_close(got.double(), case.want, atol=3e-6, rtol=0)
    torch.testing.assert_close(mass.double(), case.mass, atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_a_decode_step_is_steered_as_its_row_of_prefill(form):
    q, k, v, start = inputs(2, 2, 1, 40, 32, [0, 60])
    counted = torch.tensor([[True, False], [True, True]], device=DEVICE)
    segments = Segments.cut(*ends([(3, 9), (20, 50)], 2), strengths(2, 2, 2), NO_END, counted)
    same = {"scale": 0.2, "target": mixed_targets(2, 2), "form": form, "return_mass": True}
    rows, mass = prefill(q, k, v, start, segments, **same)
    step, step_mass = decode(q[:, :, -1:], k, v, start + 39, segments, **same)
    torch.testing.assert_close(rows[:, :, -1:], step, atol=3e-6, rtol=0)
    torch.testing.assert_close(mass[:, :, -1:], step_mass, atol=1e-5, rtol=0)


def test_targets_may_be_a_view():
    q, k, v, start = inputs(1, 2, 1, 20, 32, [0])
    segments = Segments.cut(*ends([(3, 9)], 1), strengths(1, 2, 1), k.shape[2])
    every = torch.tensor([[[0.2, 0.4], [0.5, 0.9]]], device=DEVICE)  # (B, H, 2)
    views, _ = prefill(q, k, v, start, segments, scale=0.2, target=every[..., 1])
    copies, _ = prefill(q, k, v, start, segments, scale=0.2, target=every[..., 1].clone())
    assert torch.equal(views, copies)


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_plan_and_target(data):
    B, H_kv = data.draw(st.integers(1, 2), "B"), data.draw(st.integers(1, 2), "H_kv")
    H = H_kv * data.draw(st.sampled_from([1, 2]), "group")
    T = data.draw(st.integers(1, 70), "T")
    starts = data.draw(st.lists(st.integers(0, 50), min_size=B, max_size=B), "starts")
    seed = data.draw(st.integers(0, 9), "seed")
    q, k, v, start = inputs(B, H, H_kv, T, 32, starts, seed=seed)
    S = k.shape[2]
    window = data.draw(st.none() | st.integers(1, S + 3), "window")
    span = st.lists(st.integers(0, S + 5), min_size=2, max_size=2).map(sorted)
    pairs = data.draw(st.lists(span, min_size=1, max_size=5), "spans")
    some = st.lists(st.booleans(), min_size=len(pairs), max_size=len(pairs))
    counted = torch.tensor([data.draw(some, "counted") for _ in range(B)], device=DEVICE)
    goal = data.draw(st.sampled_from([0.0, 0.2, 0.35, 0.8, 0.999]), "target")
    form = data.draw(st.sampled_from(FORMS), "form")
    size = data.draw(st.sampled_from([0.0, 1.0, 14.0]), "size")  # e^14 is above 1e6
    watch = data.draw(st.booleans(), "return_mass")
    spans, strength = ends(pairs, B), strengths(B, H, len(pairs), seed) * size
    target = torch.full((B, H), goal, device=DEVICE)
    how = {"window": window, "form": form, "scale": 0.2}
    case = Case(q, k, v, start, spans, strength, target, counted=counted, **how)
    segments = Segments.cut(*spans, strength, S, counted)
    got, mass = prefill(q, k, v, start, segments, target=target, return_mass=watch, **how, **FEW)
    lost = case.rounding
    torch.testing.assert_close(got.double(), case.want, atol=3e-6 + lost, rtol=0)
    if watch:
        torch.testing.assert_close(mass.double(), case.mass, atol=1e-5 + lost, rtol=0)
