"""Each method against its paper's formula, as TransformerLens hooks or a transformers mask.

The hooks multiply the attention pattern, row by row, and renormalise it; the masks add to the
logits, as PASTA's and GUIDE's public code does. Neither shares anything with minboost's plan.
"""

from __future__ import annotations

import functools
import math
import warnings

import pytest
import torch

from minboost.decode import Decoder
from minboost.methods import Boost, Guide, Pasta, Spotlight
from minboost.plan import Plan, sequence_plan
from minboost.span import Span

from . import tiny
from .conftest import load

PROMPT, STEPS = 20, 64
SPAN, OTHER = Span(3, 9), Span(12, 14)
# What is asked of minboost: methods and the spans that each acts on.
METHODS = {
    "pasta-exclude": [(Pasta(0.05), [SPAN])],
    "pasta-exclude-two-spans": [(Pasta(0.2, heads={0: [1, 4], 2: [0]}), [SPAN, OTHER])],
    "pasta-include": [(Pasta(6.0, scale_position="include", layers=[1, 2]), [SPAN])],
    "pasta-generation": [(Pasta(0.1, scale_position="generation"), [SPAN])],
    "guide": [(Guide(2.0), [SPAN])],
    "guide-three-levels": [
        (Guide(0.5, layers="0-1"), [SPAN]),
        (Guide(1.0, layers="0-1"), [OTHER]),
        (Guide(2.0, layers="0-1"), [Span(17, 18)]),
    ],
    "guide-down": [(Guide(-1.5), [SPAN])],
    "spotlight": [(Spotlight(0.4), [SPAN])],
    "spotlight-two-spans": [(Spotlight(0.6, heads={0: [0, 5], 1: [3], 2: "all"}), [SPAN, OTHER])],
    "spotlight-published": [(Spotlight(0.4, form="published"), [SPAN])],
    "spotlight-and-boost": [(Boost(3.0, layers=[0]), [OTHER]), (Spotlight(0.5), [SPAN])],
}
NAMES = ["llama", "qwen3", "mistral-full", "llama-multi-query"]


def ids_of(length, seed=4):
    return torch.randint(
        0, tiny.BASE["vocab_size"], (1, length), generator=torch.Generator().manual_seed(seed)
    )


def columns(spans, length):
    """(length,) bool: the keys that lie in a span."""
    return torch.tensor([any(s.start <= k < s.stop for s in spans) for k in range(length)])


def steered_pattern(pattern, hook, layer, asked, prompt):
    """The papers' way: scale the weights (B, H, Q, K) of some keys, then make every row sum to 1.

    ``prompt`` is the prompt's length: what comes after it has been generated.
    """
    pattern = pattern.clone()
    heads, keys = pattern.shape[1], pattern.shape[3]
    at = torch.arange(keys)
    for method, spans in asked:
        chosen = list(method.heads_by_layer(3, heads).get(layer, ()))
        if not chosen:
            continue
        rows = pattern[:, chosen]
        inside = columns(spans, keys)
        if isinstance(method, Spotlight):
            mass = rows[..., inside].sum(-1, keepdim=True)
            if method.form == "exact":
                factor = method.target * (1 - mass) / (mass * (1 - method.target))
            else:
                factor = method.target / mass
            # A row before the span sees none of it; one that sees nothing else has it all.
            low = (mass > 0) & (mass < method.target)
            rows[..., inside] *= torch.where(low, factor, torch.ones_like(factor))
        elif isinstance(method, Pasta):
            scaled = {
                "exclude": ~inside & (at < prompt),
                "include": inside,
                "generation": at < prompt,
            }[method.scale_position]
            rows[..., scaled] *= method.alpha
        elif isinstance(method, Guide):
            rows[..., inside] *= math.exp(method.delta)
        else:
            rows[..., inside] *= method.multiplier
        pattern[:, chosen] = rows / rows.sum(-1, keepdim=True)
    return pattern


