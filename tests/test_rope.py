"""Rotation angles against transformers' own formulas."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from minboost.rope import RotaryEmbedding, inverse_frequencies

from .test_config import read

CPU = torch.device("cpu")
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 512,
}
CHANGES = {
    "plain": {},
    "attention-factor": {"attention_factor": 0.7},
    "betas": {"beta_fast": 16.0, "beta_slow": 2.0},
    "one-beta": {"beta_fast": 1.0, "beta_slow": 1.0},
    "one-mscale": {"mscale": 0.7},
    "both-mscales": {"mscale": 0.7, "mscale_all_dim": 0.4},
    "factor-one": {"factor": 1.0},
    "short-original": {"original_max_position_embeddings": 8},
    "not-truncated": {"truncate": False},
}


def theirs(rope, dim):
    config = transformers.LlamaConfig(
        hidden_size=64,
        num_attention_heads=4,
        head_dim=dim,
        max_position_embeddings=2048,
        rope_parameters=rope,
    )
    return ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, CPU)


@pytest.mark.parametrize("dim", [16, 128])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_yarn_equals_transformers(change, dim):
    rope = YARN | change
    got, got_factor = inverse_frequencies(read(head_dim=dim, rope_parameters=rope).rope, dim)
    want, want_factor = theirs(rope, dim)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=0)
    assert got_factor == pytest.approx(want_factor)


def test_yarn_with_both_ends_on_one_pair_is_a_step():
    rope = YARN | {"original_max_position_embeddings": 6}
    inv_freq, _ = inverse_frequencies(read(head_dim=16, rope_parameters=rope).rope, 16)
    assert inv_freq.isfinite().all()


def test_angles_are_formed_in_float32_whatever_the_dtype():
    rotary = RotaryEmbedding(read(), CPU)
    positions, lengths = torch.tensor([[1023, 1999]]), torch.tensor([2000])
    narrow = rotary(positions, lengths, torch.bfloat16)
    wide = rotary(positions, lengths, torch.float32)
    for got, want in zip(narrow, wide, strict=True):
        assert torch.equal(got, want.bfloat16())
