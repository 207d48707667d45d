"""safetensors → parameters: strict, streamed, straight into the fused weights.

Hugging Face names stay at this border. Files are read front to back through one small buffer, so
what is resident while loading is the weights and that buffer. They are not mapped into memory:
pages of a mapped file are resident too, and faulting them in takes longer than reading them.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .config import ModelConfig
from .errors import ModelError
from .files import read_json_object
from .impl import choose
from .model import Transformer
from .quantize import check_quantize

BUFFER_BYTES = 1 << 20  # stays in the processor's cache between reading, checking and copying
MAX_INDEX_BYTES = 64 << 20
FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
# Written by old versions of transformers; the rotation angles follow from the config.
IGNORED = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.\w+")


@dataclass(frozen=True)
class Slot:
    """Where one tensor of the checkpoint goes: rows [row, row + shape[0]) of a parameter."""

    parameter: str
    row: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Stored:
    """One tensor of a safetensors file, and the bytes [start, stop) where its data lies."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


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

    Raises:
        ModelError: a file or tensor is missing, left over, malformed, misshapen, quantised or
            holds NaN or infinite values; the message names it.
        InputError: an ``impl`` that does not exist or cannot run here (impl.py).
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
    total = sum(slot.shape[0] for slot in slots.values())
    buffer = bytearray(BUFFER_BYTES)
    with _bar(total, progress) as bar:
        for path, header in files.items():
            with path.open("rb", buffering=0) as file:
                for name, stored in sorted(header.items(), key=lambda item: item[1].start):
                    slot = slots.get(name)
                    if slot is not None:
                        target = parameters[slot.parameter][slot.row : slot.row + slot.shape[0]]
                        _fill(target, file, stored, buffer, f"{path.name}: {name}")
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
    """The safetensors files of a checkpoint: model.safetensors, or those its index names.

    Raises:
        ModelError: there is none, one is missing, or the index names a file outside the folder.
    """
    single = folder / "model.safetensors"
    if single.is_file():  # beside an index it is the one that counts, as in transformers
        return [single]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        hint = f" (pickle weights such as {pickled[0]} are never read)" if pickled else ""
        raise ModelError(f"{folder} holds no model.safetensors and no {index.name}{hint}")
    weight_map = read_json_object(index, limit=MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index}: weight_map must be an object that names the shards")
    for name in weight_map.values():
        if not _is_plain_shard_name(name):
            raise ModelError(
                f"{index}: shard name {name!r} is refused: it must be a .safetensors file "
                "directly inside the folder"
            )
    names = list(dict.fromkeys(weight_map.values()))
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


def read_header(path: Path) -> dict[str, Stored]:
    """What one safetensors file holds, without reading its data; ModelError if it is malformed.

    The safetensors library validates the file (bounded header, sizes that fit dtypes and shapes, no
    gaps or overlaps, nothing past the end); the byte offsets are then taken from the same header.
    """
    try:
        with safe_open(path, framework="pt"):
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            raw = json.loads(file.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is truncated or no safetensors file: {error}") from error
    raw.pop("__metadata__", None)
    return {
        name: Stored(
            entry["dtype"],
            tuple(entry["shape"]),
            *(8 + length + offset for offset in entry["data_offsets"]),
        )
        for name, entry in raw.items()
    }


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
        raise ModelError(f"the checkpoint lacks {len(missing)} tensors: {_some(missing)}")
    # A tied checkpoint may carry its head a second time; the embedding is the one that counts.
    spare = {"lm_head.weight"} if tied else set()
    extra = [n for n in seen if n not in slots and n not in spare and not IGNORED.fullmatch(n)]
    if extra:
        raise ModelError(
            f"the checkpoint holds {len(extra)} tensors that the model has no place for: "
            f"{_some(extra)}"
        )


def _fill(target: Tensor, file: BinaryIO, stored: Stored, buffer: bytearray, where: str) -> None:
    """Read one tensor through the buffer into ``target``, whose dtype and device may be others."""
    dtype = FLOATS[stored.dtype]
    flat = target.view(-1)  # a run of rows of a contiguous parameter
    file.seek(stored.start)
    whole = memoryview(buffer)[: len(buffer) - len(buffer) % dtype.itemsize]
    done = 0
    while done < flat.numel():
        part = whole[: min(len(whole), (flat.numel() - done) * dtype.itemsize)]
        _read_exactly(file, part, where)
        values = torch.frombuffer(part, dtype=dtype)
        ends = torch.stack(torch.aminmax(values))  # NaN goes through, so two values tell of all
        if not ends.isfinite().all():
            raise ModelError(f"{where} holds NaN or infinite values")
        if not ends.to(target.dtype).isfinite().all():
            raise ModelError(f"{where} holds values too large for {target.dtype}; try bfloat16")
        flat[done : done + len(values)].copy_(values)
        done += len(values)


def _read_exactly(file: BinaryIO, part: memoryview, where: str) -> None:
    filled = 0
    while filled < len(part):
        count = file.readinto(part[filled:])  # type: ignore[attr-defined]
        if not count:
            raise ModelError(f"{where} ends early: the file became shorter while it was read")
        filled += count


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
