"""Decode steps that stay on the device: right tokens, one step for every run, nothing looked at.

The Triton implementation in the interpreter, where there is no GPU; a captured graph replays the
very step that runs here (benchmarks/gpu.py compares the two).
"""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import minboost
from minboost import Boost, InputError, ModelError, Request, Span, Spotlight
from minboost.decode import Decoder
from minboost.device_step import DeviceStep
from minboost.layers import RMSNorm
from minboost.plan import Plan, sequence_plan
from minboost.sampling import Kind, Sampler, Sampling

from . import tiny
from .conftest import load

pytest.importorskip("triton")
# What the interpreter does with numpy is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PROMPTS = [list(range(10, 31)), list(range(40, 50)), [7, 8, 9]]
SAMPLINGS = [
    Sampling(),
    Sampling(temperature=1.0, top_k=50, top_p=0.9, seed=3),
    Sampling(repetition_penalty=1.5),
]


def plan_of(model, multipliers, span=(1, 3)):
    """One boost a sequence, on the same span; None for none."""
    size = model.config.size
    boosts = [
        sequence_plan([] if m is None else [(Boost(m), [Span(*span)])], **size) for m in multipliers
    ]
    return Plan.build(boosts, **size, device=DEVICE)


def decoder(model, prompts=PROMPTS, *, n=4, plan=None):
    return Decoder(model, prompts, max_new_tokens=n, plan=plan)


@pytest.fixture(scope="module")
def llama(checkpoint):
    return load(checkpoint("llama")[0], impl="triton").to(DEVICE)


@pytest.mark.parametrize(
    ("name", "boosted"),
    [
        *((name, True) for name in tiny.CHECKPOINTS),
        *(
            pytest.param(name, False, marks=[] if name in ("llama", "qwen3") else pytest.mark.slow)
            for name in tiny.CHECKPOINTS
        ),
    ],
    ids=lambda value: {True: "boosted", False: "plain"}.get(value, value),
)
def test_every_family_gets_the_greedy_tokens_of_the_torch_implementation(checkpoint, name, boosted):
    tokens = {}
    for impl in ("torch", "triton"):
        model = load(checkpoint(name)[0], impl=impl).to(DEVICE)
        plan = plan_of(model, [7.0, 0.2], (1, 9)) if boosted else None
        run = decoder(model, PROMPTS[:2], n=4, plan=plan)
        tokens[impl] = list(run.tokens([Sampling()] * 2))
    assert tokens["triton"] == tokens["torch"]
    assert len(tokens["torch"]) == 4


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_a_ragged_batch_of_all_kinds_gets_the_tokens_of_the_torch_implementation(checkpoint, name):
    tokens = {}
    for impl in ("torch", "triton"):
        model = load(checkpoint(name)[0], impl=impl).to(DEVICE)
        plan = plan_of(model, [7.0, 0.2, None])
        tokens[impl] = list(decoder(model, n=5, plan=plan).tokens(SAMPLINGS))
    assert tokens["triton"] == tokens["torch"]


def test_more_sequences_than_the_fused_products_take(checkpoint):
    tokens = {}
    prompts = [[5 + b, 20, 30 + b] for b in range(9)]
    for impl in ("torch", "triton"):
        model = load(checkpoint("llama")[0], impl=impl).to(DEVICE)
        tokens[impl] = list(decoder(model, prompts, n=3).tokens([Sampling()] * 9))
    assert tokens["triton"] == tokens["torch"]


