"""One run: what reaches it, where it ends, and what it says of each sequence of a batch."""

from __future__ import annotations

import json
import shutil
import time

import pytest
import torch

import minboost
from minboost import Boost, InputError, Request, Span
from minboost.decode import Decoder
from minboost.run import Run
from minboost.sampling import Sampler, Sampling, penalise

ASK = {"instruction": "Answer in French.", "query": "What colour is the sky?", "max_new_tokens": 12}
SETTINGS = {
    "role": "user",
    "max_new_tokens": 7,
    "temperature": 0.9,
    "top_p": 0.8,
    "top_k": 9,
    "min_p": 0.02,
    "repetition_penalty": 1.2,
    "seed": 4,
    "stop": ("zq",),
}


@pytest.fixture(scope="module")
def lm(checkpoint):
    return minboost.load(str(checkpoint("llama")[0]), device="cpu")


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A copy whose configs a test may rewrite."""
    shutil.copytree(checkpoint("llama")[0], tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("method", ["generate", "stream"])
def test_every_setting_reaches_the_request(lm, monkeypatch, method):
    seen, real = [], lm._run

    def spy(requests, measure_mass):
        seen.append((requests[0], measure_mass))
        return real(requests, measure_mass)

    monkeypatch.setattr(lm, "_run", spy)
    ask = {"query": "b", "instruction": "a", "boost": Boost(2.0), **SETTINGS}
    getattr(lm, method)(**ask, measure_mass=True)
    getattr(lm, method)(**ask)
    assert seen == [(Request(**ask), True), (Request(**ask), False)]


def test_every_setting_of_a_request_differs_from_its_default_above():
    """Else a setting that is dropped on the way could not be seen."""
    assert all(SETTINGS[name] != getattr(Request(query="b"), name) for name in SETTINGS)


def test_a_batch_measures_each_sequences_own_mass(lm):
    requests = [
        Request(**ASK, boost=Boost(9.0)),
        Request(query="Why?", max_new_tokens=2),
        Request(
            instruction="Be brief. " * 3,
            query="Why?",
            boost=Boost(2.0, layers=[1]),
            max_new_tokens=2,
        ),
    ]
    together = lm.generate_batch(requests, measure_mass=True)
    assert together[1].attention_mass is None
    assert together[1].boosted_heads == {}
    for b in (0, 2):
        alone = lm.generate_batch([requests[b]], measure_mass=True)[0]
        for name in ("boosted", "baseline"):
            got = getattr(together[b].attention_mass, name)
            want = getattr(alone.attention_mass, name)
            torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
        assert together[b].boosted_heads == alone.boosted_heads
        assert together[b].boosted_spans == alone.boosted_spans
    assert list(together[2].boosted_heads) == [1]


def test_the_repetition_penalty_counts_the_prompts_tokens(lm):
    raw = {**ASK, "role": "raw", "max_new_tokens": 1}
    plain = lm.generate(**raw)
    seen = torch.zeros(300, dtype=torch.bool)
    seen[plain.prompt.ids] = True
    want = int(penalise(lm.logits(plain.prompt.ids)[-1], seen, 1e6).argmax())
    assert lm.generate(**raw, repetition_penalty=1e6).ids == (want,)
    assert not seen[want]
    sampler = Sampler([Sampling(repetition_penalty=1.3)], [plain.prompt.ids], vocab_size=300)
    assert torch.equal(sampler.seen[0], seen)


def test_end_tokens_of_the_config_count_before_the_tokenizers(folder, lm):
    plain = lm.generate(**ASK)
    names = [lm.tokenizer.backend.id_to_token(token) for token in plain.ids]
    eos = next(name for name in names if name not in plain.prompt.text)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"eos_token": eos}))
    ended = minboost.load(str(folder), device="cpu").generate(**ASK)
    assert ended.finish_reason == "stop"
    never = next(token for token in range(299, 0, -1) if token not in plain.ids)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [never]}))
    assert minboost.load(str(folder), device="cpu").generate(**ASK).ids == plain.ids


@pytest.mark.parametrize(("room", "length"), [(1, 1), (11, 11), (12, 12)])
def test_the_answer_may_fill_the_context_to_its_last_token(folder, lm, room, length):
    used = len(lm.generate(**ASK).prompt.ids)
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = used + room
    (folder / "config.json").write_text(json.dumps(config))
    out = minboost.load(str(folder), device="cpu").generate(**ASK)
    assert len(out.ids) == length
    assert bool(out.notes) == (room < 12)


def test_a_prompt_that_fills_the_context_is_refused(folder, lm):
    used = len(lm.generate(**ASK).prompt.ids)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": used}))
    with pytest.raises(InputError, match=f"the prompt has {used} tokens"):
        minboost.load(str(folder), device="cpu").generate(**ASK)


def test_ended_sequences_are_not_counted_and_say_nothing(lm):
    requests = [Request(**ASK), Request(**{**ASK, "max_new_tokens": 3})]
    run = Run(lm.model, lm.tokenizer, requests, measure_mass=False)
    pieces = []
    while not run.done:
        pieces.append(run.step())
    assert run.decoded == 11 + 2
    assert all(later == "" for _, later in pieces[3:])
    assert [len(out.ids) for out in run.results()] == [12, 3]


@pytest.mark.parametrize("wanted", [True, 2.0, "3"], ids=repr)
def test_a_length_that_is_no_integer_is_refused(lm, wanted):
    with pytest.raises(InputError, match="max_new_tokens must be an integer"):
        lm.stream(**{**ASK, "max_new_tokens": wanted})


def test_a_span_of_two_boosts_is_named_once_and_one_without_strength_not_at_all(lm):
    both = [Boost(2.0, layers=[0]), Boost(3.0, layers=[1])]
    assert len(lm.generate(**ASK, boost=both).boosted_spans) == 1
    none = lm.generate(**ASK, boost=Boost(1.0))
    assert none.boosted_heads == {}
    assert none.boosted_spans == ()


def test_several_boosts_act_together_on_every_span(lm):
    ids = list(range(10, 30))
    strong, weak = Boost(5.0, layers=[0]), Boost(0.2, layers=[2])
    spans = [Span(2, 6), Span(9, 12)]
    both = lm.logits(ids, [strong, weak], spans)
    for boosts, where in (([strong], spans), ([weak], spans), ([strong, weak], spans[:1])):
        assert not torch.allclose(lm.logits(ids, boosts, where), both, atol=1e-3)


def test_no_piece_of_a_stream_is_empty(lm):
    full = lm.generate(**ASK).text
    pieces = list(
        lm.stream(**ASK, stop=[full[2:5] + "\0"])
    )  # held back, and then no stop after all
    assert all(pieces)
    assert "".join(pieces) == full


def test_statistics_count_every_step_and_every_prompt(lm, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))  # a second a call
    requests = [Request(**{**ASK, "max_new_tokens": 5}), Request(query="Why?", max_new_tokens=5)]
    outs = lm.generate_batch(requests)
    total = sum(len(out.prompt.ids) for out in outs)
    for out in outs:
        assert out.stats.prefill_seconds == 1
        assert out.stats.decode_seconds == 4
        assert out.stats.prefill_tokens_per_second == total
        assert out.stats.decode_tokens_per_second == 8 / 4


@pytest.mark.parametrize("graph", [True, False])
def test_whether_steps_are_captured_reaches_the_decoder(checkpoint, monkeypatch, graph):
    seen, real = [], Decoder.tokens

    def spy(self, samplings, **options):
        seen.append(options)
        return real(self, samplings, **options)

    monkeypatch.setattr(Decoder, "tokens", spy)
    lm = minboost.load(str(checkpoint("llama")[0]), device="cpu", graph=graph)
    lm.generate(query="Why?", max_new_tokens=1)
    assert seen == [{"graph": graph}]


def test_measuring_the_mass_leaves_the_plan_of_the_answer_as_it_is(lm):
    """One more span, watched and not steered, would change the rounding of the answer's run."""
    request = Request(**ASK, boost=Boost(5.0, span="sky"))
    plain, measured = (Run(lm.model, lm.tokenizer, [request], measure_mass=m) for m in (0, 1))
    assert measured.masses[0] is not None
    assert torch.equal(measured.plan.strength, plain.plan.strength)
    assert torch.equal(measured.plan.start, plain.plan.start)
