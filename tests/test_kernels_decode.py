"""The decode kernel: its framed mode, its splits, and target masses, against written-out float64.

In the interpreter where there is no GPU; what plain decode and prefill share is in test_kernels.
"""

from __future__ import annotations

import dataclasses
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

pytest.importorskip("triton")
from minboost.kernels.decode import decode, decode_framed, workspace
from minboost.kernels.frame import frame
from minboost.kernels.segments import Segments

# What the interpreter does with numpy is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NO_END = (1 << 31) - 1
SMALL = {"splits": 4, "least": 32, "block_n": 16}  # many splits of few keys
NAN = float("nan")


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """What a kernel leaves unwritten is NaN, its workspace too."""
    make = torch.empty

    def poison(*args, **kwargs):
        out = make(*args, **kwargs)
        return out.fill_(NAN) if out.is_floating_point() else out

    monkeypatch.setattr(torch, "empty", poison)


def caches(L, B, H_kv, T_max, D, positions, dtype=torch.float32, seed=0):
    """k, v (L, B, H_kv, T_max, D), NaN beyond each sequence's position, and positions (B,)."""
    g = torch.Generator().manual_seed(seed)
    k, v = (torch.randn(L, B, H_kv, T_max, D, generator=g) for _ in "kv")
    for b, position in enumerate(positions):
        k[:, b, :, position + 1 :] = NAN
        v[:, b, :, position + 1 :] = NAN
    return k.to(dtype).to(DEVICE), v.to(dtype).to(DEVICE), torch.tensor(positions, device=DEVICE)


def queries(B, H, D, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed + 1000)
    return torch.randn(B, H, 1, D, generator=g).to(dtype).to(DEVICE)


def ends(pairs, B):
    """Starts and stops (B, N), each sequence's shifted by its number."""
    at = torch.tensor([[(a + b, e + b) for a, e in pairs] for b in range(B)], device=DEVICE)
    at = at.reshape(B, len(pairs), 2)
    return at[..., 0].contiguous(), at[..., 1].contiguous()


