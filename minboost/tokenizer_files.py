"""A checkpoint's tokenizer files, read as transformers 5 reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from .chat_template import ChatTemplate
from .errors import ModelError
from .files import read_json_object, read_text

MAX_FILE = 256 << 20
"""Largest tokenizer.json that is read, in bytes; Gemma's has 33 million."""

_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


def read_tokenizer(
    folder: Path,
) -> tuple[tokenizers.Tokenizer, dict[str, str], ChatTemplate | None]:
    """tokenizer.json, the special tokens by role, and the chat template if there is one.

    As transformers 5 does, ``add_bos_token`` is left to tokenizer.json; special_tokens_map.json
    counts only beside a config without ``added_tokens_decoder``; and a Llama checkpoint whose
    tokenizer_class is LlamaTokenizer gets that class's own pre-tokenizer (see `_as_llama`).
    Raises `ModelError` naming the file that is missing, too large or malformed.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        hint = ""
        if (folder / "tokenizer.model").is_file():
            hint = "; tokenizer.model alone is not enough: save the fast tokenizer beside it"
        raise ModelError(f"{path} is missing{hint}")
    config = _optional_json(folder / "tokenizer_config.json")
    text = read_text(path, MAX_FILE)
    tokens = dict(config)
    if str(config.get("tokenizer_class")).removesuffix("Fast") == "LlamaTokenizer":
        model_type = _optional_json(folder / "config.json").get("model_type", "llama")
        rewritten = _as_llama(path, text, config) if model_type == "llama" else None
        if rewritten is not None:
            text = rewritten
            tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **config}
    if "added_tokens_decoder" not in config:
        tokens.update(_optional_json(folder / "special_tokens_map.json"))
    special = {}
    for role in _ROLES:
        content = _content(tokens.get(f"{role}_token"))
        if content is not None:
            special[f"{role}_token"] = content
    backend = _load(path, text)
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_special_tokens(
        [
            AddedToken(content, special=True, normalized=False)
            for content in dict.fromkeys(special.values())
            if content not in known
        ]
    )
    return backend, special, ChatTemplate.from_folder(folder, config, special)


@contextmanager
def guard(message: str) -> Iterator[None]:
    """Turn what the library raises over a malformed tokenizer.json into a `ModelError`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # nothing narrower: a panic in Rust is not even an Exception
        raise ModelError(f"{message}: {error}") from error


def _load(path: Path, text: str) -> tokenizers.Tokenizer:
    with guard(f"{path} is not a valid tokenizer"):
        backend = tokenizers.Tokenizer.from_str(text)
    # Padding and truncation saved with a tokenizer are for training; transformers drops them too.
    backend.no_padding()
    backend.no_truncation()
    return backend


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json_object(path, limit=MAX_FILE) if path.is_file() else {}


def _content(token: Any) -> str | None:
    """A token of tokenizer_config.json: a text, or an object with its ``content``."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) and token else None


def _as_llama(path: Path, text: str, config: Mapping[str, Any]) -> str | None:
    """Rewrite tokenizer.json as transformers 5 reads it for the class LlamaTokenizer.

    The class keeps vocabulary, merges and added tokens and brings its own pre-tokenizer and
    decoder: files of Llama 2 and TinyLlama put a space in front of the text after every control
    token, the class (unless ``legacy``) at the beginning only. None if the file is byte-level: it
    stays as it is.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from error
    model = data.get("model") if isinstance(data, dict) else None
    if (
        not isinstance(model, dict)
        or model.get("type", "BPE") != "BPE"
        or "ByteLevel" in json.dumps([data.get("pre_tokenizer"), data.get("decoder")])
    ):
        return None
    prefix = config.get("add_prefix_space") is not False
    scheme = ("always" if config.get("legacy") else "first") if prefix else "never"
    steps = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    data |= {
        "model": {**model, "fuse_unk": True, "byte_fallback": True, "unk_token": None},
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": scheme,
            "split": False,
        },
        "decoder": {"type": "Sequence", "decoders": [*steps, *strip]},
    }
    return json.dumps(data)
