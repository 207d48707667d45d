"""safetensors → parameters: strict, streamed, straight into the fused weights.

Hugging Face names stay at this border. Each tensor is read in bounded slices and copied to its
place, so what is resident while loading is the weights, one slice and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .config import ModelConfig
from .errors import ModelError
from .files import read_json_object
from .model import Transformer

SLICE_BYTES = 32 << 20
MAX_INDEX_BYTES = 64 << 20
FLOATS = {"F64", "F32", "F16", "BF16"}
# Written by old versions of transformers; the rotation angles follow from the config.
IGNORED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")


@dataclass(frozen=True)
class Slot:
    """Where one tensor of the checkpoint goes: rows [row, row + shape[0]) of a parameter."""

    parameter: str
    row: int
    shape: tuple[int, ...]


def load_model(
    folder: Path,
    config: ModelConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    impl: str = "auto",
    progress: bool = False,
) -> Transformer:
    """Build the model of ``config`` and fill it from the safetensors files of ``folder``.

    Every parameter is filled exactly once and every tensor of the checkpoint is used; names,
    shapes and dtypes are checked before anything is allocated.

    Raises:
        ModelError: a file or tensor is missing, left over, malformed, misshapen, quantised or
            holds NaN or infinite values; the message names it.
    """
    slots = expected_slots(config)
    files = {path: _header(path) for path in shard_files(folder)}
    _check_names(slots, files, tied=config.tie_word_embeddings)
    with torch.device("meta"):
        model = Transformer(config, impl=impl)
    model.requires_grad_(False)
    for name, parameter in list(model.named_parameters()):
        _assign(model, name, torch.empty(parameter.shape, device=device, dtype=dtype))
    if config.tie_word_embeddings:
        model.lm_head.weight = model.embed_tokens.weight
    parameters = dict(model.named_parameters())
    total = sum(slot.shape[0] for slot in slots.values())
    with _bar(total, progress) as bar:
        for path, shapes in files.items():
            for name in shapes:
                slot = slots.get(name)
                if slot is not None:
                    target = parameters[slot.parameter][slot.row : slot.row + slot.shape[0]]
                    _fill(target, path, name)
                    bar.update(slot.shape[0])
    return model.eval()


def save_weights(model: Transformer, path: Path) -> None:
    """Write the weights under their Hugging Face names, fused parameters taken apart again."""
    from safetensors.torch import save_file

    parameters = dict(model.named_parameters())
    tensors = {
        name: parameters[slot.parameter][slot.row : slot.row + slot.shape[0]].detach().cpu().clone()
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


def shard_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: those its index names, or model.safetensors.

    Raises:
        ModelError: there is none, one is missing, or the index names a file outside the folder.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        single = folder / "model.safetensors"
        if single.is_file():
            return [single]
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        hint = f" (pickle weights such as {pickled[0]} are never read)" if pickled else ""
        raise ModelError(f"{folder} holds no model.safetensors and no {index.name}{hint}")
    weight_map = read_json_object(index, limit=MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index}: weight_map must be an object that names the shards")
    names = list(dict.fromkeys(weight_map.values()))
    for name in names:
        if not _is_plain_shard_name(name):
            raise ModelError(
                f"{index}: shard name {name!r} is refused: it must be a .safetensors file "
                "directly inside the folder"
            )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{folder}: {len(missing)} of {len(names)} shards missing: {_some(missing)}"
        )
    return [folder / name for name in names]


def _is_plain_shard_name(name: Any) -> bool:
    return (
        isinstance(name, str)
        and name.endswith(".safetensors")
        and PurePosixPath(name).name == name
        and PureWindowsPath(name).name == name
    )


def _header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Names, dtypes and shapes of one file, without reading its data."""
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: (s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} is truncated or no safetensors file: {error}") from error


def _check_names(
    slots: dict[str, Slot],
    files: dict[Path, dict[str, tuple[str, tuple[int, ...]]]],
    *,
    tied: bool,
) -> None:
    seen: dict[str, Path] = {}
    for path, header in files.items():
        for name, (dtype, shape) in header.items():
            if name in seen:
                raise ModelError(f"{name} is in {seen[name].name} and in {path.name}")
            seen[name] = path
            slot = slots.get(name)
            if slot is None:
                continue
            if shape != slot.shape:
                raise ModelError(
                    f"{path.name}: {name} has shape {list(shape)}, config.json asks for "
                    f"{list(slot.shape)}"
                )
            if dtype not in FLOATS:
                raise ModelError(
                    f"{path.name}: {name} is {dtype}; only float weights are read "
                    f"({', '.join(sorted(FLOATS))})"
                )
    missing = [name for name in slots if name not in seen]
    if missing:
        raise ModelError(f"the checkpoint lacks {len(missing)} tensors: {_some(missing)}")
    # A tied checkpoint may carry its head a second time; the embedding is the one that counts.
    spare = {"lm_head.weight"} if tied else set()
    extra = [n for n in seen if n not in slots and n not in spare and not IGNORED.fullmatch(n)]
    if extra:
        raise ModelError(
            f"the checkpoint holds {len(extra)} tensors that the model has no place for: "
            f"{_some(extra)}"
        )


def _fill(target: Tensor, path: Path, name: str) -> None:
    """Copy one tensor in slices; the file is opened anew for each.

    safetensors maps the file into memory, and pages once read stay resident until it is closed:
    one open file would hold a second copy of the weights by the end.
    """
    rows = target.shape[0]
    row_bytes = max(1, target[:1].numel() * 4)
    step = max(1, SLICE_BYTES // row_bytes)
    for a in range(0, rows, step):
        b = min(a + step, rows)
        with safe_open(path, framework="pt") as file:
            part = file.get_slice(name)[a:b]
            low, high = torch.aminmax(part)  # NaN goes through, so two values tell of all
            if not torch.isfinite(torch.stack((low, high))).all():
                raise ModelError(f"{path.name}: {name} holds NaN or infinite values")
            target[a:b].copy_(part)
            del part


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


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
