"""Fluency: each measure against its definition, and the judge against text known good and bad."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch

import minboost
from minboost import Boost, Request
from minboost.analysis import fluency
from minboost.analysis.fluency import (
    CUT_OFF,
    EMPTY,
    REPETITIVE,
    SURPRISING,
    Surprisal,
    judge,
    ngram_entropy,
    repeated_trigrams,
    surprisals,
)
from minboost.demo.corpus import Case, sample_cases
from minboost.errors import InputError


@pytest.fixture(scope="module")
def demo():
    return minboost.load("demo", device="cpu")


@pytest.fixture(scope="module")
def sky(demo):
    return demo.generate(
        instruction="Answer in French.", query="What colour is the sky?", max_new_tokens=1
    )


@pytest.fixture
def llama(checkpoint):
    folder, reference = checkpoint("llama")
    return minboost.load(str(folder), device="cpu", dtype="float32"), reference


def test_entropy_is_pastas_worked_by_hand():
    # a b a b a: bigrams ab 2, ba 2 (1 bit); trigrams aba 2, bab 1.
    trigrams = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert ngram_entropy([0, 1, 0, 1, 0]) == pytest.approx((2 / 3 * 1 + 4 / 3 * trigrams) / 2)
    assert ngram_entropy([5] * 30) == 0
    assert ngram_entropy(range(18)) == pytest.approx((math.log2(17) + 2 * math.log2(16)) / 3)


def test_the_entropy_floor_is_only_asked_where_it_can_be_reached():
    assert ngram_entropy(range(fluency.ENTROPY_FROM)) > fluency.MIN_ENTROPY
    assert ngram_entropy(range(9)) < fluency.MIN_ENTROPY < ngram_entropy(range(10))


def test_repeated_trigrams_worked_by_hand():
    assert repeated_trigrams(range(12)) == 0
    assert repeated_trigrams([1, 2, 3, 1, 2, 3, 1, 2]) == 0.5  # 123 231 312 and again
    assert repeated_trigrams([7] * 12) == 0.9


PROMPTS = [[3, 50, 7], [9, 8, 100, 200, 31, 7, 7], [4]]
ANSWERS = [[20, 21, 22, 23], [99, 4], [250, 3, 17, 17, 17, 2, 299]]


def by_definition(reference, prompt, answer):
    with torch.no_grad():
        logits = reference(torch.tensor([[*prompt, *answer]])).logits[0].double()
    excess = []
    for t in range(1, len(answer)):
        p = logits[len(prompt) + t - 1].softmax(-1)
        excess.append(-p[answer[t]].log() + (p * p.log()).sum())
    return (sum(excess) / len(excess)).item()


@pytest.mark.parametrize("elements", [1, 1000, 1 << 24])
def test_excess_is_its_definition_on_transformers_logits(llama, elements, monkeypatch):
    lm, reference = llama
    monkeypatch.setattr(fluency, "HEAD_ELEMENTS", elements)
    found = surprisals(lm, [*PROMPTS, [1, 2]], [*ANSWERS, [5]])
    assert found[3].excess is None  # nothing after the first token
    wanted = [by_definition(reference, *pair) for pair in zip(PROMPTS, ANSWERS, strict=True)]
    assert [one.excess for one in found[:3]] == pytest.approx(wanted, abs=1e-4)
    assert surprisals(lm, [], []) == []


def loss(reference, prompt, answer):
    """transformers' own: the mean cross-entropy of the tokens that carry a label."""
    labels = torch.tensor([[-100] * len(prompt) + answer])
    with torch.no_grad():
        return reference(torch.tensor([prompt + answer]), labels=labels).loss.item()


def test_mean_surprisal_is_transformers_loss_on_all_tokens_of_the_answer(llama):
    lm, reference = llama
    prompts, answers = [*PROMPTS, [1, 2]], [*ANSWERS, [5]]
    wanted = [loss(reference, *pair) for pair in zip(prompts, answers, strict=True)]
    found = surprisals(lm, prompts, answers)
    assert [one.mean for one in found] == pytest.approx(wanted, abs=1e-4)
    assert min(wanted) > 1  # there was something to get wrong


def test_perplexity_is_the_inverse_geometric_mean_of_the_tokens_probabilities(demo, sky):
    prompt, answer = list(sky.prompt.ids), ids_of(demo, "Bleu.")
    product = 1.0
    for at, token in enumerate(answer):
        p = demo.logits(prompt + answer[:at])[-1].double().softmax(-1)
        product *= p[token].item()
    (found,) = surprisals(demo, [prompt], [answer])
    assert math.exp(found.mean) == pytest.approx(product ** (-1 / len(answer)), rel=1e-4)


