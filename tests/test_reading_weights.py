"""Bytes of a file → parameters: through a small buffer, whole, finite, and for inference."""

from __future__ import annotations

import io
import shutil

import pytest
import torch
from safetensors.torch import load_file

from minboost import checkpoint as reading
from minboost.errors import ModelError

from .conftest import load
from .test_checkpoint import rewrite, same_weights

SMALL = 1003  # bytes: shorter than nearly every tensor, and a multiple of no dtype's size


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A copy that a test may rewrite."""
    shutil.copytree(checkpoint("llama")[0], tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_tensors_longer_than_the_buffer_arrive_whole(folder, monkeypatch, dtype):
    rewrite(folder, lambda t: t.update({name: x.to(dtype) for name, x in t.items()}))
    whole = load(folder)
    stored = load_file(folder / "model.safetensors")
    assert torch.equal(whole.embed_tokens.weight, stored["model.embed_tokens.weight"].float())
    monkeypatch.setattr(reading, "BUFFER_BYTES", SMALL)
    assert same_weights(load(folder), whole)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("row", [0, 150, 299], ids=["first", "middle", "last"])
def test_a_value_that_is_not_finite_is_seen_in_every_part(folder, monkeypatch, value, row):
    monkeypatch.setattr(reading, "BUFFER_BYTES", SMALL)
    rewrite(folder, lambda t: t["lm_head.weight"][row, 47:].fill_(float(value)))
    with pytest.raises(ModelError, match=r"lm_head\.weight holds NaN or infinite values"):
        load(folder)


def test_a_second_head_that_differs_in_its_last_part_only_is_untied(
    checkpoint, tmp_path, monkeypatch
):
    shutil.copytree(checkpoint("llama-tied")[0], tmp_path / "model")
    head = load_file(tmp_path / "model" / "model.safetensors")["model.embed_tokens.weight"].clone()
    head[-1, -1] += 1
    rewrite(tmp_path / "model", lambda t: t.update({"lm_head.weight": head}))
    monkeypatch.setattr(reading, "BUFFER_BYTES", SMALL)
    model = load(tmp_path / "model")
    assert torch.equal(model.lm_head.weight, head)
    assert not torch.equal(model.embed_tokens.weight, head)


def test_a_short_read_is_continued_and_an_early_end_refused():
    class Slow(io.BytesIO):
        def readinto(self, part):
            return super().readinto(part[:3])

    part = memoryview(bytearray(10))
    reading._read_exactly(Slow(b"0123456789"), part, "x")
    assert bytes(part) == b"0123456789"
    with pytest.raises(ModelError, match="x ends early"):
        reading._read_exactly(io.BytesIO(b"012"), part, "x")


def test_another_shape_of_as_many_numbers_is_refused(folder):
    turned = torch.ones(48, 16)
    rewrite(folder, lambda t: t.update({"model.layers.0.self_attn.k_proj.weight": turned}))
    with pytest.raises(ModelError, match=r"has shape \[48, 16\], config\.json asks for \[16, 48\]"):
        load(folder)


def test_only_the_whole_name_of_the_old_tensors_is_ignored(folder):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq.weight"
    rewrite(folder, lambda t: t.update({name: torch.ones(4)}))
    with pytest.raises(ModelError, match="no place for"):
        load(folder)


@pytest.mark.parametrize("name", ["llama", "llama-tied"])
def test_a_loaded_model_is_for_inference(checkpoint, name):
    model = load(checkpoint(name)[0])
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
