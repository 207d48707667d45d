"""ModelConfig: what a checkpoint's config.json says, validated before anything is built.

Only the keys read here reach the model; every other key of the file is ignored, and a key that
would change the computation in a way that is not implemented is refused by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from .errors import ModelError
from .files import read_json_object

# Where a family departs from Llama. Defaults are those of transformers for a key that is missing.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"num_key_value_heads": 8, "max_position_embeddings": 131072},
    "qwen2": {"num_key_value_heads": 32, "max_position_embeddings": 32768},
    "qwen3": {"num_key_value_heads": 32, "max_position_embeddings": 32768, "head_dim": 128},
}
DTYPES = ("float32", "bfloat16", "float16")
ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn")


class ModelSize(TypedDict):
    n_layers: int
    n_heads: int


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """How positions become rotation angles; formulas in rope.py."""

    rope_type: str = "default"
    rope_theta: float = 10000.0
    factor: float = 1.0
    original_max_position_embeddings: int | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The architecture of one checkpoint, under the names of config.json.

    ``layer_windows[l]`` is the sliding window of layer l in keys, the query's own included, or
    None for full attention. ``context_length`` is the longest sequence the model is meant for.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-6
    rope: RopeConfig = RopeConfig()
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    layer_windows: tuple[int | None, ...] = ()
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    dtype: str = "float32"

    @property
    def size(self) -> ModelSize:
        """Layer and head counts, as the functions that choose heads take them."""
        return ModelSize(n_layers=self.num_hidden_layers, n_heads=self.num_attention_heads)

    @property
    def context_length(self) -> int:
        rope = self.rope
        if rope.rope_type in ("linear", "dynamic"):
            return int(self.max_position_embeddings * rope.factor)
        if rope.rope_type == "yarn" and rope.original_max_position_embeddings:
            stretched = int(rope.original_max_position_embeddings * rope.factor)
            return max(self.max_position_embeddings, stretched)
        return self.max_position_embeddings

    @classmethod
    def from_folder(cls, folder: Path) -> ModelConfig:
        """Read ``folder/config.json``, and the eos ids of generation_config.json where it exists.

        Raises:
            ModelError: the file is missing, malformed, out of bounds or asks for an architecture,
                activation, rope type or quantisation that is not implemented.
        """
        path = folder / "config.json"
        raw = read_json_object(path)
        config = cls.from_dict(raw, where=str(path))
        generation = folder / "generation_config.json"
        if generation.is_file():
            raw_eos = read_json_object(generation).get("eos_token_id")
            eos = _token_ids(raw_eos, config.vocab_size, str(generation))
            if eos:  # as in transformers, what it names replaces what config.json does
                config = replace(config, eos_token_ids=eos)
        return config

    @classmethod
    def from_dict(cls, raw: dict[str, Any], *, where: str = "config.json") -> ModelConfig:
        """Validate the parsed config.json ``raw``; ``where`` names the file in messages."""
        model_type = raw.get("model_type")
        if not isinstance(model_type, str) or model_type not in FAMILIES:
            raise ModelError(
                f"{where}: model_type {model_type!r} is not supported; supported: "
                + ", ".join(sorted(FAMILIES))
            )
        _refuse_unsupported(raw, where)
        raw = {**FAMILIES[model_type], **raw}
        read = _Reader(raw, where)

        hidden = read.integer("hidden_size", 1, 1 << 17)
        heads = read.integer("num_attention_heads", 1, 4096)
        layers = read.integer("num_hidden_layers", 1, 1024)
        kv_heads = read.integer("num_key_value_heads", 1, 4096, default=heads)
        head_dim = read.integer("head_dim", 2, 1024, default=hidden // heads)
        if raw.get("head_dim") is None and hidden % heads:
            raise ModelError(
                f"{where}: hidden_size {hidden} is not a multiple of num_attention_heads {heads}"
            )
        if heads % kv_heads:
            raise ModelError(
                f"{where}: num_attention_heads {heads} is not a multiple of "
                f"num_key_value_heads {kv_heads}"
            )
        if head_dim % 2:
            raise ModelError(f"{where}: head_dim {head_dim} is odd; rotary embeddings need pairs")
        vocab = read.integer("vocab_size", 1, 1 << 22)
        max_positions = read.integer("max_position_embeddings", 1, 1 << 26, default=2048)
        rope = _rope(raw, max_positions, where)
        if rope.rope_type == "dynamic" and head_dim == 2:
            raise ModelError(f"{where}: dynamic rope needs a head_dim above 2")
        bias = read.boolean("attention_bias", default=False)
        return cls(
            model_type=model_type,
            vocab_size=vocab,
            hidden_size=hidden,
            intermediate_size=read.integer("intermediate_size", 1, 1 << 20),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            max_position_embeddings=max_positions,
            rms_norm_eps=read.number("rms_norm_eps", 0.0, 1.0, default=1e-6),
            rope=rope,
            tie_word_embeddings=read.boolean("tie_word_embeddings", default=False),
            qkv_bias=model_type == "qwen2" or (bias and model_type in ("llama", "qwen3")),
            o_bias=bias and model_type in ("llama", "qwen3"),
            mlp_bias=model_type == "llama" and read.boolean("mlp_bias", default=False),
            qk_norm=model_type == "qwen3",
            layer_windows=_windows(raw, model_type, layers, read),
            bos_token_id=next(iter(_token_ids(raw.get("bos_token_id"), vocab, where)), None),
            eos_token_ids=_token_ids(raw.get("eos_token_id"), vocab, where),
            dtype=_dtype(raw, where),
        )


class _Reader:
    """Typed, bounded access to the keys of one config file."""

    def __init__(self, raw: dict[str, Any], where: str) -> None:
        self.raw, self.where = raw, where

    def integer(self, key: str, low: int, high: int, *, default: int | None = None) -> int:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ModelError(
                f"{self.where}: {key} must be an integer in [{low}, {high}], got {value!r}"
            )
        return value

    def number(self, key: str, low: float, high: float, *, default: float | None = None) -> float:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ModelError(f"{self.where}: {key} must be a number, got {value!r}")
        if not (math.isfinite(value) and low <= value <= high):
            raise ModelError(f"{self.where}: {key} must lie in [{low}, {high}], got {value!r}")
        return float(value)

    def boolean(self, key: str, *, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise ModelError(f"{self.where}: {key} must be true or false, got {value!r}")
        return value

    def _value(self, key: str, default: Any) -> Any:
        value = self.raw.get(key)
        if value is None:
            value = default
        if value is None:
            raise ModelError(f"{self.where}: {key} is missing")
        return value


def _refuse_unsupported(raw: dict[str, Any], where: str) -> None:
    if raw.get("quantization_config") is not None:
        method = raw["quantization_config"]
        if isinstance(method, dict):
            method = method.get("quant_method", "unknown")
        raise ModelError(
            f"{where}: the checkpoint is quantised ({method}); use the unquantised float weights"
        )
    activation = raw.get("hidden_act", "silu")
    if activation != "silu":
        raise ModelError(f"{where}: hidden_act {activation!r} is not supported; supported: silu")
    rotary = raw.get("partial_rotary_factor", 1.0)
    if rotary not in (1, 1.0, None):
        raise ModelError(f"{where}: partial_rotary_factor {rotary!r} is not supported; only 1.0")


def _rope(raw: dict[str, Any], max_positions: int, where: str) -> RopeConfig:
    """Both spellings: ``rope_parameters`` (new), ``rope_theta`` with ``rope_scaling`` (old)."""
    name = "rope_scaling" if raw.get("rope_scaling") is not None else "rope_parameters"
    scaling = raw.get(name)
    if scaling is None:
        scaling = {}
    if not isinstance(scaling, dict):
        raise ModelError(f"{where}: {name} must be an object, got {scaling!r}")
    rope_type = scaling.get("rope_type", scaling.get("type", "default"))
    if rope_type not in ROPE_TYPES:
        raise ModelError(
            f"{where}: rope type {rope_type!r} is not supported; supported: "
            + ", ".join(ROPE_TYPES)
        )
    merged = {"rope_theta": raw.get("rope_theta"), **scaling}
    if merged["rope_theta"] is None:
        merged["rope_theta"] = raw.get("rope_theta")
    if merged.get("partial_rotary_factor", 1.0) not in (1, 1.0):
        raise ModelError(f"{where}: {name}.partial_rotary_factor is not supported; only 1.0")
    read = _Reader(merged, f"{where}: {name}")
    theta = read.number("rope_theta", 1.0, 1e12, default=10000.0)
    if rope_type == "default":
        return RopeConfig(rope_theta=theta)
    original = raw.get("original_max_position_embeddings")
    if original is not None:
        merged["original_max_position_embeddings"] = original
    original = read.integer("original_max_position_embeddings", 1, 1 << 26, default=max_positions)
    if rope_type == "yarn" and merged.get("factor") is None:
        merged["factor"] = max_positions / original
    factor = read.number("factor", 1.0, 1e6)
    optional = {
        key: read.number(key, 0.0, 1e6)
        for key in ("attention_factor", "mscale", "mscale_all_dim")
        if merged.get(key) is not None
    }
    if rope_type == "llama3":
        low = read.number("low_freq_factor", 1e-6, 1e6)
        high = read.number("high_freq_factor", 1e-6, 1e6)
        if low >= high:
            raise ModelError(f"{where}: {name}: low_freq_factor {low} must be below {high}")
        optional |= {"low_freq_factor": low, "high_freq_factor": high}
    return RopeConfig(
        rope_type=rope_type,
        rope_theta=theta,
        factor=factor,
        original_max_position_embeddings=original,
        beta_fast=read.number("beta_fast", 0.0, 1e6, default=32.0) or 32.0,
        beta_slow=read.number("beta_slow", 0.0, 1e6, default=1.0) or 1.0,
        truncate=read.boolean("truncate", default=True),
        **optional,
    )


def _windows(
    raw: dict[str, Any], model_type: str, layers: int, read: _Reader
) -> tuple[int | None, ...]:
    """The sliding window of each layer, by each family's own rule."""
    full: tuple[int | None, ...] = (None,) * layers
    if model_type == "llama":
        return full
    explicit_null = "sliding_window" in raw and raw["sliding_window"] is None
    if model_type == "mistral":
        if explicit_null:
            return full
        return (read.integer("sliding_window", 1, 1 << 26, default=4096),) * layers
    if explicit_null or not read.boolean("use_sliding_window", default=False):
        return full
    window = read.integer("sliding_window", 1, 1 << 26, default=4096)
    types = raw.get("layer_types")
    if types is None:
        first = read.integer("max_window_layers", 0, 1 << 20, default=28)
        return tuple(window if layer >= first else None for layer in range(layers))
    known = {"full_attention": None, "sliding_attention": window}
    if not isinstance(types, list) or len(types) != layers or not set(types) <= set(known):
        raise ModelError(
            f"{read.where}: layer_types must name {layers} layers, each of {sorted(known)}"
        )
    return tuple(known[name] for name in types)


def _token_ids(value: Any, vocab: int, where: str) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int):
            raise ModelError(f"{where}: token ids must be integers, got {token!r}")
    # Some published checkpoints name ids past their vocabulary, or -1 for "none".
    return tuple(token for token in ids if 0 <= token < vocab)


def _dtype(raw: dict[str, Any], where: str) -> str:
    name = raw.get("dtype") or raw.get("torch_dtype") or "float32"
    if not isinstance(name, str):
        raise ModelError(f"{where}: dtype must be a name, got {name!r}")
    name = name.removeprefix("torch.")
    return name if name in DTYPES else "float32"
