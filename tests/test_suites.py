"""Task files: what a case is, when an answer passes, and what each mistake in a file says."""

from __future__ import annotations

import json

import pytest

from minboost import InputError
from minboost.suites import Case, by_task, load_cases, sample
from minboost.suites.case import SPLITS
from minboost.suites.suite import MAX_BYTES

GOOD = {"instruction": "Answer in French.", "query": "What colour is the sky?", "answer": "Bleu."}


def case(**changes):
    return Case(**{**GOOD, **changes})


def write(path, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("match", "text", "finished", "passes"),
    [
        ("exact", "Bleu.", True, True),
        ("exact", "  Bleu. \n", True, True),
        ("exact", "Bleu", True, False),
        ("exact", "bleu.", True, False),
        ("exact", "Bleu. Vert.", True, False),
        ("exact", "", True, False),
        ("exact", " \n", True, False),
        ("exact", "Bleu.", False, False),
        ("contains", "Le ciel : Bleu.", True, True),
        ("contains", "Le ciel.", True, False),
        ("contains", "Le ciel : Bleu.", False, False),
        ("contains", "", True, False),
    ],
)
def test_an_answer_passes_only_whole_and_as_the_case_says(match, text, finished, passes):
    assert case(match=match).passed(text, finished=finished) is passes


def test_white_space_is_all_alike():
    assert case(answer="two  words\nhere").passed("two words here", finished=True)


def test_a_file_is_read_with_its_optional_fields(tmp_path):
    path = write(
        tmp_path / "cases.jsonl",
        {**GOOD, "task": "fr", "match": "contains", "split": "test", "control": True},
        "",
        {**GOOD, "split": "validation"},
    )
    first, second = load_cases(path)
    assert (first.task, first.match, first.split, first.control) == ("fr", "contains", "test", True)
    assert (second.task, second.match, second.control) == ("default", "exact", False)
    assert load_cases(path, split="test") == [first]
    assert by_task([first, second]) == {"fr": [first], "default": [second]}


def test_a_byte_order_mark_and_line_separators_within_texts_are_no_trouble(tmp_path):
    path = tmp_path / "cases.jsonl"
    row = json.dumps({**GOOD, "query": "one\u2028two\x85three"}, ensure_ascii=False)
    path.write_text(f"\ufeff{row}\r\n{row}\n", encoding="utf-8", newline="")
    assert [case.query for case in load_cases(path)] == ["one\u2028two\x85three"] * 2


def test_a_case_without_a_split_is_dealt_by_its_texts():
    cases = [case(query=f"What is {number}?") for number in range(400)]
    assert cases == [case(query=f"What is {number}?") for number in range(400)]
    assert 160 < sum(one.split == "test" for one in cases) < 240


def test_a_key_tells_cases_apart_by_what_is_asked_and_wanted():
    assert case().key == case(split="test").key
    assert len({one.key for one in (case(), case(task="x"), case(query="Why?"))}) == 3


BAD = {
    "no JSON": ("{instruction", ["is no JSON"]),
    "a list": ([1], ["must be a JSON object", "list"]),
    "nesting": ("[" * 100_000, ["is no JSON"]),
    "unknown field": ({**GOOD, "anwser": "x"}, ["'anwser' does not exist", "answer"]),
    "missing field": ({"query": "x", "answer": "y"}, ["'instruction' is missing"]),
    "wrong type": ({**GOOD, "answer": 5}, ["answer must be a text", "5"]),
    "wrong flag": ({**GOOD, "control": "yes"}, ["control must be a bool", "'yes'"]),
    "null": ({**GOOD, "query": None}, ["query must be a text", "None"]),
    "empty": ({**GOOD, "query": "  "}, ["query is empty"]),
    "match": ({**GOOD, "match": "regex"}, ["match must be exact or contains", "'regex'"]),
    "split": ({**GOOD, "split": "train"}, ["split must be validation or test", "'train'"]),
    "half a character": ({**GOOD, "query": "\ud800"}, ["query holds half a character"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_named_with_its_file_and_field(name, tmp_path):
    row, said = BAD[name]
    path = write(tmp_path / "cases.jsonl", GOOD, "", row)
    with pytest.raises(InputError) as caught:
        load_cases(path)
    for part in (f"{path}, line 3", *said):
        assert part in str(caught.value)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.jsonl cannot be read"):
        load_cases(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        load_cases(tmp_path)
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary\.jsonl cannot be read"):
        load_cases(tmp_path / "binary.jsonl")


def test_a_file_without_cases_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"empty\.jsonl holds no case$"):
        load_cases(write(tmp_path / "empty.jsonl", "", " "))
    only = write(tmp_path / "only.jsonl", {**GOOD, "split": "test"})
    with pytest.raises(InputError, match=r"only\.jsonl holds no case of the validation split"):
        load_cases(only, split="validation")


def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # a hole: it takes no room
    with pytest.raises(InputError, match=f"larger than {MAX_BYTES} bytes"):
        load_cases(path)


def test_the_demo_worlds_cases_are_of_both_splits_and_both_sorts():
    cases = load_cases("demo")
    assert [len(load_cases("demo", split=split)) for split in SPLITS] == [280, 280]
    assert len({(one.instruction, one.query) for one in cases}) == len(cases)
    assert sum(one.control for one in cases) == 140


def test_a_sample_keeps_the_share_of_controls_and_the_order():
    cases = [case(query=f"What is {i}?", control=i % 4 == 0) for i in range(100)]
    for count in (1, 2, 7, 40, 99):
        drawn = sample(cases, count)
        assert len(drawn) == count
        assert drawn == sorted(drawn, key=cases.index)
        assert not all(one.control for one in drawn)
        assert abs(sum(one.control for one in drawn) - count / 4) <= 0.5
    assert sample(cases, 40, seed=1) == sample(cases, 40, seed=1) != sample(cases, 40, seed=2)
    assert sample(cases, 100) == sample(cases, 5000) == cases
    controls = [one for one in cases if one.control]
    assert len(sample(controls, 3)) == 3
    with pytest.raises(InputError, match="at least 1 case, got 0"):
        sample(cases, 0)