@pytest.mark.parametrize("name", ["llama", "llama-dynamic", "mistral", "qwen3"])
def test_logits_of_prefill_and_of_every_step_are_those_of_the_torch_implementation(
    checkpoint, name
):
    """Closer than tokens: an eps that counts, a boost on one layer, past a window and a length."""
    logits = {}
    for impl in ("torch", "triton"):
        model = load(checkpoint(name)[0], impl=impl).to(DEVICE)
        for module in model.modules():
            if isinstance(module, RMSNorm):
                module.eps = 0.5
        size = model.config.size
        strengths = sequence_plan([(Boost(9.0, layers=[1]), [Span(1, 4)])], **size)
        plan = Plan.build([strengths, sequence_plan([], **size)], **size, device=DEVICE)
        run = decoder(model, [[3, *range(40, 62)], [9]], n=5, plan=plan)
        first = run.prefill()[0]
        steps = [run.step(tokens) for tokens in ([7, 8], [100, 200], [5, 6])]
        logits[impl] = torch.stack([first, *steps])
    torch.testing.assert_close(logits["triton"], logits["torch"], atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("mistral", "exact"),
        pytest.param("llama", "published", marks=pytest.mark.slow),
        pytest.param("qwen3", "exact", marks=pytest.mark.slow),
    ],
)
def test_a_target_mass_gives_the_torch_implementations_logits(checkpoint, name, form):
    """In prefill and in every step, beside a sequence without one, over two spans."""
    logits, size = {}, {"n_layers": 3, "n_heads": 6}
    spans = [Span(1, 4), Span(6, 7)]
    placed = [(Spotlight(0.6, form=form, heads={0: "all", 2: [1, 4]}), spans)]
    placed.append((Boost(3.0, layers=[1, 2]), [Span(3, 9)]))
    sequences = [sequence_plan(placed, **size), sequence_plan([], **size)]
    for impl in ("torch", "triton"):
        model = load(checkpoint(name)[0], impl=impl).to(DEVICE)
        plan = Plan.build(sequences, **size, device=DEVICE)
        run = decoder(model, [[3, *range(40, 62)], [9]], n=5, plan=plan)
        first = run.prefill()[0]
        logits[impl] = torch.stack([first, *(run.step(t) for t in ([7, 8], [100, 200], [5, 6]))])
        if impl == "torch":
            plain = decoder(model, [[3, *range(40, 62)], [9]], n=5).prefill()[0]
    torch.testing.assert_close(logits["triton"], logits["torch"], atol=2e-4, rtol=0)
    assert (logits["torch"][0, 0] - plain[0]).abs().max() > 0.1


def test_a_target_is_measured_on_the_mass_it_reaches(checkpoint):
    ask = {"instruction": "Be brief.", "query": "Why?", "max_new_tokens": 3, "measure_mass": True}
    lm = minboost.load(str(checkpoint("llama")[0]), device=DEVICE, impl="triton")
    mass = lm.generate(**ask, boost=Spotlight(0.7)).attention_mass
    low = mass.baseline[0] < 0.7
    assert low.any()
    torch.testing.assert_close(mass.boosted[0, low], torch.full_like(mass.boosted[0, low], 0.7),
                               atol=1e-5, rtol=0)  # fmt: skip


def test_one_step_serves_every_target_and_another_one_what_has_none(llama):
    """Targets double the rows of a tile: a captured step is made for them, not for their size."""
    llama.device_steps.clear()
    size = llama.config.size
    for method in (Spotlight(0.3), Spotlight(0.9, heads={1: [2]}), Boost(4.0)):
        sequence = sequence_plan([(method, [Span(1, 3)])], **size)
        plan = Plan.build([sequence], **size, device=DEVICE)
        tokens = list(decoder(llama, [PROMPTS[2]], n=3, plan=plan).tokens([Sampling()]))
        step = decoder(llama, [PROMPTS[2]], n=3, plan=plan)
        want = [int(step.prefill()[0].argmax())]
        while len(want) < 3:
            want.append(int(step.step([want[-1]]).argmax()))
        assert tokens == [[token] for token in want]
    assert [len(steps) for steps in llama.device_steps.values()] == [1, 1]


def test_a_prompt_of_one_token_and_an_answer_of_one_token(checkpoint):
    tokens = {}
    for impl in ("torch", "triton"):
        model = load(checkpoint("llama")[0], impl=impl).to(DEVICE)
        tokens[impl] = [list(decoder(model, [[5]], n=n).tokens([Sampling()])) for n in (1, 2)]
    assert tokens["triton"] == tokens["torch"]
    assert [len(run) for run in tokens["triton"]] == [1, 2]


