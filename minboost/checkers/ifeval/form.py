"""IFEval's instructions on the form of an answer: JSON, a title, how it begins and ends."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import ClassVar

from ..base import Verdict
from ..fields import shortened
from .rule import Rule, exactly, listed, quoted

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


@dataclass(frozen=True, kw_only=True)
class Postscript(Rule):
    """The text has the marker somewhere; capitals do not count. P.S. and P.P.S may be spaced."""

    name: ClassVar[str] = "detectable_content:postscript"

    postscript_marker: str

    def __post_init__(self) -> None:
        self._text("postscript_marker")

    def asks(self) -> str:
        return f"End with a postscript that begins with {quoted(self.postscript_marker)}."

    def check(self, text: str) -> Verdict:
        spaced = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
        pattern = spaced.get(self.postscript_marker, re.escape(self.postscript_marker.lower()))
        found = re.search(pattern, text.lower()) is not None
        return Verdict(found, f"with{'out' * (not found)} {quoted(self.postscript_marker)}")


@dataclass(frozen=True, kw_only=True)
class ConstrainedResponse(Rule):
    """The text has one of the three answers."""

    name: ClassVar[str] = "detectable_format:constrained_response"

    def asks(self) -> str:
        return f"Answer with one of {listed(OPTIONS, 'or')}"

    def check(self, text: str) -> Verdict:
        said = [option for option in OPTIONS if option in text]
        if said:
            return Verdict(True, f"with {listed(said, 'and')}")
        return Verdict(False, f"without {listed(OPTIONS, 'or')}")


@dataclass(frozen=True, kw_only=True)
class JsonFormat(Rule):
    """The text is JSON, within a fence of ``` or not."""

    name: ClassVar[str] = "detectable_format:json_format"

    def asks(self) -> str:
        return "Give the whole answer as JSON."

    def check(self, text: str) -> Verdict:
        body = text.strip()
        for fence in ("```json", "```Json", "```JSON", "```"):  # each once, as in IFEval
            body = body.removeprefix(fence)
        try:
            json.loads(body.removesuffix("```").strip())
        except (ValueError, RecursionError) as error:
            return Verdict(False, f"no JSON: {error}")
        return Verdict(True, "JSON")


@dataclass(frozen=True, kw_only=True)
class Title(Rule):
    """The text has a title within << and >> on one line."""

    name: ClassVar[str] = "detectable_format:title"

    def asks(self) -> str:
        return "Give the answer a title in double angular brackets, such as <<title>>."

    def check(self, text: str) -> Verdict:
        for line in text.split("\n"):
            start, stop = line.find("<<"), line.rfind(">>")
            title = line[start : stop + 2]
            if 0 <= start < stop - 2 and title.lstrip("<").rstrip(">").strip():
                return Verdict(True, f"the title {quoted(shortened(title))}")
        return Verdict(False, "without a title in << >>")


@dataclass(frozen=True, kw_only=True)
class TwoResponses(Rule):
    """The text is two different responses, parted by "******"; an empty one between two fails."""

    name: ClassVar[str] = "combination:two_responses"

    def asks(self) -> str:
        return 'Give two different responses and put "******" between them.'

    def check(self, text: str) -> Verdict:
        responses = [part.strip() for part in text.split("******")]
        if not all(responses[1:-1]):
            return Verdict(False, "an empty response")
        responses = [one for one in responses if one]
        if len(responses) == 2 and responses[0] == responses[1]:
            return Verdict(False, "the same response twice")
        return exactly(len(responses), 2, "response")


@dataclass(frozen=True, kw_only=True)
class RepeatPrompt(Rule):
    """The text begins with the request; capitals do not count."""

    name: ClassVar[str] = "combination:repeat_prompt"

    prompt_to_repeat: str

    def __post_init__(self) -> None:
        self._text("prompt_to_repeat")

    def asks(self) -> str:
        return "First repeat the request word for word, then answer it."

    def check(self, text: str) -> Verdict:
        begins = text.strip().lower().startswith(self.prompt_to_repeat.lower())
        return Verdict(begins, f"{'begins' if begins else 'does not begin'} with the request")


@dataclass(frozen=True, kw_only=True)
class EndChecker(Rule):
    """The text ends with the phrase, or the phrase and a double quote; capitals do not count."""

    name: ClassVar[str] = "startend:end_checker"

    end_phrase: str

    def __post_init__(self) -> None:
        self._text("end_phrase")

    def asks(self) -> str:
        return f"End with exactly {quoted(self.end_phrase)} and nothing after it."

    def check(self, text: str) -> Verdict:
        ends = text.strip().strip('"').lower().endswith(self.end_phrase.lower())
        phrase = quoted(shortened(self.end_phrase))
        return Verdict(ends, f"{'ends' if ends else 'does not end'} with {phrase}")


@dataclass(frozen=True, kw_only=True)
class Quotation(Rule):
    """The text begins and ends with a double quote."""

    name: ClassVar[str] = "startend:quotation"

    def asks(self) -> str:
        return "Put the whole answer in double quotation marks."

    def check(self, text: str) -> Verdict:
        text = text.strip()
        wrapped = len(text) > 1 and text[0] == text[-1] == '"'
        return Verdict(wrapped, f"{'' if wrapped else 'not '}in double quotation marks")


RULES: tuple[type[Rule], ...] = (
    Postscript,
    ConstrainedResponse,
    JsonFormat,
    Title,
    TwoResponses,
    RepeatPrompt,
    EndChecker,
    Quotation,
)
