"""A decode step's first launch, embedding and angles; its last, the likeliest token; and all of it
with int8 weights.
"""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

pytest.importorskip("triton")

from minboost.kernels.embed import embed, embed_reference
from minboost.kernels.greedy import greedy, greedy_reference

from minboost import Boost, Span
from minboost.decode import Decoder
from minboost.layers import RMSNorm, Weight
from minboost.model import Transformer
from minboost.plan import Plan, sequence_plan
from minboost.quantize import quantize_rows
from minboost.sampling import BROKEN, Sampling

from .conftest import load

# What the interpreter does with numpy is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def picked(table):
    count = torch.zeros(len(table), dtype=torch.int32, device=DEVICE)
    got = greedy(table, count)
    assert not count.any()
    return got


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("int8", [False, True], ids=["plain", "int8"])
@pytest.mark.parametrize("K", [1, 64, 1024, 1500])
def test_rows_are_the_embeddings_and_angles_the_positions(K, int8, dtype):
    g = torch.Generator().manual_seed(1)
    weight, scale = torch.randn(20, K, generator=g).to(dtype).to(DEVICE), None
    if int8:
        weight, scale = quantize_rows(weight)
    inv_freq = (1.0 / 10000 ** (torch.arange(40) / 40)).to(DEVICE)
    tokens, position = (
        torch.tensor(values, device=DEVICE) for values in ([3, 19, BROKEN], [0, 131071, 977])
    )
    first = (tokens, position, weight, inv_freq, 1.25)
    x, cos, sin = embed(*first, scale=scale, dtype=dtype)
    want_x, want_cos, want_sin = embed_reference(*first, scale=scale, dtype=dtype)
    assert {value.dtype for value in (x, cos, sin)} == {dtype}
    assert torch.equal(x, want_x)
    assert torch.equal(x[2], weight[0] if scale is None else (weight[0] * scale[0]).to(dtype))
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


def int8_model(folder, impl):
    """The checkpoint with every matrix in eight bits."""
    plain = load(folder, impl="torch")
    model = Transformer(plain.config, impl=impl, int8=True)
    for mine, of in zip(model.modules(), plain.modules(), strict=True):
        if isinstance(mine, Weight):
            mine.weight.data, mine.scale.data = quantize_rows(of.weight)
            if getattr(mine, "bias", None) is not None:
                mine.bias.data = of.bias.data
        if isinstance(mine, RMSNorm):
            mine.weight.data = of.weight.data
    model.tie_head()
    return model.to(DEVICE)


@pytest.mark.parametrize(
    ("name", "prompts"),
    [
        ("llama-biases", [[3, *range(40, 62)]]),
        ("qwen2", [[3, *range(40, 62)], [9]]),  # biases on q, k and v, a tied head
        ("qwen3", [[3, *range(40, 62)], [9]]),  # the rotation by itself
        ("llama", [[5 + b, 20, 30 + b] for b in range(9)]),  # more than the fused products take
    ],
    ids=["llama-biases", "qwen2", "qwen3", "nine rows"],
)
def test_int8_logits_of_every_step_are_those_of_the_torch_implementation(checkpoint, name, prompts):
    logits = {}
    for impl in ("torch", "triton"):
        model = int8_model(checkpoint(name)[0], impl)
        assert model.quantized == "int8"
        size = model.config.size
        boosts = [sequence_plan([(Boost(9.0, layers=[1]), [Span(0, 1)])], **size) for _ in prompts]
        plan = Plan.build(boosts, **size, device=torch.device(DEVICE))
        run = Decoder(model, prompts, max_new_tokens=4, plan=plan)
        assert (run.frame is not None) == (impl == "triton")
        first = run.prefill()[0]
        steps = [run.step([token] * len(prompts)) for token in (7, 100)]
        logits[impl] = torch.stack([first, *steps])
    torch.testing.assert_close(logits["triton"], logits["torch"], atol=1e-4, rtol=0)


def test_int8_tokens_chosen_on_the_device_are_those_of_the_torch_implementation(checkpoint):
    tokens = {}
    for impl in ("torch", "triton"):
        run = Decoder(int8_model(checkpoint("llama")[0], impl), [[5, 6, 7]], max_new_tokens=5)
        tokens[impl] = list(run.tokens([Sampling()]))
    assert tokens["triton"] == tokens["torch"]
    assert len(set(map(tuple, tokens["torch"]))) > 1
