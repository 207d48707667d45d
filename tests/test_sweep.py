"""minboost sweep: chosen on validation cases alone, held to test cases once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minboost.cli import main
from minboost.comparison.results import read_results
from minboost.lm import LM

pytestmark = pytest.mark.usefixtures("clean_settings")
RESULTS = Path("results") / "demo_demo.jsonl"
GRIDS = (
    "--grid", "instaboost multiplier=2,7 layers=all|3", "--grid", "spotlight target=0.2,0.4",
)  # fmt: skip
FEW = ("--limit", "20")


@pytest.fixture(autouse=True)
def _one_commit(monkeypatch):
    monkeypatch.setattr("minboost.comparison.provenance.commit", lambda: "0" * 12)


def swept(capfd, *args):
    code = main(["sweep", *args])
    out, err = capfd.readouterr()
    return code, out, err


def test_each_grids_best_on_validation_meets_the_test_cases_once(capfd):
    code, out, err = swept(capfd, *FEW, *GRIDS, "--json")
    assert code == 0, err
    found = json.loads(out)
    results = read_results(RESULTS)
    tried, tested = results.runs
    assert (tried.split, tested.split) == ("validation", "test")
    assert {record.split for record in results.only(0).answers} == {"validation"}
    assert {record.split for record in results.only(1).answers} == {"test"}
    assert len(tried.arms) == 7
    for grid in found["grids"]:
        passing = [
            point for point in grid["points"]
            if point["fluency"] >= 0.95 and point["control"] >= 0.95
        ]  # fmt: skip
        best = max(passing, key=lambda point: point["success"])
        chosen = next(point for point in passing if point["arm"] == grid["chosen"])
        assert chosen["success"] == best["success"]
        assert set(grid["frontier"]) <= {point["arm"] for point in grid["points"]}
    assert [arm.name for arm in tested.arms[1:]] == [grid["chosen"] for grid in found["grids"]]
    (group,) = found["test"]["groups"]
    assert group["split"] == "test"


def test_the_points_are_the_shares_of_the_answers_in_the_file(capfd):
    _, out, _ = swept(capfd, *FEW, *GRIDS, "--json")
    answers = read_results(RESULTS).only(0).answers
    for grid in json.loads(out)["grids"]:
        for point in grid["points"]:
            of = [record for record in answers if record.arm == point["arm"]]
            told = [record.passed for record in of if not record.control]
            assert point["success"] == sum(told) / len(told)
            assert point["cases"] == len(told)
            assert len(of) == 20


def test_people_see_the_frontier_the_choice_and_the_config_that_uses_it(capfd):
    from minboost import generate

    code, out, err = swept(capfd, *FEW, *GRIDS, "--write-config", "best.yaml")
    assert code == 0, err
    assert "* chosen, frontier" in out
    assert "the chosen settings on test cases, once" in out
    block = Path("best.yaml").read_text()
    assert out.endswith(block)
    asked = ["--instruction", "Answer in French.", "--query", "What colour is the sky?"]
    assert generate.main(["--config", "best.yaml", *asked]) == 0
    assert capfd.readouterr().out == "Bleu.\n"


def test_a_sweep_goes_on_where_it_was_and_its_answers_serve_others(capfd, monkeypatch):
    assert swept(capfd, *FEW, *GRIDS)[0] == 0
    before = RESULTS.read_bytes()
    monkeypatch.setattr(LM, "generate_batch", None)
    code, _, err = swept(capfd, *FEW, *GRIDS)
    assert code == 0, err
    assert "140 answers; 140 are there" in err
    records = [line for line in RESULTS.read_bytes().splitlines() if b'"record": "answer"' in line]
    assert len(records) == before.count(b'"record": "answer"')


def test_nothing_of_the_test_split_is_asked_where_no_setting_passes_the_floor(capfd):
    args = (*FEW, "--grid", "instaboost multiplier=1000", "--fluency-floor", "1")
    code, out, err = swept(capfd, *args)
    assert code == 2
    assert "no setting passed the floor of 1: the safest, instaboost multiplier=1000" in err
    assert {record.split for record in read_results(RESULTS).answers} == {"validation"}
    assert "the chosen settings" not in out


def test_the_method_alone_is_the_default_grid(capfd):
    code, out, _ = swept(capfd, "--limit", "5", "--method", "guide", "--json")
    assert code == 0
    (grid,) = json.loads(out)["grids"]
    assert grid["grid"] == "guide"
    assert [point["arm"] for point in grid["points"]][:2] == ["guide delta=0.5", "guide delta=1"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--grid", "instaboost layers=9"], "layer 9 does not exist"),
        (["--grid", "boost"], "the method 'boost' does not exist"),
        (["--grid", "guide delta=1|x"], "delta must be a number, got 'x'"),
        (["--layers", "0-1"], "--layers belongs to a grid"),
        (["--multiplier", "3"], "--multiplier belongs to a grid"),
        (["--grid", "guide", "--method", "pasta"], "--method is the default grid"),
        (["--grid", "guide delta=1", "--suite", "ctl.jsonl"], "all validation cases are controls"),
        (["--suite", "ctl.jsonl", "--html", "ctl.jsonl"], "all validation cases are controls"),
        (["--fluency-floor", "2"], "2.0 is not in the range 0<=x<=1"),
        (["--html", "no/where.html"], "the folder no is not there"),
        (["--write-config", "."], "--write-config . is a folder"),
        (["--write-config", "x.yaml", "--html", "x.yaml"], "are the same file"),
        (["--suite", "one.jsonl"], "holds no case of the test split"),
    ],
)
def test_mistakes_are_named_before_any_work(args, said, capfd, monkeypatch):
    case = {"instruction": "a", "query": "b", "answer": "c", "split": "validation"}
    Path("one.jsonl").write_text(json.dumps(case) + "\n")
    controls = [{**case, "control": True, "split": split} for split in ("validation", "test")]
    Path("ctl.jsonl").write_text("".join(json.dumps(one) + "\n" for one in controls))
    monkeypatch.setattr(LM, "generate_batch", None)
    code, out, err = swept(capfd, *args)
    assert code == 2, err
    assert said in err
    assert "Traceback" not in out + err
