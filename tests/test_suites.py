"""Task files: what a case is, when an answer passes, and what each mistake in a file says."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import pytest

from minboost import InputError
from minboost.checkers import CHECKERS, read_check
from minboost.checkers.language import CODES
from minboost.checkers.text import Contains
from minboost.suites import Case, by_task, load_cases, load_suite, sample, shipped_suites
from minboost.suites.case import SPLITS
from minboost.suites.suite import FIELDS, MAX_BYTES, SUITE_FIELDS
from minboost.yaml_file import MAX_BYTES as YAML_BYTES
from minboost.yaml_file import parse_yaml

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


YAML = """
name: colours
description: Colours, in French.
task: language
instruction: Answer in French.
max_new_tokens: 20
cases:
  - query: What colour is the sky?
    answer: Bleu.
  - name: grass
    query: What colour is grass?
    instruction: Answer in capitals.
    task: case
    max_new_tokens: 5
    split: test
    control: true
    checks: [{case: upper}, {contains: {texts: green, ignore_case: true}}]
"""


def yaml_file(folder, text):
    path = folder / "colours.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_cases_of_a_yaml_suite_share_what_it_says_and_may_say_otherwise(tmp_path):
    suite = load_suite(yaml_file(tmp_path, YAML))
    assert (suite.name, suite.description) == ("colours", "Colours, in French.")
    first, second = suite.cases
    assert (first.name, first.task, first.instruction) == (
        "language-001", "language", "Answer in French.",
    )  # fmt: skip
    assert (first.max_new_tokens, first.control, first.answer) == (20, False, "Bleu.")
    assert (second.name, second.task, second.instruction) == (
        "grass",
        "case",
        "Answer in capitals.",
    )
    assert (second.max_new_tokens, second.control, second.split) == (5, True, "test")
    assert second.judge("GREEN.", finished=True).passed
    assert second.judge("Green.", finished=True).why == "small letters in 'Green.'"
    assert second.judge("RED", finished=True).parts == (True, False)


def test_a_suite_without_a_name_is_called_after_its_file(tmp_path):
    assert load_suite(yaml_file(tmp_path, YAML.replace("name: colours\n", "", 1))).name == "colours"


def test_a_suites_digest_changes_with_what_is_asked_and_checked(tmp_path):
    digest = load_suite(yaml_file(tmp_path, YAML)).digest
    assert load_suite(yaml_file(tmp_path, YAML.replace("Colours, in", "In"))).digest == digest
    for old, new in (
        ("the sky", "the sea"),
        ("upper", "lower"),
        ("grass\n", "gras\n"),
        ("test", "validation"),
    ):
        assert load_suite(yaml_file(tmp_path, YAML.replace(old, new, 1))).digest != digest


def test_the_answer_of_a_case_is_its_check_where_it_has_no_other():
    assert case(match="contains").checks == (Contains("Bleu."),)
    both = case(checks=[{"contains": "ciel"}])
    assert both.passed("Le ciel.", finished=True)
    with pytest.raises(InputError, match="there is neither an answer nor a check"):
        Case(instruction="a", query="b")


def changed(old, new):
    assert old in YAML
    return YAML.replace(old, new, 1)


CASE_1, CASE_2 = "colours.yaml, case 1: ", "colours.yaml, case 2 (grass): "
BAD_YAML = {
    "unknown checker": (
        changed("case: upper", "letters: upper"),
        [CASE_2, "the checker 'letters' does not exist"],
    ),
    "misspelt checker": (changed("contains:", "contain:"), [CASE_2, "did you mean 'contains'?"]),
    "wrong option": (
        changed("case: upper", "case: camel"),
        [CASE_2, "case: form must be upper, lower or title"],
    ),
    "checks are no list": (
        changed("[{case: upper}, {contains: {texts: green, ignore_case: true}}]", "{case: upper}"),
        [CASE_2, "checks must be a list, got {'case': 'upper'}"],
    ),
    "name twice": (
        changed("- query:", "- name: grass\n    query:"),
        ["colours.yaml: the suite colours has the name 'grass' twice: cases 1 and 2"],
    ),
    "wrong type": (changed("Bleu.", "5"), [CASE_1, "answer must be a text, got 5"]),
    "wrong flag": (
        changed("control: true", "control: yes"),
        [CASE_2, "control must be a bool, got 'yes'"],
    ),
    "wrong limit": (
        changed("20", "0"),
        [CASE_1, "max_new_tokens must be an integer of at least 1, got 0"],
    ),
    "wrong number": (
        changed("20", "many"),
        [CASE_1, "max_new_tokens must be a number, got 'many'"],
    ),
    "wrong split": (
        changed("split: test", "split: train"),
        [CASE_2, "split must be validation or test"],
    ),
    "no name": (
        changed("name: colours", "name: [a]"),
        ["colours.yaml: name must be a text, got ['a']"],
    ),
    "unknown field": (
        changed("task: language", "tasks: language"),
        ["the field 'tasks' does not exist; known: name,"],
    ),
    "unknown field of a case": (
        changed("split: test", "spilt: test"),
        [CASE_2, "the field 'spilt' does not exist"],
    ),
    "missing field": (
        changed("  - query: What colour is the sky?\n    answer", "  - answer"),
        [CASE_1, "the field 'query' is missing"],
    ),
    "key twice": (
        changed("task: case", "query: again"),
        ["colours.yaml, line 13: the key 'query' stands there twice"],
    ),
    "alias": (
        changed("split: test", "split: *one"),
        ["colours.yaml, line 15: aliases (*name) are not read"],
    ),
    "no YAML": (changed("cases:", "cases: ["), ["colours.yaml cannot be read as YAML"]),
    "a list": ("- a\n- b\n", ["colours.yaml must hold a mapping with the key 'cases'"]),
    "nothing": ("", ["colours.yaml must hold a mapping with the key 'cases'"]),
    "no cases": ("name: colours\n", ["colours.yaml: cases must be a list, got None"]),
    "empty cases": ("cases: []\n", ["colours.yaml: the suite colours holds no case"]),
    "a case is a text": (
        "cases: [a]\n",
        [CASE_1[:-2] + " must be a JSON object or a mapping, got a str"],
    ),
}


@pytest.mark.parametrize("name", BAD_YAML)
def test_a_mistake_in_a_yaml_suite_is_named_with_its_case(name, tmp_path):
    text, said = BAD_YAML[name]
    with pytest.raises(InputError) as caught:
        load_suite(yaml_file(tmp_path, text))
    for part in said:
        assert part in str(caught.value)


def test_a_suite_that_needs_a_missing_package_is_refused_when_it_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("minboost.checkers.ifeval.language.find_spec", lambda name: None)
    path = write(tmp_path / "cases.jsonl", {**GOOD, "checks": [{"language": "fr"}]})
    with pytest.raises(InputError, match=r"line 1: .* needs langdetect, .*minboost\[suites\]"):
        load_suite(path)


def test_a_yaml_suite_that_is_missing_or_huge_is_named(tmp_path):
    with pytest.raises(InputError, match=r"the suite .*none\.yaml cannot be read: "):
        load_suite(tmp_path / "none.yaml")
    path = tmp_path / "huge.yml"
    with path.open("wb") as file:
        file.truncate(YAML_BYTES + 1)
    with pytest.raises(InputError, match=rf"huge\.yml has {YAML_BYTES + 1} bytes, more than"):
        load_suite(path)


def test_a_shipped_suite_that_is_misspelt_is_answered_with_those_there_are():
    with pytest.raises(InputError) as caught:
        load_suite("dmeo")
    assert "the suite dmeo does not exist; shipped: demo" in str(caught.value)
    assert "a file is named by its path" in str(caught.value)
    assert shipped_suites()[0] == "demo"


def test_the_example_of_the_docs_loads_and_its_answers_pass(request):
    suite = load_suite(request.config.rootpath / "docs/examples/suite.yaml")
    assert len(suite.cases) >= 4
    assert {one.split for one in suite.cases} == set(SPLITS)
    assert any(one.control for one in suite.cases)
    for one in suite.cases:
        assert one.judge(one.answer, finished=True).why == ""
        assert not one.judge("Because of STEAM-7:\n- this", finished=True).passed


@pytest.fixture
def page(request):
    return (request.config.rootpath / "docs/suites.md").read_text(encoding="utf-8")


def test_the_page_lists_every_checker_and_option_with_an_example_that_is_one(page):
    rows = {}
    table = page.partition("## The checks\n")[2].partition("### ")[0]
    for row in re.findall(r"^\| `\w+` \|.*\|$", table, re.MULTILINE):
        cells = [cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        rows[cells[0].strip("`")] = cells
    assert set(rows) == set(CHECKERS) - {"ifeval"}
    for name, (_, options, _, example) in rows.items():
        for field in fields(CHECKERS[name]):
            assert f"`{field.name}`" in options
        check = read_check(parse_yaml("the example", example.strip("`")))
        assert check.name == name
    assert f"of the {len(CODES)} languages" in " ".join(page.split())


def test_the_page_lists_every_field_of_a_suite_and_of_a_case(page):
    for field in (*FIELDS, *SUITE_FIELDS):
        assert re.search(rf"^\|.*`{field}`.* \|", page, re.MULTILINE)


def test_the_pages_excerpt_is_of_the_example(page, request):
    excerpt = parse_yaml("the page", re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])
    path = request.config.rootpath / "docs/examples/suite.yaml"
    example = parse_yaml("the example", path.read_text(encoding="utf-8"))
    cases = excerpt.pop("cases")
    assert len(cases) == 2
    assert all(one in example["cases"] for one in cases)
    assert excerpt == {key: value for key, value in example.items() if key != "cases"}


def test_the_pages_lines_are_cases_and_its_code_prints_what_it_says(page, request, tmp_path, capfd):
    lines = re.findall(r"^    (\{.*\})$", page, re.MULTILINE)
    assert len(load_cases(write(tmp_path / "lines.jsonl", *lines))) == 2
    code, printed = re.search(r"```python\n(.*?)```\n\nprints `(.*?)`", page, re.DOTALL).groups()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(request.config.rootpath)
        exec(code, {})
    assert capfd.readouterr().out == printed + "\n"


@pytest.mark.parametrize("name", ["demo", "confidentiality"])
def test_a_case_written_out_is_read_as_it_was(name, tmp_path):
    cases = load_suite(name).cases
    path = write(tmp_path / "again.jsonl", *(case.as_json() for case in cases))
    assert load_suite(path).cases == cases