def test_a_spans_mass_is_measured_with_and_without_the_boost(checkpoint):
    ask = {"instruction": "Be brief.", "query": "Why?", "max_new_tokens": 1, "measure_mass": True}
    masses = {}
    for impl in ("torch", "triton"):
        lm = minboost.load(str(checkpoint("llama")[0]), device=DEVICE, impl=impl)
        masses[impl] = lm.generate(**ask, boost=Boost(5.0)).attention_mass
    for name in ("baseline", "boosted"):
        got, want = (getattr(masses[impl], name) for impl in ("triton", "torch"))
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_logits_of_a_step_are_float32_and_not_rounded(checkpoint):
    model = load(checkpoint("llama")[0], dtype=torch.float16, impl="triton").to(DEVICE)
    logits = model.logits(torch.ones(1, 1, 48, dtype=torch.float16, device=DEVICE))
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.half().float())


@torch.inference_mode()
@pytest.mark.parametrize("impl", ["torch", "triton"])
def test_a_forward_without_a_cache(checkpoint, impl):
    """Keys and values then come with strides of their own."""
    model = load(checkpoint("llama")[0], impl=impl).to(DEVICE)
    want = load(checkpoint("llama")[0], impl="reference").to(DEVICE)
    plan = plan_of(model, [7.0, 0.2], (1, 3))
    for T in (1, 40):
        ids = torch.arange(20, 20 + 2 * T, device=DEVICE).view(2, T)
        got = model.logits(model(ids, plan=plan).hidden)
        torch.testing.assert_close(got, want.logits(want(ids, plan=plan).hidden), atol=2e-4, rtol=0)


def test_an_ended_run_gives_its_step_and_its_cache_back(checkpoint):
    lm = minboost.load(str(checkpoint("llama")[0]), device=DEVICE, impl="triton")
    stream = lm.stream(query="Why?", max_new_tokens=3)
    assert "".join(stream) == stream.result.text
    assert [len(steps) for steps in lm.model.device_steps.values()] == [1]


def test_new_weights_get_a_new_step(checkpoint):
    model = load(checkpoint("llama")[0], impl="triton").to(DEVICE)
    list(decoder(model, [[5, 6]], n=2).tokens([Sampling()]))
    ((_, before),) = model.device_steps.items()
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.flip(0), requires_grad=False)
    list(decoder(model, [[5, 6]], n=2).tokens([Sampling()]))
    ((_, after),) = model.device_steps.items()
    assert before[0] is not after[0]


@pytest.mark.parametrize("impl", ["torch", "triton"])
def test_a_row_that_breaks_after_its_end_disturbs_nobody(checkpoint, monkeypatch, impl):
    lm = minboost.load(str(checkpoint("llama")[0]), device=DEVICE, impl=impl)
    requests = [
        Request(instruction="Be brief.", query="What?", max_new_tokens=5),
        Request(query="Why?", max_new_tokens=2),
    ]
    want = [out.ids for out in lm.generate_batch(requests)]
    picks, real = [], Sampler.pick

    def pick(self, logits, draws=None):
        picks.append(1)
        if len(picks) > 2:
            logits[1] = float("nan")
        return real(self, logits, draws)

    monkeypatch.setattr(Sampler, "pick", pick)
    assert [out.ids for out in lm.generate_batch(requests)] == want
    assert len(picks) > 3


def test_a_run_stops_one_step_after_its_end_token_and_without_waiting(checkpoint, monkeypatch):
    lm = minboost.load(str(checkpoint("llama")[0]), device=DEVICE, impl="triton")
    ask = {"instruction": "Be brief.", "query": "Why?"}
    first = lm.generate(**ask, max_new_tokens=3).ids
    runs, real = [], DeviceStep.run
    monkeypatch.setattr(DeviceStep, "run", lambda *args: runs.append(1) or real(*args))
    object.__setattr__(lm.config, "eos_token_ids", (first[2],))
    stream = lm.stream(**ask, max_new_tokens=50)
    assert "".join(stream) == stream.result.text
    assert stream.result.ids == first
    assert stream.result.finish_reason == "stop"
    assert len(runs) == 3  # two for the tokens after the first, and the one under way


