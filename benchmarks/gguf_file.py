"""The weights of a Llama checkpoint as a GGUF file, which llama.cpp reads.

Names, the order of the rows of q and k (llama.cpp rotates neighbours, the checkpoint halves) and
the eight-bit blocks of 32 are those of llama.cpp's own converter (convert_hf_to_gguf.py). There is
no vocabulary in the file: tokens go in as ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from minboost.checkpoint import shard_files
from minboost.config import ModelConfig

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
KINDS = {"float32": "F32", "bfloat16": "BF16", "int8": "Q8_0"}


def gguf_of(folder: Path, kind: str) -> Path:
    """The checkpoint's GGUF file of that kind, beside its other files; written where missing."""
    path = folder / f"{kind}.gguf"
    if not path.exists():
        part = path.with_suffix(".part")
        write_gguf(folder, part, kind)
        part.rename(path)
    return path


def write_gguf(folder: Path, path: Path, kind: str) -> None:
    """Write the checkpoint of ``folder`` to ``path``, matrices as ``kind``, norms in float32.

    Args:
        kind: "float32", "bfloat16" or "int8" (Q8_0: 32 weights and a float16 scale a block).

    Raises:
        ValueError: a checkpoint that is no plain Llama, or matrices that Q8_0 cannot cut in blocks.
    """
    import gguf

    config = ModelConfig.from_folder(folder)
    biased = config.qkv_bias or config.o_bias or config.mlp_bias
    if biased or config.qk_norm or any(config.layer_windows) or config.rope.rope_type != "default":
        raise ValueError(f"{folder} is no plain Llama: only those are written as GGUF")
    quantized = gguf.GGMLQuantizationType[KINDS[kind]]
    single = gguf.GGMLQuantizationType.F32
    writer: Any = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    for name, tensor in _tensors(folder):  # sizes first, data afterwards: one tensor in memory
        as_type = quantized if tensor.dim() == 2 else single
        shape = tuple(tensor.shape)
        if as_type == gguf.GGMLQuantizationType.Q8_0 and shape[-1] % 32:
            raise ValueError(f"{name} has rows of {shape[-1]} weights, Q8_0 needs multiples of 32")
        stored = gguf.quant_shape_to_byte_shape(shape, as_type)
        size = int(np.prod(stored)) if as_type != single else 4 * tensor.numel()
        if as_type == single:
            writer.add_tensor_info(name, shape, np.dtype(np.float32), size)
        else:
            writer.add_tensor_info(name, stored, np.dtype(np.uint8), size, raw_dtype=as_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in _tensors(folder):
        rows = _in_pairs(name, tensor.float(), config).numpy()
        as_type = quantized if tensor.dim() == 2 else single
        writer.write_tensor_data(gguf.quants.quantize(rows, as_type))
    writer.close()


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for path in shard_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (the handle is no mapping)
                yield _gguf_name(name), file.get_tensor(name)


def _gguf_name(name: str) -> str:
    stem, _, end = name.rpartition(".")
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem)
    if layer:
        return f"blk.{layer[1]}.{NAMES[layer[2]]}.{end}"
    return f"{NAMES[stem]}.{end}"


def _in_pairs(name: str, weight: Tensor, config: ModelConfig) -> Tensor:
    """Rows of q and k in llama.cpp's order: of each head, i of the first half, i of the second."""
    heads = {".attn_q.": config.num_attention_heads, ".attn_k.": config.num_key_value_heads}
    for part, count in heads.items():
        if part in name:
            return (
                weight.view(count, 2, config.head_dim // 2, -1)
                .transpose(1, 2)
                .reshape(weight.shape)
                .contiguous()
            )
    return weight.contiguous()


def weight_bytes(kind: str, rows: int, columns: int) -> int:
    """Bytes of a matrix of that kind in the file."""
    if kind == "int8":
        return rows * (columns // 32) * 34
    return rows * columns * (torch.float32 if kind == "float32" else torch.bfloat16).itemsize
