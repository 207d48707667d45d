"""Stop strings and end tokens: what is shown, what is held back, what is cut."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from minboost.answer import Answer
from minboost.errors import InputError


class Letters:
    """A tokenizer whose tokens are code points: the texts of these tests, nothing else."""

    def stream(self):
        return self

    def push(self, token):
        return chr(token)

    def finish(self):
        return ""


def feed(text, *, stop=(), eos_ids=(), limit=10**6):
    answer = Answer(Letters(), eos_ids=eos_ids, stop=stop, max_new_tokens=limit)
    pieces = []
    for letter in text:
        if answer.finish_reason:
            break
        pieces.append(answer.push(ord(letter)))
    return answer, pieces


@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_the_text_ends_before_the_first_stop_string(text, stop):
    answer, pieces = feed(text, stop=stop)
    if answer.finish_reason is None:
        pieces.append(answer.close("length"))
    consumed = text[: len(answer.ids)]
    ends = [consumed.find(s) for s in stop if s in consumed]
    assert answer.text == "".join(pieces)
    assert answer.text == (consumed[: min(ends)] if ends else text)
    assert answer.finish_reason == ("stop" if ends else "length")


def test_what_may_become_a_stop_string_is_held_back():
    _, pieces = feed("one\n\ntwo", stop=["\n\nthree"])
    assert pieces == ["o", "n", "e", "", "", "", "\n\ntw", "o"]


def test_an_end_token_stops_and_is_kept_among_the_ids_only():
    answer, pieces = feed("ab$cd", eos_ids=[ord("$")])
    assert answer.text == "".join(pieces) == "ab"
    assert answer.ids == [ord(c) for c in "ab$"]
    assert answer.finish_reason == "stop"


def test_the_limit_ends_with_length_and_releases_what_was_held():
    answer, pieces = feed("abcdef", stop=["cx"], limit=3)
    assert answer.text == "".join(pieces) == "abc"
    assert answer.finish_reason == "length"


def test_an_empty_stop_string_is_refused():
    with pytest.raises(InputError, match="stop must be a text or texts, none of them empty"):
        Answer(Letters(), eos_ids=(), stop=["x", ""], max_new_tokens=1)


@pytest.mark.parametrize(("eos_ids", "reason"), [((), "length"), ((5,), "stop")], ids=str)
def test_text_that_the_stream_held_is_released_at_the_end(eos_ids, reason):
    class Late(Letters):
        def push(self, token):
            return ""

        def finish(self):
            return "x"

    answer = Answer(Late(), eos_ids=eos_ids, max_new_tokens=1)
    assert answer.push(5) == answer.text == "x"
    assert answer.finish_reason == reason
