"""Checkers: what passes, what fails and why, and what a suite may say."""

from __future__ import annotations

import importlib.util
import re
import socket

import pytest

from minboost import InputError
from minboost.checkers import CHECKERS, read_check, read_checks
from minboost.checkers import regex as regex_module
from minboost.checkers.json_answer import Json
from minboost.checkers.language import CODES, SCRIPTS
from minboost.checkers.refusal import Refusal
from minboost.checkers.regex import Regex
from minboost.checkers.sentences import sentences

from .checker_verdicts import ENGLISH, FRENCH, VERDICTS


def name_of(form):
    return form if isinstance(form, str) else next(iter(form))


def rows(passes):
    return [
        pytest.param(row[0], text, why, id=f"{name_of(row[0])}-{number}-{text[:24]!a}")
        for number, row in enumerate(VERDICTS)
        for text, why in row[1 if passes else 2].items()
    ]


@pytest.mark.parametrize(("form", "text", "why"), rows(True))
def test_an_answer_that_keeps_the_rule_passes(form, text, why):
    verdict = read_check(form).check(text)
    assert (verdict.passed, verdict.why) == (True, why)


@pytest.mark.parametrize(("form", "text", "why"), rows(False))
def test_an_answer_that_breaks_the_rule_fails(form, text, why):
    verdict = read_check(form).check(text)
    assert (verdict.passed, verdict.why) == (False, why)


def test_every_checker_has_three_answers_of_each_sort_above():
    for at in (1, 2):
        counts = dict.fromkeys(CHECKERS, 0)
        for row in VERDICTS:
            counts[name_of(row[0])] += len(row[at])
        counts.pop("ifeval", None)  # which has tests of its own
        assert min(counts.values()) >= 3


REFUSED = [
    (
        {"contain": "x"},
        "the checker 'contain' does not exist; did you mean 'contains'? known: exact,",
    ),
    ("telepathy", "the checker 'telepathy' does not exist; known: exact,"),
    (
        {"exact": "a", "contains": "b"},
        "a check must be the name of a checker, or one name with its",
    ),
    (5, "a check must be the name of a checker, or one name with its options, got 5"),
    ({"exact": None}, "exact lacks its field 'text'"),
    ({"exact": {"ignore_case": True}}, "exact lacks its field 'text'"),
    ({"exact": {"text": "a", "ignore": True}}, "exact has no field 'igno"),
    ({"exact": []}, "exact: text must be a text or a list of texts, got an empty list"),
    ({"exact": ["a", " "]}, "exact: text must be a text that is not empty, got ' '"),
    ({"exact": True}, "exact: text must be a text, got True: put it in quotes"),
    ({"contains": 1.50}, "contains: texts must be a text, got 1.5: put it in quotes"),
    (
        {"contains": {"texts": "a", "ignore_case": "no"}},
        "ignore_case must be true or false, got 'no'",
    ),
    ({"excludes": {"a": 1}}, "excludes has no field 'a'; known: texts, ignore_case"),
    ({"excludes": "\ud800"}, "excludes: texts holds half a character"),
    ({"starts_with": [["a"]]}, "starts_with: texts must be a text that is not empty, got ['a']"),
    ({"ends_with": ""}, "ends_with: texts must be a text that is not empty, got ''"),
    ({"regex": "(["}, "regex: pattern '([' is refused: unterminated character set at position 1"),
    ({"regex": "[[a]"}, "regex: pattern '[[a]' is refused: Possible nested set"),
    ({"regex": ""}, "regex: pattern is empty"),
    ({"regex": 5}, "regex: pattern must be a text, got 5"),
    ({"regex": {"pattern": "a", "whole": 1}}, "regex: whole must be true or false, got 1"),
    ({"regex": "(" * 5000 + ")" * 5000}, "is refused:"),
    ({"json": {"schema": 5}}, "json: schema must be a mapping, got 5"),
    (
        {"json": {"schema": {"type": "objekt"}}},
        "json: schema is no JSON Schema: at $.type: 'objekt'",
    ),
    ({"json": {"schema": {"pattern": "(["}}}, "json: schema is no JSON Schema: at $.pattern: '(["),
    ({"json": {"schema": {"format": "date"}}}, "json: schema has format, which is not checked"),
    (
        {"json": {"schema": {"$schema": "http://x.org"}}},
        "a draft that is not known: 'http://x.org'",
    ),
    ({"json": {"schema": {"$ref": "#"}}}, "leads back to itself without end"),
    ({"json": {"schema": {"$ref": "#/no"}}}, "json: schema has $ref '#/no', which is not in it"),
    ({"json": {"equals": float("nan")}}, "json: equals is no JSON"),
    ({"json": {"equals": {1: "a"}}}, "json: equals is no JSON: the key 1 is no text"),
    ({"json": {"equals": {"a": {2}}}}, "json: equals is no JSON: {2} is no JSON value"),
    ({"choice": "E"}, "choice: letter must be one of ABCD, got 'E'"),
    ({"choice": "AB"}, "choice: letter must be one of ABCD, got 'AB'"),
    ({"choice": {"letters": "AB"}}, "choice lacks its field 'letter'"),
    ({"choice": {"letter": "A", "letters": "AA"}}, "letters must be two or more different letters"),
    ({"choice": {"letter": "1", "letters": "12"}}, "letters must be two or more different letters"),
    ({"choice": {"letter": True}}, "choice: letter must be a text, got True"),
    ({"words": {}}, "words: one of exactly, min and max must be given"),
    ("words", "words: one of exactly, min and max must be given"),
    ({"words": "few"}, "words: exactly must be an integer of at least 1, got 'few'"),
    ({"characters": {"min": 3, "max": 2}}, "characters: min must be at most max, got 3 and 2"),
    ({"sentences": {"exactly": 3, "max": 3}}, "exactly stands alone, without min and max"),
    ({"lines": {"max": 0}}, "lines: max must be an integer of at least 1, got 0"),
    ({"paragraphs": {"min": 1.5}}, "paragraphs: min must be an integer of at least 1, got 1.5"),
    ({"items": {"min": 0}}, "items: min must be an integer of at least 1, got 0"),
    ({"items": {"max": -1}}, "items: max must be an integer of at least 0, got -1"),
    ({"keyword_count": {"min": 1}}, "keyword_count lacks its field 'keyword'"),
    ({"keyword_count": {"keyword": "a"}}, "one of exactly, min and max must be given"),
    ({"case": "camel"}, "case: form must be upper, lower or title, got 'camel'"),
    ({"language": "xx"}, "language: code must be one of af, ar, bg,"),
    ({"language": False}, "language: code must be a text, got False"),
    ({"language": {"code": "fr", "words": []}}, "words must be a text or a list of texts"),
    ({"refusal": "yes"}, "refusal: refuses must be true or false, got 'yes'"),
    ({"all": []}, "all: checks must be a list of checks, not empty, got []"),
    ({"any": {"contains": "a"}}, "any takes a list of checks, got {'contains': 'a'}"),
    ({"any": ["nothing"]}, "any: the checker 'nothing' does not exist"),
    (
        {"all": [{"any": [{"words": 0}]}]},
        "all: any: words: exactly must be an integer of at least 1",
    ),
    ("not", "not lacks its field 'of'"),
    ({"not": {}}, "not: a check must be the name of a checker"),
    ({"not": {"contains": []}}, "not: contains: texts must be a text or a list of texts"),
]


