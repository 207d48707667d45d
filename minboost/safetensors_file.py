"""What the safetensors files of a checkpoint hold, and where: read without their data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .errors import ModelError
from .files import read_json_object

MAX_INDEX_BYTES = 64 << 20
FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


@dataclass(frozen=True)
class Stored:
    """One tensor of a safetensors file, and the bytes [start, stop) where its data lies."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


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
            f"{folder}: {len(missing)} of {len(names)} shards missing: {some(missing)}"
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


def some(names: list[str]) -> str:
    """The first few names, for a message."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
