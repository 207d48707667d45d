"""The YAML that users write: what its words mean, and what is not read at all."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minboost import InputError
from minboost.yaml_file import MAX_BYTES, parse_yaml, read_yaml

WORDS = {
    "no": "no", "yes": "yes", "on": "on", "Off": "Off", "y": "y",  # YAML 1.1's truth values
    "11:10": "11:10", "1:20:30": "1:20:30",  # its numbers to the base of 60
    "010": "010", "0x1F": "0x1F", "0b11": "0b11", "1_000": "1_000", "+5": "+5",
    ".5": ".5", "5.": "5.", ".inf": ".inf", ".nan": ".nan",
    "2024-05-01": "2024-05-01", "2024-05-01 10:00:00": "2024-05-01 10:00:00",
    "=": "=", "<<": "<<", "'42'": "42", '"true"': "true", "'null'": "null",
    "true": True, "false": False, "True": True, "False": False,
    "42": 42, "-7": -7, "0": 0, "0.5": 0.5, "-1.50": -1.5, "1e3": 1000.0, "2.5E-1": 0.25,
    "null": None, "~": None, "": None, "nothing": "nothing", "fr": "fr",
}  # fmt: skip


@pytest.mark.parametrize("word", WORDS, ids=repr)
def test_a_word_is_no_text_only_where_json_says_so(word):
    found = parse_yaml("the file", f"key: {word}")["key"]
    assert found == WORDS[word]
    assert type(found) is type(WORDS[word])


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text("abcxyz", min_size=1, max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(plain)
def test_json_is_read_as_what_it_is(value):
    assert parse_yaml("the file", json.dumps(value, ensure_ascii=False)) == value


REFUSED = {
    "a key twice": ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4: the key 'c' stands there twice"),
    "keys that are one to Python": ("1: a\ntrue: b\n", "line 2: the key True stands there twice"),
    "an alias": ("a: &one [1]\nb: *one\n", "line 2: aliases (*name) are not read"),
    "aliases of aliases": ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "line 2: aliases (*name)"),
    "a merge": ("a: &one {b: 1}\nc:\n  <<: *one\n", "line 3: aliases (*name) are not read"),
    "Python": ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
    "a list as a key": ("? [a]\n: b\n", "found unhashable key"),
    "two documents": ("a: 1\n---\nb: 2\n", "expected a single document"),
    "a tab": ("a:\n\t- b\n", "found character '\\t' that cannot start any token"),
    "no end of a quote": ("a: 'b\n", "found unexpected end of stream"),
    "nesting": ("[" * 5000, "cannot be read as YAML"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_named_with_its_line(name, tmp_path):
    text, said = REFUSED[name]
    path = tmp_path / "arms.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_yaml("the arms file", path)
    assert str(caught.value).startswith(f"the arms file {path}")
    assert said in str(caught.value)


def test_an_anchor_alone_is_no_trouble():
    assert parse_yaml("the file", "a: &one [1]") == {"a": [1]}


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"the suite .*none\.yaml cannot be read: .*No such file"):
        read_yaml("the suite", tmp_path / "none.yaml")
    with pytest.raises(InputError, match=r"the suite .* cannot be read: "):
        read_yaml("the suite", tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary\.yaml cannot be read: .*utf-8"):
        read_yaml("the suite", tmp_path / "binary.yaml")


def test_a_byte_order_mark_is_passed_over(tmp_path):
    path = tmp_path / "bom.yaml"
    path.write_text("\ufeffa: é\n", encoding="utf-8")
    assert read_yaml("the file", path) == {"a": "é"}


def test_a_file_over_the_limit_is_refused_unread(tmp_path):
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # a hole: it takes no room
    with pytest.raises(InputError, match=f"the suite .* has {MAX_BYTES + 1} bytes, more than"):
        read_yaml("the suite", path)
    small = tmp_path / "small.yaml"
    small.write_text("a: 1\n")
    assert read_yaml("the file", small, limit=5) == {"a": 1}
    with pytest.raises(InputError, match="has 5 bytes, more than 4"):
        read_yaml("the file", small, limit=4)
