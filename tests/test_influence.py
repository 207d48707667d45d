"""Influence and rollout: by hand, against float64 loops over transformers' weights, by rule."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import minboost
from minboost.analysis.influence import influence, token_share, walk
from minboost.analysis.influence_comparison import (
    NOT_HIGHER,
    NOT_SEEN,
    OUT_OF_REACH,
    REACHED,
    compare,
    control_span,
    suggest_delta,
)
from minboost.cli import main
from minboost.config import ModelConfig
from minboost.directions import Direction, Directions, save_directions
from minboost.errors import InputError, ModelError
from minboost.methods import Boost, Guide, Latent, Pasta, Spotlight
from minboost.model import Transformer
from minboost.plan import Plan, sequence_plan
from minboost.prompt import Prompt
from minboost.span import Span

from .conftest import load

SPAN = Span(3, 9)
ASK = {
    "instruction": "Answer in French.",
    "query": "What colour is the sky? Answer in English instead.",
}


def ids_of(length, seed=4):
    return torch.randint(0, 300, (length,), generator=torch.Generator().manual_seed(seed))


def plan_of(model, *placed, tokens=0):
    if not placed:
        return None
    size = model.config.size
    hidden = model.config.hidden_size
    sequence = sequence_plan(list(placed), tokens=tokens, hidden_size=hidden, **size)
    return Plan.build([sequence], **size, device=torch.device("cpu"))


# By hand.


def hand_model():
    """Attention is even over the keys that a row sees; every stream holds (s, s), s = id + 1.

    q and k are 0, so all logits are. The norm of (s, s) is (1, 1), v and o pass it on, so the
    attention output is (1, 1) and a layer adds 1 to s; the MLP adds nothing.
    """
    config = ModelConfig.from_dict(
        {
            "model_type": "llama",
            "vocab_size": 4,
            "hidden_size": 2,
            "intermediate_size": 2,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "max_position_embeddings": 16,
            "rms_norm_eps": 1e-12,
        }
    )
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed_tokens.weight.copy_(torch.arange(1.0, 5)[:, None].expand(-1, 2))
        for block in model.layers:
            block.input_layernorm.weight.fill_(1)
            block.self_attn.qkv_proj.weight[4:] = torch.eye(2)
            block.self_attn.o_proj.weight.copy_(torch.eye(2))
    return model


def test_plain_influence_and_rollout_of_two_layers_equal_those_by_hand():
    # Layer 0: Ā·I = (1, 1/2, 1/3), ‖x‖ = (2, 4, 6), ‖a‖ = 2. Layer 1: ‖x‖ = (4, 6, 8), ‖a‖ = 2.
    (got,) = influence(hand_model(), [0, 1, 2], [Span(0, 1)])
    want = torch.tensor([[1, 0, 0], [1, 1 / 6, 1 / 12], [1, 13 / 48, 3 / 20]])
    torch.testing.assert_close(got.influence, want, rtol=1e-6, atol=0)
    want = torch.tensor([[1, 0, 0], [1, 1 / 4, 1 / 6], [1, 7 / 16, 23 / 72]])
    torch.testing.assert_close(got.rollout, want, rtol=1e-6, atol=0)
    assert got.at_last.tolist() == got.influence[:, 2].tolist()
    assert got.span == Span(0, 1)


def test_boosted_influence_and_rollout_of_two_layers_equal_those_by_hand():
    # m = 2 on the first key: rows (1), (2/3, 1/3), (1/2, 1/4, 1/4).
    model = hand_model()
    plan = plan_of(model, (Boost(2.0), [Span(0, 1)]))
    (got,) = influence(model, [0, 1, 2], [Span(0, 1)], plan=plan)
    want = torch.tensor([[1, 0, 0], [1, 2 / 9, 1 / 8], [1, 19 / 54, 313 / 1440]])
    torch.testing.assert_close(got.influence, want, rtol=1e-6, atol=0)
    # Rollout after layer 0: (1, 1/3, 1/4); Ā·I = (1, 7/9, 31/48).
    want = torch.tensor([[1, 0, 0], [1, 1 / 3, 1 / 4], [1, 5 / 9, 43 / 96]])
    torch.testing.assert_close(got.rollout, want, rtol=1e-6, atol=0)


def test_a_token_whose_stream_and_attention_are_zero_keeps_its_influence():
    model = hand_model()
    with torch.no_grad():
        model.embed_tokens.weight[0] = 0
    (got,) = influence(model, [0, 0, 0], [Span(1, 2)])
    assert got.influence.tolist() == [[0, 1, 0]] * 3
    assert got.rollout[1].tolist() == pytest.approx([0, 3 / 4, 1 / 6])


# Against transformers, in float64 loops over whole weights.


def boost_edit(m, heads):
    def edit(layer, weights):
        chosen = list(heads.get(layer, ()))
        weights[:, chosen, :, SPAN.start : SPAN.stop] *= m
        return weights / weights.sum(-1, keepdim=True)

    return edit


def spotlight_edit(target):
    def edit(layer, weights):
        span = torch.zeros(weights.shape[-1], dtype=torch.bool)
        span[SPAN.start : SPAN.stop] = True
        mass = weights[..., span].sum(-1, keepdim=True)
        low = (mass > 0) & (mass < target)
        raised = torch.where(span, weights * target / mass, weights * (1 - target) / (1 - mass))
        return torch.where(low, raised, weights)

    return edit


EVERY = {layer: range(6) for layer in range(3)}
SOME = {0: (1, 4), 2: (0,)}
STEERED = {
    "plain": (None, lambda layer, weights: weights),
    "boost": (Boost(6.0), boost_edit(6.0, EVERY)),
    "guide-on-some-heads": (Guide(1.7, heads=SOME), boost_edit(math.exp(1.7), SOME)),
    "played-down": (Boost(0.1, layers=[1]), boost_edit(0.1, {1: range(6)})),
    "target": (Spotlight(0.4), spotlight_edit(0.4)),
}


def their_influence(model, ids, edit, monkeypatch):
    """Influence and rollout of SPAN by the formula as it stands, key by key, head by head."""
    streams, outputs, patterns = [], [], []
    module = sys.modules[type(model).__module__]
    original = module.eager_attention_forward

    def eager(attention, query, key, value, mask, **rest):
        _, weights = original(attention, query, key, value, mask, **rest)
        weights = edit(attention.layer_idx, weights.clone())
        patterns.append(weights[0].double())
        value = value.repeat_interleave(attention.num_key_value_groups, 1)
        return (weights @ value).transpose(1, 2).contiguous(), weights

    def before(layer, args, kwargs):
        streams.append((args[0] if args else kwargs["hidden_states"])[0].double())

    def after(attention, args, output):
        outputs.append(output[0][0].double())

    handles = []
    for layer in model.model.layers:
        handles.append(layer.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(layer.self_attn.register_forward_hook(after))
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(module, "eager_attention_forward", eager)
        model(ids[None])
    for handle in handles:
        handle.remove()
    T = len(ids)
    inside = [1.0 if SPAN.start <= j < SPAN.stop else 0.0 for j in range(T)]
    found = {"influence": [inside], "rollout": [inside]}
    for x, a, heads in zip(streams, outputs, patterns, strict=True):
        weights = [[sum(h) / len(h) for h in zip(*row, strict=True)] for row in by_row(heads)]
        for name, depths in found.items():
            last = depths[-1]
            row = []
            for j in range(T):
                attended = sum(weights[j][k] * last[k] for k in range(T))
                kept, taken = 1.0, 1.0
                if name == "influence":
                    kept, taken = float(x[j].abs().sum()), float(a[j].abs().sum())
                row.append((kept * last[j] + taken * attended) / (kept + taken))
            depths.append(row)
    return {name: torch.tensor(depths) for name, depths in found.items()}


def by_row(heads):
    """(H, T, S) weights as lists [row][head][key]."""
    return heads.transpose(0, 1).tolist()


@pytest.mark.parametrize("steered", STEERED)
@pytest.mark.parametrize("name", ["llama", "qwen3", "mistral", "qwen2-window", "llama-biases"])
def test_influence_and_rollout_equal_float64_loops_over_transformers_weights(
    checkpoint, monkeypatch, name, steered
):
    folder, theirs = checkpoint(name)
    model, ids = load(folder, impl="torch"), ids_of(31)
    method, edit = STEERED[steered]
    plan = plan_of(model, *([] if method is None else [(method, [SPAN])]))
    (got,) = influence(model, ids, [SPAN], plan=plan)
    want = their_influence(theirs, ids, edit, monkeypatch)
    torch.testing.assert_close(got.influence, want["influence"], rtol=2e-5, atol=2e-6)
    torch.testing.assert_close(got.rollout, want["rollout"], rtol=2e-5, atol=2e-6)
    assert got.influence.dtype == torch.float32
    assert got.influence.shape == (4, 31)


# The walk is the model's own forward.


def unit(size):
    vector = torch.randn(size, generator=torch.Generator().manual_seed(1))
    return vector / vector.norm()


def placed_methods(size):
    latent = Latent(2.0, layers=[1], direction=Direction("diffmean", 1, unit(size)))
    removal = Latent(layers=[0, 2], direction=Direction("projection", 1, unit(size)))
    return {
        "plain": [],
        "boost": [(Boost(6.0), [SPAN])],
        "pasta": [(Pasta(0.05, heads=SOME), [SPAN])],
        "target": [(Spotlight(0.4), [SPAN]), (Boost(2.0, layers=[1]), [Span(12, 14)])],
        "stream": [(latent, []), (removal, []), (Boost(3.0), [SPAN])],
    }


@pytest.mark.parametrize("kind", placed_methods(48))
@pytest.mark.parametrize(("name", "impl"), [("llama", "torch"), ("mistral", "reference")])
def test_the_walk_ends_with_the_stream_of_the_model_itself(checkpoint, name, impl, kind):
    model, ids = load(checkpoint(name)[0], impl=impl), ids_of(31)
    plan = plan_of(model, *placed_methods(48)[kind], tokens=31)
    visits = []
    got = walk(model, ids, lambda *taken: visits.append(taken), plan=plan)
    with torch.no_grad():
        assert torch.equal(got, model(ids[None], plan=plan).hidden[0])
    assert len(visits) == 3


@pytest.mark.parametrize("kind", ["plain", "boost", "target"])
def test_every_implementation_gives_the_same_influence(checkpoint, kind):
    ids = ids_of(31)
    found = {}
    for impl in ("torch", "reference", "triton"):
        model = load(checkpoint("llama")[0], impl=impl)
        plan = plan_of(model, *placed_methods(48)[kind])
        (of,) = influence(model, ids, [SPAN], plan=plan)
        found[impl] = torch.stack((of.influence, of.rollout))
    for impl in ("reference", "triton"):
        torch.testing.assert_close(found[impl], found["torch"], rtol=1e-5, atol=1e-6)


# Rules.


@pytest.fixture(scope="module")
def models(checkpoint):
    return {name: load(checkpoint(name)[0], impl="torch") for name in ("llama", "mistral")}


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_influence_is_a_share_and_the_whole_prompt_has_all_of_it(models, data):
    """Values in [0, 1], 0 before the span, 1 for everything, and parts that add up."""
    model = models[data.draw(st.sampled_from(sorted(models)))]
    ids = data.draw(st.lists(st.integers(0, 299), min_size=2, max_size=40))
    T = len(ids)
    cut = data.draw(st.integers(1, T - 1))
    start = data.draw(st.integers(0, T - 1))
    span = Span(start, data.draw(st.integers(start + 1, T)))
    method = data.draw(
        st.none()
        | st.floats(-4, 8).map(Guide)
        | st.floats(0.05, 0.95).map(Spotlight)
        | st.floats(0.01, 1).map(lambda alpha: Pasta(alpha, scale_position="include"))
    )
    plan = plan_of(model, *([] if method is None else [(method, [span])]), tokens=T)
    everything = Span(0, T)
    found = influence(model, ids, [span, everything, Span(0, cut), Span(cut, T)], plan=plan)
    for name in ("influence", "rollout"):
        of, whole, left, right = (getattr(one, name) for one in found)
        assert of.min() >= 0
        assert of.max() <= 1
        assert of[:, : span.start].eq(0).all()
        assert of[0].nonzero().flatten().tolist() == list(range(span.start, span.stop))
        torch.testing.assert_close(whole, torch.ones(4, T), rtol=1e-5, atol=0)
        torch.testing.assert_close(left + right, whole, rtol=1e-5, atol=0)


def test_a_span_out_of_every_window_has_no_influence(models):
    # Three layers that each see 12 keys, the row's own included, reach back 33 positions.
    (of,) = influence(models["mistral"], ids_of(60), [Span(0, 3)])
    reach = [[j for j in range(60) if of.influence[layer, j] > 0][-1] for layer in range(4)]
    assert reach == [2, 2 + 11, 2 + 22, 2 + 33]
    assert of.influence[3, 36:].eq(0).all()
    assert of.rollout[3, 36:].eq(0).all()


def test_several_spans_in_one_walk_equal_one_at_a_time(models):
    """More of them than a head has channels, so they go in turns."""
    model, ids = models["llama"], ids_of(20)
    spans = [Span(a, a + 3) for a in range(9)]
    assert 2 * len(spans) > model.config.head_dim
    for of in influence(model, ids, spans):
        (alone,) = influence(model, ids, [of.span])
        assert torch.equal(of.influence, alone.influence)
        assert torch.equal(of.rollout, alone.rollout)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_influence_is_counted_in_float32_in_a_model_of_16_bits(checkpoint, dtype):
    model = load(checkpoint("llama")[0], dtype=dtype, impl="torch")
    plan = plan_of(model, (Boost(6.0), [SPAN]))
    (of,) = influence(model, ids_of(31), [Span(0, 31)], plan=plan)
    torch.testing.assert_close(of.influence, torch.ones(4, 31), rtol=1e-6, atol=0)


class Largest(TorchDispatchMode):
    """Notes the most elements of any tensor that an operation returns."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for item in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(item, torch.Tensor):
                self.elements = max(self.elements, item.numel())
        return out


