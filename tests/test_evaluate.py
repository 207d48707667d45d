"""Evaluation: what is counted, and that batches, reuse and order change none of it."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minboost
from minboost import Boost, Guide, InputError
from minboost.analysis.evaluate import Answered, Evaluation, evaluate
from minboost.analysis.fluency import CUT_OFF
from minboost.analysis.intervals import sign_test, wilson
from minboost.suites import Case, load_cases, sample

Z = 1.959964


@pytest.fixture(scope="module")
def demo():
    return minboost.load("demo", device="cpu")


@pytest.fixture(scope="module")
def cases():
    return sample(load_cases("demo", split="validation"), 24)


@pytest.fixture(scope="module")
def plain(demo, cases):
    return evaluate(demo, cases, None)


# Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3.
@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(successes, count, low, high):
    assert wilson(successes, count) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_ends_are_the_shares_that_lie_z_errors_away(counts):
    successes, count = counts
    for end in wilson(successes, count):
        gap = abs(successes / count - end)
        assert gap == pytest.approx(Z * math.sqrt(end * (1 - end) / count), abs=1e-7)


@pytest.mark.parametrize(("successes", "count"), [(0, 0), (-1, 5), (6, 5)])
def test_a_share_of_no_cases_has_no_interval(successes, count):
    with pytest.raises(InputError, match=f"{successes} of {count}"):
        wilson(successes, count)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 0), (0, 4), (5, 5), (7, 2), (2, 7)])
def test_the_sign_test_counts_the_splits_that_are_as_uneven(gained, lost):
    n = gained + lost
    splits = [sum(outcome) for outcome in product((0, 1), repeat=n)]
    uneven = [k for k in splits if abs(2 * k - n) >= abs(gained - lost)]
    assert sign_test(gained, lost) == pytest.approx(len(uneven) / len(splits))


def test_the_sign_test_bears_many_cases_and_refuses_negative_ones():
    assert 0 < sign_test(1100, 900) < 1e-5
    with pytest.raises(InputError, match="got -1 and 2"):
        sign_test(-1, 2)


def answered(*, passed, fluent=True, control=False):
    case = Case(instruction="a", query="b", answer="c", control=control)
    return Answered(case=case, text="", finish_reason="stop", passed=passed, fluent=fluent)


def test_success_and_control_are_of_their_own_cases_and_fluency_of_all():
    rows = [(True, True, False)] * 3 + [(False, False, False)] + [(True, False, True)] * 2
    found = Evaluation(tuple(answered(passed=p, fluent=f, control=c) for p, f, c in rows))
    assert (found.success, found.control, found.fluency, found.count) == (3 / 4, 1, 1 / 2, 6)
    assert found.success_interval == wilson(3, 4)
    assert found.control_interval == wilson(2, 2)
    assert found.fluency_interval == wilson(3, 6)


def test_a_share_of_no_cases_is_none():
    conflict, control = (Evaluation((answered(passed=True, control=c),)) for c in (False, True))
    assert conflict.control is conflict.control_interval is None
    assert control.success is control.success_interval is None


def test_answers_are_those_of_generate_in_the_order_of_the_cases(demo, cases):
    found = evaluate(demo, cases, Boost(30.0), batch=7)
    assert [one.case for one in found.answers] == list(cases)
    for one in found.answers:
        out = demo.generate(
            instruction=one.case.instruction, query=one.case.query, boost=Boost(30.0)
        )
        assert (one.text, one.finish_reason) == (out.text, out.finish_reason)
        assert one.passed == (out.finish_reason == "stop" and out.text == one.case.answer)
        assert one.fluent == (not one.faults)


def test_batches_and_reuse_of_the_plain_answers_change_nothing(demo, cases, plain):
    for method in (Boost(10.0), [Boost(20.0), Guide(1.0)]):
        found = evaluate(demo, cases, method)
        assert evaluate(demo, cases, method, batch=1, plain=plain) == found
    assert evaluate(demo, cases, None, batch=5, plain=plain) == plain


def test_the_boost_helps_where_there_is_conflict_and_does_no_harm_elsewhere(demo, cases, plain):
    boosted = evaluate(demo, cases, Boost(5.0), plain=plain)
    assert boosted.success > plain.success + 0.3
    assert boosted.control == plain.control == 1
    assert boosted.fluency == plain.fluency == 1


def test_a_cut_off_answer_neither_passes_nor_is_fluent(demo):
    texts = {"instruction": "Answer in French.", "query": "What colour is the sky?"}
    case = Case(**texts, answer="Bleu", match="contains")
    whole, cut = (evaluate(demo, [case], None, max_new_tokens=n).answers[0] for n in (8, 1))
    assert (whole.passed, whole.fluent) == (True, True)
    assert (cut.passed, cut.fluent) == (False, False)
    assert cut.text == "Bleu"
    assert CUT_OFF in cut.faults


def test_progress_counts_every_case(demo, cases):
    counts: list[int] = []
    evaluate(demo, cases, None, batch=10, progress=counts.append)
    assert counts == [10, 10, 4]


def test_the_role_reaches_the_prompt(demo, cases):
    # Without the chat template the demo model is outside of all it knows.
    assert evaluate(demo, cases, None, role="raw", max_new_tokens=4).success == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cases": []}, "no case to evaluate"),
        ({"batch": 0}, "batch must be an integer of at least 1, got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be"),
        ({"method": []}, "boost must be"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(demo, cases, changes, message):
    given = {"cases": cases, "method": None, **changes}
    with pytest.raises(InputError, match=message):
        evaluate(demo, given.pop("cases"), given.pop("method"), **given)


def test_a_plain_evaluation_of_other_cases_is_refused(demo, cases, plain):
    with pytest.raises(InputError, match="of other cases"):
        evaluate(demo, cases[:-1], Boost(), plain=plain)
