"""A batch on its way: prefill in parts, and sequences that leave when they have ended."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from minboost import Boost, Latent, Span, Spotlight, attention_sdpa, decode
from minboost.decode import Decoder
from minboost.directions import Direction
from minboost.model import Transformer
from minboost.plan import Plan, sequence_plan

from .conftest import load

PROMPTS = [[5, 9, 2, 7, 11, 3], [4, 8, 15, 16, 23, 42, 7, 1], [3, 1, 4], [1, 5, 9, 2, 6]]
SPAN = Span(1, 3)


@pytest.fixture
def model(checkpoint):
    return load(checkpoint("llama")[0])


def plan_of(model):
    """One sequence plain, one boosted, one with a target mass, one with a shifted stream."""
    vector = torch.nn.functional.normalize(torch.arange(model.config.hidden_size).float(), dim=0)
    latent = Latent(2.0, direction=Direction("diffmean", 1, vector))
    asked = [[], [(Boost(5.0), [SPAN])], [(Spotlight(0.6), [SPAN])], [(latent, [])]]
    size = model.config.size
    plans = [
        sequence_plan(
            methods, tokens=len(prompt), watch=SPAN, hidden_size=model.config.hidden_size, **size
        )
        for methods, prompt in zip(asked, PROMPTS, strict=True)
    ]
    return Plan.build(plans, **size, device=model.device)


def assert_alike(got, want):
    """Products of other shapes round otherwise: 1e-5 of the logits' scale, as everywhere."""
    assert got.shape == want.shape
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


def decoder(model):
    return Decoder(model, PROMPTS, max_new_tokens=8, plan=plan_of(model))


@pytest.mark.parametrize("tokens", [1, 8, 16, 24])
def test_prefill_in_parts_gives_the_logits_the_mass_and_the_cache_of_the_whole(
    model, monkeypatch, tokens
):
    whole = decoder(model)
    logits, mass = whole.prefill(return_mass=True)
    seen = []
    forward = Transformer.forward

    def counted(self, ids, **rest):
        seen.append(len(ids))
        return forward(self, ids, **rest)

    monkeypatch.setattr(decode, "PREFILL_TOKENS", {"cpu": tokens})
    monkeypatch.setattr(Transformer, "forward", counted)
    parts = decoder(model)
    got, got_mass = parts.prefill(return_mass=True)
    assert seen == {1: [1] * 4, 8: [1] * 4, 16: [2, 2], 24: [3, 1]}[tokens]
    assert_alike(got, logits)
    assert_alike(got_mass, mass)
    assert_alike(parts.step([1, 2, 3, 4]), whole.step([1, 2, 3, 4]))


@pytest.mark.parametrize(
    ("live", "left"),
    [
        ([True, True, True, True], [0, 1, 2, 3]),
        ([True, False, True, True], [0, 1, 2, 3]),  # fewer than half have ended
        ([False, True, False, True], [1, 3]),
        ([False, False, True, False], [2]),
        ([False, False, False, False], [0, 1, 2, 3]),  # the run is over
    ],
)
def test_once_half_have_ended_the_others_go_on_alone_as_they_would_have(model, live, left):
    whole, dropping = decoder(model), decoder(model)
    for one in (whole, dropping):
        one.prefill()
        one.step([1, 2, 3, 4])
    dropping.drop(live)
    assert dropping.rows == left
    assert dropping.cache.k.shape[1] == len(left)
    for tokens in ([5, 6, 7, 8], [9, 10, 11, 12]):
        want, got = whole.step(tokens), dropping.step(tokens)
        assert_alike(got[left], want[left])
        gone = [row for row in range(4) if row not in left]
        assert not got[gone].any()


def test_sequences_leave_again_as_more_of_them_end(model):
    whole, dropping = decoder(model), decoder(model)
    for one in (whole, dropping):
        one.prefill()
    dropping.drop([True, False, False, True])
    assert_alike(dropping.step([1, 2, 3, 4])[3], whole.step([1, 2, 3, 4])[3])
    dropping.drop([False, False, False, True])
    assert dropping.rows == [3]
    assert_alike(dropping.step([1, 2, 3, 4])[3], whole.step([1, 2, 3, 4])[3])