@pytest.mark.parametrize(("form", "said"), REFUSED, ids=[str(form)[:40] for form, _ in REFUSED])
def test_a_check_that_cannot_be_meant_is_refused_by_name(form, said):
    with pytest.raises(InputError) as caught:
        read_check(form)
    assert said in str(caught.value)


def test_checks_must_be_a_list_and_not_nest_without_end():
    with pytest.raises(InputError, match="checks must be a list, got 'exact'"):
        read_checks("exact")
    deep = {"contains": "a"}
    for _ in range(5000):
        deep = {"not": deep}
    with pytest.raises(InputError, match="checks nest too deeply"):
        read_checks([deep])


def test_a_whole_number_is_taken_as_it_is_written_and_flags_may_be_left_out():
    assert read_check({"exact": 42}).check("42").passed
    assert read_check({"refusal": True}) == read_check("refusal") == Refusal()
    assert read_check({"json": True}) == Json()


def test_a_schema_leads_to_nothing_outside_of_it(monkeypatch):
    def connect(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", connect)
    for there in ("http://x.org/s.json", "https://json-schema.org/nothing", "file:///etc/hostname"):
        hidden = {"$ref": "#/x/y", "x": {"y": {"$ref": there}}}
        for schema in ({"$ref": there}, {"properties": {"a": {"items": {"$ref": there}}}}, hidden):
            with pytest.raises(InputError, match=rf"\$ref '{there}', which is not in it"):
                read_check({"json": {"schema": schema}})


def test_a_schema_may_refer_within_itself_and_name_an_older_draft():
    tree = {"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"}
    check = read_check({"json": {"schema": tree}})
    assert check.check("[[[]], []]").passed
    assert check.check("[[1]]").why == "JSON, but at $[0][0]: 1 is not of type 'array'"
    assert not check.check("[" * 500 + "]" * 500).passed
    # Tuples were said with items before 2020-12, and with prefixItems since.
    old = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]}
    assert read_check({"json": {"schema": old}}).check('["a", 1]').passed
    assert not read_check({"json": {"schema": old}}).check("[1]").passed


def test_a_schema_is_copied_and_the_checker_can_be_hashed():
    schema = {"type": "object"}
    check = read_check({"json": {"schema": schema, "equals": {"a": [1]}}})
    schema["type"] = "array"
    assert check.schema == {"type": "object"}
    assert hash(check) == hash(read_check(check.as_json()))


