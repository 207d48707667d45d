"""safetensors → parameters: strict, streamed, straight into the fused weights.

Hugging Face names stay at this border. What the files hold is read in safetensors_file.py, their
data in weight_reading.py.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .errors import InputError, ModelError
from .impl import choose
from .model import Transformer
from .quantize import check_quantize
from .safetensors_file import FLOATS, Stored, read_header, shard_files, some
from .weight_reading import BUFFER_BYTES, pieces, read_pieces

# Written by old versions of transformers; the rotation angles follow from the config.
IGNORED = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.\w+")


@dataclass(frozen=True)
class Slot:
    """Where one tensor of the checkpoint goes: rows [row, row + shape[0]) of a parameter."""

    parameter: str
    row: int
    shape: tuple[int, ...]

    def of(self, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Those rows, and their scales where the parameter is an int8 matrix."""
        rows = slice(self.row, self.row + self.shape[0])
        weight = parameters[self.parameter]
        if weight.dtype != torch.int8:
            return weight[rows], None
        return weight[rows], parameters[self.parameter.removesuffix("weight") + "scale"][rows]


def load_model(
    folder: Path,
    config: ModelConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    impl: str = "auto",
    quantize: str | None = None,
    progress: bool = False,
) -> Transformer:
    """Build the model of ``config`` and fill it from the safetensors files of ``folder``.

    Every parameter is filled exactly once and every tensor of the checkpoint is used; names,
    shapes and dtypes are checked before anything is allocated.

    Args:
        dtype: of the parameters; of those that stay floats, where the matrices are quantised.
        quantize: "int8" for matrices in eight bits (quantize.py), made row by row while reading.

    Raises:
        ModelError: a file or tensor is missing, left over, malformed, misshapen, quantised or
            holds NaN or infinite values; the message names it, of several damaged tensors the
            first in the files' order.
        InputError: an ``impl`` that does not exist or cannot run here (impl.py), or a ``quantize``
            that does not exist.
    """
    impl = choose(impl, device)
    check_quantize(quantize)
    files = {path: read_header(path) for path in shard_files(folder)}
    if config.tie_word_embeddings and not _head_is_the_embedding(files):
        # As transformers 5: a head of its own in the files counts for more than the config's word.
        config = replace(config, tie_word_embeddings=False)
    slots = expected_slots(config)
    _check_names(slots, files, tied=config.tie_word_embeddings)
    with torch.device("meta"):
        model = Transformer(config, impl=impl, int8=quantize == "int8")
    model.requires_grad_(False)
    for name, parameter in list(model.named_parameters()):
        int8 = parameter.dtype == torch.int8 or name.endswith(".scale")
        _assign(
            model,
            name,
            torch.empty(parameter.shape, device=device, dtype=parameter.dtype if int8 else dtype),
        )
    model.tie_head()
    parameters = dict(model.named_parameters())
    reading = {}
    for path, header in files.items():
        reading[path] = [
            piece
            for name, stored in sorted(header.items(), key=lambda item: item[1].start)
            if (slot := slots.get(name)) is not None
            for piece in pieces(f"{path.name}: {name}", stored, *slot.of(parameters))
        ]
    with _bar(sum(slot.shape[0] for slot in slots.values()), progress) as bar:
        read_pieces(reading, progress=bar.update)
    return model.eval()


def save_weights(model: Transformer, path: Path) -> None:
    """Write the weights under their Hugging Face names, fused parameters taken apart again.

    Raises:
        InputError: the model is quantised: such a file could not be read again.
    """
    if model.quantized is not None:
        raise InputError(
            f"weights quantised to {model.quantized} are not saved: a checkpoint holds floats, so "
            "save the model as it was loaded without quantize"
        )
    from safetensors.torch import save_file

    parameters = dict(model.named_parameters())
    tensors = {
        name: slot.of(parameters)[0].detach().cpu().clone()
        for name, slot in expected_slots(model.config).items()
    }
    save_file(tensors, path, metadata={"format": "pt"})


