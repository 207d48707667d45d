"""The results file: nothing in it is lost, doubled or mixed with answers of another kind."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from minboost import InputError
from minboost.comparison.records import ArmInfo, Rating, Record, RunInfo
from minboost.comparison.results import KIND, ResultsFile, read_results

HEAD = {"name": "demo", "weights": "aa", "generation": {"temperature": 0.0, "stop": []}}
RECORD = Record(
    key="k1",
    suite="s",
    case="one",
    task="language",
    split="test",
    control=False,
    instruction="Answer in French.",
    query="What colour is the sky?",
    arm="plain",
    run=1,
    seed=7,
    text="Bleu.\u2028 ünï",
    finish_reason="stop",
    new_tokens=3,
    passed=False,
    why="not exactly 'Bleu.'",
    parts=(False,),
    fluent=True,
    faults=(),
    repeated=None,
    entropy=3.25,
    excess=-0.5,
    surprisal=0.125,
)
RUN = RunInfo(
    command="minboost compare",
    commit="abc",
    versions={"torch": "2"},
    suites={"s": "d1"},
    split="all",
    arms=(ArmInfo(name="plain", methods=()),),
    seed=42,
    runs=1,
    keys={"plain": ("k1", "k2")},
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.jsonl"


def written(path, *records, runs=(RUN,), head=HEAD):
    with ResultsFile(path, head) as file:
        for run in runs:
            file.add_run(run)
        file.add(records)
    return path.read_bytes()


def test_what_was_written_is_read(path):
    rating = Rating(key="k1", judge="j", score=1.5, words="“so so”")
    with ResultsFile(path, HEAD) as file:
        file.add_run(RUN)
        file.add([RECORD])
        file.add_rating(rating)
    results = read_results(path)
    assert results.head == KIND.head(HEAD)
    assert results.runs == [RUN]
    assert results.records == {"k1": RECORD}
    assert results.ratings == {("k1", "j"): rating}
    assert results.answers == [RECORD]


def test_each_answer_is_on_the_disk_when_it_is_added(path):
    with ResultsFile(path, HEAD) as file:
        file.add([RECORD])
        assert json.loads(path.read_bytes().splitlines()[-1])["key"] == "k1"


def test_opening_again_adds_nothing_and_repeats_no_run(path):
    first = written(path, RECORD)
    assert written(path) == first


def test_another_command_is_another_run(path):
    written(path, RECORD)
    again = replace(RUN, command="minboost compare --limit 5")
    written(path, replace(RECORD, key="k2", case="two"), runs=[again])
    results = read_results(path)
    assert results.runs == [RUN, again]
    assert results.before == {"k1"}


@pytest.mark.parametrize("lost", [1, 5, 40])
def test_the_end_of_a_line_that_a_killed_run_left_is_cut_off(path, lost):
    whole = written(path, RECORD, replace(RECORD, key="k2", case="two"))
    path.write_bytes(whole[:-lost])
    assert read_results(path).records == {"k1": RECORD}
    written(path, replace(RECORD, key="k2", case="two"))
    assert path.read_bytes() == whole


@pytest.mark.parametrize("kept", [0, 1, 30, 60])
@pytest.mark.parametrize("head", [HEAD, {**HEAD, "weights": "bb"}], ids=["the same", "another"])
def test_a_run_killed_in_the_first_line_begins_anew(path, kept, head):
    whole = written(path, RECORD, head=head)
    path.write_bytes(whole.splitlines()[0][:kept])
    assert written(path, RECORD) == written(path.with_name("other"), RECORD)


def test_the_later_of_two_lines_of_one_key_counts(path):
    written(path, RECORD, replace(RECORD, passed=True, why=""))
    assert read_results(path).records["k1"].passed


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ({**HEAD, "weights": "bb"}, "weights is 'aa' there and 'bb' here"),
        (
            {**HEAD, "generation": {"temperature": 0.8, "stop": []}},
            "generation is {'temperature': 0.0, 'stop': []} there",
        ),
    ],
    ids=["another model", "other settings"],
)
def test_answers_of_another_kind_are_refused_and_left_alone(path, head, said):
    before = written(path, RECORD)
    with pytest.raises(InputError) as caught:
        ResultsFile(path, head)
    assert said in str(caught.value)
    assert "--results" in str(caught.value)
    assert path.read_bytes() == before
    with ResultsFile(path, head, restart=True) as file:
        assert not file.results.records
    assert read_results(path).head["weights"] == head["weights"]


def test_the_models_name_may_change(path):
    written(path, RECORD)
    with ResultsFile(path, {**HEAD, "name": "./demo"}) as file:
        assert set(file.results.records) == {"k1"}


@pytest.mark.parametrize("restart", [False, True])
def test_a_file_of_something_else_is_left_alone(path, restart):
    path.write_text("my notes\nand more\n")
    with pytest.raises(InputError, match="is no file of results, and is left alone"):
        ResultsFile(path, HEAD, restart=restart)
    assert path.read_text() == "my notes\nand more\n"


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[]",
        '{"record": "else"}',
        json.dumps({**RECORD.as_json(), "passed": "yes"}),
        json.dumps({k: v for k, v in RECORD.as_json().items() if k != "text"}),
        json.dumps({**RUN.as_json(), "arms": 3}),
    ],
    ids=["no JSON", "a list", "unknown", "a wrong type", "a field missing", "a broken run"],
)
def test_a_broken_line_is_named(path, line):
    whole = written(path, RECORD)
    path.write_bytes(whole + line.encode() + b"\n")
    with pytest.raises(InputError, match=r"results\.jsonl, line 4 is no line of results"):
        read_results(path)


def test_an_empty_file_and_a_missing_one_are_said(path):
    with pytest.raises(InputError, match="cannot be read"):
        read_results(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is no file of results"):
        read_results(path)


HOLD = """
import sys
from pathlib import Path
from minboost.comparison.results import ResultsFile
with ResultsFile(Path(sys.argv[1]), {"weights": "aa"}):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_refused_and_one_that_was_killed_holds_nothing(path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout.readline() == b"open\n"
        before = path.read_bytes()
        with pytest.raises(InputError, match=rf"another process is writing to {path}: wait for it"):
            ResultsFile(path, {"weights": "aa"}, restart=True)
        assert path.read_bytes() == before
        holder.kill()
        holder.wait()
        with ResultsFile(path, {"weights": "aa"}) as file:
            file.add([RECORD])


FULL = """
import resource, sys
from pathlib import Path
from minboost.comparison.results import ResultsFile
from tests.test_results import HEAD, RECORD, RUN
path = Path(sys.argv[1])
with ResultsFile(path, HEAD) as file:
    file.add_run(RUN)
    file.add([RECORD])
    room = path.stat().st_size + 40  # of the next line
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    try:
        file.add([RECORD])
    except OSError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit on a file's size to set")
def test_a_full_disk_is_said_and_the_file_goes_on_from_its_last_whole_line(request, path):
    out = subprocess.run(
        [sys.executable, "-c", FULL, str(path)],
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{path}; what was written before is whole" in out.stdout
    assert not path.read_bytes().endswith(b"\n")
    again = replace(RECORD, key="k2", case="two")
    written(path, again)
    assert read_results(path).records == {"k1": RECORD, "k2": again}


def test_a_suite_that_was_edited_counts_as_it_is_in_the_newest_run(path):
    new = replace(RUN, suites={"s": "d2"}, keys={"plain": ("k2",)})
    written(path, RECORD, replace(RECORD, key="k2", case="two"), runs=[RUN, new])
    assert [record.case for record in read_results(path).answers] == ["two"]


def test_two_arms_of_the_same_settings_share_an_answer(path):
    arms = (ArmInfo(name="plain", methods=()), ArmInfo(name="again", methods=()))
    run = replace(RUN, arms=arms, keys={"plain": ("k1",), "again": ("k1",)})
    written(path, RECORD, runs=[run])
    assert [record.arm for record in read_results(path).answers] == ["plain", "again"]


def test_of_one_place_the_newest_runs_answer_counts_and_each_run_can_be_seen_alone(path):
    new = replace(RUN, command="again", keys={"plain": ("k2",)})
    later = replace(RECORD, key="k2", text="Blue.")
    written(path, RECORD, later, runs=[RUN, new])
    results = read_results(path)
    assert results.answers == [later]
    assert results.only(0).answers == [later]  # its keys are k1 and k2
    assert results.only(-1).answers == [later]


def test_an_arm_whose_settings_changed_counts_as_it_is_in_the_newest_run(path):
    """Answers under m = 2 must not stand beside those under m = 5 as one arm."""

    def run(multiplier, *keys):
        arms = (ArmInfo(name="a", methods=({"method": "instaboost", "multiplier": multiplier},)),)
        return replace(RUN, arms=arms, keys={"a": keys})

    later = replace(RECORD, key="k2", case="two")
    written(path, RECORD, later, runs=[run(2.0, "k1", "k2"), run(5.0, "k2")])
    assert [record.case for record in read_results(path).answers] == ["two"]