@pytest.mark.parametrize("name", ["llama", "mistral"])
@pytest.mark.parametrize("kind", ["plain", "boost", "target"])
def test_no_tensor_has_as_many_elements_as_a_head_has_weights(models, name, kind):
    T, model = 600, models[name]
    plan = plan_of(model, *placed_methods(48)[kind])
    with Largest() as largest:
        influence(model, ids_of(T), [SPAN], plan=plan)
    assert T * model.config.hidden_size <= largest.elements < T * T


def test_the_count_of_elements_sees_a_matrix_of_weights(checkpoint):
    model = load(checkpoint("llama")[0], impl="reference")
    with Largest() as largest:
        influence(model, ids_of(600), [SPAN])
    assert largest.elements >= 600 * 600


@pytest.mark.parametrize(
    ("ids", "spans", "message"),
    [
        ([], [SPAN], "one non-empty sequence"),
        ([[1, 2]], [Span(0, 1)], "one non-empty sequence"),
        ([0.5, 1.0], [Span(0, 1)], "integers"),
        ([1, 300], [Span(0, 1)], r"must lie in \[0, 300\)"),
        ([1, -1], [Span(0, 1)], r"must lie in \[0, 300\)"),
        ([1, 2], [Span(1, 3)], r"\[1, 3\) does not lie in the prompt of 2 tokens"),
        ([1, 2], [], "no span"),
    ],
)
def test_wrong_ids_and_spans_are_refused(models, ids, spans, message):
    with pytest.raises(InputError, match=message):
        influence(models["llama"], ids, spans)


