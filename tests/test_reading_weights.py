"""Bytes of a file → parameters: through small buffers, whole, finite, and for inference."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from minboost import checkpoint as checkpoints
from minboost import weight_reading as reading
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
    monkeypatch.setattr(checkpoints, "BUFFER_BYTES", SMALL)
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


@pytest.fixture
def readers():
    """Several readers, on a machine of any size."""
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("readers")
@pytest.mark.parametrize("job", [1, 5000], ids=["rows alone", "some tensors"])
def test_several_readers_fill_what_one_fills(checkpoint, monkeypatch, job):
    folder = checkpoint("qwen3-bias-yarn")[0]
    whole = load(folder)
    monkeypatch.setattr(reading, "JOB_BYTES", job)
    assert same_weights(load(folder), whole)


@pytest.mark.usefixtures("readers")
def test_of_several_damaged_tensors_the_first_in_file_order_is_named(folder, monkeypatch):
    """Also where the first is read slower than all the others."""
    monkeypatch.setattr(reading, "JOB_BYTES", 1)
    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(3)]
    rewrite(folder, lambda t: [t[name][79].fill_(float("nan")) for name in names])
    held, real = threading.Event(), reading._read_exactly

    def read(file, part, where):
        if names[0] in where:
            held.wait(0.2)
        real(file, part, where)

    monkeypatch.setattr(reading, "_read_exactly", read)
    with pytest.raises(ModelError, match=r"layers\.0\.mlp\.up_proj\.weight holds NaN"):
        load(folder)


@pytest.mark.usefixtures("readers")
def test_files_are_taken_in_the_order_of_the_index(folder):
    """Shards named against the alphabet, each with a damaged tensor."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = {"z.safetensors": {}, "a.safetensors": {}}
    for number, (name, tensor) in enumerate(sorted(tensors.items())):
        parts["z.safetensors" if number % 2 else "a.safetensors"][name] = tensor
    for part in parts.values():
        part[min(part)].view(-1)[-1] = float("inf")
    for file, part in parts.items():
        save_file(part, folder / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelError, match=r"^z\.safetensors: .* holds NaN or infinite values"):
        load(folder)


@pytest.mark.usefixtures("readers")
def test_reading_leaves_as_many_threads_as_there_were(folder):
    load(folder)
    assert torch.get_num_threads() == 3
    rewrite(folder, lambda t: t["lm_head.weight"].fill_(float("nan")))
    with pytest.raises(ModelError):
        load(folder)
    assert torch.get_num_threads() == 3
    assert not any(thread.name.startswith("minboost-read") for thread in threading.enumerate())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_finite_values_whose_sum_is_not_are_taken(folder, dtype):
    largest = torch.finfo(dtype).max
    rewrite(folder, lambda t: t.update({name: x.to(dtype) for name, x in t.items()}))
    rewrite(folder, lambda t: t["lm_head.weight"].fill_(largest))
    assert (load(folder).lm_head.weight == largest).all()


def test_what_is_finite_in_the_file_and_not_in_the_dtype_is_refused(folder):
    rewrite(folder, lambda t: t["lm_head.weight"][7, 7].fill_(torch.finfo(torch.float32).max))
    load(folder)
    with pytest.raises(ModelError, match=r"values too large for torch\.bfloat16"):
        load(folder, dtype=torch.bfloat16)


def test_a_model_loads_in_inference_mode(folder):
    want = load(folder)
    with torch.inference_mode():
        assert same_weights(load(folder), want)


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_ends_a_load_at_the_part_in_hand(folder):
    """Interrupted in the first part, nearly nothing else is read, and no reader outlives it."""
    script = textwrap.dedent(
        """
        import os, signal, sys, threading, time, torch
        from pathlib import Path
        from minboost import weight_reading as reading
        from minboost.checkpoint import load_model
        from minboost.config import ModelConfig

        torch.set_num_threads(2)
        reading.JOB_BYTES = 1
        parts, real = [], reading._read_exactly

        def read(file, part, where):
            parts.append(where)
            if len(parts) == 1:
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            real(file, part, where)

        reading._read_exactly = read
        folder = Path(sys.argv[1])
        try:
            load_model(folder, ModelConfig.from_folder(folder),
                       device=torch.device("cpu"), dtype=torch.float32)
        except KeyboardInterrupt:
            # One that was being started just then is not waited for, but ends likewise.
            for thread in threading.enumerate():
                if thread is not threading.current_thread():
                    thread.join(timeout=10)
            print(len(parts), threading.active_count(), torch.get_num_threads())
        """
    )
    out = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True
    ).stdout.split()
    read, threads, torch_threads = map(int, out)
    assert read <= 8  # of more than a thousand rows
    assert (threads, torch_threads) == (1, 2)