@pytest.fixture
def in_parts(monkeypatch):
    """Later rows go over the keys in parts however few these are."""
    monkeypatch.setattr(attention_sdpa, "PARTS_FROM", 0)


LONG = [list(range(3, 60)), list(range(90, 117)), [7]]


def long_plan(model, prompts):
    """Spans that lie before, across and behind the edges of chunks of 8, differing by sequence."""
    size = model.config.size
    spans = [[Span(2, 5), Span(6, 19), Span(40, 57)], [Span(0, 24)], [Span(0, 1)]]
    plans = [
        sequence_plan(
            [(Boost(m), [span]) for m, span in zip((5.0, 0.3, 3.0), some, strict=False)],
            tokens=len(prompt),
            watch=some[0],
            **size,
        )
        for prompt, some in zip(prompts, spans, strict=False)
    ]
    return Plan.build(plans, **size, device=model.device)


@pytest.mark.parametrize("boosted", [False, True], ids=["plain", "boosted"])
@pytest.mark.parametrize("chunk", [8, 13, 56])
@pytest.mark.parametrize("name", ["llama", "llama-dynamic", "mistral", "qwen2-window", "qwen3"])
@pytest.mark.usefixtures("in_parts")
def test_a_long_prompt_in_chunks_gives_the_logits_and_the_mass_of_the_whole(
    checkpoint, monkeypatch, name, chunk, boosted
):
    model = load(checkpoint(name)[0])
    plan = long_plan(model, LONG)
    plan = plan if boosted else plan.without_strengths()
    whole = Decoder(model, LONG, max_new_tokens=4, plan=plan)
    logits, mass = whole.prefill(return_mass=True)
    seen, begin = [], Transformer.begin

    def watched(self, ids, **rest):
        seen.append(tuple(ids.shape))
        return begin(self, ids, **rest)

    monkeypatch.setattr(decode, "PREFILL_CHUNK", {"cpu": chunk})
    monkeypatch.setattr(Transformer, "begin", watched)
    parts = Decoder(model, LONG, max_new_tokens=4, plan=plan)
    got, got_mass = parts.prefill(return_mass=True)
    assert max(T for _, T in seen) <= chunk
    assert sum(T for _, T in seen) == sum(map(len, LONG))  # no padding
    assert_alike(got, logits)
    assert_alike(got_mass, mass)
    assert_alike(parts.step([1, 2, 3]), whole.step([1, 2, 3]))


@pytest.mark.usefixtures("in_parts")
def test_measuring_the_mass_in_chunks_changes_no_logit(checkpoint, monkeypatch):
    model = load(checkpoint("llama")[0])
    monkeypatch.setattr(decode, "PREFILL_CHUNK", {"cpu": 8})
    plan = long_plan(model, LONG[:1])
    for of in (plan, plan.without_strengths()):
        runs = [Decoder(model, LONG[:1], max_new_tokens=4, plan=of) for _ in range(2)]
        first, second = (
            run.prefill(return_mass=measured)[0]
            for run, measured in zip(runs, (False, True), strict=True)
        )
        assert torch.equal(first, second)


def largest_tensor(model, tokens, plan):
    """Bytes of the largest tensor that a prefill makes, the KV cache aside."""

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for one in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(one, torch.Tensor) and one.untyped_storage()._cdata not in cache:
                    self.size = max(self.size, one.untyped_storage().nbytes())
            return out

    run = Decoder(model, [[5] * tokens], max_new_tokens=2, plan=plan)
    cache = {of.untyped_storage()._cdata for of in (run.cache.k, run.cache.v)}
    with Largest() as largest:
        run.prefill()
    return largest.size


@pytest.mark.parametrize("boosted", [False, True], ids=["plain", "boosted"])
@pytest.mark.usefixtures("in_parts")
def test_what_prefill_needs_does_not_grow_with_the_prompt(checkpoint, monkeypatch, boosted):
    monkeypatch.setattr(decode, "PREFILL_CHUNK", {"cpu": 16})
    model = load(checkpoint("llama")[0])
    plan = long_plan(model, LONG[:1]) if boosted else None
    assert largest_tensor(model, 200, plan) == largest_tensor(model, 64, plan)