@pytest.mark.parametrize(
    ("form", "package"),
    [
        ({"json": {"schema": {"type": "objekt"}}}, "jsonschema"),
        ({"language": "fr"}, "langdetect"),
        ({"language": "ru"}, "langdetect"),
        ({"not": {"language": "fr"}}, "langdetect"),
        ({"any": ["refusal", {"json": {"schema": {}}}]}, "jsonschema"),
    ],
)
def test_a_missing_package_is_named_before_anything_is_answered(form, package, monkeypatch):
    find = importlib.util.find_spec
    for module in ("json_schema", "ifeval.language"):
        monkeypatch.setattr(
            f"minboost.checkers.{module}.find_spec",
            lambda name, *rest: None if name == package else find(name, *rest),
        )
    with pytest.raises(
        InputError, match=rf"needs {package}, .* pip install \"minboost\[suites\]\""
    ):
        read_check(form).needs()


@pytest.mark.parametrize("form", ["json", {"language": "ja"}, {"language": "el"}, {"words": 1}])
def test_what_needs_no_package_says_so(form, monkeypatch):
    for module in ("json_schema", "ifeval.language"):
        monkeypatch.setattr(f"minboost.checkers.{module}.find_spec", lambda *rest: None)
    read_check(form).needs()


def test_the_language_does_not_hang_on_langdetects_own_seed():
    from langdetect import DetectorFactory

    texts = [FRENCH, ENGLISH, "Himmelen er blå, og havet er også blått i dag.", "la la la " * 9]
    check, before = read_check({"language": "no"}), DetectorFactory.seed
    verdicts = [check.check(text) for text in texts]
    try:
        for seed in (1, 2, None):
            DetectorFactory.seed = seed
            assert [check.check(text) for text in texts] == verdicts
            assert DetectorFactory.seed == seed
    finally:
        DetectorFactory.seed = before


def test_every_language_of_langdetect_has_a_script_and_a_code():
    assert set().union(*SCRIPTS.values()) <= set(CODES)
    assert {"en", "fr", "zh", "ja", "ru"} <= set(CODES)
    assert not {"zh-cn", "zh-tw"} & set(CODES)


def test_a_pattern_without_end_fails_and_says_so(monkeypatch):
    monkeypatch.setattr(regex_module, "MAX_SECONDS", 0.5)
    verdict = read_check({"regex": "(a+)+b"}).check("a" * 40)
    assert verdict.why == "no end of (a+)+b within 0.5 s on 40 characters"
    assert not verdict.passed
    assert read_check({"regex": "^(?:a|a)*$"}).check("a" * 40 + "b").passed is False


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        (r"(?:- .+\n?)+", ["- a\n- b", "- a\n-b", "x"]),
        (r"^\w+\s\w+$|é+ü*", ["a b", "éü", "a  b", "\ud83d"]),
        (r"(\d+)-\1", ["12-12", "12-13", "a 2-2"]),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_a_pattern_finds_in_its_own_process_what_it_finds_here(pattern, texts, whole):
    assert regex_module._may_run_away(pattern)
    for text in texts:
        found = re.fullmatch(pattern, text) if whole else re.search(pattern, text)
        verdict = Regex(pattern, whole=whole).check(text)
        assert verdict.passed is (found is not None)
        assert found is None or verdict.why.startswith(repr(" ".join(found[0].split())))


@pytest.mark.parametrize("pattern", ["a+", "(?:ab)*c", r"\d{3}", "a|b", "(?i)yes", "(?<=a)b?"])
def test_a_pattern_with_one_repeat_needs_no_process(pattern, monkeypatch):
    monkeypatch.setattr(regex_module.subprocess, "run", None)
    Regex(pattern).check("aab 123 Yes")


def test_sentences_are_cut_where_they_end():
    assert sentences("He paid 3.50. “Why?” she asked. See Fig. 2 etc. Fine!\n\n1. One\n2. Two") == [
        "He paid 3.50.", "“Why?” she asked.", "See Fig. 2 etc.", "Fine!", "One", "Two",
    ]  # fmt: skip


LONG = ["(", "a.", "No. ", ". ", "I can't ", "sorry ", "as a ", "I understand, ", "answer ->",
        "A is ", "(A) ", "- ", "`", "option ", "A, ", "!'", "- a\n", "my ",
        "I'm just a b and "]  # fmt: skip


@pytest.mark.parametrize("piece", LONG)
def test_a_long_answer_of_one_piece_is_judged(piece):
    """Patterns of our own that backtrack would not come to an end here."""
    for form in ("refusal", {"choice": "B"}, {"sentences": 1}, {"items": 1}, {"case": "title"}):
        read_check(form).check(piece * (20_000 // len(piece)))
