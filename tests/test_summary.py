"""Summaries of results made by hand, with numbers worked out by hand; and their tables."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from minboost.analysis.heatmap import printable
from minboost.analysis.intervals import sign_test, wilson
from minboost.commands.compare_table import lines
from minboost.commands.text_table import width_of
from minboost.comparison.paired import MCNEMAR, SIGN_FLIP
from minboost.comparison.records import ArmInfo, Rating, Record, RunInfo
from minboost.comparison.results import Results, ResultsFile, read_results
from minboost.comparison.statistics import FEW, PERCENTILE
from minboost.comparison.summary import summarise

SETTING = {"method": "instaboost", "multiplier": 7.0}


def record(arm, case, passed, *, run=1, **values):
    """A record; a case whose name starts with "c" is a control."""
    given = {
        "key": f"{values.get('suite', 'small')}/{values.get('split', 'test')}/{arm}/{case}/{run}",
        "suite": "small",
        "case": case,
        "task": "language",
        "split": "test",
        "control": case.startswith("c"),
        "instruction": "Answer in French.",
        "query": "What colour is the sky?",
        "arm": arm,
        "run": run,
        "seed": run,
        "text": "Bleu." if passed else "Blue.",
        "finish_reason": "stop",
        "new_tokens": 4,
        "passed": passed,
        "why": "" if passed else "not exactly 'Bleu.'",
        "parts": (passed,),
        "fluent": True,
        "faults": (),
        "repeated": None,
        "entropy": None,
        "excess": 0.0,
        "surprisal": 1.0,
    }
    return Record(**{**given, **values})


def results(records, *, missing=(), ratings=()):
    """What a results file with one command about ``records`` and the keys ``missing`` holds."""
    records = list(records)
    keys = {}
    for one in [*records, *missing]:
        keys.setdefault(one.arm, []).append(one.key)
    run = RunInfo(
        command="minboost compare",
        commit=None,
        versions={},
        suites={one.suite: "0" * 16 for one in records},
        split="all",
        arms=tuple(ArmInfo(name=arm, methods=() if arm == "plain" else (SETTING,)) for arm in keys),
        seed=42,
        runs=max((one.run for one in records), default=1),
        keys={arm: tuple(of) for arm, of in keys.items()},
    )
    return Results(
        path=None,
        head={"format": "minboost results 1"},
        runs=[run],
        records={one.key: one for one in records},
        ratings={(one.key, one.judge): one for one in ratings},
    )


def answers(arm, outcomes, **values):
    """Records of cases named by letters and numbers: {"a1": True, "c1": False}."""
    return [record(arm, case, passed, **values) for case, passed in outcomes.items()]


def shares(arm, gained, lost, both, **values):
    """Records of an arm, and of plain: so many cases gained, lost, and passed by both."""
    names = [f"a{number}" for number in range(gained + lost + both)]
    ours = [number < gained or number >= gained + lost for number in range(len(names))]
    theirs = [number >= gained for number in range(len(names))]
    return (
        answers(arm, dict(zip(names, ours, strict=True)), **values),
        answers("plain", dict(zip(names, theirs, strict=True)), **values),
    )


def only(summary):
    (group,) = summary.groups
    return group


PLAIN = {"a1": True, "a2": False, "a3": False, "a4": False, "c1": True, "c2": True}
STEERED = {"a1": False, "a2": True, "a3": True, "a4": True, "c1": True, "c2": False}


def test_the_figures_of_one_run_by_hand():
    group = only(summarise(results([*answers("plain", PLAIN), *answers("boosted", STEERED)])))
    plain, boosted = group.arms
    assert (group.suite, group.split, group.plain, group.notes) == ("small", "test", True, ())
    assert (plain.name, plain.methods, plain.versus) == ("plain", (), None)
    assert (boosted.name, boosted.methods) == ("boosted", (SETTING,))
    for arm in group.arms:
        assert (arm.cases, arm.controls, arm.runs, arm.answers) == (4, 2, 1, 6)
    # Plain passes 1 of 4 cases and both controls; boosted 3 of 4, and one control.
    assert (plain.success.value, plain.control.value) == (0.25, 1.0)
    assert (boosted.success.value, boosted.control.value) == (0.75, 0.5)
    assert boosted.success.method == FEW
    assert (boosted.success.low, boosted.success.high) == pytest.approx(wilson(3, 4))
    # Against plain a2, a3, a4 are gained and a1 is lost; controls do not count.
    versus = boosted.versus
    assert (versus.cases, versus.runs, versus.gained, versus.lost) == (4, 1, 3, 1)
    assert (versus.plain, versus.arm, versus.difference.value) == (0.25, 0.75, 0.5)
    # 2 · (1 + 4) / 2⁴; one arm, so nothing to correct.
    assert (versus.test, versus.p, versus.corrected, versus.family) == (MCNEMAR, 0.625, 0.625, 1)
    # 2·asin(√.75) − 2·asin(√.25) = 2π/3 − π/3.
    assert versus.cohens_h == pytest.approx(math.pi / 3)
    assert versus.odds_ratio.value == 3
    # Same words only on c1: of the six answers the others differ.
    assert (plain.unchanged, boosted.unchanged) == (None, pytest.approx(1 / 6))


def test_a_case_counts_with_the_mean_of_its_runs():
    # By case, of three runs:     a1  a2  a3  a4
    outcomes = {"plain": ("001", "000", "111", "010"), "boosted": ("111", "011", "110", "100")}
    records = [
        record(arm, f"a{number}", mark == "1", run=run)
        for arm, of_cases in outcomes.items()
        for number, marks in enumerate(of_cases, 1)
        for run, mark in enumerate(marks, 1)
    ]
    group = only(summarise(results(records)))
    plain, boosted = group.arms
    assert (boosted.cases, boosted.runs, boosted.answers) == (4, 3, 12)
    assert plain.success.value == pytest.approx(5 / 12)
    assert boosted.success.value == pytest.approx(8 / 12)
    assert (boosted.success.cases, boosted.success.answers) == (4, 12)
    # In thirds the cases differ by +2, +2, −1, 0. Of the 8 sums ±2 ±2 ±1 (5, 3, 1, −1, and their
    # opposites: 5 3 1 −1 1 −1 −3 −5) four are at least 3 away from 0.
    versus = boosted.versus
    assert (versus.test, versus.p) == (SIGN_FLIP, 0.5)
    assert (versus.gained, versus.lost, versus.runs) == (2, 1, 3)
    assert versus.difference.value == pytest.approx(0.25)
    assert [case.success("boosted") for case in group.cases] == pytest.approx(
        [1, 2 / 3, 2 / 3, 1 / 3]
    )
    assert [(case.gained, case.lost) for case in group.cases] == [
        (("boosted",), ()),
        (("boosted",), ()),
        ((), ("boosted",)),
        ((), ()),
    ]


def test_arms_are_corrected_together_within_a_suite_and_split():
    # McNemar, n gained and none lost: 2 / 2ⁿ. Holm sorts .0078125, .03125, .125 and multiplies by
    # 3, 2, 1: .0234375, .0625, .125.
    plain = answers("plain", {f"a{number}": number >= 8 for number in range(20)})
    # Only cases that plain fails can be gained: the first eight.
    steered = {
        name: answers(name, {f"a{number}": number >= 8 - gained for number in range(20)})
        for name, gained in (("six", 6), ("four", 4), ("eight", 8))
    }
    group = only(summarise(results([*plain, *steered["six"], *steered["four"], *steered["eight"]])))
    found = {arm.name: arm.versus for arm in group.arms[1:]}
    assert {name: versus.p for name, versus in found.items()} == {
        "six": 0.03125, "four": 0.125, "eight": 0.0078125
    }  # fmt: skip
    assert {name: versus.corrected for name, versus in found.items()} == pytest.approx(
        {"six": 0.0625, "four": 0.125, "eight": 0.0234375}
    )
    assert {versus.family for versus in found.values()} == {3}


def test_validation_and_test_and_suites_are_kept_apart():
    records = [
        *answers("plain", {"a1": True}, split="test"),
        *answers("plain", {"a2": False}, split="validation"),
        *answers("plain", {"a1": False}, suite="other"),
        *answers("boosted", {"a1": True}, split="test"),
        *answers("boosted", {"a2": True}, split="validation"),
        *answers("boosted", {"a1": True}, suite="other"),
    ]
    summary = summarise(results(records))
    assert [(group.suite, group.split) for group in summary.groups] == [
        ("small", "validation"), ("small", "test"), ("other", "test")
    ]  # fmt: skip
    assert [group.arm("boosted").versus.gained for group in summary.groups] == [1, 0, 1]
    assert {group.arm("boosted").versus.family for group in summary.groups} == {1}
    assert summary.group("small", "validation").arm("plain").success.value == 0
    assert summary.group("small", "neither") is None


def test_an_unfinished_arm_is_shown_and_compared_by_what_plain_answered_too():
    plain = answers("plain", {"a1": False, "a2": True, "a3": True, "c1": True})
    boosted = answers("boosted", {"a1": True, "a2": True})
    todo = answers("boosted", {"a3": False, "c1": True})
    summary = summarise(results([*plain, *boosted], missing=todo))
    group = only(summary)
    assert group.notes == ("boosted has 2 of 4 answers",)
    assert summary.notes == ("boosted: 2 of 4 answers are not there yet; the same command goes on",)
    steered = group.arm("boosted")
    assert (steered.answers, steered.success.value, steered.control) == (2, 1.0, None)
    assert (steered.versus.cases, steered.versus.plain, steered.versus.gained) == (2, 0.5, 1)
    assert group.arm("plain").success.value == pytest.approx(2 / 3)


def test_an_answer_without_a_plain_one_beside_it_counts_in_no_figure():
    plain = answers("plain", {"a1": False})
    boosted = answers("boosted", {"a1": True, "a2": False})
    group = only(summarise(results([*plain, *boosted])))
    assert group.notes == (
        "plain has 1 of 2 answers",
        "boosted is shown by the 1 of its 2 answers that have a plain one beside them",
    )
    assert group.arm("boosted").success.value == 1
    assert group.arm("boosted").answers == 1


def test_runs_that_only_one_side_has_are_left_out():
    plain = [record("plain", "a1", passed, run=run) for run, passed in ((1, False), (2, True))]
    boosted = [record("boosted", "a1", passed, run=run) for run, passed in ((2, True), (3, True))]
    group = only(summarise(results([*plain, *boosted])))
    versus = group.arm("boosted").versus
    assert (versus.runs, versus.plain, versus.arm, versus.gained) == (1, 1.0, 1.0, 0)
    assert group.cases[0].gained == ()


def test_without_plain_there_are_figures_and_no_comparison():
    group = only(summarise(results(answers("boosted", STEERED))))
    assert not group.plain
    assert group.notes == ("there is no plain arm here, and nothing to compare with",)
    arm = group.arm("boosted")
    assert (arm.success.value, arm.versus, arm.unchanged, arm.relative_perplexity) == (
        0.75, None, None, None
    )  # fmt: skip
    assert (group.tasks[0].arms[0].gained, group.differences) == (None, ())


def test_with_no_answer_in_common_there_is_no_comparison():
    records = [*answers("plain", {"a1": True}), *answers("boosted", {"a2": True})]
    group = only(summarise(results(records)))
    assert "no answer of boosted has a plain one beside it: it is not compared" in group.notes
    assert group.arm("boosted").success.value == 1
    assert group.arm("boosted").versus is None


def test_a_file_without_answers_says_so():
    plain = answers("plain", {"a1": True})
    summary = summarise(results([], missing=plain))
    assert summary.groups == ()
    assert summary.notes == ("plain: 1 of 1 answers are not there yet; the same command goes on",)
    assert summarise(Results(path=None)).notes == ("there is no answer yet",)


def test_controls_alone_have_no_success_and_no_comparison():
    records = [*answers("plain", {"c1": True}), *answers("boosted", {"c1": False})]
    group = only(summarise(results(records)))
    boosted = group.arm("boosted")
    assert (boosted.success, boosted.checks, boosted.versus) == (None, None, None)
    assert boosted.control.value == 0
    assert group.differences[0].lost == ("boosted",)
    assert lines(summarise(results(records)))


def test_perplexity_beside_plains_by_hand():
    # Nats a token of plain and arm; the ratios are e^.5, e^0, e^−1, e^1. c1 has none on one side.
    surprisals = {"a1": (1.0, 1.5), "a2": (2.0, 2.0), "a3": (2.0, 1.0), "a4": (0.5, 1.5)}
    records = [
        record(arm, case, True, surprisal=both[at])
        for at, arm in enumerate(("plain", "boosted"))
        for case, both in surprisals.items()
    ]
    records += [record("plain", "c1", True), record("boosted", "c1", True, surprisal=None)]
    group = only(summarise(results(records)))
    plain, boosted = group.arms
    # Plain: (1 + 2 + 2 + .5 + 1) / 5 = 1.3 nats; boosted: (1.5 + 2 + 1 + 1.5) / 4 = 1.5.
    assert plain.perplexity == pytest.approx(math.exp(1.3))
    assert boosted.perplexity == pytest.approx(math.exp(1.5))
    beside = boosted.relative_perplexity
    assert plain.relative_perplexity is None
    # The median of −1, 0, .5, 1 is .25, and their mean .125.
    assert (beside.pairs, beside.median) == (4, pytest.approx(math.exp(0.25)))
    mean = beside.geometric_mean
    assert mean.value == pytest.approx(math.exp(0.125))
    assert 0 < mean.low < mean.value < mean.high


def test_each_case_counts_once_in_the_geometric_mean():
    # a1 in two runs +1 and +1, a2 in one run −1: the cases' means are 1 and −1, the median is 1.
    records = [
        *(record("plain", "a1", True, run=run, surprisal=1.0) for run in (1, 2)),
        record("plain", "a2", True, surprisal=1.0),
        *(record("boosted", "a1", True, run=run, surprisal=2.0) for run in (1, 2)),
        record("boosted", "a2", True, surprisal=0.0),
    ]
    beside = only(summarise(results(records))).arm("boosted").relative_perplexity
    assert beside.geometric_mean.value == pytest.approx(1)
    assert beside.median == pytest.approx(math.e)


def test_lengths_measures_and_faults_by_hand():
    records = [
        record("plain", "a1", True, new_tokens=4, repeated=0.25, entropy=3.5),
        record("plain", "a2", False, new_tokens=11, repeated=0.75, finish_reason="length",
               fluent=False, faults=("cut off", "repetitive"), excess=2.0),
        record("plain", "c1", False, new_tokens=0, text="", surprisal=None, excess=None,
               fluent=False, faults=("empty",)),
        record("plain", "c2", True, fluent=False, faults=("repetitive",), new_tokens=1),
    ]  # fmt: skip
    group = only(summarise(results(records)))
    (arm,) = group.arms
    assert (arm.length, arm.cut_off, arm.fluency.value) == (4.0, 0.25, 0.25)
    assert (arm.repeated.value, arm.repeated.answers) == (0.5, 2)
    assert (arm.entropy.value, arm.entropy.answers) == (3.5, 1)
    assert (arm.excess.value, arm.excess.answers) == (pytest.approx(2 / 3), 3)
    assert list(arm.faults.items()) == [("repetitive", 2), ("cut off", 1), ("empty", 1)]
    assert group.notes == (
        "1 of the 4 plain answers were cut off, and count as failed: raise --max-new-tokens",
    )


def test_single_checks_are_counted_one_by_one():
    # 3 of 3, 0 of 1, 1 of 2: 4 of 6 checks, where 1 of 3 cases passes. Controls are left out.
    records = [
        record("plain", "a1", True, parts=(True, True, True)),
        record("plain", "a2", False, parts=(False,)),
        record("plain", "a3", False, parts=(True, False)),
        record("plain", "c1", True, parts=(True, True)),
    ]
    (arm,) = only(summarise(results(records))).arms
    assert arm.success.value == pytest.approx(1 / 3)
    assert (arm.checks.value, arm.checks.answers, arm.checks.cases) == (pytest.approx(4 / 6), 6, 3)


def test_ratings_are_of_each_judge_and_each_arm():
    plain, boosted = (answers(arm, {"a1": True, "a2": True}) for arm in ("plain", "boosted"))
    ratings = [
        Rating(key=one.key, judge=judge, score=score, words="")
        for one, judge, score in (
            (plain[0], "model b", 2.0),
            (plain[1], "model b", 1.0),
            (boosted[0], "model b", 0.5),
            (boosted[0], "model a", 1.0),
        )
    ]
    ratings.append(Rating(key="of another answer", judge="model c", score=0.0, words=""))
    group = only(summarise(results([*plain, *boosted], ratings=ratings)))
    found = {
        arm.name: {one.judge: (one.score.value, one.score.cases) for one in arm.ratings}
        for arm in group.arms
    }
    assert found == {
        "plain": {"model b": (1.5, 2)},
        "boosted": {"model a": (1.0, 1), "model b": (0.5, 1)},
    }
    shown = lines(summarise(results([*plain, *boosted], ratings=ratings)))
    at = next(n for n, line in enumerate(shown) if line.startswith("rated 0 to 2 by"))
    assert shown[at].split()[-4:] == ["model", "a", "model", "b"]
    assert shown[at + 2].startswith("boosted")
    assert "0.50 [" in shown[at + 2]


def test_tasks_have_their_own_shares():
    plain = answers("plain", {"a1": False, "a2": True, "c1": True}, task="language")
    plain += answers("plain", {"b1": True}, task="json")
    boosted = answers("boosted", {"a1": True, "a2": True, "c1": False}, task="language")
    boosted += answers("boosted", {"b1": False}, task="json")
    group = only(summarise(results([*plain, *boosted])))
    language, json_task = group.tasks
    assert (language.task, language.cases, language.controls) == ("language", 2, 1)
    assert (json_task.task, json_task.cases, json_task.controls) == ("json", 1, 0)
    steered = language.arm("boosted")
    assert (steered.success.value, steered.control.value) == (1.0, 0.0)
    assert (steered.gained, steered.lost) == (1, 0)
    assert (language.arm("plain").success.value, language.arm("plain").gained) == (0.5, None)
    assert (json_task.arm("boosted").lost, json_task.arm("boosted").control) == (1, None)
    assert json_task.arm("nobody") is None


def test_each_case_says_who_gained_and_who_lost():
    group = only(summarise(results([*answers("plain", PLAIN), *answers("boosted", STEERED)])))
    assert {case.case: (case.gained, case.lost) for case in group.differences} == {
        "a1": ((), ("boosted",)),
        "a2": (("boosted",), ()),
        "a3": (("boosted",), ()),
        "a4": (("boosted",), ()),
        "c2": ((), ("boosted",)),
    }
    assert group.cases[0].answers["boosted"][0].text == "Blue."
    assert group.cases[0].success("nobody") is None


def test_the_summary_is_the_same_in_whatever_order_the_answers_came():
    records = [*answers("plain", PLAIN), *answers("boosted", STEERED)]
    first = only(summarise(results(records)))
    second = only(summarise(results(records[::-1])))
    assert first.arms == second.arms
    assert first.arm("plain") == first.arms[0]


def test_a_summary_is_plain_json_with_null_for_what_is_infinite():
    steered, plain = shares("boosted", 3, 0, 9)
    group = only(summarise(results([*plain, *steered])))
    assert group.arm("boosted").versus.odds_ratio.value == math.inf
    said = summarise(results([*plain, *steered])).as_json()
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    (found,) = said["groups"]
    versus = found["arms"][1]["versus"]
    assert versus["odds_ratio"]["value"] is None
    assert versus["odds_ratio"]["gained"] == 3
    assert versus["difference"]["method"] == PERCENTILE
    assert found["cases"][0]["answers"]["boosted"] == [
        {"run": 1, "key": steered[0].key, "passed": True, "fluent": True}
    ]


def test_a_summary_of_a_file_is_that_of_its_answers(tmp_path):
    made = results([*answers("plain", PLAIN), *answers("boosted", STEERED)])
    path = tmp_path / "results.jsonl"
    with ResultsFile(path, {"model": "demo"}) as file:
        file.add_run(made.runs[0])
        file.add(made.records.values())
    assert summarise(read_results(path)) == summarise(made)


# ---- tables


def many(count=40):
    """Three arms over ``count`` cases of two tasks: the second gains a half and loses a tenth."""
    names = [f"a{number}" for number in range(count)]
    plain = [
        record("plain", name, n % 2 == 0, task=f"task {n % 2}") for n, name in enumerate(names)
    ]
    strong = [
        record("all_layers", name, n % 10 != 0, task=f"task {n % 2}")
        for n, name in enumerate(names)
    ]
    weak = [replace(one, arm="middle_layers", key=f"weak {one.case}") for one in plain]
    return [*plain, *strong, *weak]


def test_the_table_says_the_figures():
    summary = summarise(results(many()))
    shown = lines(summary)
    assert shown[0] == "small, test split: 40 cases"
    plain, strong, weak = shown[2:5]
    assert plain.split()[:2] == ["plain", "0.500"]
    assert strong.split()[:2] == ["all_layers", "0.900"]
    # 20 gained and 4 lost of 40: +16/40. Holm: twice McNemar's p, and the other arm's is 1.
    assert "+0.400 [" in strong
    p = 2 * sign_test(20, 4)
    assert f"{p:.3f}" == "0.003"
    assert strong.endswith("0.003**")
    assert weak.endswith("+0.000 [-0.088, +0.088]  1.000")
    assert "p: exact McNemar test against plain, Holm-corrected for 2 arms" in shown
    assert "p is * below 0.05, ** below 0.01, *** below 0.001" in shown
    tasks = next(n for n, line in enumerate(shown) if line.startswith("success by task"))
    assert shown[tasks].split() == [
        "success", "by", "task", "cases", "plain", "all_layers", "middle_layers"
    ]  # fmt: skip
    assert shown[tasks + 1].split()[:4] == ["task", "0", "20", "1.000"]
    odds = next(line for line in shown if "5.00 [" in line)
    assert odds.split()[:3] == ["all_layers", "20", "4"]


def test_columns_stand_under_their_heads():
    shown = lines(summarise(results(many())))
    at = shown[1].index("success"), shown[1].index("difference"), shown[1].index("p (Holm)")
    for line in shown[3:5]:
        assert all(line[column - 1] == " " and line[column] != " " for column in at)


def test_differences_are_shown_by_turns_with_both_answers_and_why():
    shown = lines(summarise(results(many())), diffs=2)
    at = shown.index("24 cases came out otherwise than plain; 2 of them:")
    assert shown[at + 1 :] == [
        "",
        "a1 (gained by all_layers)",
        "  told:  Answer in French.",
        "  asked: What colour is the sky?",
        "  plain       fails   Blue.",
        "                      (not exactly 'Bleu.')",
        "  all_layers  passes  Bleu.",
        "",
        "a0 (lost by all_layers)",
        "  told:  Answer in French.",
        "  asked: What colour is the sky?",
        "  plain       passes  Bleu.",
        "  all_layers  fails   Blue.",
        "                      (not exactly 'Bleu.')",
    ]
    assert not any(
        "otherwise than plain" in line for line in lines(summarise(results(many())), diffs=0)
    )


def test_of_several_runs_the_first_telling_one_is_shown():
    outcomes = {"plain": "110", "boosted": "100"}
    records = [
        record(arm, "a1", mark == "1", run=run, text=f"{arm} in run {run}")
        for arm, marks in outcomes.items()
        for run, mark in enumerate(marks, 1)
    ]
    shown = lines(summarise(results(records)))
    assert shown[0] == "small, test split: 1 case, 3 runs of each"
    assert "a1 (lost by boosted; answers of run 2)" in shown
    assert "  plain    passes (2 of 3 pass)  plain in run 2" in shown
    assert "  boosted  fails  (1 of 3 pass)  boosted in run 2" in shown


LONG = (
    "instaboost multiplier=2 layers=0-3 span=prefix",
    "instaboost multiplier=2 layers=9-3 span=prefix",
)


@pytest.mark.parametrize("runs", [1, 5], ids=["one run", "five runs"])
def test_no_line_is_wider_than_the_terminal(runs):
    text = "\x1b[31m 東京は日本の首都です。\n" * 20
    kinds = [f"detectable_format:{'x' * n}" for n in (3, 40)]
    arms = ["plain", *LONG, *(f"spotlight target=0.{n}" for n in range(12))]
    records = [
        record(arm, f"a{n}", (n + at) % 3 == 0, run=run, text=text, query=text, instruction=text,
               why=text, task=kinds[n % 2], suite="s" * 120, finish_reason="length",
               parts=(True, False))
        for at, arm in enumerate(arms)
        for n in range(6)
        for run in range(1, runs + 1)
    ]  # fmt: skip
    ratings = [
        Rating(key=one.key, judge=f"judge {n} {'y' * 50}", score=1.0, words="")
        for one in records
        for n in range(4)
    ]
    shown = lines(summarise(results(records, ratings=ratings)))
    assert max(map(width_of, shown)) <= 100
    assert all(line.isprintable() for line in shown)
    # Names that are alike but for their middles stay apart, and are told in full.
    assert any(line.endswith(f" is {LONG[0]}") for line in shown)
    names = [line[:24].rstrip() for line in shown[2 : 2 + len(arms)]]
    assert len(set(names)) == len(arms)


def test_a_plain_terminal_gets_plain_characters():
    shown = lines(summarise(results(many())))
    assert all(printable(line, "ascii").isascii() for line in shown)
    assert "?" not in "".join(printable(line, "ascii") for line in shown[:15])


def test_notes_are_told_under_their_tables():
    plain = answers("plain", {"a1": False, "a2": True})
    todo = answers("boosted", {"a2": True})
    found = summarise(results([*plain, *answers("boosted", {"a1": True})], missing=todo))
    shown = lines(found)
    assert "note: boosted has 1 of 2 answers" in shown
    assert shown[-1] == (
        "note: boosted: 1 of 2 answers are not there yet; the same command goes on"
    )
