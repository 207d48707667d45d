"""Which layers and heads a Boost means, and the identities that every plan must keep."""

from __future__ import annotations

import math
import random

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from minboost.errors import InputError
from minboost.head_choice import parse_heads
from minboost.methods import Boost
from minboost.plan import Plan, sequence_plan
from minboost.span import Span, check_span

from .conftest import load

CPU = torch.device("cpu")


def chosen_layers(boost, n_layers=16, n_heads=4):
    return list(boost.heads_by_layer(n_layers, n_heads))


@pytest.mark.parametrize(
    ("layers", "want"),
    [
        ("all", list(range(16))),
        ("middle", [8, 9, 10, 11, 12]),
        ("8-12", [8, 9, 10, 11, 12]),
        ("3", [3]),
        ("0-2, 5,15", [0, 1, 2, 5, 15]),
        ([7, 3, 3], [3, 7]),
        (range(2), [0, 1]),
    ],
    ids=str,
)
def test_layers_mean_what_they_say(layers, want):
    assert chosen_layers(Boost(layers=layers)) == want


def test_the_middle_follows_its_two_numbers_and_ends_with_the_model():
    assert chosen_layers(Boost(layers="middle", start_layer=4, num_middle_layers=2)) == [4, 5]
    assert chosen_layers(Boost(layers="middle", start_layer=14)) == [14, 15]


@given(
    n_heads=st.integers(1, 64),
    fraction=st.floats(1e-6, 1.0),
    seed=st.integers(0, 10**6),
    layer=st.integers(0, 15),
)
def test_random_head_draws_equal_the_seeds_rule(n_heads, fraction, seed, layer):
    """max(1, int(n_heads · fraction)) heads, by random.sample after random.seed(seed + layer)."""
    reference = random.Random()
    reference.seed(seed + layer)
    want = reference.sample(range(n_heads), max(1, int(n_heads * fraction)))
    boost = Boost(heads=fraction, head_seed=seed, layers=[layer])
    assert boost.heads_by_layer(16, n_heads) == {layer: tuple(sorted(want))}


def test_head_draws_of_a_known_seed():
    """Written out by hand from the rule, so that a change of Python's generator is seen."""
    random.seed(42 + 8)
    want = tuple(sorted(random.sample(range(12), 2)))
    assert Boost(heads=0.2, layers="8").heads_by_layer(12, 12) == {8: want}


def test_drawing_heads_leaves_the_global_generator_alone():
    random.seed(1)
    before = random.getstate()
    Boost(heads=0.3).heads_by_layer(8, 8)
    assert random.getstate() == before


def test_a_mapping_names_layers_and_heads():
    boost = Boost(heads={2: [3, 1], 5: [0]})
    assert boost.heads_by_layer(16, 4) == {2: (1, 3), 5: (0,)}
    assert Boost(heads={2: [3], 5: [0]}, layers="4-6").heads_by_layer(16, 4) == {5: (0,)}