def test_a_stream_that_overflows_is_an_error_not_a_number(checkpoint):
    model = load(checkpoint("llama")[0], impl="torch")
    with torch.no_grad():
        model.layers[1].mlp.down_proj.weight.fill_(float("inf"))
    with pytest.raises(ModelError, match="not finite"):
        influence(model, ids_of(8), [Span(0, 3)])


# The token share.


@pytest.mark.parametrize("windows", [(), (None, 5, 1)], ids=["full", "windows"])
def test_the_token_share_counts_what_a_position_sees(windows):
    config = SimpleNamespace(layer_windows=windows, num_hidden_layers=3)
    span = Span(2, 6)
    share = token_share(config, span, 14)
    for layer, window in enumerate(windows or (None,) * 3):
        for j in range(14):
            seen = [k for k in range(j + 1) if window is None or j - k < window]
            of_span = [k for k in seen if span.start <= k < span.stop]
            assert share[layer, j] == pytest.approx(len(of_span) / len(seen))


def test_the_token_share_is_what_even_attention_gives(models):
    """With q = 0 a first layer's rollout is (I + share) / 2."""
    model = models["mistral"]
    config = model.config
    other = Transformer(config)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        width = config.num_attention_heads * config.head_dim
        other.layers[0].self_attn.qkv_proj.weight[:width] = 0
    (of,) = influence(other, ids_of(40), [SPAN])
    share = token_share(config, SPAN, 40)[0]
    torch.testing.assert_close(of.rollout[1], (of.rollout[0] + share) / 2)


