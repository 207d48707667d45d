"""IFEval: all of its instructions on answers written by hand, and what its files become."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minboost import InputError
from minboost.checkers import read_check
from minboost.checkers.ifeval import RULES, IFEval, loosened
from minboost.checkers.ifeval.language import language_of
from minboost.checkers.ifeval.units import capital_words, count_sentences
from minboost.suites import load_suite
from minboost.suites.ifeval import ifeval_case

ENGLISH = "the weather was so bad this morning that we stayed at home and read old newspapers"
GERMAN = "Das Wetter war heute Morgen so schlecht, dass wir zu Hause geblieben sind."

# id: (kwargs, the request in words, answers that obey, answers that do not)
INSTRUCTIONS = {
    "keywords:existence": (
        {"keywords": ["river", "sea"]},
        'Use the words "river" and "sea".',
        ["The River meets the sea.", "Rivers and seals."],
        ["The river.", "The sea.", "Water."],
    ),
    "keywords:frequency": (
        {"keyword": "war", "frequency": 3, "relation": "at least"},
        'Use the word "war" at least 3 times.',
        ["War, war, war.", "Warm towards a warden."],
        ["War and war.", "Peace."],
    ),
    "keywords:forbidden_words": (
        {"forbidden_words": ["cat", "dog"]},
        'Do not use the words "cat" or "dog".',
        ["A category of dogma.", "cat_1 and dogs."],
        ["A CAT.", "one dog-like animal", "cat\ndog"],
    ),
    "keywords:letter_frequency": (
        {"letter": "Q", "let_frequency": 3, "let_relation": "less than"},
        'Use the letter "Q" fewer than 3 times.',
        ["The Queen was quiet.", "None."],
        ["Queens quickly quit.", "QqQ"],
    ),
    "language:response_language": (
        {"language": "de"},
        "Give the whole answer in German.",
        [GERMAN, "1234"],
        [ENGLISH, "Le temps était si mauvais ce matin que nous sommes restés à la maison."],
    ),
    "length_constraints:number_sentences": (
        {"num_sentences": 3, "relation": "less than"},
        "Answer in fewer than 3 sentences.",
        ["One. Two.", "Dr. Ames met Mr. Poe at 3.15 p.m. in St. Ives. It rained."],
        ["One. Two! Three?", "Why? Who? When? How?"],
    ),
    "length_constraints:number_paragraphs": (
        {"num_paragraphs": 2},
        'Write exactly 2 paragraphs and put "***" between them.',
        ["One.\n***\nTwo.", "One. *** Two.\n***\n", "***\nOne.\n\nStill one.\n***\nTwo."],
        ["One.\n\nTwo.", "One.\n***\n***\nTwo.", "One *** two *** three"],
    ),
    "length_constraints:number_words": (
        {"num_words": 4, "relation": "at least"},
        "Answer in at least 4 words.",
        ["One two three four.", "A well-known old_word here"],
        ["One two three.", "one - two - three"],
    ),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Rain"},
        "Write exactly 2 paragraphs, with an empty line between them, and begin paragraph 2 with "
        'the word "Rain".',
        ["Sun.\n\nRain, then.", 'Sun.\nMore.\n\n"RAIN" it is.', "Sun.\n\nRain's here.\n\n"],
        ["Rain.\n\nSun.", "Sun.\n\nRaining.", "Rain.", "Sun.\n\nRain.\n\nSnow.", "Sun.\nRain."],
    ),
    "detectable_content:number_placeholders": (
        {"num_placeholders": 2},
        "Include at least 2 placeholders in square brackets, such as [address].",
        ["Dear [name], from [place]", "[a][b][c]"],
        ["Dear [name]", "[one\ntwo] [three]", "(a) (b)"],
    ),
    "detectable_content:postscript": (
        {"postscript_marker": "P.P.S"},
        'End with a postscript that begins with "P.P.S".',
        ["Bye.\nP.P.S. More.", "Bye. p. p. s: more"],
        ["Bye.\nP.S. More.", "Bye. PPS more"],
    ),
    "detectable_format:number_bullet_lists": (
        {"num_bullets": 2},
        'Use exactly 2 bullet points, written as lines that begin with "* ".',
        ["* one\n* two", "These:\n  - one\n* two\n\nDone.", "*one\n-two\n**three**"],
        ["* one", "* one\n* two\n- three", "** one\n** two", "1. one\n2. two"],
    ),
    "detectable_format:constrained_response": (
        {},
        'Answer with one of "My answer is yes.", "My answer is no." or "My answer is maybe."',
        ["My answer is no.", "Well. My answer is maybe. I think."],
        ["My answer is yes", "my answer is no.", "No."],
    ),
    "detectable_format:number_highlighted_sections": (
        {"num_highlights": 2},
        "Highlight at least 2 parts of the answer with asterisks, *like this*.",
        ["*one* and *two*", "**one** and **two**", "*one*\n**two**"],
        ["*one* and two", "*one\ntwo*", "** ** and * *", "one"],
    ),
    "detectable_format:multiple_sections": (
        {"section_spliter": "SECTION", "num_sections": 2},
        'Write 2 sections headed "SECTION 1" and "SECTION 2".',
        ["SECTION 1\na\nSECTION 2\nb", "SECTION1 a SECTION2 b SECTION 3 c"],
        ["SECTION 1\na", "Section 1\na\nSection 2\nb", "SECTION one\na\nSECTION two\nb"],
    ),
    "detectable_format:json_format": (
        {},
        "Give the whole answer as JSON.",
        ['{"a": [1, 2]}', '```json\n{"a": 1}\n```', "```\n[]\n```", '"text"'],
        ["{'a': 1}", 'Here: {"a": 1}', '{"a": 1', "[" * 100_000, "```yaml\n1\n```"],
    ),
    "detectable_format:title": (
        {},
        "Give the answer a title in double angular brackets, such as <<title>>.",
        ["<<Rain>>\nIt fell.", "It is << so >> said", "<<<x>>>"],
        ["<Rain>\nIt fell.", "<<>>", "<< >>", "<<Ra\nin>>", ">>Rain<<"],
    ),
    "combination:two_responses": (
        {},
        'Give two different responses and put "******" between them.',
        ["One.\n******\nTwo.", "******\nOne.\n******\nTwo.\n******"],
        ["One.", "One.\n******\n One.", "A ****** B ****** C", "A\n******\n******\nB"],
    ),
    "combination:repeat_prompt": (
        {"prompt_to_repeat": "Name a river. "},
        "First repeat the request word for word, then answer it.",
        ["Name a river. The Po.", "  name a RIVER.\nThe Po."],
        ["The Po. Name a river.", "Name any river. The Po.", '"Name a river." The Po.'],
    ),
    "startend:end_checker": (
        {"end_phrase": "That is all."},
        'End with exactly "That is all." and nothing after it.',
        ["Yes. That is all.", '"Yes. THAT IS ALL."  \n', "That is all."],
        ["That is all. Bye.", "That is all", "Yes."],
    ),
    "startend:quotation": (
        {},
        "Put the whole answer in double quotation marks.",
        ['"Yes."', ' "one" and "two"\n', '""'],
        ["Yes.", '"Yes.', '"', "“Yes.”", '"Yes".'],
    ),
    "change_case:capital_word_frequency": (
        {"capital_frequency": 3, "capital_relation": "at least"},
        "Write at least 3 words in all capital letters.",
        ["I SAW it, YES.", "STOP,LOOK,LISTEN", "DON'T do IT"],
        ["STOP and look.", "A-B/C-D it", "Stop It Now", "1 2 3 4"],
    ),
    "change_case:english_capital": (
        {},
        "Give the whole answer in English and in capital letters only.",
        ["WHAT IS THIS THING THAT YOU HAVE BROUGHT HOME WITH YOU, AND WHERE WILL WE PUT IT?"],
        [ENGLISH, ENGLISH.capitalize(), GERMAN.upper(), "1234"],
    ),
    "change_case:english_lowercase": (
        {},
        "Give the whole answer in English and in lowercase letters only.",
        [ENGLISH, ENGLISH + ", 3 of them!"],
        [ENGLISH.capitalize(), ENGLISH.upper(), GERMAN.lower(), "1234"],
    ),
    "punctuation:no_comma": (
        {},
        "Do not use any commas.",
        ["No commas; none.", "一、二"],
        ["Well, yes.", "1,000"],
    ),
}
PASSING = [(name, text) for name, row in INSTRUCTIONS.items() for text in row[2]]
FAILING = [(name, text) for name, row in INSTRUCTIONS.items() for text in row[3]]


def checker(name, **fields):
    return IFEval(name, INSTRUCTIONS[name][0], **fields)


def test_the_25_instructions_are_known_and_tried_here():
    assert len(RULES) == 25
    assert set(RULES) == set(INSTRUCTIONS)


@pytest.mark.parametrize(("name", "text"), PASSING)
def test_an_answer_that_obeys_passes(name, text):
    verdict = checker(name).check(text)
    assert verdict.passed, verdict.why


@pytest.mark.parametrize(("name", "text"), FAILING)
def test_an_answer_that_does_not_obey_fails_and_says_why(name, text):
    verdict = checker(name).check(text)
    assert not verdict.passed, verdict.why
    assert verdict.why


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_a_request_is_restated_as_one_plain_sentence(name):
    assert checker(name).rule.asks() == INSTRUCTIONS[name][1]


@pytest.mark.parametrize(
    ("name", "kwargs", "said"),
    [
        ("keywords:existence", {"keywords": ["sea"]}, 'Use the word "sea".'),
        (
            "keywords:frequency",
            {"keyword": "war", "frequency": 1, "relation": "at least"},
            'Use the word "war" at least once.',
        ),
        (
            "keywords:frequency",
            {"keyword": "war", "frequency": 1, "relation": "less than"},
            'Do not use the word "war".',
        ),
        (
            "keywords:letter_frequency",
            {"letter": "#", "let_frequency": 1, "let_relation": "less than"},
            'Do not use the character "#".',
        ),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 1}, "exactly 1 paragraph."),
        ("detectable_format:number_bullet_lists", {"num_bullets": 0}, "Do not use bullet points."),
        (
            "detectable_format:number_bullet_lists",
            {"num_bullets": 1},
            "Use exactly 1 bullet point,",
        ),
        (
            "detectable_format:multiple_sections",
            {"section_spliter": "Day", "num_sections": 4},
            'Write 4 sections headed "Day 1", "Day 2" and so on.',
        ),
        ("startend:end_checker", {"end_phrase": 'Say "x"'}, 'End with exactly “Say "x"” and'),
    ],
)
def test_a_restatement_minds_ones_and_quotes(name, kwargs, said):
    assert said in IFEval(name, kwargs).rule.asks()


def test_at_least_and_less_than_are_each_others_opposite():
    """For every instruction with a relation, on counts below, at and above the threshold."""
    relations = {
        "length_constraints:number_words": ("relation", {"num_words": 2}, "word "),
        "length_constraints:number_sentences": ("relation", {"num_sentences": 2}, "Yes. "),
        "keywords:frequency": ("relation", {"keyword": "x", "frequency": 2}, "x "),
        "keywords:letter_frequency": ("let_relation", {"letter": "x", "let_frequency": 2}, "x"),
        "change_case:capital_word_frequency": ("capital_relation", {"capital_frequency": 2}, "X "),
    }
    for name, (relation, kwargs, unit) in relations.items():
        for count in (1, 2, 3):
            least, less = (
                IFEval(name, {**kwargs, relation: one}).check(unit * count).passed
                for one in ("at least", "less than")
            )
            assert (least, less) == (count >= 2, count < 2), name


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One", 1),
        ("One. Two", 2),
        ("One? Two! Three.", 3),
        ("No way!!! Really?!", 2),
        ("She said “Go.” He went.", 2),
        ('"Is it?" she asked. (It was.) Fine.', 4),
        ("Mr. and Mrs. Lee met Dr. Roe vs. Prof. Day.", 1),
        ("J. K. Moss of the U.S. Navy left at 5 p.m. on Monday.", 1),
        ("He lives in the U.S. She does not.", 2),
        ("It costs 3.50 or 1,000.25 today.", 1),
        ("See a.b.c.example.org for more.", 1),
        ("I was born in 1990. You were not.", 2),
        ("Well... maybe so.", 1),
        ("Well... But no.", 2),
        ("a title\n\nand a line without an end", 1),
        ("1. Wash.\n2. Dry.", 4),
        ("A. Wash the cup.\nB. Dry it.", 4),
        ("Bye.\n\nP.S. Write soon.", 3),
        ("**Done.**", 2),
        ('{"a": "One.", "b": "Two."}', 2),
        ("", 0),
        (" \n ", 0),
    ],
)
def test_sentences_are_counted_as_by_hand_and_by_the_rule_that_is_stated(text, count):
    assert count_sentences(text) == count


@given(st.lists(st.sampled_from(["It rains.", "Who knows?", "Go!", "We left (late)."]), min_size=1))
def test_plain_sentences_add_up(sentences):
    assert count_sentences(" ".join(sentences)) == len(sentences)
    assert count_sentences("\n\n".join(sentences)) == len(sentences)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("A WORD", 2),
        ("WELL-KNOWN AND/OR", 2),
        ("IT'S", 2),
        ("IT’S", 2),
        ("CANNOT", 2),
        ("U.S. 3D X2", 3),
        ("10:30AM", 1),
        ("ONE:TWO", 2),
        ("**BOLD** *and* (BRACKET)", 2),
        ("WAIT...WHAT--NO", 3),
        ("iPhone McDonald 42", 0),
        ("ÉTÉ", 1),
    ],
)
def test_words_in_capitals_are_counted_as_nltk_parts_them(text, count):
    assert capital_words(text) == count


def test_a_text_has_one_language_however_often_it_is_asked():
    assert {language_of("Hotel Restaurant Taxi") for _ in range(5)} == {
        language_of("Hotel Restaurant Taxi")
    }
    assert language_of(GERMAN) == "de"
    assert language_of("12 + 34 = 46") is None


def test_loose_tries_less_of_the_answer():
    fewer_lines = ["*b*\nc", "a\n*b*", "*b*"]
    no_asterisks = ["a\nb\nc", "b\nc", "a\nb", "b"]
    assert list(loosened("a\n*b*\nc").values()) == fewer_lines + no_asterisks
    introduced = 'Sure! Here it is:\n{"a": 1}'
    assert not checker("detectable_format:json_format").check(introduced).passed
    verdict = checker("detectable_format:json_format", loose=True).check(introduced)
    assert verdict.passed
    assert "without the first line" in verdict.why
    bold = "**My answer** is yes."
    assert not checker("detectable_format:constrained_response").check(bold).passed
    assert checker("detectable_format:constrained_response", loose=True).check(bold).passed
    # A variant with nothing in it obeys nothing, not even "no commas".
    assert not checker("punctuation:no_comma", loose=True).check("one, two").passed


@given(st.sampled_from(sorted(INSTRUCTIONS)), st.text(alphabet='ab AB.*\n,"<>[]{}1-', min_size=1))
def test_what_passes_strictly_passes_loosely(name, text):
    strict, loose = checker(name).check(text), checker(name, loose=True).check(text)
    assert loose.passed >= strict.passed
    variants = [one for one in (text, *loosened(text).values()) if one.strip()]
    assert loose.passed == (strict.passed or any(checker(name).check(v).passed for v in variants))


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_a_checker_comes_back_from_its_form_in_files_and_nulls_change_nothing(name):
    one = checker(name, loose=True)
    again = read_check(json.loads(json.dumps(one.as_json())))
    assert again.as_json() == one.as_json()
    assert again.rule == one.rule
    kwargs = INSTRUCTIONS[name][0]
    others = {key: None for row in INSTRUCTIONS.values() for key in row[0] if key not in kwargs}
    assert IFEval(name, {**others, **kwargs}) == IFEval(name, kwargs)
    assert hash(IFEval(name, kwargs)) == hash(IFEval(name, dict(kwargs)))


def test_a_count_that_a_table_wrote_with_a_point_is_an_integer():
    assert IFEval("detectable_format:number_bullet_lists", {"num_bullets": 2.0}).check("- a\n- b")


def test_special_characters_in_a_keyword_are_characters():
    rule = IFEval("keywords:forbidden_words", {"forbidden_words": ["C++", "a.c"]})
    assert rule.check("C and abc").passed
    assert not rule.check("I know C++ well").passed
    assert IFEval("keywords:existence", {"keywords": ["(x"]}).check("f(x)").passed


BAD_KWARGS = {
    "none": ("keywords:frequency", {}, ["lacks", "'keyword'"]),
    "a null": ("keywords:existence", {"keywords": None}, ["lacks", "'keywords'"]),
    "one missing": (
        "length_constraints:number_words",
        {"num_words": 5},
        ["length_constraints:number_words", "lacks", "'relation'"],
    ),
    "another's": ("punctuation:no_comma", {"num_words": 5}, ["no field 'num_words'"]),
    "a relation": (
        "length_constraints:number_words",
        {"num_words": 5, "relation": "at most"},
        ["relation must be 'at least' or 'less than'", "'at most'"],
    ),
    "a word for a count": (
        "detectable_format:number_bullet_lists",
        {"num_bullets": "three"},
        ["num_bullets must be an integer of at least 0", "'three'"],
    ),
    "half a bullet": (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2.5},
        ["num_bullets must be an integer", "2.5"],
    ),
    "no sentence": (
        "length_constraints:number_sentences",
        {"num_sentences": 0, "relation": "less than"},
        ["num_sentences must be an integer of at least 1", "0"],
    ),
    "two letters": (
        "keywords:letter_frequency",
        {"letter": "ab", "let_frequency": 1, "let_relation": "at least"},
        ["letter must be one character", "'ab'"],
    ),
    "a language": (
        "language:response_language",
        {"language": "French"},
        ["language must be one of", "fr", "'French'"],
    ),
    "no keywords": ("keywords:existence", {"keywords": []}, ["keywords must be a text or a list"]),
    "an empty phrase": ("startend:end_checker", {"end_phrase": " "}, ["end_phrase must be", "' '"]),
    "a paragraph too far": (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "x"},
        ["nth_paragraph must be at most num_paragraphs, 2, got 3"],
    ),
    "languages": ("language:response_language", {"language": ["fr"]}, ["language must be one of"]),
    "half a character": ("startend:end_checker", {"end_phrase": "\ud800"}, ["half a character"]),
    "no id": (["x"], {}, ["the instruction ['x'] does not exist"]),
    "a list": ("punctuation:no_comma", ["x"], ["kwargs must be a mapping", "['x']"]),
}


@pytest.mark.parametrize("name", BAD_KWARGS)
def test_kwargs_that_are_no_good_are_refused_by_name(name):
    instruction, kwargs, said = BAD_KWARGS[name]
    with pytest.raises(InputError) as caught:
        IFEval(instruction, kwargs)
    for part in said:
        assert part in str(caught.value)


LINE = {
    "key": 17,
    "prompt": "Name a river without any commas in 5 words or more.",
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{"num_words": None}, {"relation": "at least", "num_words": 5}],
}


def test_a_line_becomes_a_case_with_a_checker_an_instruction():
    case = ifeval_case(LINE)
    assert case.name == "ifeval-17"
    assert case.instruction == "Do not use any commas. Answer in at least 5 words."
    assert case.query == LINE["prompt"]
    assert case.task == "several"
    judgement = case.judge("The Po, in Italy.", finished=True)
    assert (judgement.passed, judgement.parts) == (False, (False, False))
    judgement = case.judge("The Po.", finished=True)
    assert (judgement.passed, judgement.parts) == (False, (True, False))
    assert judgement.why == "2 words, at least 5 wanted"
    assert case.passed("The Po flows in Italy.", finished=True)
    assert not case.passed("The Po flows in Italy.", finished=False)


def test_a_prompt_that_was_split_by_hand_is_taken_as_it_is():
    case = ifeval_case({**LINE, "instruction": "No commas; 5 words.", "query": "Name a river."})
    assert (case.instruction, case.query) == ("No commas; 5 words.", "Name a river.")
    assert case.checks == ifeval_case(LINE).checks


@pytest.mark.parametrize(
    ("ids", "kwargs", "task"),
    [
        (["startend:quotation"], [None], "startend"),
        (["startend:quotation", "startend:end_checker"], [{}, {"end_phrase": "x"}], "startend"),
        (["startend:quotation", "punctuation:no_comma"], [{}, {}], "several"),
    ],
)
def test_the_task_is_the_group_of_the_instructions_if_they_have_one(ids, kwargs, task):
    assert ifeval_case({**LINE, "instruction_id_list": ids, "kwargs": kwargs}).task == task


BAD_LINES = {
    "no key": ({"key": ...}, ["the field 'key' of IFEval is missing"]),
    "no prompt": ({"prompt": ...}, ["the field 'prompt' of IFEval is missing"]),
    "no kwargs": ({"kwargs": ...}, ["the field 'kwargs' of IFEval is missing"]),
    "an empty key": ({"key": " "}, ["key must be an integer or a text", "' '"]),
    "a prompt that is none": ({"prompt": 5}, ["prompt must be a text", "5"]),
    "no ids": ({"instruction_id_list": []}, ["instruction_id_list must be a list of ids", "[]"]),
    "too few kwargs": ({"kwargs": [{}]}, ["for each of the 2 ids, got 1"]),
    "kwargs that are no list": ({"kwargs": {}}, ["kwargs must be a list", "{}"]),
    "an unknown id": (
        {"instruction_id_list": ["punctuation:no_comma", "length_constraints:words"]},
        ["'length_constraints:words' does not exist", "length_constraints:number_words", "known"],
    ),
    "kwargs of another": ({"kwargs": [{}, {}]}, ["length_constraints:number_words lacks"]),
    "half a split": ({"query": "Name a river."}, ["belong together, only query is given"]),
    "an unknown field": ({"prompts": "x"}, ["'prompts' does not exist for IFEval", "prompt"]),
    "loose": ({"loose": "yes"}, ["loose must be true or false", "'yes'"]),
    "split": ({"split": "train"}, ["split must be validation or test", "'train'"]),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_named_with_its_file_and_field(name, tmp_path):
    changes, said = BAD_LINES[name]
    row = {key: value for key, value in {**LINE, **changes}.items() if value is not ...}
    path = tmp_path / "ifeval.jsonl"
    path.write_text(json.dumps({**LINE, "key": 1}) + "\n" + json.dumps(row), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_suite(path)
    for part in (f"{path}, line 2", *said):
        assert part in str(caught.value)


def test_a_key_that_stands_there_twice_is_refused(tmp_path):
    path = tmp_path / "ifeval.jsonl"
    path.write_text(f"{json.dumps(LINE)}\n{json.dumps(LINE)}\n", encoding="utf-8")
    with pytest.raises(InputError, match="'ifeval-17' twice: cases 1 and 2"):
        load_suite(path)


def test_a_missing_langdetect_is_said_before_anything_is_answered(tmp_path, monkeypatch):
    monkeypatch.setattr("minboost.checkers.ifeval.language.find_spec", lambda name: None)
    row = {**LINE, "instruction_id_list": ["change_case:english_lowercase"], "kwargs": [{}]}
    path = tmp_path / "ifeval.jsonl"
    path.write_text(f"{json.dumps(LINE)}\n", encoding="utf-8")
    load_suite(path)  # which needs no language
    path.write_text(f"{json.dumps(row)}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r'line 1: .*minboost\[suites\]"'):
        load_suite(path)


def test_the_example_file_is_a_suite_that_can_be_passed(request):
    suite = load_suite(request.config.rootpath / "docs" / "examples" / "ifeval.jsonl")
    assert [case.name for case in suite.cases] == [
        "ifeval-1",
        "ifeval-2",
        "ifeval-3",
        "ifeval-storm",
    ]
    assert [case.task for case in suite.cases] == [
        "several",
        "detectable_format",
        "language",
        "several",
    ]
    answers = [
        "The Rhine and the Danube and the Ebro.",
        "* A towel\n* A hat\n* Water",
        "Die Hauptstadt von Peru ist Lima.",
        "Here is your note:\n<<Storm tonight>>\nPlease bring your plants inside.\nStay safe!",
    ]
    for case, answer in zip(suite.cases, answers, strict=True):
        judgement = case.judge(answer, finished=True)
        assert judgement.passed, (case.name, judgement.why)
        assert not case.passed("Well, I would rather not, thank you,", finished=True)


def test_the_page_has_every_instruction(request):
    page = (request.config.rootpath / "docs" / "suites.md").read_text(encoding="utf-8")
    section = page.partition("## IFEval files")[2]
    assert [name for name in RULES if f"| `{name}` |" not in section] == []