def test_heads_are_read_from_text_json_and_file(tmp_path):
    path = tmp_path / "heads.json"
    path.write_text('{"1": [0, 2], "10": [3]}')
    assert parse_heads("all") == "all"
    assert parse_heads("0.2") == 0.2
    assert parse_heads('{"1": [0, 2]}') == {1: (0, 2)}
    assert parse_heads("[0, 3]") == {0: "all", 3: "all"}
    assert parse_heads(str(path)) == {1: (0, 2), 10: (3,)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"multiplier": 0}, "multiplier must be a finite number above 0, got 0"),
        ({"multiplier": -2.0}, "multiplier must be a finite number above 0, got -2.0"),
        ({"multiplier": math.nan}, "multiplier must be a finite number above 0, got nan"),
        ({"multiplier": math.inf}, "multiplier must be a finite number above 0, got inf"),
        ({"multiplier": True}, "got True"),
        ({"multiplier": "10"}, "got '10'"),
        ({"layers": "16"}, "layer 16 does not exist: the model has layers 0 to 15"),
        ({"layers": [-1]}, "layer -1 does not exist"),
        ({"layers": "5-3"}, "layers '5-3' is not understood"),
        ({"layers": "last"}, "layers 'last' is not understood"),
        ({"layers": ""}, "layers '' is not understood"),
        ({"layers": []}, "layers is an empty list"),
        ({"layers": "middle", "start_layer": 16}, "start_layer 16 of layers='middle'"),
        ({"layers": "middle", "num_middle_layers": 0}, "num_middle_layers must be at least 1"),
        ({"heads": {0: 1}}, "heads of layer 0 must be a list of heads, got 1"),
        ({"heads": {"x": [1]}}, "a layer of heads must be an integer"),
        ({"layers": 2}, "layers must be a text or a list of numbers, got 2"),
        ({"span": (0, 4)}, r"span must be a text or a Span, got \(0, 4\)"),
        ({"multiplier": 10**400}, "multiplier must be a finite number above 0"),
        ({"heads": 0.0}, r"fraction of heads must lie in \(0, 1\], got 0.0"),
        ({"heads": 1.5}, r"fraction of heads must lie in \(0, 1\], got 1.5"),
        ({"heads": math.nan}, "fraction of heads"),
        ({"heads": "some"}, "heads must be 'all'"),
        ({"heads": {0: [4]}}, "head 4 of layer 0 does not exist: the model has heads 0 to 3"),
        ({"heads": {99: [0]}}, "layer 99 does not exist"),
        ({"heads": {}}, "touches no head"),
        ({"heads": {1: []}}, "touches no head"),
        ({"heads": {1: [0]}, "layers": "2"}, "touches no head"),
        ({"span": " "}, "empty text"),
        ({"layers": [True]}, "layer True does not exist"),
        ({"heads": {0: [True]}}, "heads of layer 0: each must be an integer"),
        ({"layers": "0-99999999"}, "is not understood"),
        ({"layers": "middle", "start_layer": -1}, "start_layer -1"),
    ],
    ids=str,
)
def test_a_boost_that_cannot_be_is_refused_with_the_value(change, message):
    with pytest.raises(InputError, match=message):
        Boost(**change).heads_by_layer(16, 4)


def test_numbers_of_other_libraries_and_generators_are_taken():
    boost = Boost(np.float32(3), layers=(np.int64(n) for n in range(2)), heads={"0": np.arange(2)})
    assert boost.multiplier == 3.0
    for _ in range(2):  # a generator can be read once only
        assert boost.heads_by_layer(4, 4) == {0: (0, 1)}
    assert Boost(torch.tensor(2.0), layers=np.arange(3)).heads_by_layer(4, 1).keys() == {0, 1, 2}
    assert Boost(heads="[1]").heads_by_layer(4, 2) == {1: (0, 1)}
    assert Span(np.int64(1), torch.tensor(3)) == Span(1, 3)


@pytest.mark.parametrize("ends", [(3, 3), (5, 2), (-1, 4), (1.9, 4), ("1", 4)], ids=str)
def test_an_empty_negative_or_broken_span_is_refused(ends):
    with pytest.raises(InputError, match=r"empty or negative|must be an integer"):
        Span(*ends)


@pytest.mark.parametrize(
    "text",
    [
        "[-1]",
        "7.5x",
        '{"1": [0], "1": [2]}',
        '{"a": [1]}',
        '{"1": ["x"]}',
        '{"1": 3}',
        "{",
        "no.json",
        '{"1": [1.5]}',
        '{"1": ' + "[" * 100_000,
    ],
    ids=lambda text: text[:20],
)
def test_a_malformed_head_file_is_refused(text):
    with pytest.raises(InputError, match="heads"):
        parse_heads(text)


def test_a_mapping_may_leave_a_layer_empty_and_a_share_of_one_is_all():
    assert Boost(heads={0: [], 1: [2]}).heads_by_layer(4, 4)[1] == (2,)
    assert Boost(heads=1.0, layers="0").heads_by_layer(4, 4) == {0: (0, 1, 2, 3)}


def test_a_span_may_end_with_the_prompt_and_not_behind_it():
    assert len(Span(3, 7)) == 4
    assert check_span(Span(1, 5), 5) == Span(1, 5)
    with pytest.raises(InputError, match=r"\[1, 6\)"):
        check_span(Span(1, 6), 5)


def test_a_layer_without_a_strength_gets_no_bias():
    """So m = 1 runs the plain path itself, and so do the layers that a boost leaves out."""
    size = {"n_layers": 3, "n_heads": 2}

    def biased(boost):
        strengths = sequence_plan([(boost, [Span(0, 2)])], **size)
        plan = Plan.build([strengths], **size, device=CPU)
        return [layer.log_multiplier is not None for layer in plan.layers]

    assert biased(Boost(1.0)) == [False, False, False]
    assert biased(Boost(3.0, layers=[1])) == [False, True, False]


def test_a_boost_on_no_span_is_refused():
    with pytest.raises(InputError, match="touches no token"):
        sequence_plan([(Boost(), [])], n_layers=2, n_heads=2)


