"""The sampler against transformers: the same filtered sets, the same distribution, seeds."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from minboost.errors import InputError
from minboost.sampling import BROKEN, Kind, Sampler, Sampling, inverse, penalise

TABLE = torch.randn(200, generator=torch.Generator().manual_seed(3)) * 3


def theirs(logits, sampling, seen=()):
    """transformers' processors in the order in which its generate applies them."""
    scores, ids = logits[None].clone(), torch.tensor([list(seen)], dtype=torch.long)
    if sampling.repetition_penalty != 1:
        scores = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(ids, scores)
    if sampling.temperature != 1:
        scores = TemperatureLogitsWarper(sampling.temperature)(ids, scores)
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(ids, scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(ids, scores)
    if sampling.min_p is not None:
        scores = MinPLogitsWarper(sampling.min_p)(ids, scores)
    return scores[0]


def sampler(sampling, seen=(), vocab_size=200):
    """A sampler of one sequence."""
    return Sampler([sampling], [seen], vocab_size=vocab_size)


def pick(sampler, logits):
    """The one sequence's next token."""
    return int(sampler.pick(logits[None], sampler.draws()))


def ours(logits, sampling, seen=()):
    if seen:
        mask = torch.zeros(len(logits), dtype=torch.bool)
        mask[list(seen)] = True
        logits = penalise(logits, mask, sampling.repetition_penalty)
    return sampler(sampling, vocab_size=len(logits)).table(logits[None])[0]


CASES = {
    "plain": {},
    "hot": {"temperature": 3.0},
    "cold": {"temperature": 0.05},
    "top-k": {"top_k": 7},
    "top-k-past-the-vocabulary": {"top_k": 999},
    "top-p": {"top_p": 0.8},
    "top-p-tiny": {"top_p": 1e-6},
    "min-p": {"min_p": 0.1},
    "all": {"temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.05},
    "penalty": {"repetition_penalty": 1.7, "top_k": 20},
    "reward": {"repetition_penalty": 0.5, "top_p": 0.7},
}


@pytest.mark.parametrize("change", CASES.values(), ids=CASES)
def test_filtered_sets_and_probabilities_equal_transformers(change):
    sampling = Sampling(**({"temperature": 1.0} | change))
    seen = (3, 17, 90, int(TABLE.argmax()), int(TABLE.argmin()))
    got, want = ours(TABLE, sampling, seen), theirs(TABLE, sampling, seen)
    assert torch.equal(got.isinf(), want.isinf())
    torch.testing.assert_close(got.softmax(-1), want.softmax(-1), atol=1e-6, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.integers(-40, 40), min_size=1, max_size=40, unique=True),
    temperature=st.floats(0.1, 5),
    top_k=st.none() | st.integers(0, 50),
    top_p=st.floats(0.01, 1),
    min_p=st.none() | st.floats(0, 1),
)
def test_the_likeliest_token_always_survives(logits, temperature, top_k, top_p, min_p):
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    table = torch.tensor(logits, dtype=torch.float32)
    kept = ours(table, sampling)
    assert kept[table.argmax()].isfinite()
    assert not kept.isnan().any()


@pytest.mark.parametrize(
    ("logits", "change", "kept"),
    [
        ([0.0, 0.0, 0.0, 0.0], {"top_p": 0.5}, 2),  # a tail of exactly the rest is cut
        ([1.0, 1.0, 0.0], {"min_p": 1.0}, 2),
        ([2.0, 1.0, 1.0, 0.0], {"top_k": 2}, 3),
    ],
    ids=["top-p-exactly", "min-p-ties", "top-k-ties"],
)
def test_ties_are_kept_and_cut_as_transformers_does(logits, change, kept):
    sampling, table = Sampling(temperature=1.0, **change), torch.tensor(logits)
    got = ours(table, sampling).isfinite()
    assert int(got.sum()) == int(theirs(table, sampling).isfinite().sum()) == kept
    if "top_p" not in change:  # which of equal tokens a sort puts first is nobody's promise
        assert torch.equal(got, theirs(table, sampling).isfinite())


def test_draws_follow_the_distribution():
    """A chi-square test of 20,000 draws; the seed is fixed, so it passes always or never."""
    sampling = Sampling(temperature=1.3, top_k=12, top_p=0.97, seed=5)
    want = theirs(TABLE, sampling).softmax(-1)
    drawing = sampler(sampling)
    n = 20_000
    counts = torch.bincount(torch.tensor([pick(drawing, TABLE) for _ in range(n)]), minlength=200)
    assert counts[want == 0].sum() == 0
    expected = want[want > 0] * n
    chi_square = ((counts[want > 0] - expected).square() / expected).sum()
    assert chi_square < 40  # 11 degrees of freedom: exceeded with probability 4e-5


def test_greedy_takes_the_maximum_and_needs_no_luck():
    assert pick(sampler(Sampling()), TABLE) == int(TABLE.argmax())


def test_the_penalty_acts_on_greedy_choices_and_on_the_prompt():
    table = torch.tensor([1.0, 3.0, 2.9])
    penalised = sampler(Sampling(repetition_penalty=1.2), [1], 3)
    assert pick(penalised, table) == 2  # 1 was in the prompt
    assert pick(penalised, table) == 1  # now both have been seen


def test_a_penalty_below_one_favours_what_was_seen():
    rewarded = sampler(Sampling(repetition_penalty=0.5), [1], 3)
    assert pick(rewarded, torch.tensor([1.0, 0.9, 0.0])) == 1


def test_a_seed_gives_the_same_draws_and_another_seed_others():
    def draws(seed):
        drawing = sampler(Sampling(temperature=1.0, seed=seed))
        return [pick(drawing, TABLE) for _ in range(20)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_a_vanishing_temperature_is_greedy_and_not_nan():
    assert pick(sampler(Sampling(temperature=1e-300)), TABLE) == int(TABLE.argmax())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_no_token(bad, temperature):
    table = TABLE.clone()
    table[7] = bad
    assert pick(sampler(Sampling(temperature=temperature)), table) == BROKEN


def test_one_broken_row_leaves_the_others_of_its_batch_alone():
    tables = torch.stack([TABLE, TABLE, TABLE.flip(0)])
    tables[1, 3] = float("nan")
    mixed = [Sampling(), Sampling(temperature=1.0), Sampling(top_p=0.5, temperature=0.1, seed=1)]
    batch = Sampler(mixed, [[]] * 3, vocab_size=200)
    alone = [pick(sampler(mixed[b]), tables[b]) for b in range(3)]
    assert batch.pick(tables, batch.draws()).tolist() == alone
    assert alone[1] == BROKEN


def test_a_sequence_draws_the_same_whatever_else_is_in_its_batch():
    one = Sampling(temperature=1.1, top_k=30, repetition_penalty=1.3, seed=6)
    others = [Sampling(temperature=2.0, min_p=0.01, seed=7), Sampling()]
    alone, batch = sampler(one, [4]), Sampler([*others, one], [[], [], [4]], vocab_size=200)
    for _ in range(30):
        assert int(batch.pick(TABLE.expand(3, -1), batch.draws())[2]) == pick(alone, TABLE)


def test_a_uniform_number_picks_where_the_cumulative_probability_passes_it():
    table = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]])
    numbers = {0.0: 1, 0.2499: 1, 0.25: 3, 0.7499: 3, 0.75: 4, 1 - 2**-53: 4}
    for number, token in numbers.items():
        assert int(inverse(table, torch.tensor([[number]], dtype=torch.float64))) == token


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0, top_k=3),
        Sampling(temperature=1.0, top_p=0.3),
        Sampling(temperature=1.0, min_p=0.5),
        Sampling(temperature=0.2),
        Sampling(repetition_penalty=3.0),
    ],
    ids=["top-k", "top-p", "min-p", "temperature", "penalty"],
)
def test_a_sampler_takes_over_the_whole_state_of_another(sampling):
    kind = Kind(sampled=True, filtered=True, penalised=True)
    flat = torch.linspace(1.0, 2.0, 200)[None]
    one = Sampler([sampling], [[199, 198]], vocab_size=200, kind=kind)
    other = Sampler([Sampling()], [[]], vocab_size=200, kind=kind)
    other.copy_(one)
    for draw in torch.linspace(0, 0.99, 20, dtype=torch.float64):
        draws = draw.reshape(1, 1)
        assert other.pick(flat, draws) == one.pick(flat, draws)


def test_a_broken_row_has_no_penalty_to_remember():
    penalised = Sampler([Sampling(repetition_penalty=1.2)], [[]], vocab_size=3)
    assert penalised.pick(torch.tensor([[0.0, float("nan"), 1.0]])).tolist() == [BROKEN]


def test_sampling_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    pick(sampler(Sampling(temperature=1.0)), TABLE)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": -0.1}, "temperature must be at least 0, got -0.1"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"top_p": 1.1}, "top_p"),
        ({"min_p": 2.0}, r"min_p must be in \[0, 1\], got 2.0"),
        ({"top_k": -1}, "top_k must be an integer of at least 0, got -1"),
        ({"top_k": 2.5}, "top_k"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0, got 0.0"),
        ({"seed": -1}, "seed must be an integer"),
        ({"seed": 1 << 63}, "seed must be an integer"),
        ({"temperature": float("inf")}, "temperature must be a finite number"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty must be a finite number"),
        ({"temperature": True}, "temperature must be a finite number"),
        ({"top_p": True}, "top_p must be a finite number"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        Sampling(**change)
