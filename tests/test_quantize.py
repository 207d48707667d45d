"""Weights in eight bits: how far they err, what their products are, and how they are loaded."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file

from minboost import weight_reading as reading
from minboost.checkpoint import expected_slots, load_model, save_weights
from minboost.config import ModelConfig
from minboost.errors import InputError, ModelError
from minboost.quantize import check_quantize, int8_linear, quantize_rows, scale_of_a_row

from .test_checkpoint import rewrite
from .test_reading_weights import folder, readers  # noqa: F401 (fixtures)

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 70))
# Powers of two apart enough that no scale loses bits to float32's smallest numbers.
NUMBERS = st.floats(-(2.0**99), 2.0**99, width=32).map(lambda x: x if abs(x) > 2.0**-99 else 0.0)


def load(folder, *, dtype=torch.float32, quantize="int8"):  # noqa: F811
    config = ModelConfig.from_folder(folder)
    return load_model(folder, config, device=torch.device("cpu"), dtype=dtype, quantize=quantize)


def same(a, b):
    pairs = zip(a.named_parameters(), b.named_parameters(), strict=True)
    return all(n == m and p.dtype == q.dtype and torch.equal(p, q) for (n, p), (m, q) in pairs)


@given(weight=SIZES.flatmap(lambda size: arrays("float32", size, elements=NUMBERS)))
@settings(deadline=None)
def test_no_element_errs_by_more_than_half_a_scale(weight):
    weight = torch.from_numpy(weight)
    whole, scale = quantize_rows(weight)
    assert whole.dtype == torch.int8
    assert scale.dtype == torch.float32
    error = (whole.double() * scale.double()[:, None] - weight.double()).abs()
    # Scale and quotient are float32: the half is theirs to within a few of its roundings.
    assert (error <= scale.double()[:, None] * (0.5 + 127 * 2**-22)).all()


@given(weight=SIZES.flatmap(lambda size: arrays("float32", size, elements=NUMBERS)))
@settings(deadline=None)
def test_the_largest_of_a_row_becomes_127_and_a_row_of_zeros_has_scale_0(weight):
    whole, scale = quantize_rows(torch.from_numpy(weight))
    largest = whole.abs().amax(1)
    zero = torch.from_numpy(weight == 0).all(1)
    assert torch.equal(scale == 0, zero)
    assert (largest[zero] == 0).all()
    assert (largest[~zero] == 127).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_rows_are_quantised_as_they_are_in_float32(dtype):
    weight = torch.randn(7, 33, generator=torch.Generator().manual_seed(0)).to(dtype)
    for one, other in zip(quantize_rows(weight), quantize_rows(weight.float()), strict=True):
        assert torch.equal(one, other)


def products():
    """(dtype, vectors, rows, columns): one vector and many, sizes of no kernel's liking."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for vectors in (1, 3, 8, 9, 65):
            for rows, columns in ((1, 1), (63, 65), (129, 127), (65, 80), (4097, 64)):
                name = f"{str(dtype)[6:]}-{vectors}x{rows}x{columns}"
                yield pytest.param(dtype, vectors, (rows, columns), id=name)


@pytest.mark.parametrize(("dtype", "vectors", "size"), list(products()))
def test_a_product_errs_by_its_roundings_alone(dtype, vectors, size):
    """Against float64: a float32 sum in whatever order, and a few roundings to the dtype."""
    generator = torch.Generator().manual_seed(vectors)
    whole, scale = quantize_rows(torch.randn(size, generator=generator))
    bias = torch.randn(size[0], generator=generator).to(dtype)
    x = torch.randn(vectors, size[1], generator=generator).to(dtype)
    wide = whole.double() * scale.double()[:, None]
    exact = x.double() @ wide.T
    terms = x.double().abs() @ wide.abs().T
    y = int8_linear(x, whole, scale, bias)
    assert y.dtype == dtype
    assert y.shape == (vectors, size[0])
    half, half32 = torch.finfo(dtype).eps / 2, torch.finfo(torch.float32).eps / 2
    # At most two roundings of every weight (its scale, and itself), and four of what is summed: to
    # the dtype, of the scale, of their product, with the bias.
    allowed = (2 * half + size[1] * half32) * terms + 4 * half * (exact.abs() + bias.double().abs())
    assert ((y.double() - exact - bias.double()).abs() <= allowed).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("columns", [64, 80])
