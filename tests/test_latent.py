"""Latent steering against its formula, written as TransformerLens hooks and transformers' own."""

from __future__ import annotations

import functools
import warnings

import pytest
import torch

import minboost
from minboost import Boost, InputError, Latent, Request, Span
from minboost.decode import Decoder
from minboost.directions import Direction
from minboost.plan import Plan, sequence_plan
from minboost.residual import Residual
from minboost.sampling import Sampling

from . import tiny
from .conftest import load

PROMPT, STEPS, HIDDEN = 20, 64, tiny.BASE["hidden_size"]
SPAN = Span(3, 9)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def direction(kind="diffmean", *, seed=0, hidden=HIDDEN):
    vector = torch.randn(hidden, generator=torch.Generator().manual_seed(seed))
    return Direction(kind, 1, vector / vector.norm())


# Large factors: a unit vector is little against the streams of these checkpoints.
ONE, OTHER, OUT = direction(), direction("linear", seed=1), direction("projection", seed=2)
METHODS = {
    "shift": [Latent(8.0, direction=ONE)],
    "shift-some": [Latent(-20.0, direction=ONE, layers=[0, 2])],
    "projection": [Latent(direction=OUT)],
    "projection-some": [Latent(3.0, direction=OUT, layers="1-2")],
    "two-shifts": [Latent(6.0, direction=ONE), Latent(9.0, direction=OTHER, layers=[1])],
    "projection-and-shift": [Latent(direction=OUT), Latent(6.0, direction=ONE, layers="0-1")],
    "shift-and-boost": [Latent(6.0, direction=ONE), Boost(10.0, layers=[1, 2])],
}
NAMES = ["llama", "qwen3", "mistral-full"]


def ids_of(length, seed=4):
    return torch.randint(
        0, tiny.BASE["vocab_size"], (1, length), generator=torch.Generator().manual_seed(seed)
    )


def steered(x, asked, layer):
    """The formula: x − (x·d)d, then x + factor·d, at a layer's output (B, T, hidden)."""
    latents = [m for m in asked if isinstance(m, Latent) and layer in m.layer_numbers(3)]
    for method in latents:
        if method.direction.kind == "projection":
            d = method.direction.vector
            x = x - torch.einsum("bth,h->bt", x, d)[..., None] * d
    for method in latents:
        if method.direction.kind != "projection":
            x = x + method.factor * method.direction.vector
    return x


def boosted(pattern, asked, layer):
    for method in asked:
        if isinstance(method, Boost) and layer in method.layer_numbers(3):
            pattern = pattern.clone()
            pattern[..., SPAN.start : SPAN.stop] *= method.multiplier
            pattern = pattern / pattern.sum(-1, keepdim=True)
    return pattern


def our_plan(model, asked):
    placed = [(m, [SPAN] if isinstance(m, Boost) else []) for m in asked]
    size = model.config.size
    plan = sequence_plan(placed, tokens=PROMPT, hidden_size=HIDDEN, **size)
    return Plan.build([plan], **size, device=model.device)


def greedy(model, asked, prompt, steps=STEPS):
    decoder = Decoder(model, prompt.tolist(), max_new_tokens=steps, plan=our_plan(model, asked))
    return [tokens[0] for tokens in decoder.tokens([Sampling()])]


def close(got, want):
    return (got - want).abs().max() <= 1e-5 * want.abs().max()


def lens_logits(model, ids, asked):
    """TransformerLens, steered at hook_resid_post as the paper's code does."""

    def at(function, layer):
        return lambda value, hook: function(value, asked, layer)

    hooks = [
        (f"blocks.{layer}.{name}", at(function, layer))
        for layer in range(3)
        for name, function in (("hook_resid_post", steered), ("attn.hook_pattern", boosted))
    ]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.run_with_hooks(ids, fwd_hooks=hooks, return_type="logits")