def strengths(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def of_layer(segments, layer):
    return dataclasses.replace(segments, bias=segments.bias[layer].contiguous())


def steered(
    q, k, v, position, start, stop, strength, target, form="exact", *, window=None, counted=None
):
    """Spotlight as METHODS writes it, in float64: out, the share of the spans, and ψ."""
    B, H, _, D = q.shape
    keys = torch.arange(k.shape[2], device=DEVICE)
    k, v = (
        x.nan_to_num().double().repeat_interleave(H // k.shape[1], 1) for x in (k, v)
    )  # (B, H, S, D)
    inside = (keys >= start[:, :, None]) & (keys < stop[:, :, None])  # (B, N, S)
    logits = (q.double() @ k.transpose(2, 3))[:, :, 0] * D**-0.5  # (B, H, S)
    logits = logits + strength.double() @ inside.double()
    distance = position[:, None] - keys
    seen = (distance >= 0) & (distance < (window or NO_END))  # (B, S)
    union = (inside if counted is None else inside & counted[:, :, None]).any(1)  # (B, S)
    sums = [
        logits.masked_fill(~(seen & side)[:, None], -math.inf).logsumexp(-1)
        for side in (union, ~union)
    ]
    ψ = torch.sigmoid(sums[0] - sums[1]).nan_to_num(0.0)
    goal = target.double()
    if form == "published":
        goal = goal / (1 + goal - ψ)
    a = torch.where(ψ < target, goal, ψ)
    a = torch.where(sums[0] == -math.inf, torch.zeros_like(a), a)
    a = torch.where((sums[1] == -math.inf) & (sums[0] > -math.inf), torch.ones_like(a), a)
    out = torch.zeros(B, H, D, dtype=torch.double, device=DEVICE)
    for side, share in ((union, a), (~union, 1 - a)):
        weights = logits.masked_fill(~(seen & side)[:, None], -math.inf).softmax(-1).nan_to_num(0.0)
        out = out + share[..., None] * (weights[:, :, None] @ v)[:, :, 0]
    return out[:, :, None], a, ψ


# --- framed mode --------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [None, 50], ids=["full", "window"])
@pytest.mark.parametrize("D", [64, 80, 96, 128, 256])
@pytest.mark.parametrize("group", [1, 4, 7])
def test_the_framed_mode_gives_the_plain_modes_bits(group, D, window):
    L, B, H_kv, T_max = 2, 2, 1, 160
    k, v, start = caches(L, B, H_kv, T_max, D, [131, 40])
    q = queries(B, group * H_kv, D)
    segments = Segments.cut(*ends([(3, 60), (100, 110)], B), strengths(L, B, group, 2), NO_END)
    table = frame(k, v, segments)
    layer = L - 1
    plain, _ = decode(
        q, k[layer], v[layer], start, of_layer(segments, layer), scale=0.1, window=window, **SMALL
    )
    framed = decode_framed(
        q, start, table, layer=layer, kv_heads=H_kv, scale=0.1, window=window, **SMALL
    )
    assert torch.isfinite(plain).all()
    assert torch.equal(framed, plain)


def test_a_frames_content_may_change_between_launches():
    """Other caches, lengths, spans, strengths, positions: the same arguments, as in a graph."""
    L, B, H, H_kv, D = 3, 2, 8, 2, 64
    table = torch.zeros(8, dtype=torch.int64, device=DEVICE)
    start = torch.zeros(B, dtype=torch.int64, device=DEVICE)
    room = workspace(B, H, H_kv, D, DEVICE, **SMALL)
    q = queries(B, H, D)
    plans = [[], [(4, 30)], [(0, 1), (5, 9), (7, 70), (64, 128)], [(0, 0), (2, 2), (9, 33)]]
    held = []
    for seed, (pairs, T_max, positions) in enumerate(
        zip(plans, [200, 64, 333, 40], [[199, 3], [0, 63], [332, 150], [39, 38]], strict=True)
    ):
        k, v, at = caches(L, B, H_kv, T_max, D, positions, seed=seed)
        segments = Segments.cut(*ends(pairs, B), strengths(L, B, H, len(pairs)), NO_END)
        held.append((k, v, segments))
        table.copy_(frame(k, v, segments))
        start.copy_(at)
        for layer in range(L):
            args = {"layer": layer, "kv_heads": H_kv, "scale": 0.125, "workspace": room, **SMALL}
            got = decode_framed(q, start, table, **args)
            plain, _ = decode(
                q, k[layer], v[layer], at, of_layer(segments, layer), scale=0.125, **SMALL
            )
            assert torch.isfinite(got).all()
            assert torch.equal(got, plain)
            assert (room.arrived == 0).all()


def test_the_number_of_splits_does_not_depend_on_the_length(monkeypatch):
    from minboost.kernels import decode as module

    grids = []

    class Kernel:
        def __getitem__(self, grid):
            grids.append(grid)
            return lambda *args, **kwargs: None

    monkeypatch.setattr(module, "framed_kernel", Kernel())
    for T_max in (8, 5000):
        k, v, start = caches(1, 2, 4, T_max, 16, [3, 7])
        table = frame(k, v, Segments.none(2, 4, NO_END, DEVICE))
        decode_framed(queries(2, 4, 16), start, table, layer=0, kv_heads=4, scale=1.0)
    assert grids[0] == grids[1]
    many = queries(100, 4, 16)
    decode_framed(many, start, table, layer=0, kv_heads=4, scale=1.0)
    assert grids[2] == (400, 1)  # enough programs without a split


@pytest.mark.parametrize("keys", [1, 31, 32, 33, 64, 100, 129, 400])
def test_splits_without_keys_are_not_counted_and_not_joined(keys):
    """The workspace is NaN where a split has no keys: to read it would show."""
    k, v, start = caches(1, 1, 2, 400, 32, [keys - 1])
    q, segments = queries(1, 4, 32), Segments.none(1, 4, NO_END, DEVICE)
    sizes = {"splits": 8, "least": 32, "block_n": 32}
    room = workspace(1, 4, 2, 32, DEVICE, **sizes)
    where = {"layer": 0, "kv_heads": 2, "scale": 0.2, "workspace": room}
    got = decode_framed(q, start, frame(k, v, segments), **where, **sizes)
    nothing = torch.zeros(1, 4, 0, device=DEVICE)
    want, _, _ = steered(
        q * 0.2 * 32**0.5, k[0], v[0], start, *ends([], 1), nothing, torch.zeros(1, 4)
    )
    torch.testing.assert_close(got.double(), want, atol=2e-6, rtol=0)
    assert (room.arrived == 0).all()
    share = math.ceil(max(math.ceil(keys / 8), 32) / 32) * 32
    written = (
        room.acc.flatten()[: 2 * 8 * 2 * 32].view(2, 8, 64).isfinite().all(2)
    )  # (pairs, splits)
    used = math.ceil(keys / share)
    assert (written == (torch.arange(8, device=DEVICE) < used)).all()


def test_a_row_that_sees_no_key_is_zero_in_every_mode():
    k, v, _ = caches(1, 1, 1, 40, 32, [39])
    q, start = queries(1, 2, 32), torch.tensor([-1], device=DEVICE)
    segments = Segments.cut(*ends([(3, 9)], 1), strengths(1, 1, 2, 1), NO_END)
    target = torch.full((1, 1, 2), 0.5, device=DEVICE)  # held: the frame is only its address
    table = frame(k, v, segments, target)
    for targets in (None, "exact", "published"):
        got = decode_framed(
            q, start, table, layer=0, kv_heads=1, scale=1.0, targets=targets, **SMALL
        )
        assert (got == 0).all()


def test_the_result_is_the_same_every_time_and_whatever_the_workspace_held():
    k, v, start = caches(1, 2, 2, 300, 64, [299, 123])
    q = queries(2, 8, 64)
    segments = Segments.cut(*ends([(10, 200)], 2), strengths(1, 2, 8, 1), NO_END)
    target = torch.full((1, 2, 8), 0.4, device=DEVICE)  # held: the frame is only its address
    table = frame(k, v, segments, target)
    room = workspace(2, 8, 2, 64, DEVICE, **SMALL)
    where = {"layer": 0, "kv_heads": 2, "scale": 0.125, **SMALL}
    for targets in (None, "exact"):
        fresh = decode_framed(q, start, table, targets=targets, **where)
        for _ in range(2):
            again = decode_framed(q, start, table, targets=targets, workspace=room, **where)
            assert torch.equal(again, fresh)


# --- target masses ------------------------------------------------------------------------------

SPANS = {
    "empty": [(7, 7)],
    "full": [(0, 500)],
    "unseen": [(150, 180)],
    "one": [(20, 60)],
    "one key": [(64, 65)],
    "several": [(0, 3), (10, 40), (30, 70), (100, 119)],
}


@pytest.mark.parametrize("form", ["exact", "published"])
@pytest.mark.parametrize("pairs", SPANS.values(), ids=SPANS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
def test_target_masses_follow_the_written_formula(dtype, pairs, form):
    B, H, H_kv, D = 2, 8, 2, 64
    k, v, start = caches(1, B, H_kv, 200, D, [139, 120], dtype)
    q = queries(B, H, D, dtype)
    begin, stop = ends(pairs, B)
    strength = strengths(B, H, len(pairs))
    target = torch.tensor([0.0, 0.01, 0.3, 0.5, 0.7, 0.9, 0.99, 0.0], device=DEVICE).repeat(B, 1)
    segments = Segments.cut(begin, stop, strength, NO_END)
    got, mass = decode(
        q, k[0], v[0], start, segments, scale=D**-0.5, target=target, form=form,
        return_mass=True, **SMALL,
    )  # fmt: skip
    want, a, ψ = steered(q, k[0], v[0], start, begin, stop, strength, target, form)
    atol = 3e-6 if dtype == torch.float32 else 2e-3
    torch.testing.assert_close(got.double(), want, atol=atol, rtol=0)
    if len(pairs) == 1:
        torch.testing.assert_close(mass[:, :, 0, 0].double(), a, atol=1e-5, rtol=0)
    if form == "exact":
        some = (ψ > 0) & (ψ < target)
        torch.testing.assert_close(a[some], target.double()[some])
    wide = Segments.cut(begin, stop, strength[None], NO_END)
    framed = decode_framed(
        q, start, frame(k, v, wide, target[None].contiguous()), layer=0, kv_heads=H_kv,
        scale=D**-0.5, targets=form, **SMALL,
    )  # fmt: skip
    alone, _ = decode(
        q, k[0], v[0], start, segments, scale=D**-0.5, target=target, form=form, **SMALL
    )
    assert torch.equal(framed, alone)


@pytest.mark.parametrize("log_multiplier", [-60.0, -200.0])
@pytest.mark.parametrize("target", [0.05, 0.5, 0.95])
def test_the_exact_form_reaches_its_target_from_next_to_nothing(target, log_multiplier):
    """ψ underflows to 0 in float32, but keys of the span are there."""
    k, v, start = caches(1, 1, 1, 130, 64, [129])
    q, (begin, stop) = queries(1, 4, 64), ends([(40, 90)], 1)
    strength = torch.full((1, 4, 1), log_multiplier, device=DEVICE)
    goal = torch.full((1, 4), target, device=DEVICE)
    segments = Segments.cut(begin, stop, strength, NO_END)
    # Added to a logit, the multiplier rounds it by up to eps · |log_multiplier|: so much is lost in
    # the weights before the target comes in.
    atol = 3e-6 + torch.finfo(torch.float32).eps * -log_multiplier
    for form, share in (("exact", target), ("published", target / (1 + target))):
        got, mass = decode(
            q, k[0], v[0], start, segments, scale=0.125, target=goal, form=form,
            return_mass=True, **SMALL,
        )  # fmt: skip
        torch.testing.assert_close(mass, torch.full_like(mass, share), atol=1e-5, rtol=0)
        # The strength is the same on the whole span, so within it the weights are plain ones.
        whole, none = torch.ones_like(goal), torch.zeros_like(strength)
        inside = steered(q, k[0], v[0], start, begin, stop, none, whole)[0]
        outside = steered(q, k[0], v[0], start, begin, stop, none - 1e4, whole * 0)[0]
        want = share * inside + (1 - share) * outside
        torch.testing.assert_close(got.double(), want, atol=atol, rtol=0)


def test_a_target_already_reached_or_zero_changes_nothing():
    k, v, start = caches(1, 1, 1, 130, 64, [129])
    q, (begin, stop) = queries(1, 4, 64), ends([(10, 120)], 1)
    segments = Segments.cut(begin, stop, strengths(1, 4, 1), NO_END)
    plain, mass = decode(q, k[0], v[0], start, segments, scale=0.125, return_mass=True, **SMALL)
    low = mass[:, :, 0, 0] * torch.tensor([0.0, 0.5, 0.9, 0.999], device=DEVICE)
    for form in ("exact", "published"):
        got, again = decode(
            q, k[0], v[0], start, segments, scale=0.125, target=low, form=form,
            return_mass=True, **SMALL,
        )  # fmt: skip
        torch.testing.assert_close(got, plain, atol=1e-6, rtol=0)
        torch.testing.assert_close(again, mass, atol=1e-6, rtol=0)


def test_a_target_can_be_on_some_of_the_spans():
    k, v, start = caches(1, 2, 1, 130, 64, [129, 100])
    q, (begin, stop) = queries(2, 4, 64), ends([(10, 30), (50, 70)], 2)
    strength = strengths(2, 4, 2)
    counted = torch.tensor([[True, False], [False, True]], device=DEVICE)
    segments = Segments.cut(begin, stop, strength, NO_END, counted)
    target = torch.full((2, 4), 0.6, device=DEVICE)
    got, mass = decode(
        q, k[0], v[0], start, segments, scale=0.125, target=target, return_mass=True, **SMALL
    )
    want, a, _ = steered(q, k[0], v[0], start, begin, stop, strength, target, counted=counted)
    torch.testing.assert_close(got.double(), want, atol=3e-6, rtol=0)
    reached = (mass[:, :, 0] * counted[:, None]).sum(-1)
    torch.testing.assert_close(reached.double(), a, atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_plan_and_target(data):
    B, H_kv = data.draw(st.integers(1, 2), "B"), data.draw(st.integers(1, 2), "H_kv")
    H = H_kv * data.draw(st.sampled_from([1, 3, 9]), "group")
    S = data.draw(st.integers(1, 150), "S")
    positions = data.draw(st.lists(st.integers(0, S - 1), min_size=B, max_size=B), "positions")
    window = data.draw(st.none() | st.integers(1, S + 3), "window")
    span = st.lists(st.integers(0, S + 5), min_size=2, max_size=2).map(sorted)
    pairs = data.draw(st.lists(span, max_size=6), "spans")
    target = data.draw(st.sampled_from([0.0, 0.2, 0.35, 0.8, 0.999]), "target")
    form = data.draw(st.sampled_from(["exact", "published"]), "form")
    seed = data.draw(st.integers(0, 9), "seed")
    size = data.draw(st.sampled_from([0.0, 1.0, 14.0, 60.0]), "size")  # e^14 is above 1e6
    sizes = {
        "splits": data.draw(st.integers(1, 9), "splits"),
        "least": data.draw(st.sampled_from([1, 16, 64]), "least"),
        "block_n": 16,
    }
    k, v, start = caches(1, B, H_kv, S, 32, positions, seed=seed)
    q, (begin, stop) = queries(B, H, 32, seed=seed), ends(pairs, B)
    strength = strengths(B, H, len(pairs), seed=seed) * size
    goal = torch.full((B, H), target, device=DEVICE)
    want, a, ψ = steered(q, k[0], v[0], start, begin, stop, strength, goal, form, window=window)
    segments = Segments.cut(begin, stop, strength[None], NO_END)
    table = frame(k, v, segments, goal[None].contiguous())
    got = decode_framed(
        q, start, table, layer=0, kv_heads=H_kv, scale=32**-0.5, window=window, targets=form,
        **sizes,
    )  # fmt: skip
    # Where float64 loses ψ, the formula does too; a head at its threshold may fall either way.
    sure = ((ψ > 0) | (goal == 0) | (a == 0)) & ((ψ - goal).abs() > 1e-5)
    torch.testing.assert_close(got[sure].double(), want[sure], atol=1e-5, rtol=0)
    assert torch.isfinite(got).all()


def test_more_segments_than_one_look_takes():
    pairs = [(3 * i, 3 * i + 2) for i in range(40)]
    k, v, start = caches(1, 2, 1, 140, 32, [139, 100])
    q, (begin, stop), strength = queries(2, 2, 32), ends(pairs, 2), strengths(2, 2, 40) * 3
    segments = Segments.cut(begin, stop, strength, NO_END)
    got, _ = decode(q, k[0], v[0], start, segments, scale=32**-0.5, **SMALL)
    none = torch.zeros(2, 2, device=DEVICE)
    want, _, _ = steered(q, k[0], v[0], start, begin, stop, strength, none)
    torch.testing.assert_close(got.double(), want, atol=5e-6, rtol=0)


def test_more_splits_than_one_look_takes():
    sizes = {"splits": 70, "least": 1, "block_n": 16}
    k, v, start = caches(1, 1, 1, 70 * 16, 32, [70 * 16 - 1])
    k[0, 0, 0, 700:] *= 4  # the largest logits come last: the sums of the first look fade
    q, (begin, stop) = queries(1, 2, 32), ends([(10, 900)], 1)
    strength, target = strengths(1, 2, 1), torch.tensor([[0.0, 0.95]], device=DEVICE)
    segments = Segments.cut(begin, stop, strength, NO_END)
    got, mass = decode(
        q, k[0], v[0], start, segments, scale=32**-0.5, target=target, return_mass=True, **sizes
    )
    want, a, _ = steered(q, k[0], v[0], start, begin, stop, strength, target)
    torch.testing.assert_close(got.double(), want, atol=5e-6, rtol=0)
    torch.testing.assert_close(mass[:, :, 0, 0].double(), a, atol=1e-5, rtol=0)


def test_the_framed_mode_takes_its_layers_targets_and_a_soft_cap():
    L, B, H = 3, 2, 4
    k, v, start = caches(L, B, 2, 90, 32, [89, 60])
    q, spans = queries(B, H, 32), ends([(10, 30), (50, 70)], B)
    counted = torch.tensor([[True, False], [False, True]], device=DEVICE)
    segments = Segments.cut(*spans, strengths(L, B, H, 2), NO_END, counted)
    target = torch.linspace(0.1, 0.9, L * B * H, device=DEVICE).view(L, B, H)
    table = frame(k, v, segments, target)
    same = {"scale": 0.7, "soft_cap": 2.0, **SMALL}
    for layer in range(L):
        plain, _ = decode(
            q, k[layer], v[layer], start, of_layer(segments, layer), target=target[layer], **same
        )
        framed = decode_framed(q, start, table, layer=layer, kv_heads=2, targets="exact", **same)
        assert torch.isfinite(plain).all()
        assert torch.equal(framed, plain)