# The control span.


def prompt_of(instruction, query):
    return Prompt("", [0] * 40, instruction, query, "raw", (), [], (), {})


@pytest.mark.parametrize(
    ("instruction", "query", "want"),
    [
        (Span(1, 5), Span(7, 20), Span(7, 11)),
        (Span(1, 5), Span(7, 11), Span(7, 11)),
        (Span(1, 5), Span(7, 10), None),
        (Span(1, 5), Span(4, 10), Span(5, 9)),  # one token is in both
        (Span(20, 24), Span(3, 10), Span(6, 10)),  # the query comes first
        (Span(20, 24), Span(3, 6), None),
        (Span(20, 24), Span(3, 21), Span(16, 20)),
    ],
)
def test_the_control_is_as_long_as_the_instruction_and_next_to_it(instruction, query, want):
    assert control_span(prompt_of(instruction, query)) == want


# The suggestion.


def straight(delta):
    """A curve whose log rises as delta does."""
    return torch.tensor([0.0, -6.0 + delta, -5.0 + delta]).exp()


@pytest.mark.parametrize("delta", [0.01, 0.5, 1.0, 1.01, 3.14, 9.99, 10.0])
def test_the_suggestion_is_the_least_hundredth_that_reaches_the_goal(delta):
    found = suggest_delta(straight, straight(0.0), straight(delta - 0.004))
    assert found.outcome == REACHED
    assert found.delta == pytest.approx(delta)
    assert found.plain == pytest.approx(-5.5)
    assert found.goal <= found.level
    assert found.level == pytest.approx(delta - 5.5, abs=1e-5)
    assert found.layers == 2


