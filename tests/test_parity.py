"""Every family and rope form against transformers: same logits, same greedy tokens."""

from __future__ import annotations

import pytest
import torch

from minboost.decode import Decoder
from minboost.methods import Boost
from minboost.plan import Plan, sequence_plan
from minboost.span import Span

from . import tiny
from .conftest import load

NAMES = list(tiny.CHECKPOINTS)


def ids(seed, *shape):
    return torch.randint(
        0, tiny.BASE["vocab_size"], shape, generator=torch.Generator().manual_seed(seed)
    )


def greedy(model, prompt, steps, plan=None):
    """64 tokens through the cache, and the logits that chose them."""
    decoder = Decoder(model, [prompt], max_new_tokens=steps, plan=plan)
    logits, _ = decoder.prefill()
    rows, tokens = [logits[0]], [int(logits[0].argmax())]
    while len(tokens) < steps:
        rows.append(decoder.step([tokens[-1]])[0])
        tokens.append(int(rows[-1].argmax()))
    return tokens, torch.stack(rows)


@pytest.mark.parametrize("impl", ["torch", "reference"])
@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_logits_equal_transformers_in_float32(checkpoint, name, impl):
    folder, theirs = checkpoint(name)
    ours = load(folder, impl=impl)
    batch = ids(1, 2, 50)
    want = theirs(batch).logits
    got = ours.logits(ours(batch).hidden)
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_logits_equal_transformers_in_bfloat16_within_its_rounding(checkpoint, name):
    """Both are held to the float32 model: ours may not be further from it than theirs, by much."""
    folder, exact = checkpoint(name)
    theirs = tiny.build(name, dtype=torch.bfloat16)
    ours = load(folder, dtype=torch.bfloat16)
    batch = ids(1, 4, 40)
    want = exact(batch).logits
    our_error = (ours.logits(ours(batch).hidden) - want).square().mean().sqrt()
    their_error = (theirs(batch).logits.float() - want).square().mean().sqrt()
    assert our_error <= 1.25 * their_error


@pytest.mark.parametrize("name", NAMES)
def test_64_greedy_tokens_equal_transformers(checkpoint, name):
    folder, theirs = checkpoint(name)
    prompt = ids(2, 20)
    want = theirs.generate(
        prompt[None],
        attention_mask=torch.ones(1, 20, dtype=torch.long),
        do_sample=False,
        max_new_tokens=64,
        min_new_tokens=64,
    )[0, 20:].tolist()
    tokens, _ = greedy(load(folder), prompt.tolist(), 64)
    assert tokens == want


@pytest.mark.parametrize("name", [n for n in NAMES if n != "llama-dynamic"])
@pytest.mark.parametrize("boosted", [False, True], ids=["plain", "boosted"])
@torch.inference_mode()
def test_generating_then_scoring_in_one_pass_gives_the_same_logits(checkpoint, name, boosted):
    # Dynamic NTK is left out: its angles depend on the length at the time a key was written.
    folder, _ = checkpoint(name)
    model = load(folder)
    size = model.config.size
    plan = None
    if boosted:
        spans = sequence_plan([(Boost(6.0), [Span(3, 11)])], **size)
        plan = Plan.build([spans], **size, device=torch.device("cpu"))
    prompt = ids(3, 23).tolist()
    tokens, stepwise = greedy(model, prompt, 40, plan)
    whole = model.logits(model(torch.tensor([prompt + tokens]), plan=plan).hidden)[0]
    once = whole[len(prompt) - 1 : -1]
    assert (once - stepwise).abs().max() <= 1e-5 * once.abs().max()


@pytest.mark.parametrize(
    "name", ["llama-llama3", "mistral", "qwen2-window", "qwen3", "llama-dynamic"]
)
@pytest.mark.parametrize("boosted", [False, True], ids=["plain", "boosted"])
def test_a_batch_gives_each_sequence_what_it_gets_alone(checkpoint, name, boosted):
    folder, _ = checkpoint(name)
    model = load(folder)
    size, cpu = model.config.size, torch.device("cpu")
    prompts = [ids(seed, length).tolist() for seed, length in ((5, 33), (6, 7), (7, 20))]
    boosts = [Boost(8.0), Boost(0.2, layers=[1]), Boost(3.0, heads=0.5)]
    spans = [[Span(0, 9)], [Span(2, 7)], [Span(4, 6), Span(5, 15)]]
    strengths = [
        sequence_plan([(boost, where)] if boosted else [], **size)
        for boost, where in zip(boosts, spans, strict=True)
    ]
    plan = Plan.build(strengths, **size, device=cpu)
    decoder = Decoder(model, prompts, max_new_tokens=30, plan=plan)
    logits, _ = decoder.prefill()
    tokens = [[int(t)] for t in logits.argmax(-1)]
    while len(tokens[0]) < 30:
        logits = decoder.step([row[-1] for row in tokens])
        for row, token in zip(tokens, logits.argmax(-1), strict=True):
            row.append(int(token))
    for prompt, strength, row in zip(prompts, strengths, tokens, strict=True):
        alone = Plan.build([strength], **size, device=cpu)
        assert greedy(model, prompt, 30, alone)[0] == row


@torch.inference_mode()
def test_mass_of_one_row_equals_that_row_of_the_whole(checkpoint):
    folder, _ = checkpoint("qwen2")
    model = load(folder)
    start, stop = torch.tensor([[2], [4]]), torch.tensor([[9], [6]])
    lm = torch.rand(3, 2, 6, 1)
    plan = Plan(start, stop, lm)
    batch, rows = ids(8, 2, 12), torch.tensor([11, 7])
    every = model(batch, plan=plan, return_mass=True)
    one = model(batch, plan=plan, return_mass=True, last=rows)
    for b, row in enumerate(rows):
        torch.testing.assert_close(one.mass[:, b, :, 0], every.mass[:, b, :, row])
        assert torch.equal(one.hidden[b, 0], every.hidden[b, row])
