"""The forward: which attention runs, what is formed in float32, whose mass comes back."""

from __future__ import annotations

import pytest
import torch

import minboost
from minboost import Boost, Span, ops_torch
from minboost.cache import KVCache
from minboost.decode import Decoder
from minboost.layers import RMSNorm
from minboost.plan import Plan, sequence_plan

from .conftest import load

CPU = torch.device("cpu")
IDS = torch.arange(40, 60)[None]


def boosted(model):
    """A plan with one strong boost on tokens [4, 9)."""
    size = model.config.size
    strengths = sequence_plan([(Boost(5.0), [Span(4, 9)])], **size)
    return Plan.build([strengths], **size, device=CPU)


@pytest.mark.parametrize("impl", ["reference", "torch"])
def test_the_chosen_implementation_runs_every_attention(checkpoint, monkeypatch, impl):
    seen, real = [], ops_torch.attention

    def spy(*args, **options):
        seen.append((options["impl"], args[0].shape[2], options["return_mass"]))
        return real(*args, **options)

    monkeypatch.setattr(ops_torch, "attention", spy)
    lm = minboost.load(str(checkpoint("llama")[0]), device="cpu", impl=impl)
    lm.generate(
        instruction="Be brief.", query="Why?", boost=Boost(3.0), measure_mass=True, max_new_tokens=2
    )
    assert {chosen for chosen, _, _ in seen} == {impl}
    assert any(T > 1 for _, T, _ in seen)
    assert any(T == 1 and mass for _, T, mass in seen)  # the one row that is measured


def test_logits_are_float32_in_every_dtype(checkpoint):
    model = load(checkpoint("llama")[0], dtype=torch.bfloat16)
    with torch.inference_mode():
        assert model.logits(model(IDS).hidden).dtype == torch.float32


def test_a_norm_is_formed_in_float32():
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(0)).bfloat16() * 3
    wide = x.float()
    want = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)).bfloat16()
    assert torch.equal(RMSNorm(64, 1e-6).to(torch.bfloat16)(x), want)


@torch.inference_mode()
def test_mass_of_one_row_equals_that_row_of_the_whole_under_a_window(checkpoint):
    model = load(checkpoint("mistral")[0])
    plan = boosted(model)
    every = model(IDS, plan=plan, return_mass=True).mass
    one = model(IDS, plan=plan, return_mass=True, last=torch.tensor([17])).mass
    torch.testing.assert_close(one[:, :, :, 0], every[:, :, :, 17])


@torch.inference_mode()
def test_mass_of_a_row_behind_a_prefix_equals_that_row_of_one_pass(checkpoint):
    model = load(checkpoint("llama")[0])
    plan = boosted(model)
    want = model(IDS, plan=plan, return_mass=True).mass[:, :, :, 17]
    cache = KVCache(model.config, batch=1, length=20, device=CPU, dtype=torch.float32)
    model(IDS[:, :10], cache=cache, plan=plan)
    last = torch.tensor([7])
    chunk = model(IDS[:, 10:], cache=cache, start=10, plan=plan, return_mass=True, last=last)
    torch.testing.assert_close(chunk.mass[:, :, :, 0], want)


def test_a_batch_of_equal_lengths_decodes_at_one_position(checkpoint, monkeypatch):
    model = load(checkpoint("llama")[0])
    starts, real = [], model.forward

    def spy(*args, **options):
        starts.append(options.get("start", 0))
        return real(*args, **options)

    monkeypatch.setattr(model, "forward", spy)
    decoder = Decoder(model, [[1, 2, 3]] * 2, max_new_tokens=4)
    decoder.prefill()
    decoder.step([4, 5])
    assert starts == [0, 3]


def test_the_cache_holds_as_many_positions_as_asked_for(checkpoint):
    config = load(checkpoint("llama")[0]).config
    cache = KVCache(config, batch=2, length=20, device=CPU, dtype=torch.bfloat16)
    assert cache.length == 20
    assert cache.k.shape == cache.v.shape == (3, 2, 2, 20, 8)
    assert cache.k.dtype == cache.v.dtype == torch.bfloat16
