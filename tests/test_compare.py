"""minboost compare: every case under every arm, once, whatever happens in between."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import minboost
from minboost.cli import main
from minboost.comparison.arms import parse_arms, plain_arm, with_plain
from minboost.comparison.csv_file import FIRST
from minboost.comparison.jobs import Generating, batches_of, jobs_of
from minboost.comparison.results import read_results
from minboost.lm import LM
from minboost.suites import load_suite

from .judge_server import JudgeServer, score

pytestmark = pytest.mark.usefixtures("clean_settings")
RESULTS = Path("results") / "demo_demo.jsonl"
FEW = ("--limit", "4", "--batch-size", "10")


@pytest.fixture(scope="module")
def lm():
    return minboost.load("demo", device="cpu")


@pytest.fixture(autouse=True)
def _one_commit(monkeypatch):
    """Of a run the commit is noted: asking git takes longer than these runs."""
    monkeypatch.setattr("minboost.comparison.provenance.commit", lambda: "0" * 12)


def compared(capfd, *args):
    code = main(["compare", *args])
    out, err = capfd.readouterr()
    return code, out, err


def rows(folder="results"):
    (*_, path) = sorted(Path(folder).glob("instaboost_results_*.csv"))
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_default_arms_are_plain_all_layers_and_the_middle_ones(capfd):
    code, out, err = compared(capfd, *FEW)
    assert code == 0, err
    assert "demo: 8 cases x 3 arms = 24 answers" in err
    assert "the model has 4 layers and none from start_layer 8 on" in err
    results = read_results(RESULTS)
    assert list(results.arms) == ["plain", "all_layers", "middle_layers"]
    (middle,) = results.arms["middle_layers"].methods
    assert (middle["layers"], middle["multiplier"]) == ("1-2", 10.0)
    assert "demo, validation split" in out
    assert "demo, test split" in out


def test_the_csv_has_the_product_columns_first_and_every_answer(capfd, lm):
    assert compared(capfd, *FEW, "--arm", "instaboost multiplier=5")[0] == 0
    table = rows()
    assert tuple(list(table[0])[: len(FIRST)]) == FIRST
    assert len(table) == 8
    cases = {case.name: case for case in load_suite("demo").cases}
    for row in table:
        case = cases[row["test_case"]]
        assert (row["instruction"], row["query"]) == (case.instruction, case.query)
        asked = {"instruction": case.instruction, "query": case.query}
        plain = lm.generate(**asked).text
        boosted = lm.generate(**asked, boost=minboost.Boost(5.0)).text
        assert row["original_output"] == plain
        assert row["original_length"] == str(len(plain))
        assert row["instaboost_multiplier_5_output"] == boosted
        passed = case.passed(boosted, finished=True)
        assert row["instaboost_multiplier_5_passed"] == str(passed).lower()
        assert (row["all_layers_output"], row["run_index"]) == ("", "1")


def test_csv_files_are_numbered_and_the_default_arms_have_the_product_columns(capfd):
    assert compared(capfd, *FEW)[0] == 0
    assert compared(capfd, *FEW)[0] == 0
    names = sorted(path.name for path in Path("results").glob("*.csv"))
    assert [name[:22] for name in names] == ["instaboost_results_001", "instaboost_results_002"]
    first = rows()[0]
    assert first["all_layers_length"] == str(len(first["all_layers_output"]))
    assert first["middle_layers_output"]


def contents(folder):
    """The bytes of the results file and of the last table."""
    (*_, table) = sorted(Path(folder).glob("*.csv"))
    return (Path(folder) / "demo_demo.jsonl").read_bytes(), table.read_bytes()


def test_the_same_command_twice_gives_the_same_bytes_and_a_third_time_asks_nothing(
    capfd, monkeypatch
):
    both = []
    for folder in ("one", "two"):
        Path(folder).mkdir()
        monkeypatch.chdir(folder)
        assert compared(capfd, *FEW, "--temperature", "0.9", "--num-runs", "2")[0] == 0
        both.append(contents("results"))
        monkeypatch.chdir("..")
    assert both[0] == both[1]
    monkeypatch.chdir("one")
    monkeypatch.setattr(LM, "generate_batch", None)
    code, _, err = compared(capfd, *FEW, "--temperature", "0.9", "--num-runs", "2")
    assert code == 0, err
    assert "48 answers; 48 are there" in err
    assert contents("results") == both[0]


def answers(path=RESULTS):
    return {
        (record.suite, record.case, record.arm, record.run): (record.text, record.seed)
        for record in read_results(path).answers
    }


SAMPLED = ("--temperature", "1.2", "--num-runs", "2", "--limit", "3")


def test_neither_batch_nor_other_arms_nor_other_suites_change_an_answer(capfd):
    """The seed of an answer follows from its case and run alone."""
    one, two = ("--arm", "instaboost multiplier=3"), ("--arm", "guide delta=2")
    assert compared(capfd, *SAMPLED, *one, "--results", "a.jsonl")[0] == 0
    assert compared(capfd, *SAMPLED, *one, "--results", "b.jsonl", "--batch-size", "1")[0] == 0
    suites = ("--suite", "multiple-choice", "--suite", "demo")
    assert compared(capfd, *SAMPLED, *two, *one, *suites, "--results", "c.jsonl")[0] == 0
    alone = answers(Path("a.jsonl"))
    assert answers(Path("b.jsonl")) == alone
    other = answers(Path("c.jsonl"))
    assert {place: other[place] for place in alone} == alone
    assert len({seed for _, seed in alone.values()}) == 12  # 6 cases, 2 runs; arms share them


def test_only_what_is_missing_is_asked(capfd, monkeypatch):
    assert compared(capfd, *FEW, "--arm", "instaboost multiplier=3")[0] == 0
    before = RESULTS.read_bytes()
    asked = []
    generate_batch = LM.generate_batch

    def counted(self, requests, **rest):
        asked.extend(requests)
        return generate_batch(self, requests, **rest)

    monkeypatch.setattr(LM, "generate_batch", counted)
    arms = ("--arm", "instaboost multiplier=3", "--arm", "instaboost multiplier=5")
    code, _, err = compared(capfd, *FEW, *arms)
    assert code == 0
    assert "24 answers; 16 are there" in err
    assert [request.boost for request in asked] == [(minboost.Boost(5.0),)] * 8
    assert RESULTS.read_bytes().startswith(before)


def test_an_arm_of_another_name_with_the_same_settings_shares_its_answers(capfd, monkeypatch):
    assert compared(capfd, *FEW, "--arm", "instaboost multiplier=10")[0] == 0
    monkeypatch.setattr(LM, "generate_batch", None)
    Path("arms.yaml").write_text("- {name: ten, method: instaboost, multiplier: 10}\n")
    assert compared(capfd, *FEW, "--arms", "arms.yaml")[0] == 0
    assert all(row["ten_output"] for row in rows())


SUITE = """
name: own
cases:
  - {name: sky, instruction: Answer in French., query: "What colour is the sky?",
     checks: [{exact: CHECK}]}
