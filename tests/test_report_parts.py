"""What the report is made of: findings, families of arms, labels, marked words, written numbers."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from minboost.comparison.frontier import Point
from minboost.comparison.results import read_results
from minboost.comparison.summary import summarise
from minboost.report import html_report
from minboost.report.families import curves_of, frontier_of, maps_of, single_place
from minboost.report.finding import finding_of
from minboost.report.formats import markdown, p_value, share, signed, visible
from minboost.report.frontier_figure import Box, Label, placed
from minboost.report.words import GONE, NEW, SAME, differing

from .results_files import ARMS, UNKIND, instaboost, write

WORDS = st.text("ab \n.,'é天", max_size=40)


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    return summarise(read_results(write(tmp_path_factory.mktemp("parts") / "unkind.jsonl")))


def test_the_finding_names_the_best_arm_with_an_exact_test(summary):
    found = finding_of(summary.group("unkind", "test"))
    p = stats.binomtest(9, 9).pvalue * (len(ARMS) - 1)  # Holm's first step
    assert found.arm == "instaboost multiplier=5"
    assert found.kind == "gain"
    assert "1.000 of 12 cases, plain in 0.250, a difference of +0.750" in found.text
    assert f"p = {p_value(p)}, corrected for 10 arms" in found.text
    assert "Fluency 1.000 (plain 1.000), controls that still pass 1.000" in found.beside


@pytest.mark.parametrize(
    ("arms", "obeyed", "kind", "says"),
    [
        (["plain", "a"], {"plain": 6, "a": 7}, "alike", "a does not differ from plain beyond"),
        (["plain", "a", "b"], {"plain": 6, "a": 7, "b": 5}, "alike", "The best, a, succeeds in"),
        (["plain", "a"], {"plain": 12, "a": 0}, "loss", "a does worse than plain: it succeeds"),
        (["plain", "a", "b"], {"plain": 12, "a": 11, "b": 0}, "loss", "and 1 does worse. b"),
        (["plain"], {"plain": 6}, "nothing", "Only the plain arm has answers"),
        (["a"], {"a": 6}, "nothing", "There is no plain arm"),
    ],
)
def test_the_finding_says_when_no_arm_is_better(tmp_path, arms, obeyed, kind, says):
    path = write(
        tmp_path / "r.jsonl",
        {name: () if name == "plain" else (instaboost(),) for name in arms},
        splits=("test",),
        passes=lambda arm, number, _: number < obeyed[arm],
    )
    results = read_results(path)
    (group,) = summarise(results).groups
    assert finding_of(group).kind == kind
    assert says in finding_of(group).text
    assert says in html_report(results)  # and a page can be made of it


def test_an_arm_whose_answers_break_is_not_called_the_best(tmp_path):
    obeyed = {"plain": 0, "sound": 11, "broken": 12}
    path = write(
        tmp_path / "r.jsonl",
        {name: () if name == "plain" else (instaboost(),) for name in obeyed},
        splits=("test",),
        passes=lambda arm, number, _: number < obeyed[arm],
        change=lambda one: {"fluent": one.arm != "broken"},
    )
    found = finding_of(summarise(read_results(path)).groups[0])
    assert found.arm == "sound"
    assert "broken gains more, +1.000. But its fluency (0.000) lies below 0.95." in found.beside


def test_curves_join_arms_that_differ_in_their_strength_alone(summary):
    (curve,) = curves_of(summary.group("unkind", "test"))
    assert (curve.name, curve.strength) == ("instaboost", "multiplier")
    assert curve.values == (2.0, 5.0, 10.0)
    assert [arm.success.value for arm in curve.arms] == [6 / 12, 1, 11 / 12]


def test_maps_hold_what_one_head_or_one_layer_alone_gains(summary):
    heads, layers = maps_of(summary.group("unkind", "test"))
    assert heads.name == "instaboost multiplier=5"
    assert (heads.layers, heads.heads, layers.heads) == (2, 2, None)
    gains = {at: round(12 * heads.gain(*at)) for at in heads.cells}
    assert gains == {(0, 0): 1, (0, 1): 6, (1, 0): 0, (1, 1): -1}
    assert heads.best == ((0, 1), pytest.approx(0.5))
    assert layers.gain(0, None) == pytest.approx(7 / 12)


@pytest.mark.parametrize(
    ("setting", "place"),
    [
        ({"heads": {"3": [5]}}, (3, 5)),
        ({"heads": {"3": [5, 6]}}, None),
        ({"heads": {"3": "all"}}, (3, None)),
        ({"heads": {"3": [5]}, "layers": "4"}, None),
        ({"layers": "3"}, (3, None)),
        ({"layers": [3]}, (3, None)),
        ({"layers": "3-4"}, None),
        ({"layers": "middle"}, None),
        ({"layers": "3", "heads": 0.5}, None),
    ],
)
def test_a_single_place_is_one_head_or_one_whole_layer(setting, place):
    assert single_place(instaboost(**setting)) == place


def test_the_front_are_the_arms_that_none_beats_in_both(summary):
    found = frontier_of(summary.group("unkind", "test"))
    points = found.points

    def beaten(one: Point) -> bool:
        return any(
            other.success >= one.success
            and other.safety >= one.safety
            and (other.success, other.safety) != (one.success, one.safety)
            for other in points
        )

    assert found.front == {point.arm for point in points if not beaten(point)}
    assert sorted(point.arm for point in points) == sorted(ARMS)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), unique=True, max_size=8))
def test_labels_hide_no_mark_and_no_other_label_where_there_is_room(grid):
    frame = Box(0, 0, 600, 600)
    marks = [(60 + 90.0 * x, 60 + 90.0 * y) for x, y in grid]
    boxes = placed([Label("0.35", at) for at in marks], marks, frame)
    for k, box in enumerate(boxes):
        assert box.over(frame) == pytest.approx(box.width * box.height)
        assert all(box.over(other) == 0 for other in boxes[:k])
        assert all(box.over(Box(x - 2, y - 2, 4, 4)) == 0 for x, y in marks)


@given(WORDS, WORDS)
def test_marked_words_put_together_are_the_two_texts(before, after):
    parts = differing(before, after)
    assert "".join(part.before for part in parts) == before
    assert "".join(part.after for part in parts) == after
    for part in parts:
        if part.kind == SAME:
            without_space = ["".join(text.split()) for text in (part.before, part.after)]
            assert without_space[0] == without_space[1]
        else:
            assert (part.before, part.after)[part.kind == GONE] == ""
            assert (part.before or part.after) == (part.before or part.after).strip(" \t\n")


def test_words_that_differ_are_marked_and_white_space_is_not():
    parts = differing("The sky  is blue.", "The sky is\nvery bleu.")
    marked = [(p.kind, p.before or p.after) for p in parts if p.kind != SAME]
    assert marked == [(GONE, "blue"), (NEW, "very bleu")]
    assert differing("a " * 2001, "a") is None


def test_numbers_are_written_for_people():
    assert (share(0.98649), share(None)) == ("0.986", "–")
    assert (signed(-0.5), signed(0.25), signed(-0.0001)) == ("−0.500", "+0.250", "0.000")
    assert (p_value(1.0), p_value(0.0312), p_value(0.00131)) == ("1", "0.031", "0.0013")
    assert p_value(5.8e-8) == "5.8\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}10⁻⁸"
    assert visible("half \ud800 \ufffe") == "half \ufffd \ufffd"


@pytest.mark.parametrize("text", [*UNKIND, "# head", "- list", "1. one", "> quote", "a_b _c_"])
def test_no_foreign_text_is_markup_in_markdown(text):
    line = markdown(text)
    assert "\n" not in line
    assert not re.search(r"(?<!\\)[`*\[\]<>&|~$]", line.replace("\\\\", ""))
    assert not re.match(r"[-+=#]|\d+[.)]", line)
    assert "http:" not in line
