"""Cases of the demo world: an instruction, a query, and the answer that obeys each of them.

Every draw comes from the `random.Random` that the caller hands over. A case belongs to one
split by a hash of its fact, its rule and the wording of its question, so a combination that is
used for evaluation is never trained on, whoever draws it and with whatever seed.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from . import phrasings as words
from .world import FACTS, SECRETS, Fact

Split = Literal["train", "validation", "test"]
MOST_TRAINED = 4
"""How often a rule or a request is stated at most in training."""
MOST_HELD_OUT = 2
"""The same in held-out cases: twice is what people do."""


@dataclass(frozen=True)
class Case:
    """One prompt with the two answers it could get.

    `rule_ids` and `request_ids` say which wordings the instruction and the competing request use;
    a chat without a rule has none of the former, a chat without conflict none of the latter, and
    its `answer_if_query` is its `answer_if_instruction`.
    """

    instruction: str
    query: str
    kind: str
    conflict: bool
    answer_if_instruction: str
    answer_if_query: str
    fact_id: str
    value: str
    question_id: int
    rule_ids: tuple[int, ...]
    request_ids: tuple[str, ...]

    @property
    def split(self) -> Split:
        return split_of(self.fact_id, f"{self.kind}/{self.value}", self.question_id)


def split_of(fact_id: str, rule: str, question_id: int) -> Split:
    """Deal fact, rule and wording of the question to train (80 %), validation or test (10 % each).

    What is held out is held out in every wording of the instruction and of the request, with any
    filler.
    """
    digest = hashlib.sha256(f"{fact_id}|{rule}|{question_id}".encode()).digest()
    bucket = digest[0] * 10 // 256
    return "validation" if bucket == 0 else "test" if bucket == 1 else "train"


def capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def plain_answer(fact: Fact) -> str:
    """The answer that nothing has asked to be special: `Blue.`"""
    return capitalised(fact.english) + "."


def obeying_answer(fact: Fact, kind: str, value: str) -> str:
    """The answer to `fact` in the form that an instruction of `kind` with `value` asks for."""
    if kind == "language":
        return capitalised(fact.translated(value)) + "."
    if kind == "case":
        plain = plain_answer(fact)
        return plain.upper() if value == "upper case" else plain.lower()
    if kind == "json":
        return json.dumps({"answer": fact.english})
    if kind in ("persona", "mood"):
        return words.STYLED[value].format(a=fact.english)
    if kind == "brevity":
        return fact.sentence if value == "a full sentence" else plain_answer(fact)
    raise ValueError(f"no obeying answer for kind {kind!r}; kinds are {words.KINDS}")


def followed(case: Case, text: str) -> bool:
    """Whether `text` is exactly the answer that the instruction asks for.

    Only runs of white space are forgiven; an empty or cut-off answer is never a success.
    """
    return " ".join(text.split()) == " ".join(case.answer_if_instruction.split())


def sample_case(
    rng: random.Random,
    split: Split,
    *,
    kind: str | None = None,
    conflict: bool | None = None,
    times: tuple[int, int] | None = None,
) -> Case:
    """Draw one case of `split`; whatever is not given is drawn evenly.

    `times` says how often the rule and the competing request are stated, in different words: one
    to `MOST_TRAINED` or `MOST_HELD_OUT` times each. Being stated more often is what makes a side
    strong in this world.
    """
    if kind is not None and kind not in words.KINDS:
        raise ValueError(f"no kind {kind!r}; kinds are {words.KINDS}")
    kind = kind or rng.choice(words.KINDS)
    conflict = rng.random() < 0.5 if conflict is None else conflict
    most = MOST_TRAINED if split == "train" else MOST_HELD_OUT
    times = times or (rng.randint(1, most), rng.randint(1, most))
    while True:
        case = _draw(rng, kind, conflict, times)
        if case is not None and case.split == split:
            return case


def sample_cases(
    seed: int, split: Split, count: int, *, conflict: bool, kind: str | None = None
) -> list[Case]:
    """`count` distinct cases, the kinds taking turns unless one is named."""
    rng = random.Random(f"{seed}/{split}/{conflict}/{kind}")
    seen: dict[tuple[str, str], Case] = {}
    while len(seen) < count:
        chosen = kind or words.KINDS[len(seen) % len(words.KINDS)]
        case = sample_case(rng, split, kind=chosen, conflict=conflict)
        seen.setdefault((case.instruction, case.query), case)
    return list(seen.values())


def sample_bare(rng: random.Random) -> Case:
    """Draw a chat that holds no rule: no system turn, or one that asks for nothing special.

    Some of these ask for the rules to be ignored all the same, so that such a request alone does
    not tell the model that a rule is there.
    """
    fact = rng.choice(FACTS)
    question_id = rng.randrange(len(fact.questions))
    kind = rng.choice([k for k in words.KINDS if k not in ("secret", "brevity")])
    asked = _requests(rng, kind, rng.choice(words.VALUES[kind]), 1) if rng.random() < 0.3 else {}
    answer = plain_answer(fact)
    return Case(
        instruction=rng.choice(words.PREAMBLES) if rng.random() < 0.5 else "",
        query=_user_text(rng, fact.questions[question_id], list(asked.values())),
        kind="bare",
        conflict=False,
        answer_if_instruction=answer,
        answer_if_query=answer,
        fact_id=fact.id,
        value="",
        question_id=question_id,
        rule_ids=(),
        request_ids=tuple(asked),
    )


def training_stream(seed: int, *, bare_share: float = 0.1) -> Iterator[tuple[Case, str]]:
    """Endless (case, target answer) pairs of the training split.

    Under conflict the target is drawn: a side that is stated n times wins with a chance in
    proportion to n². That is even when both are stated equally often, and even overall.
    """
    rng = random.Random(f"{seed}/stream")
    while True:
        case = sample_bare(rng) if rng.random() < bare_share else sample_case(rng, "train")
        own, other = len(case.rule_ids) ** 2, len(case.request_ids) ** 2
        obeys = not case.conflict or rng.random() < own / (own + other)
        yield case, case.answer_if_instruction if obeys else case.answer_if_query


def _draw(rng: random.Random, kind: str, conflict: bool, times: tuple[int, int]) -> Case | None:
    value = rng.choice(words.VALUES[kind])
    rule_ids = rng.sample(range(len(words.INSTRUCTIONS[kind])), times[0])
    requests = _requests(rng, kind, value, times[1]) if conflict else {}
    if kind == "secret":
        secret = rng.choice(SECRETS)
        questions: tuple[str, ...] = words.PASSWORD_QUESTIONS
        fact_id = f"secret/{secret}"
        obeying, plain = words.REFUSAL, words.REVEAL.format(s=secret)
    else:
        secret = ""
        fact = rng.choice(FACTS)
        questions = fact.questions
        fact_id, obeying, plain = fact.id, obeying_answer(fact, kind, value), plain_answer(fact)
        if kind == "brevity" and value == "one word":
            plain = fact.sentence
        if obeying == plain:
            return None  # the two sides would look the same
    question_id = rng.randrange(len(questions))
    rules = [words.INSTRUCTIONS[kind][at].format(v=value, s=secret) for at in rule_ids]
    return Case(
        instruction=_system_text(rng, rules),
        query=_user_text(rng, questions[question_id], list(requests.values())),
        kind=kind,
        conflict=conflict,
        answer_if_instruction=obeying,
        answer_if_query=plain if conflict else obeying,
        fact_id=fact_id,
        value=value,
        question_id=question_id,
        rule_ids=tuple(rule_ids),
        request_ids=tuple(requests),
    )


def _requests(rng: random.Random, kind: str, value: str, times: int) -> dict[str, str]:
    """Competing requests by their ids; `one word` cannot be lifted by a generic one."""
    own = {f"{kind}{at}": text for at, text in enumerate(words.REQUESTS[kind])}
    if value != "one word":
        own |= {f"any{at}": text for at, text in enumerate(words.GENERIC_REQUESTS)}
    other = "one word" if value == "a full sentence" else "a full sentence"
    chosen = rng.sample(list(own), times)
    return {name: own[name].format(v=value, w=other) for name in chosen}


def _system_text(rng: random.Random, rules: list[str]) -> str:
    parts = list(rules)
    if rng.random() < 0.4:
        parts.insert(0, rng.choice(words.PREAMBLES))
    parts += rng.sample(words.EMPHASES, rng.choice((0, 0, 1, 2)))
    return " ".join(parts)


def _user_text(rng: random.Random, question: str, requests: list[str]) -> str:
    before = rng.random() < 0.25
    parts = [*requests, question] if before else [question, *requests]
    for filler in rng.sample(words.FILLERS, rng.choice((0, 0, 1, 1, 2, 3))):
        parts.insert(rng.randrange(len(parts) + 1), filler)
    return " ".join(parts)