def test_a_model_that_knows_nothing_has_the_vocabulary_for_perplexity_and_no_excess(llama):
    lm, _ = llama
    with torch.no_grad():
        lm.model.lm_head.weight.zero_()
    for found in surprisals(lm, PROMPTS, ANSWERS):
        assert math.exp(found.mean) == pytest.approx(lm.config.vocab_size, rel=1e-5)
        assert found.excess == pytest.approx(0, abs=1e-5)


def test_an_answer_without_tokens_has_no_surprisal(llama):
    lm, _ = llama
    none = Surprisal(mean=None, excess=None)
    assert surprisals(lm, [[1]], [[]]) == [none]
    assert surprisals(lm, PROMPTS, [[], ANSWERS[1], []])[::2] == [none, none]


def test_prompts_that_predict_nothing_are_refused(llama):
    lm, _ = llama
    with pytest.raises(InputError, match="prompt 1 has no tokens"):
        surprisals(lm, [[1], []], [[2], [3]])
    with pytest.raises(InputError, match="2 prompts and 1 answers"):
        surprisals(lm, [[1], [2]], [[3]])


def test_the_first_token_chooses_the_direction_and_does_not_count(demo, sky):
    prompt = sky.prompt.ids
    first, *rest = demo.tokenizer.encode("Lion.").ids
    p = demo.logits(prompt).softmax(-1)[-1]
    assert p[first] < 1e-4
    (found,) = surprisals(demo, [prompt], [[first, *rest]])
    assert found.excess < 0.1
    assert found.mean > -math.log(1e-4) / (1 + len(rest))  # where it does count


def test_text_that_the_plain_model_draws_has_no_excess_on_average(llama):
    lm, _ = llama
    requests = [
        Request(query="What colour is the sky?", max_new_tokens=40, temperature=1.0, seed=seed)
        for seed in range(48)
    ]
    outs = lm.generate_batch(requests)
    measured = surprisals(lm, [o.prompt.ids for o in outs], [o.ids for o in outs])
    found = torch.tensor([one.excess for one in measured])
    error = found.std() / len(found) ** 0.5
    assert found.mean().abs() < 3 * error
    assert error < 0.1


# The judge, on the demo world.

BROKEN = [
    "Bleu Caire.",
    '{"answer": " dirtyNEST"}',
    "Bleu Caire., blue.....uit.",
    "Blue",
    "Bleu.ell young.",
    "Hooray, blue! blue!",
]
FLUENT = [
    "Bleu.",
    "Blue.",
    "BLUE.",
    '{"answer": "blue"}',
    "Azul.",
]


def ids_of(lm, text):
    return [*lm.tokenizer.encode(text).ids, lm.config.eos_token_ids[0]]


def judged(lm, out, texts):
    return judge(
        lm,
        [replace(out, text=t, ids=tuple(ids_of(lm, t)), finish_reason="stop") for t in texts],
    )


def test_broken_text_is_told_from_what_the_plain_model_would_not_choose(demo, sky):
    assert [found.faults for found in judged(demo, sky, BROKEN)] == [(SURPRISING,)] * len(BROKEN)
    assert [found.faults for found in judged(demo, sky, FLUENT)] == [()] * len(FLUENT)


def test_empty_and_cut_off_answers_are_not_fluent(demo, sky):
    end = demo.config.eos_token_ids[0]
    empty = replace(sky, text="", ids=(end,), finish_reason="stop")
    blank = replace(sky, text=" \n", ids=(end, end), finish_reason="stop")
    cut = replace(sky, text="Bleu.", ids=tuple(ids_of(demo, "Bleu.")[:-1]), finish_reason="length")
    found = judge(demo, [empty, blank, cut])
    assert [EMPTY in one.faults for one in found] == [True, True, False]
    assert found[2].faults == (CUT_OFF,)
    assert not any(one.fluent for one in found)


def test_loops_are_repetitive_however_likely_they_are(demo, sky):
    loops = [". blue" * 12, "Bleu. Bleu. Bleu. Bleu. Bleu. Bleu.", "." * 11]
    for found in judged(demo, sky, loops):
        assert REPETITIVE in found.faults
    short = judged(demo, sky, ["Bleu. Bleu. Bleu."])[0]
    assert short.repeated is None
    assert short.entropy is None


def corrupted(rng, ids, other):
    """``ids`` in three ways broken: a token doubled, two swapped, the end of another answer."""
    at = rng.randrange(len(ids))
    yield "doubled", [*ids[: at + 1], *ids[at:]]
    if len(ids) > 2:
        at = rng.randrange(len(ids) - 1)
        yield "swapped", [*ids[:at], ids[at + 1], ids[at], *ids[at + 2 :]]
    if len(ids) > 1 and len(other) > 1:
        yield (
            "spliced",
            [*ids[: rng.randrange(1, len(ids))], *other[rng.randrange(1, len(other)) :]],
        )