def their_logits(model, ids, asked, prompt):
    hooks = [
        (
            f"blocks.{layer}.attn.hook_pattern",
            functools.partial(steered_pattern, layer=layer, asked=asked, prompt=prompt),
        )
        for layer in range(3)
    ]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.run_with_hooks(ids, fwd_hooks=hooks, return_type="logits")


def our_plan(model, asked, prompt):
    size = model.config.size
    return Plan.build(
        [sequence_plan(asked, tokens=prompt, **size)], **size, device=torch.device("cpu")
    )


def close(got, want):
    return (got - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.parametrize("impl", ["torch", "reference"])
@pytest.mark.parametrize("asked", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_logits_equal_the_papers_formula_in_transformer_lens(checkpoint, bridge, name, asked, impl):
    """60 tokens, the last 40 of which count as generated."""
    ids = ids_of(60)
    model = load(checkpoint(name)[0], impl=impl)
    got = model.logits(model(ids, plan=our_plan(model, asked, PROMPT)).hidden)
    assert close(got, their_logits(bridge(name), ids, asked, PROMPT))
    plain = model.logits(model(ids).hidden)
    assert (got.argmax(-1) != plain.argmax(-1)).float().mean() > 0.05  # it does something at all


@pytest.mark.parametrize("asked", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_64_greedy_tokens_equal_the_papers_formula(checkpoint, bridge, name, asked):
    model = load(checkpoint(name)[0])
    prompt = ids_of(PROMPT, seed=5)
    decoder = Decoder(
        model, prompt.tolist(), max_new_tokens=STEPS, plan=our_plan(model, asked, PROMPT)
    )
    logits, _ = decoder.prefill()
    ours = [int(logits[0].argmax())]
    while len(ours) < STEPS:
        ours.append(int(decoder.step([ours[-1]])[0].argmax()))
    # One pass over what we chose: greedy tokens are equal iff each is their first choice there.
    whole = torch.cat((prompt, torch.tensor([ours])), 1)
    theirs = their_logits(bridge(name), whole, asked, PROMPT)[0, PROMPT - 1 : -1].argmax(-1)
    assert ours == theirs.tolist()


def their_masked_logits(theirs, ids, bias):
    """transformers' logits with ``bias[layer]`` (H, T, T) added to the attention logits."""
    T = ids.shape[1]
    causal = torch.zeros(T, T).masked_fill(torch.ones(T, T).triu(1).bool(), -1e9)
    handles = []
    for layer, block in enumerate(theirs.model.layers):

        def add(module, args, kwargs, layer=layer):
            return args, {**kwargs, "attention_mask": (causal + bias[layer])[None]}

        handles.append(block.self_attn.register_forward_pre_hook(add, with_kwargs=True))
    try:
        with torch.no_grad():
            return theirs(ids).logits
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3-bias-yarn"])
@pytest.mark.parametrize(
    "kind", ["pasta-exclude", "pasta-exclude-two-spans", "pasta-include", "pasta-generation",
             "guide-three-levels"],
)  # fmt: skip
@torch.inference_mode()
def test_logits_equal_transformers_with_a_float_mask(checkpoint, name, kind):
    """PASTA's and GUIDE's public code adds log(alpha), or delta, to the mask before the softmax."""
    folder, theirs = checkpoint(name)
    ids, asked = ids_of(50, seed=9), METHODS[kind]
    bias = torch.zeros(3, 6, 50, 50)
    for method, spans in asked:
        inside = columns(spans, 50)
        prompt = torch.arange(50) < PROMPT
        keys, value = inside, getattr(method, "delta", None)
        if isinstance(method, Pasta):
            value = math.log(method.alpha)
            keys = {"exclude": ~inside & prompt, "include": inside, "generation": prompt}[
                method.scale_position
            ]
        for layer, heads in method.heads_by_layer(3, 6).items():
            bias[layer, list(heads)] += keys * value
    model = load(folder)
    got = model.logits(model(ids, plan=our_plan(model, asked, PROMPT)).hidden)
    assert close(got, their_masked_logits(theirs, ids, bias))