"""


def test_an_answer_is_judged_anew_when_its_checks_change_but_not_asked_again(capfd, monkeypatch):
    suite = Path("own.yaml")
    suite.write_text(SUITE.replace("CHECK", "Rouge."))
    args = ("--suite", "own.yaml", "--arm", "instaboost multiplier=5", "--results", "own.jsonl")
    assert compared(capfd, *args)[0] == 0
    assert not any(record.passed for record in read_results(Path("own.jsonl")).answers)
    suite.write_text(SUITE.replace("CHECK", "Bleu."))
    monkeypatch.setattr(LM, "generate_batch", None)
    code, _, err = compared(capfd, *args)
    assert code == 0, err
    found = read_results(Path("own.jsonl")).answers
    assert [(record.passed, record.why) for record in found] == [(True, "")] * 2


def test_greedy_runs_are_one_and_a_note_says_so(capfd):
    Path("config.yaml").write_text("testing: {num_runs: 3}\ninstaboost: {multiplier: 4}\n")
    code, _, err = compared(capfd, *FEW)
    assert code == 0
    assert "greedy answers are the same in every run: 1 run instead of 3" in err
    assert "x 3 arms = 24 answers" in err
    assert read_results(RESULTS).arms["all_layers"].methods[0]["multiplier"] == 4.0


def run_apart(*args, folder=None):
    code = "import sys; from minboost.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, "compare", *args],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines_of(path):
    return path.read_bytes().count(b'"record": "answer"') if path.exists() else 0


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_run_that_was_stopped_goes_on_and_ends_as_if_it_had_not_been(sign, tmp_path):
    args = ("--limit", "25", "--batch-size", "6")
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    for folder in (stopped, whole):
        folder.mkdir()
    path = stopped / RESULTS
    process = run_apart(*args, folder=stopped)
    while lines_of(path) < 15 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(sign)
    _, err = process.communicate()
    there = lines_of(path)
    assert 15 <= there < 150
    if sign == signal.SIGINT:
        assert process.returncode == 130
        assert f"{there} of 150 answers are in {RESULTS}" in err
    for folder in (stopped, whole):
        process = run_apart(*args, folder=folder)
        _, err = process.communicate()
        assert process.returncode == 0, err
    assert contents(stopped / "results") == contents(whole / "results")


def test_a_batch_that_does_not_fit_is_halved(capfd, monkeypatch, lm):
    import torch

    generate_batch = LM.generate_batch

    def small(self, requests, **rest):
        if len(requests) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate_batch(self, requests, **rest)

    assert compared(capfd, *FEW, "--results", "all.jsonl")[0] == 0
    monkeypatch.setattr(LM, "generate_batch", small)
    assert compared(capfd, *FEW, "--results", "small.jsonl")[0] == 0
    assert answers(Path("small.jsonl")) == answers(Path("all.jsonl"))


def test_published_targets_get_batches_of_their_own(lm):
    arms = with_plain(
        [
            *parse_arms("spotlight target=0.4", {}),
            *parse_arms("spotlight target=0.4 form=published", {}),
        ]
    )
    jobs = jobs_of(lm, [load_suite("demo")], arms, model="m", generating=Generating())
    batches = batches_of(jobs, 50)
    assert all(len({job.published for job in batch}) == 1 for batch in batches)
    assert sorted(job.key for batch in batches for job in batch) == sorted(job.key for job in jobs)
    backwards = batches_of(jobs[::-1], 50)
    assert [[job.key for job in batch] for batch in backwards] == [
        [job.key for job in batch] for batch in batches
    ]


def test_a_key_follows_what_the_answer_depends_on(lm):
    suite = load_suite("demo")

    def keys(arm=None, **changes):
        rest = {"model": "m", "generating": Generating(), "runs": 1, "seed": 42, **changes}
        arm = arm or plain_arm()
        return {job.key for job in jobs_of(lm, [suite], [arm], **rest)}

    base = keys()
    assert len(base) == len(suite.cases)
    (boosted,) = parse_arms("instaboost multiplier=3", {})
    for other in (
        keys(model="n"),
        keys(boosted),
        keys(generating=Generating(max_new_tokens=3)),
        keys(generating=Generating(role="user")),
        keys(generating=Generating(stop=("x",))),
        keys(generating=Generating(temperature=0.5)),
    ):
        assert not base & other
    assert keys(seed=1) == base  # greedy answers know no seed
    sampled = Generating(temperature=0.5)
    assert not keys(generating=sampled) & keys(generating=sampled, seed=1)


def test_json_holds_paths_notes_and_the_summary(capfd):
    code, out, _ = compared(capfd, *FEW, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["results"] == str(RESULTS)
    assert Path(found["csv"]).exists()
    assert found["model"] == "demo"
    assert {group["split"] for group in found["groups"]} == {"validation", "test"}
    assert "start_layer" in found["notes"][0]


def test_the_report_comes_with_it(capfd):
    assert compared(capfd, *FEW, "--html", "report.html")[0] == 0
    assert "middle_layers" in Path("report.html").read_text(encoding="utf-8")


def test_a_judge_rates_each_answer_once_and_a_rerun_asks_nothing(capfd):
    with JudgeServer(lambda seen: score(2)) as server:
        judge = ("--judge", server.url, "--judge-model", "tester")
        assert compared(capfd, *FEW, *judge)[0] == 0
        results = read_results(RESULTS)
        assert {key for key, _ in results.ratings} == set(results.records)
        assert {rating.score for rating in results.ratings.values()} == {2.0}
        asked = len(server.seen)
        assert asked == len({(r.query, r.text) for r in results.answers})
        assert compared(capfd, *FEW, *judge)[0] == 0
        assert len(server.seen) == asked


LONG = json.dumps({"instruction": "Answer.", "query": "word " * 3000, "answer": "x"})
MISTAKES = {
    "layers": (["--layers", "1"], "layers belong to an arm: --arm 'instaboost layers=8-12'"),
    "a method beside arms": (
        ["--arm", "guide", "--method", "pasta"],
        "--method is for the default arms; an --arm names its own",
    ),
    "a strength beside arms": (
        ["--arm", "guide", "--multiplier", "3"],
        "--multiplier is for the default arms",
    ),
    "an unknown arm": (["--arm", "boosting"], "the method 'boosting' does not exist"),
    "a layer": (
        ["--arm", "guide layers=9"],
        "suite demo, case language-001, arm guide delta=1 layers=9: layer 9 does not exist",
    ),
    "the middle": (["--start-layer", "7"], "start_layer 7 of layers='middle' does not exist"),
    "the middle, said": (["--start-layer", "8"], "start_layer 8 of layers='middle' does not"),
    "an unknown suite": (["--suite", "demos"], "the suite demos does not exist; shipped: demo"),
    "no split": (["--suite", "one.yaml", "--split", "test"], "no case of the test split"),
    "twins": (["--suite", "own.yaml", "--suite", "sub/own.yaml"], "two of the suites are called"),
    "too long": (["--suite", "long.jsonl"], "suite long, case default-001, arm plain: the prompt"),
    "no limit": (["--limit", "0"], "the limit must be at least 1 case"),
    "no runs": (["--num-runs", "0"], "--num-runs must be at least 1, got 0"),
    "no batch": (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
    "a folder that is a file": (["--out", "own.yaml"], "the folder own.yaml cannot be made"),
    "results that are a folder": (["--results", "sub"], "--results sub is a folder"),
    "a report nowhere": (["--html", "no/where.html"], "the folder no is not there"),
    "a report on its input": (["--html", "r.jsonl", "--results", "r.jsonl"], "are the same file"),
    "half a judge": (["--judge", "http://localhost:1/v1"], "--judge and --judge-model belong"),
    "an arms file": (["--arms", "none.yaml"], "the arms file none.yaml cannot be read"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_before_any_work(name, capfd, monkeypatch):
    Path("sub").mkdir()
    for path in ("own.yaml", "sub/own.yaml"):
        Path(path).write_text(SUITE.replace("CHECK", "Bleu."))
    Path("one.yaml").write_text(SUITE.replace("sky,", "sky, split: validation,"))
    Path("long.jsonl").write_text(LONG + "\n")
    monkeypatch.setattr(LM, "generate_batch", None)
    args, said = MISTAKES[name]
    code, out, err = compared(capfd, *args)
    assert code == 2, err
    assert said in err
    assert "Traceback" not in out + err
    assert not list(Path("results").glob("*.csv"))


def test_answers_under_other_settings_do_not_mix_in_one_file(capfd):
    assert compared(capfd, *FEW)[0] == 0
    before = RESULTS.read_bytes()
    code, _, err = compared(capfd, *FEW, "--max-new-tokens", "5")
    assert code == 2
    assert "are of another run: generation is" in err
    assert RESULTS.read_bytes() == before
    assert compared(capfd, *FEW, "--max-new-tokens", "5", "--restart")[0] == 0
    assert RESULTS.read_bytes() != before


def test_a_second_process_on_the_same_file_is_refused(capfd, tmp_path):
    Path("results").mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys, fcntl\n"
         f"f = open({str(tmp_path / 'results' / '.demo_demo.jsonl.lock')!r}, 'w')\n"
         "fcntl.flock(f, fcntl.LOCK_EX)\nprint('held', flush=True)\nsys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with holder:
        assert holder.stdout.readline() == b"held\n"
        code, _, err = compared(capfd, *FEW)
        assert code == 2
        assert f"another process is writing to {RESULTS}" in err
        holder.kill()
    assert compared(capfd, *FEW)[0] == 0


def test_moving_guides_tags_is_another_question_though_the_prompt_is_the_same(capfd):
    def asked(instruction, query):
        case = {"instruction": instruction, "query": query, "answer": "x", "name": "one"}
        Path("tags.jsonl").write_text(json.dumps(case) + "\n")
        args = ("--suite", "tags.jsonl", "--arm", "guide delta=2", "--results", "tags-r.jsonl")
        return compared(capfd, *args)[2]

    asked("<!!-> Answer in German. <-!!>", "What animal bleats?")
    # Only the arm that reads tags has the same prompt; its span is another.
    assert "are there" not in asked("Answer in German.", "<!!-> What animal bleats? <-!!>")


def test_a_text_with_a_lone_carriage_return_stays_one_row(capfd):
    case = {"instruction": "Answer.", "query": "What animal\rbleats?", "answer": "x"}
    Path("cr.jsonl").write_text(json.dumps(case) + "\n")
    assert compared(capfd, "--suite", "cr.jsonl", "--arm", "guide")[0] == 0
    (row,) = rows()
    assert row["query"] == case["query"]


def test_a_report_never_lands_on_the_suite_and_a_bad_batch_loses_nothing(capfd):
    Path("own.yaml").write_text(SUITE.replace("CHECK", "Bleu."))
    args = ("--suite", "own.yaml", "--arm", "guide", "--results", "own.jsonl")
    code, _, err = compared(capfd, *args, "--html", "own.yaml")
    assert (code, "are the same file" in err) == (2, True)
    assert compared(capfd, *args)[0] == 0
    before = Path("own.jsonl").read_bytes()
    assert compared(capfd, *args, "--restart", "--batch-size", "0")[0] == 2
    assert Path("own.jsonl").read_bytes() == before


def test_a_report_without_matplotlib_is_refused_before_the_work(capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(LM, "generate_batch", None)
    code, _, err = compared(capfd, *FEW, "--html", "report.html")
    assert code == 2
    assert 'pip install "minboost[plot]"' in err