def test_a_scale_that_is_made_ready_changes_no_bit_of_a_row(dtype, columns):
    generator = torch.Generator().manual_seed(0)
    weight, scale = quantize_rows(torch.randn(9, columns, generator=generator))
    x = torch.randn(1, columns, generator=generator).to(dtype)
    ready = scale_of_a_row(weight, scale, dtype)
    assert torch.equal(int8_linear(x, weight, ready), int8_linear(x, weight, scale))
    # As the kernel reads it where there is one; products without it scale in float32.
    assert ready.dtype == (dtype if (dtype, columns) == (torch.bfloat16, 64) else torch.float32)


def test_leading_dimensions_stay():
    whole, scale = quantize_rows(torch.randn(5, 7, generator=torch.Generator().manual_seed(0)))
    assert int8_linear(torch.ones(2, 1, 7), whole, scale).shape == (2, 1, 5)
    assert int8_linear(torch.ones(2, 30, 7), whole, scale).shape == (2, 30, 5)


def test_an_unknown_quantisation_is_refused(checkpoint):
    check_quantize(None)
    check_quantize("int8")
    with pytest.raises(InputError, match="must be None or one of int8, got 'int4'"):
        load(checkpoint("llama")[0], quantize="int4")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["llama-tied", "llama-biases", "qwen3-bias-yarn"])
def test_loading_in_int8_is_quantising_what_float32_loads(checkpoint, name, dtype):
    """Fused matrices too; norms and biases are those of a load in the dtype."""
    source = checkpoint(name)[0]
    model = load(source, dtype=dtype)
    wide = dict(load(source, quantize=None).named_parameters())
    narrow = dict(load(source, dtype=dtype, quantize=None).named_parameters())
    got = dict(model.named_parameters())
    matrices = {slot.parameter for slot in expected_slots(model.config).values()
                if len(slot.shape) == 2}  # fmt: skip
    scales = {f"{name.removesuffix('weight')}scale" for name in matrices}
    assert got.keys() == narrow.keys() | scales
    assert model.quantized == "int8"
    assert model.dtype == dtype
    for name in matrices:
        whole, scale = quantize_rows(wide[name])
        assert torch.equal(got[name], whole)
        assert torch.equal(got[f"{name.removesuffix('weight')}scale"], scale)
    for name in narrow.keys() - matrices:
        assert got[name].dtype == dtype
        assert torch.equal(got[name], narrow[name])


def test_a_tied_head_shares_its_scales_as_well(checkpoint):
    model = load(checkpoint("llama-tied")[0])
    assert model.lm_head.weight is model.embed_tokens.weight
    assert model.lm_head.scale is model.embed_tokens.scale
    assert load(checkpoint("llama")[0]).lm_head.scale is not None


@pytest.mark.usefixtures("readers")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_rows_longer_than_the_buffer_are_quantised_whole(folder, monkeypatch, dtype):  # noqa: F811
    rewrite(folder, lambda t: t.update({name: x.to(dtype) for name, x in t.items()}))
    whole = load(folder)
    for name in ("BUFFER_BYTES", "JOB_BYTES"):
        monkeypatch.setattr(reading, name, 50)  # of which a row has 96 and more
    assert same(load(folder), whole)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("row", [0, 150, 299], ids=["first", "middle", "last"])
def test_a_value_that_is_not_finite_is_not_quantised(folder, value, row):  # noqa: F811
    rewrite(folder, lambda t: t["lm_head.weight"][row, 47:].fill_(float(value)))
    with pytest.raises(ModelError, match=r"lm_head\.weight holds NaN or infinite values"):
        load(folder)


def test_a_value_that_float32_cannot_hold_is_not_quantised(folder):  # noqa: F811
    tensor = load_file(folder / "model.safetensors")["lm_head.weight"].double()
    tensor[3, 3] = 1e300
    rewrite(folder, lambda t: t.update({"lm_head.weight": tensor}))
    with pytest.raises(ModelError, match=r"values too large for torch\.float32"):
        load(folder)


def test_the_largest_values_are_quantised_though_their_scales_have_no_finite_sum(folder):  # noqa: F811
    largest = torch.finfo(torch.float32).max
    rewrite(folder, lambda t: t["lm_head.weight"].fill_(largest))
    model = load(folder)
    assert (model.lm_head.weight == 127).all()
    assert (model.lm_head.scale == torch.tensor(largest) / 127).all()


def test_a_quantised_model_is_not_saved(checkpoint, tmp_path):
    model = load(checkpoint("llama")[0])
    with pytest.raises(InputError, match="quantised to int8 are not saved"):
        save_weights(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())
