"""Loading: strict about what is there, lean about memory, clear about what is wrong."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import sys
import textwrap

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from minboost.checkpoint import expected_slots, load_model, save_weights, shard_files
from minboost.config import ModelConfig
from minboost.errors import ModelError

from . import tiny
from .conftest import load


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A copy that a test may damage."""
    source, _ = checkpoint("llama")
    shutil.copytree(source, tmp_path / "model")
    return tmp_path / "model"


def rewrite(folder, change):
    """Load the weights, let ``change`` edit the dict, write them back."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def same_weights(a, b):
    pairs = zip(a.named_parameters(), b.named_parameters(), strict=True)
    return all(n == m and torch.equal(p, q) for (n, p), (m, q) in pairs)


def test_shards_load_to_the_same_weights_as_one_file(checkpoint, tmp_path):
    single, _ = checkpoint("qwen2-window")
    tiny.save("qwen2-window", tmp_path, shard="20KB")
    assert len(shard_files(tmp_path)) > 3
    assert same_weights(load(tmp_path), load(single))


def test_saved_weights_load_again_under_their_hugging_face_names(checkpoint, tmp_path):
    source, theirs = checkpoint("qwen3-bias-yarn")
    shutil.copy(source / "config.json", tmp_path)
    model = load(source)
    save_weights(model, tmp_path / "model.safetensors")
    assert same_weights(load(tmp_path), model)
    saved = load_file(tmp_path / "model.safetensors")
    want = theirs.state_dict()
    assert saved.keys() == want.keys()
    assert all(torch.equal(saved[name], want[name]) for name in want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_weights_are_rounded_to_the_dtype_asked_for(checkpoint, dtype):
    source, _ = checkpoint("llama-biases")
    wide, narrow = load(source), load(source, dtype=dtype)
    for (_, a), (_, b) in zip(wide.named_parameters(), narrow.named_parameters(), strict=True):
        assert b.dtype == dtype
        assert torch.equal(a.to(dtype), b)


def test_a_tied_head_shares_its_storage_and_a_second_copy_changes_nothing(checkpoint, tmp_path):
    source, _ = checkpoint("llama-tied")
    model = load(source)
    assert model.lm_head.weight is model.embed_tokens.weight
    shutil.copytree(source, tmp_path / "model")
    rewrite(
        tmp_path / "model",
        lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}),
    )
    again = load(tmp_path / "model")
    assert again.lm_head.weight is again.embed_tokens.weight
    assert same_weights(again, model)


@torch.inference_mode()
def test_a_head_that_differs_from_a_tied_embedding_counts_as_in_transformers(checkpoint, tmp_path):
    source, _ = checkpoint("llama-tied")
    shutil.copytree(source, tmp_path / "model")
    head = torch.randn(300, 48, generator=torch.Generator().manual_seed(1))
    rewrite(tmp_path / "model", lambda t: t.update({"lm_head.weight": head}))
    ids = torch.arange(20)[None]
    model = load(tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    want = theirs(ids).logits
    assert (model.logits(model(ids).hidden) - want).abs().max() <= 1e-5 * want.abs().max()


def test_a_stale_index_beside_a_whole_file_is_left_alone(folder):
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "gone.safetensors"}}'
    )
    load(folder)


def test_weights_too_large_for_the_dtype_are_named(folder):
    rewrite(folder, lambda t: t["model.layers.1.mlp.up_proj.weight"][3].fill_(1e6))
    load(folder)
    with pytest.raises(
        ModelError, match=r"up_proj.weight holds values too large for torch.float16"
    ):
        load(folder, dtype=torch.float16)


def test_the_old_inv_freq_tensors_are_ignored(folder):
    names = ("model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq")
    rewrite(folder, lambda t: t.update({name: torch.ones(4) for name in names}))
    load(folder)


def test_every_parameter_row_is_filled_by_exactly_one_tensor(checkpoint):
    for name in tiny.CHECKPOINTS:
        source, _ = checkpoint(name)
        model = load(source)
        rows: dict[str, list[tuple[int, int]]] = {}
        for slot in expected_slots(model.config).values():
            rows.setdefault(slot.parameter, []).append((slot.row, slot.row + slot.shape[0]))
        for parameter, tensor in model.named_parameters():
            at = 0
            for start, stop in sorted(rows.pop(parameter)):
                assert start == at
                at = stop
            assert at == tensor.shape[0]
        assert not rows


def damage_missing_file(folder):
    (folder / "model.safetensors").unlink()


def damage_pickle_only(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def damage_truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def damage_header_length(folder):
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + path.read_bytes()[8:])


def damage_empty(folder):
    (folder / "model.safetensors").write_bytes(b"")


def damage_shape(folder):
    rewrite(folder, lambda t: t.update({"model.norm.weight": torch.ones(47)}))


def damage_missing_tensor(folder):
    rewrite(folder, lambda t: t.pop("model.layers.1.self_attn.k_proj.weight"))


def damage_extra_tensor(folder):
    rewrite(folder, lambda t: t.update({"model.layers.0.self_attn.q_norm.weight": torch.ones(8)}))


def damage_nan(folder):
    rewrite(folder, lambda t: t["model.layers.2.mlp.up_proj.weight"][5].fill_(float("nan")))


def damage_inf(folder):
    rewrite(folder, lambda t: t["lm_head.weight"][0, :1].fill_(float("-inf")))


def damage_integer_weights(folder):
    rewrite(folder, lambda t: t.update({"model.norm.weight": torch.ones(48, dtype=torch.int8)}))


def index(folder, weight_map):
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def damage_missing_shard(folder):
    index(folder, {"a": "part.safetensors", "b": "model-00002-of-00002.safetensors"})


def damage_escaping_shard(folder):
    index(folder, {"a": "../model.safetensors"})


def damage_absolute_shard(folder):
    index(folder, {"a": "/etc/model.safetensors"})


def damage_drive_shard(folder):
    index(folder, {"a": "C:\\model.safetensors"})


def damage_pickle_shard(folder):
    index(folder, {"a": "pytorch_model.bin"})


def damage_number_shard(folder):
    index(folder, {"a": 7})


def damage_list_shard(folder):
    index(folder, {"a": ["part.safetensors"]})


def damage_empty_index(folder):
    index(folder, {})


def damage_doubled_tensor(folder):
    save_file({"lm_head.weight": torch.zeros(300, 48)}, folder / "more.safetensors")
    index(folder, {"a": "part.safetensors", "b": "more.safetensors"})


DAMAGES = {
    damage_missing_file: r"holds no model\.safetensors and no model\.safetensors\.index\.json",
    damage_pickle_only: r"pickle weights such as pytorch_model\.bin are never read",
    damage_truncated: r"model\.safetensors is truncated or no safetensors file",
    damage_header_length: r"model\.safetensors is truncated or no safetensors file",
    damage_empty: r"model\.safetensors is truncated or no safetensors file",
    damage_shape: r"model\.norm\.weight has shape \[47\], config\.json asks for \[48\]",
    damage_missing_tensor: r"lacks 1 tensors: model\.layers\.1\.self_attn\.k_proj\.weight",
    damage_extra_tensor: r"no place for: model\.layers\.0\.self_attn\.q_norm\.weight",
    damage_nan: r"model\.layers\.2\.mlp\.up_proj\.weight holds NaN or infinite values",
    damage_inf: r"lm_head\.weight holds NaN or infinite values",
    damage_integer_weights: r"model\.norm\.weight is I8; only float weights",
    damage_missing_shard: r"1 of 2 shards missing: model-00002-of-00002\.safetensors",
    damage_escaping_shard: r"shard name '\.\./model\.safetensors' is refused",
    damage_absolute_shard: r"shard name '/etc/model\.safetensors' is refused",
    damage_drive_shard: "is refused: it must be a .safetensors file directly inside",
    damage_pickle_shard: r"shard name 'pytorch_model\.bin' is refused",
    damage_number_shard: "shard name 7 is refused",
    damage_list_shard: r"shard name \['part\.safetensors'\] is refused",
    damage_empty_index: "weight_map must be an object",
    damage_doubled_tensor: r"lm_head\.weight is in part\.safetensors and in more\.safetensors",
}


@pytest.mark.parametrize(
    ("damage", "message"), DAMAGES.items(), ids=[d.__name__[7:] for d in DAMAGES]
)
def test_a_damaged_checkpoint_is_refused_and_the_damage_named(folder, damage, message):
    damage(folder)
    with pytest.raises(ModelError, match=message):
        load(folder)


def test_the_progress_bar_counts_every_row_once(checkpoint, monkeypatch):
    import tqdm

    bars = []

    class Bar(tqdm.tqdm):
        def __init__(self, **settings):
            super().__init__(**settings | {"disable": False, "file": io.StringIO()})
            bars.append(self)

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    folder, _ = checkpoint("qwen2")
    config = ModelConfig.from_folder(folder)
    load_model(folder, config, device=torch.device("cpu"), dtype=torch.float32, progress=True)
    assert [bar.n for bar in bars] == [bar.total for bar in bars]
    assert bars[0].total == sum(slot.shape[0] for slot in expected_slots(config).values())


def test_a_config_that_asks_for_more_than_the_file_holds_allocates_nothing(folder):
    raw = json.loads((folder / "config.json").read_text())
    raw["hidden_size"] = 6 * 20_000  # some 100 GB, were it built
    raw["head_dim"] = 16
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ModelError, match="has shape"):
        load(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="reads VmHWM")
def test_peak_memory_while_loading_stays_near_the_weights(tmp_path):
    """In a process of its own: resident peak during load, less that before, over the weights."""
    script = textwrap.dedent(
        """
        import sys, torch
        from pathlib import Path
        from minboost.checkpoint import load_model
        from minboost.config import ModelConfig

        def peak():
            status = Path("/proc/self/status").read_text()
            return int(status.split("VmHWM:")[1].split()[0]) * 1024

        folder = Path(sys.argv[1])
        config = ModelConfig.from_folder(folder)
        load_model(Path(sys.argv[2]), ModelConfig.from_folder(Path(sys.argv[2])),
                   device=torch.device("cpu"), dtype=torch.float32)  # warm: imports, threads
        before = peak()
        model = load_model(folder, config, device=torch.device("cpu"), dtype=torch.bfloat16)
        weights = sum(p.nbytes for p in model.parameters())
        print((peak() - before) / weights, weights)
        """
    )
    small = tmp_path / "small"
    tiny.save("llama", small)
    config = ModelConfig.from_dict(
        {
            **tiny.BASE,
            "model_type": "llama",
            "vocab_size": 60_000,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 12,
            "num_attention_heads": 16,
            "tie_word_embeddings": True,
        }
    )
    large = tmp_path / "large"
    large.mkdir()
    tensors = {
        name: torch.zeros(slot.shape, dtype=torch.bfloat16)
        for name, slot in expected_slots(config).items()
    }
    save_file(tensors, large / "model.safetensors")
    (large / "config.json").write_text(
        json.dumps(
            {
                "model_type": "llama",
                "vocab_size": 60_000,
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 12,
                "num_attention_heads": 16,
                "num_key_value_heads": 2,
                "max_position_embeddings": 256,
                "tie_word_embeddings": True,
            }
        )
    )
    out = subprocess.run(
        [sys.executable, "-c", script, str(large), str(small)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert int(out[1]) > 300 << 20
    assert float(out[0]) <= 1.2