def test_a_goal_no_higher_than_plain_needs_no_delta():
    for goal in (straight(0.0), straight(-1.0)):
        found = suggest_delta(straight, straight(0.0), goal)
        assert (found.outcome, found.delta) == (NOT_HIGHER, 0.0)


def test_a_goal_beyond_every_delta_is_out_of_reach():
    found = suggest_delta(lambda delta: straight(min(delta, 4.0)), straight(0.0), straight(4.1))
    assert (found.outcome, found.delta) == (OUT_OF_REACH, None)
    assert found.level == pytest.approx(-1.5)


def test_a_curve_that_falls_at_large_deltas_is_no_obstacle():
    found = suggest_delta(
        lambda delta: straight(delta if delta <= 4 else -delta), straight(0.0), straight(2.495)
    )
    assert (found.outcome, found.delta) == (REACHED, 2.5)


def test_only_layers_that_the_instruction_reaches_are_compared():
    unseen = torch.tensor([1.0, 0.0, 1.0])
    found = suggest_delta(lambda d: straight(d) * unseen, straight(0.0) * unseen, straight(1.0))
    assert (found.outcome, found.delta, found.layers) == (REACHED, 1.0, 1)
    nothing = torch.zeros(3)
    found = suggest_delta(straight, nothing, straight(1.0))
    assert (found.outcome, found.delta, found.layers) == (NOT_SEEN, None, 0)


@pytest.fixture(scope="module")
def demo():
    return minboost.load("demo", device="cpu")


def mean_log(of):
    return of.at_last[1:].double().log().mean().item()


@pytest.mark.parametrize("where", [{}, {"layers": "0-1"}], ids=["all", "some"])
def test_boosting_by_the_suggested_delta_reaches_upper_case_and_by_less_does_not(demo, where):
    guide = Guide(**where)
    found = compare(demo, **ASK, boost=guide, guide=guide)
    assert found.suggestion.outcome == REACHED
    delta = found.suggestion.delta
    assert 0 < delta < 10

    def reached(delta):
        return mean_log(compare(demo, **ASK, boost=Guide(delta, **where)).boosted)

    assert reached(delta) >= mean_log(found.upper)
    assert reached(delta) == pytest.approx(found.suggestion.level, abs=1e-9)
    assert reached(delta - 0.05) < mean_log(found.upper)
    assert mean_log(found.plain) == pytest.approx(found.suggestion.plain)
    assert mean_log(found.upper) == pytest.approx(found.suggestion.goal)


