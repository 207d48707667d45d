"""The first and the last launch of a decode step: embedding and angles, the likeliest token."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

pytest.importorskip("triton")

from minboost.kernels.embed import embed, embed_reference
from minboost.kernels.greedy import greedy, greedy_reference

from minboost.sampling import BROKEN

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def picked(table):
    count = torch.zeros(len(table), dtype=torch.int32, device=DEVICE)
    got = greedy(table, count)
    assert not count.any()
    return got


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("K", [1, 64, 1024, 1500])
def test_rows_are_the_embeddings_and_angles_the_positions(K, dtype):
    g = torch.Generator().manual_seed(1)
    weight = torch.randn(20, K, generator=g).to(dtype).to(DEVICE)
    inv_freq = (1.0 / 10000 ** (torch.arange(40) / 40)).to(DEVICE)
    tokens, position = (
        torch.tensor(values, device=DEVICE) for values in ([3, 19, BROKEN], [0, 131071, 977])
    )
    x, cos, sin = embed(tokens, position, weight, inv_freq, 1.25)
    want_x, want_cos, want_sin = embed_reference(tokens, position, weight, inv_freq, 1.25)
    assert torch.equal(x, want_x)
    assert torch.equal(x[2], weight[0])
    for got, want in ((cos, want_cos), (sin, want_sin)):
        torch.testing.assert_close(got, want, atol=2 * torch.finfo(dtype).eps, rtol=0)


@settings(max_examples=25, deadline=None)
@given(B=st.integers(1, 4), V=st.integers(1, 13000), seed=st.integers(0, 99))
def test_the_largest_of_any_row_is_found(B, V, seed):
    table = logits(B, V, seed=seed)
    assert torch.equal(picked(table), table.argmax(-1))


@pytest.mark.parametrize("at", [(0, 1), (4095, 4096), (7, 8191), (8999, 9000)])
def test_of_equal_logits_the_first_is_taken(at):
    table = logits(2, 9001)
    table[1, list(at)] = 50.0
    assert picked(table)[1] == at[0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", [0, 4096, 9000])
def test_a_row_that_is_not_finite_is_broken_and_its_neighbours_are_not(where, bad):
    table = logits(3, 9001)
    table[1, where] = bad
    want = [int(table[0].argmax()), BROKEN, int(table[2].argmax())]
    assert picked(table).tolist() == want == greedy_reference(table).tolist()


def test_a_row_without_any_weight_is_broken():
    assert picked(torch.full((1, 70), float("-inf"), device=DEVICE)).tolist() == [BROKEN]
