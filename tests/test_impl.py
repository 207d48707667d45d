"""Which implementation runs where, and what is refused."""

from __future__ import annotations

import sys

import pytest
import torch

import minboost
from minboost import InputError, impl

CPU, CUDA, MPS = (torch.device(kind) for kind in ("cpu", "cuda", "mps"))


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch):
    monkeypatch.delenv("MINBOOST_IMPL", raising=False)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU as far as its capability is asked for."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    return pytest.importorskip("triton")


def test_auto_goes_by_device(gpu):
    chosen = [impl.choose("auto", device) for device in (CPU, MPS, CUDA)]
    assert chosen == ["torch", "torch", "triton"]


def test_auto_on_a_gpu_without_triton_is_torch(gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    assert impl.choose("auto", CUDA) == "torch"


@pytest.mark.parametrize("version", ["3.5.1", "2.10.0"])
def test_a_triton_too_old_is_passed_over_by_auto_and_refused_by_name(gpu, monkeypatch, version):
    monkeypatch.setattr(gpu, "__version__", version)
    assert impl.choose("auto", CUDA) == "torch"
    with pytest.raises(InputError, match=rf"needs triton 3\.6, and {version} is here"):
        impl.choose("triton", CUDA)


def test_a_gpu_too_old_is_passed_over_by_auto_and_refused_by_name(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert impl.choose("auto", CUDA) == "torch"
    with pytest.raises(InputError, match=r"needs a GPU of compute capability 8\.0"):
        impl.choose("triton", CUDA)


def test_the_variable_decides_for_auto_and_an_argument_over_the_variable(checkpoint, monkeypatch):
    folder = str(checkpoint("llama")[0])
    monkeypatch.setenv("MINBOOST_IMPL", "reference")
    assert minboost.load(folder, device="cpu").impl == "reference"
    assert minboost.load(folder, device="cpu", impl="torch").impl == "torch"
    q = torch.randn(1, 2, 3, 8)
    monkeypatch.setenv("MINBOOST_IMPL", "flash")
    with pytest.raises(InputError, match="implementation 'flash' does not exist"):
        minboost.attention.attention(q, q, q)


def test_triton_is_refused_where_it_cannot_run(monkeypatch):
    triton = pytest.importorskip("triton")
    with pytest.raises(InputError, match=r"'triton' runs on a GPU.*the device is mps"):
        impl.choose("triton", MPS)
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    with pytest.raises(InputError, match=r"TRITON_INTERPRET=1; the device is cpu"):
        impl.choose("triton", CPU)


def test_triton_without_the_package_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(InputError, match="needs the triton package"):
        impl.choose("triton", CUDA)