def test_a_comparison_holds_what_separate_calls_give(demo):
    boost = Boost(7.0)
    found = compare(demo, **ASK, boost=boost)
    model, ids, span = demo.model, found.prompt.ids, found.prompt.instruction
    (plain,) = influence(model, ids, [span])
    (boosted,) = influence(model, ids, [span], plan=plan_of(model, (boost, [span])))
    (upper,) = influence(model, found.upper_prompt.ids, [found.upper_prompt.instruction])
    (control,) = influence(model, ids, [control_span(found.prompt)])
    assert torch.equal(found.plain.influence, plain.influence)
    assert torch.equal(found.boosted.influence, boosted.influence)
    assert torch.equal(found.upper.influence, upper.influence)
    assert torch.equal(found.control[0].influence, control.influence)
    assert "ANSWER IN FRENCH." in found.upper_prompt.text
    assert ASK["query"] in found.upper_prompt.text
    share = len(span) / len(ids)
    assert found.share[:, -1].tolist() == pytest.approx([share] * 4)


def test_tags_are_no_part_of_either_prompt(demo):
    tagged = {**ASK, "instruction": "Answer in <!!->French<-!!>."}
    found = compare(demo, **tagged, boost=Guide(1.0))
    assert found.prompt.ids == compare(demo, **ASK).prompt.ids
    assert "ANSWER IN FRENCH." in found.upper_prompt.text
    assert mean_log(found.plain) < mean_log(found.boosted)


def test_an_instruction_without_small_letters_needs_no_delta(demo):
    found = compare(demo, **{**ASK, "instruction": "ANSWER IN FRENCH."})
    assert found.prompt.ids == found.upper_prompt.ids
    assert (found.suggestion.outcome, found.suggestion.delta) == (NOT_HIGHER, 0.0)


def test_an_upper_case_prompt_beyond_the_context_is_named_so(demo):
    query = "What colour is the sky? " * 83
    with pytest.raises(InputError, match="in upper case: the prompt has 51"):
        compare(demo, instruction=ASK["instruction"], query=query)


# The command.

LINE = ["influence", "--instruction", ASK["instruction"], "--query", ASK["query"]]
RANDOM = ["influence", "--instruction", "Answer in French.", "--query", "What colour is the sky?"]