def test_one_step_serves_other_boosts_spans_lengths_and_strengths(llama):
    llama.device_steps.clear()
    runs = [
        (list(range(10, 31)), plan_of(llama, [7.0]), 3),
        ([40, 41], None, 2),
        ([3] * 40, plan_of(llama, [0.2], (0, 1)), 5),
    ]

    def tokens(prompt, plan, n):
        return list(decoder(llama, [prompt], n=n, plan=plan).tokens([Sampling()]))

    together = [tokens(*run) for run in runs]
    ((key, steps),) = llama.device_steps.items()
    assert key[1:] == (1, Kind(sampled=False, filtered=False, penalised=False), (None, None))
    assert len(steps) == 1
    for run, got in zip(runs[1:], together[1:], strict=True):
        llama.device_steps.clear()
        assert tokens(*run) == got


def test_runs_that_take_turns_do_not_disturb_each_other(llama):
    def run(multiplier):
        plan = plan_of(llama, [multiplier])
        return decoder(llama, [PROMPTS[0]], n=3, plan=plan).tokens([Sampling(temperature=1.0)])

    alone = [list(run(9.0)), list(run(0.1))]
    llama.device_steps.clear()
    both = [run(9.0), run(0.1)]
    turns = [[next(run) for run in both] for _ in range(3)]
    assert [list(tokens) for tokens in zip(*turns, strict=True)] == alone
    for run in both:
        run.close()
    assert [len(steps) for steps in llama.device_steps.values()] == [2]


def test_a_run_that_is_dropped_gives_its_step_back(llama):
    llama.device_steps.clear()
    tokens = decoder(llama, [[5, 6]], n=20).tokens([Sampling()])
    next(tokens), next(tokens)
    assert [len(steps) for steps in llama.device_steps.values()] == [0]
    tokens.close()
    assert [len(steps) for steps in llama.device_steps.values()] == [1]


class NothingLookedAt(TorchDispatchMode):
    """Refuses what a captured graph could not replay: reading a value, data from the host."""

    REFUSED = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "_unique2")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.__name__.split(".")[0] not in self.REFUSED, func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["llama", "qwen3", "llama-dynamic"])
def test_a_step_looks_at_no_value_and_takes_none_from_the_host(checkpoint, name):
    model = load(checkpoint(name)[0], impl="triton").to(DEVICE)
    run = decoder(model, [[3, 4, 5]], n=4)  # holds the cache that the step writes to
    every_stage = Sampling(temperature=0.9, top_p=0.9, repetition_penalty=1.2)
    tokens = run.tokens([every_stage])
    next(tokens), next(tokens)
    tokens.close()
    ((step,),) = model.device_steps.values()
    with torch.inference_mode(), NothingLookedAt():
        step._advance()


def test_logits_that_are_not_finite_raise_and_name_the_cure(checkpoint):
    lm = minboost.load(str(checkpoint("llama")[0]), device=DEVICE, impl="triton")
    with torch.inference_mode():
        lm.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="logits are not finite"):
        lm.generate(query="Why?", max_new_tokens=3)


def test_a_gradient_is_refused_and_not_silently_dropped(checkpoint):
    model = load(checkpoint("llama")[0], impl="triton").to(DEVICE)
    ids = torch.tensor([[1, 2, 3]], device=DEVICE)
    model(ids)  # fine: nothing asks for a gradient
    model.requires_grad_(True)
    with pytest.raises(InputError, match="no backward pass"):
        model(ids)


def test_a_gradient_behind_a_frozen_embedding_is_refused(checkpoint):
    model = load(checkpoint("llama")[0], impl="triton").to(DEVICE)
    model.requires_grad_(True)
    model.embed_tokens.requires_grad_(False)
    with pytest.raises(InputError, match="no backward pass"):
        model(torch.tensor([[1, 2, 3]], device=DEVICE))