@pytest.mark.parametrize("impl", ["torch", "reference"])
@pytest.mark.parametrize("asked", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_logits_equal_the_formula_in_transformer_lens(checkpoint, bridge, name, asked, impl):
    ids = ids_of(60)
    model = load(checkpoint(name)[0], impl=impl)
    got = model.logits(model(ids, plan=our_plan(model, asked)).hidden)
    assert close(got, lens_logits(bridge(name), ids, asked))
    plain = model.logits(model(ids).hidden)
    assert (got.argmax(-1) != plain.argmax(-1)).float().mean() > 0.05  # it does something at all


@pytest.mark.parametrize("asked", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_64_greedy_tokens_equal_the_formula_in_transformer_lens(checkpoint, bridge, name, asked):
    prompt = ids_of(PROMPT, seed=5)
    ours = greedy(load(checkpoint(name)[0]), asked, prompt)
    # One pass over what we chose: greedy tokens are equal iff each is their first choice there.
    whole = torch.cat((prompt, torch.tensor([ours])), 1)
    theirs = lens_logits(bridge(name), whole, asked)[0, PROMPT - 1 : -1].argmax(-1)
    assert ours == theirs.tolist()


@pytest.mark.parametrize("kind", ["shift-some", "projection", "projection-and-shift"])
@pytest.mark.parametrize("name", ["llama-tied", "qwen2-window", "llama-dynamic", "mistral"])
def test_64_greedy_tokens_equal_transformers_with_hooked_layers(checkpoint, name, kind):
    """Their cache, one token a step: forward hooks on the decoder layers."""
    folder, theirs = checkpoint(name)
    asked, prompt = METHODS[kind], ids_of(PROMPT, seed=6)

    def hook(module, args, output, layer):
        assert isinstance(output, torch.Tensor)
        return steered(output, asked, layer)

    handles = [
        block.register_forward_hook(functools.partial(hook, layer=layer))
        for layer, block in enumerate(theirs.model.layers)
    ]
    try:
        want = theirs.generate(prompt, max_new_tokens=STEPS, do_sample=False, pad_token_id=0)
    finally:
        for handle in handles:
            handle.remove()
    assert greedy(load(folder), asked, prompt) == want[0, PROMPT:].tolist()


@torch.inference_mode()
def test_a_factor_of_0_is_the_plain_model(checkpoint):
    model = load(checkpoint("llama")[0])
    ids = ids_of(30)
    got = model(ids, plan=our_plan(model, [Latent(0.0, direction=ONE)])).hidden
    assert torch.equal(got, model(ids).hidden)


@torch.inference_mode()
def test_a_projection_leaves_nothing_along_the_direction(checkpoint):
    model = load(checkpoint("qwen3")[0])
    residual = our_plan(model, [Latent(direction=OUT)]).residual
    seen = []

    def watch(depth, x):
        x = residual(depth, x)
        seen.append((x @ OUT.vector).abs().max() / x.norm(dim=-1).max())
        return x

    model(ids_of(30), stream=watch)
    assert len(seen) == 4
    assert seen[0] > 0.01  # the embedding is left alone
    assert max(seen[1:]) < 1e-6


def test_a_stream_of_low_precision_is_steered_in_float32_and_rounded_once():
    g = torch.Generator().manual_seed(0)
    x = (40 * torch.randn(2, 5, HIDDEN, generator=g)).bfloat16()
    added = torch.stack((0.3 * ONE.vector, 0 * ONE.vector))[None]  # (1, 2, hidden)
    removed = torch.stack((OUT.vector, 0 * OUT.vector))[None]
    got = Residual(added, removed)(1, x)
    assert got.dtype == torch.bfloat16
    wide, d = x.double(), removed[0][:, None].double()
    want = wide - (wide * d).sum(-1, keepdim=True) * d + added[0][:, None].double()
    assert ((got.double() - want).abs() <= 2**-8 * want.abs() + 1e-6).all()
    assert torch.equal(got[1], x[1])  # where there is nothing to do, nothing is done


def test_requests_steered_together_are_what_each_is_alone(checkpoint):
    lm = minboost.load(str(checkpoint("llama")[0]), device="cpu")
    boosts = [
        Latent(10.0, direction=ONE),
        None,
        Latent(direction=OUT, layers=[1]),
        Boost(20.0),
        [Latent(-12.0, direction=OTHER, layers="1-2"), Boost(5.0)],
        Latent(10.0, direction=OTHER),
    ]
    requests = [
        Request(
            instruction="Answer in French.",
            query="What colour is the sky? " * (1 + number % 3),
            boost=boost,
            max_new_tokens=12,
        )
        for number, boost in enumerate(boosts)
    ]
    together = [out.ids for out in lm.generate_batch(requests)]
    alone = [lm.generate_batch([request])[0].ids for request in requests]
    assert together == alone
    assert len(set(together)) > 3  # they do differ


def test_latent_steering_needs_no_instruction_and_no_spans(checkpoint):
    lm = minboost.load(str(checkpoint("llama")[0]), device="cpu")
    steered_ = Latent(10.0, direction=ONE)
    out = lm.generate(query="Why?", boost=steered_, max_new_tokens=8)
    assert out.ids != lm.generate(query="Why?", max_new_tokens=8).ids
    assert (out.boosted_heads, out.boosted_spans) == ({}, ())
    ids = ids_of(12)[0]
    assert not torch.equal(lm.logits(ids, steered_), lm.logits(ids))


def test_what_does_not_fit_is_refused(checkpoint):
    lm = minboost.load(str(checkpoint("llama")[0]), device="cpu")
    wide = direction(hidden=HIDDEN + 1)
    for boost, message in (
        (Latent(direction=wide), r"shape \(49,\) does not fit the model.* 48 numbers a token"),
        (Latent(direction=ONE, layers=[3]), "layer 3 does not exist"),
        ([Latent(direction=OUT)] * 2, "project one direction out of a layer"),
    ):
        with pytest.raises(InputError, match=message):
            lm.generate(query="Why?", boost=boost)
    for change, message in (
        ({"factor": float("nan")}, "factor must be a finite number"),
        ({"factor": "much"}, "factor must be a finite number"),
        ({"direction": ONE.vector}, "direction must be a Direction"),
        ({"heads": 0.5}, "heads has no meaning"),
        ({"span": "sky"}, "span has no meaning"),
    ):
        with pytest.raises(InputError, match=message):
            Latent(**{"direction": ONE, **change})


def test_what_was_done_is_said_in_words():
    assert Latent(0.5, direction=ONE, layers="1-2").describe("", "") == (
        "added 0.5 x the diffmean direction of layer 1 to the residual stream after layers 1-2"
    )
    assert Latent(direction=OUT).describe("", "") == (
        "took the projection direction of layer 1 out of the residual stream after every layer"
    )
    assert Latent(direction=ONE, layers=[0, 2]).describe("", "").endswith("after layers 0, 2")
    assert "tensor" not in repr(Latent(direction=ONE))


# The step that stays on the device. Prompts are short: the interpreter takes its time.


@pytest.fixture(scope="module")
def twins(checkpoint):
    """The same checkpoint on the torch and on the Triton implementation."""
    pytest.importorskip("triton")
    return [load(checkpoint("llama")[0], impl=impl).to(DEVICE) for impl in ("torch", "triton")]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of Triton's interpreter
@pytest.mark.parametrize("kind", ["projection-and-shift", "shift-and-boost"])
def test_the_device_step_gives_the_tokens_of_the_torch_implementation(twins, kind):
    want, got = (greedy(model, METHODS[kind], ids_of(9), steps=4) for model in twins)
    assert got == want


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_one_step_serves_other_directions_and_another_kind_gets_its_own(twins):
    torch_model, model = twins
    model.device_steps.clear()
    other = [Latent(-15.0, direction=OTHER, layers=[1])]
    tokens = []
    for asked, steps in (
        (METHODS["shift"], 1),
        (other, 1),
        (METHODS["projection"], 2),
        (METHODS["shift"], 2),
    ):
        tokens.append(greedy(model, asked, ids_of(3), steps=3))
        assert tokens[-1] == greedy(torch_model, asked, ids_of(3), steps=3)
        assert [len(free) for free in model.device_steps.values()] == [1] * steps
    assert tokens[0] == tokens[3] != tokens[1]