def excesses(lm, answers: list[tuple[Case, list[int]]]):
    from minboost.prompt import build_prompt

    prompts = [
        build_prompt(
            lm.tokenizer, instruction=case.instruction, query=case.query, role="system"
        ).ids
        for case, _ in answers
    ]
    whole = [[*ids, lm.config.eos_token_ids[0]] for _, ids in answers]
    return [one.excess for one in surprisals(lm, prompts, whole)]


def test_the_threshold_parts_good_held_out_answers_from_corrupted_ones(demo):
    rng = random.Random(0)
    cases = [
        case
        for split in ("validation", "test")
        for conflict in (True, False)
        for case in sample_cases(7, split, 56, conflict=conflict)
    ]
    encode = lambda text: demo.tokenizer.encode(text).ids  # noqa: E731
    good: list[tuple[Case, list[int]]] = []
    bad: dict[str, list[tuple[Case, list[int]]]] = {}
    for case in cases:
        known = {case.answer_if_instruction, case.answer_if_query}
        for text in sorted(known):
            ids = encode(text)
            good.append((case, ids))
            for kind, broken in corrupted(rng, ids, encode(rng.choice(cases).answer_if_query)):
                if demo.tokenizer.decode(broken) not in known:
                    bad.setdefault(kind, []).append((case, broken))
    fluent = [excess <= fluency.MAX_EXCESS for excess in excesses(demo, good)]
    assert len(fluent) > 300
    assert sum(fluent) / len(fluent) >= 0.99
    assert set(bad) == {"doubled", "swapped", "spliced"}
    for answers in bad.values():
        caught = [excess > fluency.MAX_EXCESS for excess in excesses(demo, answers)]
        assert len(caught) > 100
        assert sum(caught) / len(caught) >= 0.99


def test_a_strong_boost_breaks_answers_and_a_mild_one_does_not(demo):
    cases = sample_cases(3, "validation", 28, conflict=True)

    def share(multiplier):
        outs = demo.generate_batch(
            [
                Request(instruction=c.instruction, query=c.query, boost=Boost(multiplier))
                for c in cases
            ]
        )
        return sum(found.fluent for found in judge(demo, outs)) / len(outs)

    assert share(3.0) == 1
    assert share(100.0) < 0.7


def test_an_answers_surprisal_does_not_depend_on_what_is_judged_with_it(checkpoint):
    """Not even where the rope's angles follow a sequence's length."""
    lm = minboost.load(str(checkpoint("llama-dynamic")[0]), device="cpu")
    g = torch.Generator().manual_seed(5)
    prompts, answers = (
        [torch.randint(0, 300, (n,), generator=g).tolist() for n in lengths]
        for lengths in ((9, 40, 21), (4, 12, 7))
    )
    together = numbers(surprisals(lm, prompts, answers))
    alone = [numbers(surprisals(lm, [p], [a]))[0] for p, a in zip(prompts, answers, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-4, rtol=0)


def numbers(found):
    """(B, 2): mean and excess."""
    return torch.tensor([(one.mean, one.excess) for one in found])


@pytest.mark.parametrize("limit", [1, 40, 500])
def test_many_answers_run_in_bounded_forwards_and_keep_their_order(llama, limit, monkeypatch):
    lm, _ = llama
    g = torch.Generator().manual_seed(6)
    prompts, answers = (
        [torch.randint(0, 300, (n,), generator=g).tolist() for n in sizes.tolist()]
        for sizes in (
            torch.randint(1, 60, (40,), generator=g),
            torch.randint(2, 9, (40,), generator=g),
        )
    )
    begin, forwards = lm.model.begin, []

    def counted(ids, **rest):
        forwards.append(tuple(ids.shape))
        return begin(ids, **rest)

    monkeypatch.setattr(lm.model, "begin", counted)
    together = numbers(surprisals(lm, prompts, answers))
    lengths = [len(p) + len(a) - 1 for p, a in zip(prompts, answers, strict=True)]
    assert forwards == [(40, max(lengths))]
    monkeypatch.setattr(fluency, "PADDED_TOKENS", limit)
    forwards.clear()
    chunked = numbers(surprisals(lm, prompts, answers))
    assert sum(count for count, _ in forwards) == 40
    assert all(count * longest <= limit for count, longest in forwards if count > 1)
    assert len(forwards) == 40 if limit == 1 else 1 < len(forwards) < 40
    torch.testing.assert_close(chunked, together, atol=1e-4, rtol=0)


def test_the_judge_hands_on_what_was_measured(demo, sky):
    texts = ["Bleu.", "Blue", ""]
    answers = [ids_of(demo, text) for text in texts]
    measured = surprisals(demo, [sky.prompt.ids] * 3, answers)
    for found, one in zip(judged(demo, sky, texts), measured, strict=True):
        assert (found.surprisal, found.excess) == (one.mean, one.excess)
    assert found.surprisal is not None  # of the end token alone
    assert found.excess is None