@pytest.mark.usefixtures("clean_settings")
class TestCommand:
    def test_the_table_has_a_row_a_layer_and_its_numbers_are_those_of_json(self, capfd):
        assert main([*LINE, "--rollout"]) == 0
        out, err = capfd.readouterr()
        assert err == ""
        head, *rows = [line.split("  ") for line in out.splitlines()[3:8]]
        names = [cell.strip() for cell in head if cell.strip()]
        assert names == [
            "after layer", "plain", "boosted", "upper case", "rollout", "rollout boosted",
            "control", "token share",
        ]  # fmt: skip
        assert main([*LINE, "--json"]) == 0
        found = json.loads(capfd.readouterr().out)
        curves = [
            found["plain"]["influence"],
            found["boosted"]["influence"],
            found["upper_case"]["influence"],
            found["plain"]["rollout"],
            found["boosted"]["rollout"],
            found["control"]["plain"]["influence"],
            [[], *found["token_share"]],
        ]
        for layer, row in enumerate(rows):
            cells = [cell.strip() for cell in row if cell.strip()]
            assert int(cells[0]) == layer
            want = [f"{curve[layer + 1][-1]:.4f}" for curve in curves]
            assert cells[1:] == want
        delta = found["delta_suggestion"]["delta"]
        assert f"--method guide --delta {delta:.2f}" in out
        assert f"--multiplier {math.exp(delta):.2f}" in out
        assert "upper case takes 13 tokens where the instruction takes 4" in out
        assert "x 10 on 4 layers, 16 heads" in out

    def test_without_rollout_the_table_has_none(self, capfd):
        assert main(LINE) == 0
        assert "rollout" not in capfd.readouterr().out

    def test_json_has_influence_and_its_log_for_every_layer_and_position(self, capfd, demo):
        assert main([*LINE, "--json", "--method", "guide", "--delta", "1.5"]) == 0
        out, err = capfd.readouterr()
        found = json.loads(out)
        assert err == ""
        assert found["method"] == "guide"
        assert found["parameters"] == {"delta": 1.5}
        assert found["instruction_span"] == [2, 6]
        assert found["control"]["span"] == [8, 12]
        assert found["prompt_tokens"] == len(found["tokens"]) == 21
        assert "".join(found["tokens"][2:6]) == ASK["instruction"]
        assert found["boosted_layers"] == [0, 1, 2, 3]
        assert found["boosted_heads"] == 16
        assert found["notes"] == []
        want = compare(demo, **ASK, boost=Guide(1.5))
        assert found["boosted"]["influence"] == want.boosted.influence.tolist()
        assert found["boosted"]["rollout"] == want.boosted.rollout.tolist()
        assert len(found["token_share"]) == 4
        for curves, length in (
            (found["plain"], 21),
            (found["boosted"], 21),
            (found["control"]["plain"], 21),
            (found["control"]["boosted"], 21),
            (found["upper_case"], found["upper_case"]["prompt_tokens"]),
        ):
            for name in ("influence", "rollout"):
                values, logs = curves[name], curves[f"log_{name}"]
                assert len(values) == len(logs) == 5
                for row, log_row in zip(values, logs, strict=True):
                    assert len(row) == len(log_row) == length
                    for value, log in zip(row, log_row, strict=True):
                        assert log == (math.log(value) if value else None)
        levels = found["delta_suggestion"]["mean_log_influence"]
        assert levels["plain"] < levels["upper_case"] <= levels["with_delta"]
        assert found["delta_suggestion"]["outcome"] == "reached"
        assert found["delta_suggestion"]["layers_compared"] == 4

    def test_a_query_too_short_for_a_control_is_said(self, capfd):
        assert main([*LINE[:3], "--query", "Why?"]) == 0
        out, err = capfd.readouterr()
        assert (
            "note: no control span: the query has 3 tokens, fewer than the instruction's 4" in err
        )
        assert " -  " in out
        assert "  control: " not in out
        assert main([*LINE[:3], "--query", "Why?", "--json"]) == 0
        found = json.loads(capfd.readouterr().out)
        assert found["control"] is None
        assert "no control span" in found["notes"][0]

    def test_upper_case_that_changes_nothing_is_said(self, capfd):
        assert main(["influence", "--instruction", "123.", "--query", ASK["query"]]) == 0
        out, err = capfd.readouterr()
        assert "note: upper case changes nothing" in err
        assert "Suggested delta: 0. Upper case has no more influence" in out

    def test_an_instruction_that_the_last_position_does_not_see_is_said(self, capfd, checkpoint):
        model = ["--model", str(checkpoint("mistral")[0]), "--device", "cpu"]
        query = "What colour is the sky? The sky is blue. " * 6
        assert main([*RANDOM[:3], "--query", query, *model]) == 0
        out, err = capfd.readouterr()
        assert "Suggested delta: none. The last position does not see the instruction." in out
        assert "after 0 of 3 layers" in err
        assert main([*RANDOM[:3], "--query", query, *model, "--json"]) == 0
        found = json.loads(capfd.readouterr().out)
        assert found["plain"]["influence"][3][-1] == 0
        assert found["plain"]["log_influence"][3][-1] is None
        assert found["delta_suggestion"]["delta"] is None
        assert found["delta_suggestion"]["mean_log_influence"]["plain"] is None

    @pytest.mark.parametrize(
        ("method", "said"),
        [
            (["--multiplier", "1"], "nothing boosted (m = 1)"),
            (["--method", "spotlight", "--target", "0.4"], "on 4 layers, 16 heads"),
            (["--method", "pasta", "--layers", "1"], "on 1 layers, 4 heads"),
        ],
    )
    def test_every_method_says_what_it_steered(self, capfd, method, said):
        assert main([*LINE, *method]) == 0
        out, _ = capfd.readouterr()
        assert said in out.splitlines()[1]
        assert ("chosen here" in out) == ("--layers" in method)

    def test_a_direction_changes_the_stream_and_the_delta_is_still_for_every_layer(
        self, capfd, tmp_path
    ):
        direction = Direction("diffmean", 2, unit(128))
        found = Directions(found=(direction,), model="demo", seed=0, prompts=(1, 1))
        save_directions(tmp_path / "found.safetensors", found)
        latent = ["--method", "latent", "--directions", "found.safetensors", "--layers", "1"]
        assert main([*LINE, *latent, "--factor", "9", "--json"]) == 0
        found = json.loads(capfd.readouterr().out)
        assert found["boosted_heads"] == 0
        assert found["boosted"]["influence"][:3] == found["plain"]["influence"][:3]
        assert found["boosted"]["influence"][3] != found["plain"]["influence"][3]
        assert main([*LINE, "--json"]) == 0
        assert found["delta_suggestion"] == json.loads(capfd.readouterr().out)["delta_suggestion"]

    def test_multiplier_one_has_the_plain_curve(self, capfd):
        assert main([*LINE, "--multiplier", "1", "--json"]) == 0
        found = json.loads(capfd.readouterr().out)
        assert found["boosted"] == found["plain"]

    @pytest.mark.parametrize("ending", [".png", ".svg", ".SVG"])
    def test_the_plot_is_written_and_the_same_each_time(self, capfd, tmp_path, ending):
        files = []
        for name in ("a", "b"):
            path = tmp_path / f"{name}{ending}"
            assert main([*LINE, "--rollout", "--plot", str(path)]) == 0
            assert f"wrote {path}" in capfd.readouterr().err
            files.append(path.read_bytes())
        assert files[0] == files[1]
        assert sorted(os.listdir(tmp_path)) == [f"a{ending}", f"b{ending}"]
        if ending == ".png":
            assert files[0].startswith(b"\x89PNG")
        else:
            assert ElementTree.fromstring(files[0]).tag.endswith("svg")
            assert b"<dc:date>" not in files[0]

    def test_a_plot_replaces_a_file_that_was_there_and_a_long_prompt_fits(self, capfd, tmp_path):
        path = tmp_path / "plot.svg"
        path.write_text("old")
        query = "What colour is the sky? " * 12
        assert main([*LINE[:3], "--query", query, "--plot", str(path), "--json"]) == 0
        assert path.read_bytes().startswith(b"<?xml")
        assert json.loads(capfd.readouterr().out)["prompt_tokens"] > 60

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (LINE[:3], "--query is missing"),
            (["influence", *LINE[3:]], "--instruction is missing"),
            ([*LINE[:2], " ", *LINE[3:]], "the instruction is empty"),
            ([*LINE, "--plot", "plot.pdf"], "ending in .png or .svg, got plot.pdf"),
            ([*LINE, "--plot", "nowhere/plot.png"], "the folder nowhere is not there"),
            ([*LINE, "--plot", "folder.png"], "is a folder"),
            ([*LINE, "--delta", "2"], "--delta belongs to --method guide"),
            ([*LINE, "--multiplier", "0"], "multiplier must be a finite number above 0"),
            ([*LINE, "--layers", "7"], "layer 7"),
            ([*LINE, "--span", "nowhere to be found"], "does not occur"),
        ],
    )
    def test_bad_inputs_end_with_2_before_anything_is_computed(
        self, capfd, tmp_path, arguments, message
    ):
        (tmp_path / "folder.png").mkdir()
        assert main(arguments) == 2
        out, err = capfd.readouterr()
        assert message in err
        assert out == ""

    def test_a_folder_without_permission_is_an_error_before_the_work(self, capfd, monkeypatch):
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        assert main([*LINE, "--model", "not-loaded", "--plot", "plot.png"]) == 2
        assert "the folder . is not writable" in capfd.readouterr().err

    def test_without_matplotlib_the_error_says_what_to_install(self, capfd, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        assert main([*LINE, "--model", "not-loaded", "--plot", "plot.png"]) == 2
        assert 'pip install "minboost[plot]"' in capfd.readouterr().err

    def test_the_help_and_the_settings_need_no_torch(self):
        for flag in ("--help", "--show-config"):
            code = (
                "import sys; from minboost.cli import main; "
                f"assert main(['influence', {flag!r}]) == 0; "
                "assert not {'torch', 'matplotlib'} & set(sys.modules)"
            )
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert "multiplier" in done.stdout
