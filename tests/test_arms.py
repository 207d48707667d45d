"""Arms, grids and the frontier: what is asked for, and which setting is taken."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minboost import Boost, Guide, InputError, Pasta, Spotlight
from minboost.comparison.arms import Arm, parse_arms, read_arms, setting_of, with_plain
from minboost.comparison.frontier import Point, choose, frontier, points_of
from minboost.comparison.grids import MOST_ARMS, parse_grid
from minboost.suites import Case

from .test_results import RECORD

DEFAULTS = {
    "multiplier": 10.0,
    "alpha": 0.01,
    "scale_position": "exclude",
    "delta": 1.0,
    "target": 0.3,
    "form": "exact",
    "factor": 1.0,
    "directions": None,
    "direction": "diffmean",
    "heads": "all",
    "span": "instruction",
    "start_layer": 8,
    "num_middle_layers": 5,
    "head_seed": 42,
}
CASE = Case(instruction="Answer in French.", query="What colour is the sky?", answer="Bleu.")


def methods(text, **changes):
    return [arm.methods(CASE) for arm in parse_arms(text, {**DEFAULTS, **changes})]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", [()]),
        ("instaboost", [(Boost(10.0),)]),
        ("instaboost multiplier=2,5", [(Boost(2.0),), (Boost(5.0),)]),
        ("instaboost multiplier=2 layers=0-1,3", [(Boost(2.0, layers="0-1,3"),)]),
        ("pasta alpha=.1 scale_position=include", [(Pasta(0.1, scale_position="include"),)]),
        ("guide heads=0.5 head_seed=7", [(Guide(1.0, heads=0.5, head_seed=7),)]),
        ('spotlight heads={"0":[1,2]}', [(Spotlight(0.3, heads={0: [1, 2]}),)]),
        ("instaboost span='in French'", [(Boost(10.0, span="in French"),)]),
        (
            "instaboost layers=middle start_layer=1 num_middle_layers=2",
            [(Boost(10.0, layers="middle", start_layer=1, num_middle_layers=2),)],
        ),
    ],
)
def test_a_text_is_read_as_the_methods_that_it_names(text, expected):
    assert methods(text) == expected


def test_settings_that_apply_are_an_arms_defaults_but_not_for_methods_that_lack_them():
    assert methods("instaboost", multiplier=3.0, heads=0.5) == [(Boost(3.0, heads=0.5),)]
    assert methods("guide", multiplier=3.0) == [(Guide(1.0),)]


@pytest.mark.parametrize(
    "text",
    [
        "instaboost multiplier=2",
        "pasta alpha=0.1 scale_position=include layers=0-1",
        'spotlight target=0.5 form=published heads={"0":[1,2]}',
        "guide delta=2 heads=0.5",
        "instaboost multiplier=0.5 span='in French'",
    ],
)
def test_an_arms_name_is_the_text_that_makes_it(text):
    (arm,) = parse_arms(text, DEFAULTS)
    assert arm.name == text


BAD = {
    "empty": ("", "an arm is empty"),
    "unknown method": ("boost multiplier=2", "the method 'boost' does not exist; known: plain, "),
    "no value": ("instaboost multiplier", "'multiplier' is not of the form key=value"),
    "twice": ("guide delta=1 delta=2", "has delta twice"),
    "another's": ("guide multiplier=2", "the method guide has no 'multiplier'"),
    "no number": ("guide delta=big", "delta must be a number, got 'big'"),
    "refused": ("instaboost multiplier=-1", "multiplier must be a finite number above 0"),
    "open quote": ("guide span='in", "cannot be read"),
    "no directions": ("latent", "latent needs directions"),
    "no seed": ("guide heads=0.5 head_seed=x", "head_seed must be a whole number"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_arm_is_named_with_its_fault(name):
    text, said = BAD[name]
    with pytest.raises(InputError) as caught:
        parse_arms(text, DEFAULTS)
    assert said in str(caught.value)


def test_a_file_of_arms_may_hold_texts_mappings_and_several_methods_together(tmp_path):
    path = tmp_path / "arms.yaml"
    path.write_text(
        "arms:\n"
        "  - plain\n"
        "  - guide delta=2\n"
        "  - {name: mild, method: instaboost, multiplier: 2, layers: [0, 2]}\n"
        "  - {name: curve, method: pasta, alpha: [0.5, 0.1]}\n"
        "  - {methods: [{method: instaboost, multiplier: 2}, {method: guide, span: prefix}]}\n"
    )
    arms = read_arms(path, DEFAULTS)
    assert [arm.name for arm in arms] == [
        "plain",
        "guide delta=2",
        "mild",
        "curve alpha=0.5",
        "curve alpha=0.1",
        "instaboost multiplier=2 + guide delta=1 span=prefix",
    ]
    assert arms[2].methods(CASE) == (Boost(2.0, layers=[0, 2]),)
    assert arms[5].methods(CASE) == (Boost(2.0), Guide(1.0, span="prefix"))
    assert [arm.name for arm in with_plain(arms)] == [arm.name for arm in arms]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arms: guide", "must be a list of arms"),
        ("[]", "must be a list of arms"),
        ("[guide, 3]", "arm 2: an arm must be a text or a mapping, got 3"),
        ("[{method: guide, deltas: 2}]", "arm 1: the method guide has no 'deltas'"),
        ("[{name: x}]", "arm 1: the method None does not exist"),
        ("[{method: guide, delta: []}]", "arm 1: delta is an empty list"),
        ("[{methods: [], name: x}]", "arm 1: methods must be a list"),
        ("[{method: guide, name: 3}]", "arm 1: an arm's name must be a text"),
    ],
)
def test_a_wrong_file_of_arms_is_named_with_the_arm(tmp_path, text, said):
    path = tmp_path / "arms.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_arms(path, DEFAULTS)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_two_arms_that_would_be_one_column_are_refused():
    other = Arm("guide.delta 2", ({"method": "guide", "delta": 3.0},))
    arms = [*parse_arms("guide delta=2", DEFAULTS), other]
    with pytest.raises(InputError, match=r"'guide delta=2' and 'guide\.delta 2' are one column"):
        with_plain(arms)


def test_directions_by_concept_are_those_of_the_case(tmp_path):
    import torch

    from minboost.directions import Direction, Directions, save_directions

    for number, concept in enumerate(("french", "german")):
        vector = torch.zeros(4)
        vector[number] = 1.0
        found = Directions(
            found=(Direction("diffmean", 1, vector),), model="m", seed=0, prompts=(2, 2)
        )
        save_directions(tmp_path / f"{concept}.safetensors", found)
    text = f"latent factor=2 directions={tmp_path}/{{concept}}.safetensors direction=diffmean.1"
    (arm,) = parse_arms(text, DEFAULTS)
    assert arm.name == "latent factor=2 direction=diffmean.1"
    case = {"instruction": "a", "query": "b", "answer": "c"}
    german = arm.methods(Case(**case, concept="german"))[0]
    assert german.factor == 2.0
    assert german.direction.vector.tolist() == [0, 1, 0, 0]
    french = arm.methods(Case(**case, concept="french"))[0]
    assert setting_of(german) != setting_of(french)
    with pytest.raises(InputError, match="directions by concept, and the case '' names none"):
        arm.methods(Case(**case))


def grid(text, **changes):
    return parse_grid(text, {**DEFAULTS, **changes}, n_layers=3, n_heads=2)


def test_a_grid_is_every_combination_of_its_values_with_the_strength_fastest():
    names = [
        arm.name for arm in grid("instaboost multiplier=2,5 layers=all|0-1 heads=all|0.5").arms
    ]
    assert names == [
        "instaboost multiplier=2",
        "instaboost multiplier=5",
        "instaboost multiplier=2 heads=0.5",
        "instaboost multiplier=5 heads=0.5",
        "instaboost multiplier=2 layers=0-1",
        "instaboost multiplier=5 layers=0-1",
        "instaboost multiplier=2 layers=0-1 heads=0.5",
        "instaboost multiplier=5 layers=0-1 heads=0.5",
    ]


def test_each_is_every_layer_or_head_alone():
    assert [arm.methods(CASE)[0].layers for arm in grid("guide delta=1 layers=each").arms] == [
        "0", "1", "2",
    ]  # fmt: skip
    heads = [arm.methods(CASE)[0].heads for arm in grid("guide delta=1 heads=each").arms]
    assert heads == [{layer: (head,)} for layer in range(3) for head in range(2)]
    some = grid("guide delta=1 heads=each layers=1-2").arms
    assert [arm.methods(CASE)[0].heads for arm in some] == heads[2:]


def test_a_grid_without_strengths_takes_the_methods_own_and_never_a_setting():
    assert [arm.methods(CASE)[0].multiplier for arm in grid("instaboost", multiplier=3.0).arms] == [
        1, 3, 5, 7, 9, 11, 13, 15, 17, 19,
    ]  # fmt: skip
    raising = grid("pasta scale_position=include").arms
    assert all(arm.methods(CASE)[0].alpha > 1 for arm in raising)


def test_a_grid_too_large_is_refused_before_it_is_made():
    values = ",".join(map(str, range(1, MOST_ARMS + 2)))
    with pytest.raises(InputError, match=f"{MOST_ARMS + 1} arms, more than {MOST_ARMS}"):
        grid(f"instaboost multiplier={values}")


def point(arm, success, control, fluency=1.0):
    return Point(
        arm=arm, cases=10, success=success, interval=(0, 1), control=control, fluency=fluency
    )


def test_the_most_successful_above_the_floor_is_chosen_of_equals_the_safer_then_the_first():
    points = [
        point("weak", 0.6, 1.0),
        point("good", 0.9, 0.96),
        point("safer", 0.9, 0.98),
        point("as safe", 0.9, 0.98),
        point("bold", 0.99, 0.94),
        point("broken", 0.99, 1.0, fluency=0.5),
    ]
    assert choose(points, 0.95).arm == "safer"
    assert choose(points, 0.9).arm == "bold"
    assert choose(points, 1.0).arm == "weak"
    assert choose(points[4:], 0.95) is None
    assert [one.arm for one in frontier(points)] == ["bold", "safer", "weak"]


@given(st.lists(st.tuples(st.sampled_from([0, 0.5, 0.7, 1]), st.sampled_from([0, 0.5, 0.9, 1]))))
def test_no_point_of_the_frontier_is_beaten_and_every_other_is_matched(shares):
    points = [point(str(n), success, control) for n, (success, control) in enumerate(shares)]
    front = frontier(points)
    for one in points:
        better = [
            other for other in front if other.success >= one.success and other.safety >= one.safety
        ]
        assert better
        strictly = [
            o for o in points if o.success >= one.success and o.safety >= one.safety
            and (o.success, o.safety) != (one.success, one.safety)
        ]  # fmt: skip
        assert (one in front) <= (not strictly)


def test_points_count_controls_apart():
    from dataclasses import replace

    records = [
        replace(RECORD, key="1", passed=True),
        replace(RECORD, key="2", case="two", passed=False, fluent=False),
        replace(RECORD, key="3", passed=True, control=True),
        replace(RECORD, key="4", arm="only controls", control=True),
    ]
    points = points_of(records)
    assert list(points) == ["plain"]
    found = points["plain"]
    assert (found.cases, found.success, found.control) == (2, 0.5, 1.0)
    assert found.fluency == pytest.approx(2 / 3)
    assert json.loads(json.dumps(found.as_json()))["success"] == 0.5


def test_settings_that_a_name_cannot_hold_in_full_still_have_names_of_their_own():
    """A sweep keeps its arms by name."""
    maps = [{str(layer): [0, 1, last] for layer in range(4)} for last in (2, 3)]
    names = {
        arm.name
        for heads in maps
        for arm in parse_arms(f"guide heads={json.dumps(heads).replace(' ', '')}", DEFAULTS)
    }
    assert len(names) == 2


def test_strengths_of_either_sign_have_columns_of_their_own():
    arms = with_plain(parse_arms("guide delta=-1,1", DEFAULTS))
    assert [arm.column for arm in arms] == ["plain", "guide_delta_minus_1", "guide_delta_1"]


def test_an_arm_must_not_take_the_columns_of_the_plain_one():
    with pytest.raises(InputError, match="'plain' and 'original' are one column"):
        with_plain([Arm("original", ({"method": "guide"},))])
