"""The boost against TransformerLens: a hook that multiplies the pattern and renormalises it."""

from __future__ import annotations

import functools
import warnings

import pytest
import torch

from minboost.decode import Decoder
from minboost.methods import Boost
from minboost.plan import Plan, sequence_plan
from minboost.span import Span

from . import tiny
from .conftest import load

BOOSTS = {
    "plain": None,
    "all": Boost(10.0),
    "drawn": Boost(4.0, layers=[0, 2], heads=0.5, head_seed=7),
    "played-down": Boost(0.05, layers="1-2"),
}
SPAN = Span(3, 12)
SLOW = ["llama-biases", "llama-llama3", "qwen2", "mistral-full"]


def hooks(boost, size):
    """The InstABoost way: scale the attention pattern's columns, then make the rows sum to 1."""

    def scale(pattern, hook, heads, m):
        # (B, H, Q, K)
        pattern = pattern.clone()
        pattern[:, heads, :, SPAN.start : SPAN.stop] *= m
        return pattern / pattern.sum(-1, keepdim=True)

    chosen = {} if boost is None else boost.heads_by_layer(**size)
    return [
        (
            f"blocks.{layer}.attn.hook_pattern",
            functools.partial(scale, heads=list(heads), m=boost.multiplier),
        )
        for layer, heads in chosen.items()
    ]


def plan_of(boost, size):
    if boost is None:
        return None
    strengths = sequence_plan([(boost, [SPAN])], **size)
    return Plan.build([strengths], **size, device=torch.device("cpu"))


def their_logits(model, ids, boost, size):
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.run_with_hooks(ids, fwd_hooks=hooks(boost, size), return_type="logits")


@pytest.mark.parametrize("boost", BOOSTS.values(), ids=BOOSTS)
@pytest.mark.parametrize("name", ["llama", "llama-tied", "qwen2", "qwen3", "mistral-full"])
@torch.inference_mode()
def test_logits_equal_hooked_transformer_lens(checkpoint, bridge, name, boost):
    folder, _ = checkpoint(name)
    model = load(folder)
    size = model.config.size
    ids = torch.randint(
        0, tiny.BASE["vocab_size"], (1, 60), generator=torch.Generator().manual_seed(4)
    )
    plan = plan_of(boost, size)
    got = model.logits(model(ids, plan=plan).hidden)
    want = their_logits(bridge(name), ids, boost, size)
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.parametrize("boost", BOOSTS.values(), ids=BOOSTS)
@pytest.mark.parametrize(
    "name", ["llama", "qwen3", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_64_greedy_tokens_equal_hooked_transformer_lens(checkpoint, bridge, name, boost):
    folder, _ = checkpoint(name)
    model = load(folder)
    size = model.config.size
    prompt = torch.randint(
        0, tiny.BASE["vocab_size"], (1, 20), generator=torch.Generator().manual_seed(5)
    )
    plan = plan_of(boost, size)
    decoder = Decoder(model, prompt.tolist(), max_new_tokens=64, plan=plan)
    logits, _ = decoder.prefill()
    ours = [int(logits[0].argmax())]
    while len(ours) < 64:
        ours.append(int(decoder.step([ours[-1]])[0].argmax()))
    sequence = prompt
    for _ in range(64):  # no cache on their side: the hook sees whole rows
        token = their_logits(bridge(name), sequence, boost, size)[0, -1].argmax()
        sequence = torch.cat((sequence, token.view(1, 1)), 1)
    assert ours == sequence[0, 20:].tolist()


def test_the_boosts_change_the_greedy_tokens(checkpoint):
    """The comparison above would pass on a boost that does nothing; this one would not."""
    folder, _ = checkpoint("llama")
    model = load(folder)
    size = model.config.size
    ids = torch.randint(
        0, tiny.BASE["vocab_size"], (1, 60), generator=torch.Generator().manual_seed(4)
    )
    with torch.inference_mode():
        plain = model.logits(model(ids).hidden)
        for boost in (b for b in BOOSTS.values() if b is not None):
            plan = plan_of(boost, size)
            boosted = model.logits(model(ids, plan=plan).hidden)
            assert (boosted.argmax(-1) != plain.argmax(-1)).float().mean() > 0.1