@pytest.fixture(scope="module")
def run(checkpoint):
    """run(boost, spans) → logits of a fixed sequence of 40 tokens; None is plain."""
    model = load(checkpoint("qwen3")[0])
    ids = torch.randint(0, 300, (1, 40), generator=torch.Generator().manual_seed(11))

    @torch.inference_mode()
    def get(*boosts):
        size, plan = model.config.size, None
        if boosts:
            strengths = sequence_plan([(b, [s]) for b, s in boosts], **size)
            plan = Plan.build([strengths], **size, device=CPU)
        return model.logits(model(ids, plan=plan).hidden)

    return get


def close(a, b):
    return (a - b).abs().max() <= 1e-5 * b.abs().max()


def test_multiplier_one_equals_plain_bit_for_bit(run):
    assert torch.equal(run((Boost(1.0), Span(2, 9))), run())


def test_every_head_named_one_by_one_equals_all(run):
    named = Boost(6.0, heads={layer: list(range(6)) for layer in range(3)})
    one_by_one = [(Boost(6.0, heads={a: [h]}), Span(2, 9)) for a in range(3) for h in range(6)]
    want = run((Boost(6.0), Span(2, 9)))
    assert torch.equal(run((named, Span(2, 9))), want)
    assert close(run(*one_by_one), want)


def test_m_and_its_inverse_cancel(run):
    assert close(run((Boost(7.0), Span(2, 9)), (Boost(1 / 7.0), Span(2, 9))), run())


def test_one_boost_acts_on_a_key_once_however_many_of_its_spans_hold_it():
    spans = [Span(4, 9), Span(2, 6), Span(4, 9), Span(9, 11)]
    strengths = sequence_plan([(Boost(3.0), spans)], n_layers=1, n_heads=1).strengths
    assert set(strengths) == {Span(2, 9), Span(9, 11)}
    assert all(s.item() == pytest.approx(math.log(3)) for s in strengths.values())


def test_boosts_that_cancel_boost_no_head():
    plan = sequence_plan(
        [(Boost(7.0), [Span(0, 2)]), (Boost(1 / 7.0), [Span(0, 2)])], n_layers=2, n_heads=2
    )
    assert plan.heads == {}
    assert plan.spans == ()


def test_overlapping_spans_add_their_logs(run):
    halves = run((Boost(3.0), Span(2, 6)), (Boost(5.0), Span(4, 9)))
    pieces = run((Boost(3.0), Span(2, 4)), (Boost(15.0), Span(4, 6)), (Boost(5.0), Span(6, 9)))
    assert close(halves, pieces)


def test_a_span_that_covers_every_visible_key_changes_nothing(run):
    assert close(run((Boost(9.0), Span(0, 40))), run())


def test_a_boost_changes_only_what_sees_its_span(run):
    plain, boosted = run(), run((Boost(9.0), Span(20, 25)))
    # Rows before the span see none of it; its own first row sees it beside earlier keys.
    assert close(boosted[:, :20], plain[:, :20])
    assert (boosted[:, 21:] - plain[:, 21:]).abs().amax(-1).min() > 1e-3


def test_heads_and_layers_are_boosted_where_they_were_chosen(checkpoint):
    """The mass on the span rises on the chosen head of layer 0 and on no other head of it."""
    model = load(checkpoint("qwen3")[0])
    ids = torch.randint(0, 300, (1, 40), generator=torch.Generator().manual_seed(11))
    size = model.config.size
    strengths = sequence_plan([(Boost(8.0, heads={0: [4]}), [Span(2, 9)])], **size)
    plan = Plan.build([strengths], **size, device=CPU)
    with torch.inference_mode():
        boosted = model(ids, plan=plan, return_mass=True).mass[0, 0, :, -1, 0]
        plain = model(ids, plan=plan.without_strengths(), return_mass=True).mass[0, 0, :, -1, 0]
    p = plain[4]
    torch.testing.assert_close(boosted[4], 8 * p / (1 + 7 * p), atol=1e-6, rtol=0)
    others = [0, 1, 2, 3, 5]
    torch.testing.assert_close(boosted[others], plain[others], atol=1e-6, rtol=0)


def test_a_span_inside_another_does_not_shorten_it():
    size = {"n_layers": 1, "n_heads": 1}
    plan = sequence_plan([(Boost(2.0), [Span(2, 9), Span(3, 5), Span(8, 11)])], **size)
    assert list(plan.strengths) == [Span(2, 11)]