def expected_slots(config: ModelConfig) -> dict[str, Slot]:
    """Every tensor that a checkpoint of this config holds, by its Hugging Face name."""
    hidden, inner, dim = config.hidden_size, config.intermediate_size, config.head_dim
    q_rows, kv_rows = config.num_attention_heads * dim, config.num_key_value_heads * dim
    slots = {
        "model.embed_tokens.weight": Slot("embed_tokens.weight", 0, (config.vocab_size, hidden)),
        "model.norm.weight": Slot("norm.weight", 0, (hidden,)),
    }
    if not config.tie_word_embeddings:
        slots["lm_head.weight"] = Slot("lm_head.weight", 0, (config.vocab_size, hidden))

    def linear(
        source: str, target: str, row: int, rows: int, columns: int, bias: bool
    ) -> Iterator[tuple[str, Slot]]:
        yield f"model.{source}.weight", Slot(f"{target}.weight", row, (rows, columns))
        if bias:
            yield f"model.{source}.bias", Slot(f"{target}.bias", row, (rows,))

    for layer in range(config.num_hidden_layers):
        at = f"layers.{layer}"
        row = 0
        for part, rows in (("q", q_rows), ("k", kv_rows), ("v", kv_rows)):
            source, target = f"{at}.self_attn.{part}_proj", f"{at}.self_attn.qkv_proj"
            slots.update(linear(source, target, row, rows, hidden, config.qkv_bias))
            row += rows
        name = f"{at}.self_attn.o_proj"
        slots.update(linear(name, name, 0, hidden, q_rows, config.o_bias))
        for part, row in (("gate", 0), ("up", inner)):
            source, target = f"{at}.mlp.{part}_proj", f"{at}.mlp.gate_up_proj"
            slots.update(linear(source, target, row, inner, hidden, config.mlp_bias))
        name = f"{at}.mlp.down_proj"
        slots.update(linear(name, name, 0, hidden, inner, config.mlp_bias))
        for norm in ("input_layernorm", "post_attention_layernorm"):
            slots[f"model.{at}.{norm}.weight"] = Slot(f"{at}.{norm}.weight", 0, (hidden,))
        if config.qk_norm:
            for norm in ("q_norm", "k_norm"):
                name = f"{at}.self_attn.{norm}.weight"
                slots[f"model.{name}"] = Slot(name, 0, (dim,))
    return slots


def _head_is_the_embedding(files: dict[Path, dict[str, Stored]]) -> bool:
    """Is lm_head.weight absent, or the same bytes as the embedding?"""
    found = {
        name: (path, header[name])
        for path, header in files.items()
        for name in ("lm_head.weight", "model.embed_tokens.weight")
        if name in header
    }
    if len(found) < 2:
        return "lm_head.weight" not in found
    (path, head), (other_path, embedding) = found.values()
    size = head.stop - head.start
    if (head.dtype, head.shape) != (embedding.dtype, embedding.shape):
        return False
    with path.open("rb") as file, other_path.open("rb") as other:
        file.seek(head.start)
        other.seek(embedding.start)
        for done in range(0, size, BUFFER_BYTES):
            count = min(BUFFER_BYTES, size - done)
            if file.read(count) != other.read(count):
                return False
    return True


def _check_names(
    slots: dict[str, Slot],
    files: dict[Path, dict[str, Stored]],
    *,
    tied: bool,
) -> None:
    seen: dict[str, Path] = {}
    for path, header in files.items():
        for name, stored in header.items():
            if name in seen:
                raise ModelError(f"{name} is in {seen[name].name} and in {path.name}")
            seen[name] = path
            slot = slots.get(name)
            if slot is None:
                continue
            if stored.shape != slot.shape:
                raise ModelError(
                    f"{path.name}: {name} has shape {list(stored.shape)}, config.json asks for "
                    f"{list(slot.shape)}"
                )
            if stored.dtype not in FLOATS:
                raise ModelError(
                    f"{path.name}: {name} is {stored.dtype}; only float weights are read "
                    f"({', '.join(sorted(FLOATS))})"
                )
    missing = [name for name in slots if name not in seen]
    if missing:
        raise ModelError(f"the checkpoint lacks {len(missing)} tensors: {some(missing)}")
    # A tied checkpoint may carry its head a second time; the embedding is the one that counts.
    spare = {"lm_head.weight"} if tied else set()
    extra = [n for n in seen if n not in slots and n not in spare and not IGNORED.fullmatch(n)]
    if extra:
        raise ModelError(
            f"the checkpoint holds {len(extra)} tensors that the model has no place for: "
            f"{some(extra)}"
        )


def _assign(model: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    setattr(module, leaf, nn.Parameter(tensor, requires_grad=False))


def _bar(total: int, progress: bool) -> Any:
    """A progress bar on stderr, or nothing (tqdm is then not even imported)."""
    if not progress:
        return contextlib.nullcontext(_Silent())
    from tqdm import tqdm

    # The delay keeps quick loads silent.
    return tqdm(total=total, desc="loading weights", unit="row", unit_scale=True, delay=1.0)


class _Silent:
    def update(self, n: int) -> None: ...
