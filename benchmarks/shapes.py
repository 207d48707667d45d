"""Checkpoints with the shapes of known models and random weights, for the benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from minboost.checkpoint import expected_slots
from minboost.config import ModelConfig

SHAPES = {
    "SmolLM2-135M": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "rope_theta": 100000.0,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    },
    "Llama-3.2-1B": {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rope_theta": 500000.0,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    },
    "Llama-3.1-8B": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rope_theta": 500000.0,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    },
}


def write(
    shape: str, folder: Path, *, dtype: torch.dtype = torch.bfloat16, shards: int = 1
) -> None:
    """Write config.json and safetensors with random weights of that shape into ``folder``."""
    raw = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_act": "silu",
        "dtype": str(dtype).removeprefix("torch."),
        **SHAPES[shape],
    }
    (folder / "config.json").write_text(json.dumps(raw))
    slots = list(expected_slots(ModelConfig.from_dict(raw)).items())
    generator = torch.Generator().manual_seed(0)
    weight_map = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        name = "model.safetensors" if shards == 1 else name
        tensors = {}
        for key, slot in slots[shard::shards]:
            noise = torch.randn(slot.shape, generator=generator, dtype=torch.float32) * 0.02
            tensors[key] = (noise + 1 if key.endswith("norm.weight") else noise).to(dtype)
            weight_map[key] = name
        save_file(tensors, folder / name, metadata={"format": "pt"})
    if shards > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
