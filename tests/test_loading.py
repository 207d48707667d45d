"""minboost.load: which device and dtype "auto" is, and what reaches the loader."""

from __future__ import annotations

import pytest
import torch

from minboost import InputError, loading

from .test_config import read


@pytest.mark.parametrize(
    ("cuda", "mps", "want"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
    ids=["cuda", "mps", "cpu"],
)
def test_auto_takes_cuda_then_mps_then_the_cpu(monkeypatch, cuda, mps, want):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert loading._device("auto").type == want
    assert loading._device("cpu") == torch.device("cpu")
    if cuda:
        assert loading._device("cuda:1") == torch.device("cuda:1")
    if not mps:
        with pytest.raises(InputError, match="device 'mps' is not available"):
            loading._device("mps")


@pytest.mark.parametrize("fast", [True, False], ids=["bfloat16 in hardware", "without"])
def test_dtype_auto_is_the_checkpoints_unless_the_cpu_is_slow_in_it(monkeypatch, fast):
    monkeypatch.setattr(loading, "has_bfloat16", lambda: fast)
    config, half = read(dtype="bfloat16"), read(dtype="float16")
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert loading._dtype("auto", cpu, config) is (torch.bfloat16 if fast else torch.float32)
    assert loading._dtype("auto", cpu, half) is torch.float32
    assert loading._dtype("auto", gpu, config) is torch.bfloat16
    assert loading._dtype("auto", gpu, half) is torch.float16
    assert loading._dtype("float16", cpu, config) is torch.float16


def test_load_passes_on_what_it_was_given(checkpoint, monkeypatch):
    seen, real = {}, loading.load_model

    def spy(*args, **options):
        seen.update(options)
        return real(*args, **options)

    monkeypatch.setattr(loading, "load_model", spy)
    name = str(checkpoint("llama")[0])
    lm = loading.load(name, device="cpu", dtype="bfloat16", impl="reference", progress=True)
    assert lm.name == name
    assert lm.model.impl == "reference"
    assert lm.dtype == torch.bfloat16
    assert seen["progress"] is True
    assert seen["quantize"] is None
    assert loading.load(name, device="cpu", quantize="int8").model.quantized == "int8"


def test_the_revision_reaches_the_hub(checkpoint, monkeypatch):
    seen = []
    folder = checkpoint("llama")[0]

    def resolve(name, *, revision):
        seen.append((name, revision))
        return folder

    monkeypatch.setattr(loading, "resolve", resolve)
    assert loading.load("x/y", device="cpu", revision="r").name == "x/y"
    assert seen == [("x/y", "r")]
