"""Checkers: what holds for every text, and for every checker that a suite can write down."""

from __future__ import annotations

import json
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minboost.checkers import Checker, read_check
from minboost.checkers.amounts import Amount
from minboost.checkers.json_answer import difference, strict_json
from minboost.checkers.language import CODES
from minboost.checkers.letter_case import FORMS

words = st.text(st.characters(categories=("L", "Nd")), min_size=1, max_size=8)
anything = st.text(st.characters(), max_size=200)
spoken = st.lists(
    st.sampled_from(
        ["I", "cannot", "sorry,", "A", "(B)", "answer", "is", "B.", "not", "and", "- ", "\n", "1.",
         "```", '{"a":', "1", "}", "NaN", "Le", "ciel", "の", "天", "!", "…", "\u0301", "\ud800"]
    ),
    max_size=30,
).map(" ".join)  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def bounds(draw, least=1):
    low, high = sorted(draw(st.tuples(st.integers(1, 40), st.integers(1, 40))))
    return draw(
        st.sampled_from([{"exactly": low}, {"min": low}, {"max": high}, {"min": low, "max": high}])
    )


flags = st.booleans()
several = words | st.lists(words, min_size=1, max_size=3)
amounts = st.sampled_from(["words", "characters", "sentences", "lines", "paragraphs", "items"])
simple = st.one_of(
    st.builds(
        lambda name, texts, flag: {name: {"texts": texts, "ignore_case": flag}},
        st.sampled_from(["contains", "excludes", "starts_with", "ends_with"]), several, flags,
    ),
    st.builds(lambda texts, flag: {"exact": {"text": texts, "ignore_case": flag}}, several, flags),
    st.builds(lambda text, flag: {"regex": {"pattern": re.escape(text), "whole": flag}},
              words, flags),
    st.builds(lambda value, flag: {"json": {"equals": value, "fenced": flag}}, json_values, flags),
    st.builds(lambda value: {"json": {"schema": {"const": value}}}, json_values),
    st.builds(lambda letter, flag: {"choice": {"letter": letter, "only": flag}},
              st.sampled_from("ABCD"), flags),
    st.builds(lambda name, bound: {name: bound}, amounts, bounds()),
    st.builds(
        lambda word, bound, flag: {"keyword_count": {"keyword": word, "ignore_case": flag} | bound},
        words, bounds(), flags,
    ),
    st.builds(lambda form: {"case": form}, st.sampled_from(FORMS)),
    st.builds(lambda code, texts: {"language": {"code": code, "words": texts}},
              st.sampled_from(CODES), several),
    st.builds(lambda flag: {"refusal": flag}, flags),
)  # fmt: skip
forms = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda checks: {"all": checks}),
        st.lists(inner, min_size=1, max_size=3).map(lambda checks: {"any": checks}),
        inner.map(lambda check: {"not": check}),
    ),
    max_leaves=4,
)
slow_to_draw = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@slow_to_draw
@given(forms)
def test_a_checker_is_what_its_form_says(form):
    check = read_check(form)
    written = json.dumps(check.as_json())
    again = read_check(json.loads(written))
    assert again == check
    assert json.dumps(again.as_json()) == written
    assert hash(again) == hash(check)
    assert isinstance(check, Checker)


@slow_to_draw
@given(forms, anything | spoken)
def test_every_text_gets_a_verdict_with_a_reason_that_a_file_can_hold(form, text):
    verdict = read_check(form).check(text)
    assert verdict.passed in (True, False)
    assert verdict.why.strip()
    verdict.why.encode()
    assert "\n" not in verdict.why
    assert read_check(form).check(text) == verdict


@slow_to_draw
@given(st.lists(simple, min_size=1, max_size=3), anything | spoken)
def test_all_any_and_not_are_those_of_logic(checks, text):
    passed = [read_check(check).check(text).passed for check in checks]
    assert read_check({"all": checks}).check(text).passed is all(passed)
    assert read_check({"any": checks}).check(text).passed is any(passed)
    assert read_check({"not": checks[0]}).check(text).passed is not passed[0]
    none = {"all": [{"not": check} for check in checks]}
    assert (
        read_check(none).check(text).passed
        is read_check({"not": {"any": checks}}).check(text).passed
    )


@given(st.lists(words, min_size=1, max_size=3), anything)
def test_excludes_is_contains_none(texts, text):
    contains = [
        read_check({"contains": {"texts": one, "ignore_case": True}}).check(text) for one in texts
    ]
    excludes = read_check({"excludes": texts}).check(text)
    assert excludes.passed is not any(verdict.passed for verdict in contains)


@given(amounts, anything | spoken, bounds())
def test_bounds_hold_for_the_count_that_the_reason_tells(name, text, bound):
    check = read_check({name: bound})
    assert isinstance(check, Amount)
    verdict = check.check(text)
    count = int(verdict.why.split()[0])
    if "exactly" in bound:
        assert verdict.passed is (count == bound["exactly"])
    else:
        assert verdict.passed is (bound.get("min", 0) <= count <= bound.get("max", count))


latin = st.text("abcdefgé1", min_size=1, max_size=5)


@given(st.lists(latin, min_size=1, max_size=12), st.sampled_from([" ", "\n", " - ", "\t", ", "]))
def test_words_and_characters_are_as_many_as_were_put_together(parts, between):
    text = between.join(parts)
    assert read_check({"words": len(parts)}).check(text).passed
    assert read_check({"characters": len(text)}).check(f" {text}\n").passed


@given(
    st.lists(
        st.sampled_from(["cat", "Cat", "cats", "concat", "cat.", "a_cat", "(cat)"]), max_size=9
    )
)
def test_a_keyword_is_counted_as_word_boundaries_do(parts):
    text = " ".join(parts)
    count = len(re.findall(r"\bcat\b", text, re.IGNORECASE))
    assert read_check({"keyword_count": {"keyword": "cat", "exactly": count}}).check(text).passed


@given(st.integers(1, 9), st.sampled_from(["- ", "* ", "• ", "+ "]), st.integers(0, 2))
def test_items_are_those_of_the_outer_list(count, mark, nested):
    text = "".join(f"{mark}thing {i}\n" + f"    {mark}part\n" * nested for i in range(count))
    assert read_check({"items": count}).check(f"Here:\n\n{text}\nThat is all.").passed


@given(json_values, json_values)
def test_json_values_are_equal_when_their_sorted_texts_are(value, other):
    assert strict_json(json.dumps(value)) == value
    alike = json.dumps(value, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (difference(other, value) is None) is alike
    assert read_check({"json": {"equals": value}}).check(json.dumps(other)).passed is alike
    fenced = f"```json\n{json.dumps(value, indent=1)}\n```"
    assert read_check({"json": {"equals": value}}).check(fenced).passed


@given(
    st.sampled_from("ABCDEFGHI"),
    st.sampled_from(["{}", "{}.", "({})", "**{}**", "Answer: {}", "The answer is {}.", "{}) text",
                     "It is {}.", "I choose {}.", "So the correct option is **{}**.", "Option {}"]),
)  # fmt: skip
def test_a_letter_named_is_the_letter_chosen(letter, phrase):
    for wanted in "ABCDEFGHI":
        check = read_check({"choice": {"letter": wanted, "letters": "ABCDEFGHI"}})
        verdict = check.check(phrase.format(letter))
        assert verdict.why == f"chooses {letter}" + f", not {wanted}" * (letter != wanted)
