"""Text to ids and back over the ``tokenizers`` library; user text stays text."""

from __future__ import annotations

import bisect
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from .chat_template import ChatTemplate, read_text
from .config import read_json_object
from .errors import InputError, ModelError

MAX_FILE = 256 << 20
"""Largest tokenizer.json that is read, in bytes; Gemma's has 33 million."""

_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# Added tokens that only shorten ordinary text: runs of spaces and lines, and in Gemma HTML tags.
_ORDINARY = re.compile(
    r"[\s▁]*|</?(table|caption|thead|tbody|tfoot|t[rhd]|h[1-6]|blockquote|strong|em|su[bp]|code|[bius])>"
)
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


@dataclass(frozen=True)
class Encoding:
    """Token ids and, for each, the characters ``[start, stop)`` of the text that it stands for.

    Tokens that cut a character into bytes share its offsets; a BOS added in front has (0, 0).
    """

    ids: list[int]
    offsets: list[tuple[int, int]]


class Tokenizer:
    """The tokenizer of one checkpoint. Ids equal those of transformers 5 (`from_folder`).

    A control token is an added token of the checkpoint, special or not (``<s>``, ``<|eot_id|>``,
    ``<think>``). Not counted are those that only shorten ordinary text: unless flagged special,
    runs of spaces or line breaks and HTML tags.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        special_tokens: Mapping[str, str],
        chat_template: ChatTemplate | None = None,
    ) -> None:
        self.backend = backend
        self.chat_template = chat_template
        self.special_tokens = dict(special_tokens)
        self.vocab_size = backend.get_vocab_size()
        self._added: dict[int, AddedToken] = backend.get_added_tokens_decoder()
        self.control_ids = frozenset(i for i, token in self._added.items() if token.special)
        self._guarded = {
            i: token.content
            for i, token in self._added.items()
            if token.special
            or token.content in self.special_tokens.values()
            or not _ORDINARY.fullmatch(token.content)
        }
        self._unknown = special_tokens.get("unk_token") or getattr(backend.model, "unk_token", None)
        self._twin_cache: _Twin | None = None

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Read tokenizer.json and, where present, tokenizer_config.json and the chat template.

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
        template = ChatTemplate.from_folder(folder, config, special)
        return cls(backend, special_tokens=special, chat_template=template)

    @property
    def bos_token(self) -> str | None:
        return self.special_tokens.get("bos_token")

    @property
    def eos_token(self) -> str | None:
        return self.special_tokens.get("eos_token")

    @property
    def bos_id(self) -> int | None:
        return self._id_of("bos_token")

    @property
    def eos_id(self) -> int | None:
        return self._id_of("eos_token")

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The end-of-sequence id as a tuple, empty if the checkpoint names none."""
        return () if self.eos_id is None else (self.eos_id,)

    def _id_of(self, role: str) -> int | None:
        token = self.special_tokens.get(role)
        return None if token is None else self.backend.token_to_id(token)

    # --- text to ids ------------------------------------------------------------------------------

    def encode(
        self,
        text: str,
        *,
        plain: Sequence[tuple[int, int]] = (),
        add_special_tokens: bool = False,
    ) -> Encoding:
        """Encode text; inside the character regions ``plain`` nothing becomes a control token.

        Where no region spells a control token, the ids are those of transformers. Otherwise the
        spelled ones are encoded as ordinary text, the rest of the text as ever. With
        ``add_special_tokens``, BOS (and what else the checkpoint adds) is added as transformers'
        ``tokenizer(text)`` would; chat templates write their own.

        Raises `InputError` if a region does not lie in the text, or spells a control token that
        this tokenizer cannot encode in any other way.
        """
        for start, stop in plain:
            if not 0 <= start <= stop <= len(text):
                raise InputError(
                    f"region [{start}, {stop}) does not lie in the text of {len(text)} characters"
                )
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"the text is not valid Unicode: {error}") from error
        with _guard("the tokenizer fails on the text"):
            encoded = self.backend.encode(text, add_special_tokens=add_special_tokens)
        offsets = [
            self._trim(text, i, *span) for i, span in zip(encoded.ids, encoded.offsets, strict=True)
        ]
        encoding = Encoding(encoded.ids, offsets)
        if self._control_in(text, encoding, plain) is None:
            return encoding
        encoding = self._encode_apart(text, plain, add_special_tokens)
        if (found := self._control_in(text, encoding, plain)) is not None:
            raise InputError(
                f"the text contains {found!r}, which this tokenizer can only encode as the control "
                "token of that name"
            )
        return encoding

    def controls(self, encoding: Encoding) -> list[int]:
        """The control tokens of an encoding, in order; unknown characters are none."""
        return [i for i in encoding.ids if self._guarded.get(i, self._unknown) != self._unknown]

    def _trim(self, text: str, i: int, start: int, stop: int) -> tuple[int, int]:
        """Take from a control token the spaces beside it that its strip flags swallowed."""
        token = self._added.get(i)
        if token is not None and (token.lstrip or token.rstrip) and text[start:stop].strip():
            while text[start].isspace():
                start += 1
            while text[stop - 1].isspace():
                stop -= 1
        return start, stop

    def _control_in(
        self, text: str, encoding: Encoding, plain: Sequence[tuple[int, int]]
    ) -> str | None:
        """The first control token that overlaps a plain region, if any."""
        for i, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
            name = self._guarded.get(i)
            if name is None or not any(start < b and a < stop for a, b in plain):
                continue
            # An unknown character rightly becomes the unknown token; its own name does not.
            if name != self._unknown or name in text[start:stop]:
                return name
        return None

    def _encode_apart(
        self, text: str, plain: Sequence[tuple[int, int]], add_special_tokens: bool
    ) -> Encoding:
        """Encode with a twin that knows the control tokens by secret names only.

        The template's own control tokens are rewritten to those names, so that all text is encoded
        in one piece, in its context, and what a user spells is text like any other.
        """
        twin = self._twin_for(text)
        parts: list[str] = []
        old_stops, new_stops = [0], [0]  # where each rewritten control token ends
        starts: dict[int, tuple[int, int, int]] = {}  # new start -> id, old start, old stop
        position = length = 0
        for start, stop in _gaps(plain, len(text)):
            for match in twin.pattern.finditer(text, start, stop):
                i, name = twin.names[match.group()]
                parts += [text[position : match.start()], name]
                length += match.start() - position
                starts[length] = (i, *match.span())
                length += len(name)
                position = match.end()
                old_stops.append(position)
                new_stops.append(length)
        with _guard("the tokenizer fails on the text"):
            encoded = twin.backend.encode(
                "".join([*parts, text[position:]]), add_special_tokens=add_special_tokens
            )

        def old(place: int) -> int:
            k = bisect.bisect_right(new_stops, place) - 1
            return old_stops[k] + place - new_stops[k]

        ids, offsets = [], []
        for i, (start, stop) in zip(encoded.ids, encoded.offsets, strict=True):
            if start == stop or i not in twin.secret_ids:  # an added BOS stands for no characters
                ids.append(i if start == stop else twin.ordinary_ids.get(i, i))
                offsets.append((old(start), old(stop)))
                continue
            # Spaces that a strip flag swallowed may stand in front of the name.
            inside = next((s for s in range(start, stop) if s in starts), None)
            if inside is None:
                raise InputError("the text cannot be told apart from the template's control tokens")
            original, old_start, old_stop = starts.pop(inside)
            ids.append(original)
            offsets.append((old_start, old_stop))
        if starts:
            raise InputError("the text cannot be told apart from the template's control tokens")
        return Encoding(ids, offsets)

    def _twin_for(self, text: str) -> _Twin:
        if self._twin_cache is None or self._twin_cache.nonce in text:
            twin = _Twin(self.backend, self._added, self._guarded)
            while twin.nonce in text:
                twin = _Twin(self.backend, self._added, self._guarded)
            self._twin_cache = twin
        return self._twin_cache

    # --- ids to text ------------------------------------------------------------------------------

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of ids; control tokens flagged special are left out unless asked for."""
        with _guard("the tokenizer fails on the ids"):
            return str(self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def stream(self, *, skip_special_tokens: bool = True) -> TextStream:
        """Decode one id at a time."""
        return TextStream(self, skip_special_tokens=skip_special_tokens)


class TextStream:
    """Text of ids as they come: all pieces joined equal ``decode`` of all ids, exactly.

    A piece is held back while later ids could change it: a character cut by a token border, and in
    models with byte tokens (``<0xE2>``) the whole run of them, which is text only if all of it is
    valid. ``tokenizers.decoders.DecodeStream`` promises less: it fails on some sequences.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._ids: list[int] = []
        self._emitted = 0  # characters
        # ids[_context:_settled] are emitted and shown again, so that what follows them is decoded
        # as in the whole; _context_text, their text, is not empty unless they are the beginning.
        self._context = self._settled = 0
        self._context_text = ""

    def push(self, token_id: int) -> str:
        """Take the next id; return the text that is now certain."""
        name = self._tokenizer.backend.id_to_token(token_id)
        if name is None or (self._skip and token_id in self._tokenizer.control_ids):
            return ""
        self._ids.append(token_id)
        if _BYTE_TOKEN.fullmatch(name):
            return ""
        text = self._decode(self._context)
        if text.endswith("\ufffd") or not text.startswith(self._context_text):
            return ""
        piece = text[len(self._context_text) :]
        recent = self._decode(self._settled)
        if recent:
            self._context, self._context_text = self._settled, recent
        else:
            self._context_text = text
        self._settled = len(self._ids)
        self._emitted += len(piece)
        return piece

    def finish(self) -> str:
        """Return what was still held back."""
        piece = self._decode(0)[self._emitted :]
        self._emitted += len(piece)
        return piece

    def _decode(self, start: int) -> str:
        return self._tokenizer.decode(self._ids[start:], skip_special_tokens=self._skip)


class _Twin:
    """The same tokenizer with every control token under a secret name.

    A name is private-use characters: a random part, which no text can contain by accident or guess,
    and an index. The model, its vocabulary and merges are shared, not copied.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        added: Mapping[int, AddedToken],
        guarded: Mapping[int, str],
    ) -> None:
        self.nonce = "".join(chr(0xF0000 + secrets.randbelow(0xFFFE)) for _ in range(8))
        self.backend = tokenizers.Tokenizer(backend.model)
        for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
            if getattr(backend, part) is not None:
                setattr(self.backend, part, getattr(backend, part))
        self.names: dict[str, tuple[int, str]] = {}  # content -> id, secret name
        patterns, twins = [], []
        for k, (i, token) in enumerate(added.items()):
            name = token.content
            if i in guarded:
                name = self.nonce + chr(0xF0000 + k // 0xF000) + chr(0xF0000 + k % 0xF000)
                self.names[token.content] = (i, name)
                pattern = re.escape(token.content)
                patterns.append(rf"(?<!\w){pattern}(?!\w)" if token.single_word else pattern)
            twins.append(
                AddedToken(
                    name,
                    special=token.special,
                    normalized=token.normalized,
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                    single_word=token.single_word,
                )
            )
        self.backend.add_tokens(twins)
        # The library takes the longest token at the leftmost place; so does this.
        self.pattern = re.compile("|".join(sorted(patterns, key=len, reverse=True)))
        self.secret_ids = frozenset(
            self.backend.token_to_id(name) for _, name in self.names.values()
        )
        self.ordinary_ids = {
            self.backend.token_to_id(token.content): i
            for i, token in added.items()
            if i not in guarded
        }


def _gaps(regions: Sequence[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """What the regions leave of [0, length)."""
    gaps, position = [], 0
    for start, stop in sorted(regions):
        if position < start:
            gaps.append((position, start))
        position = max(position, stop)
    return [*gaps, (position, length)]


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json_object(path, limit=MAX_FILE) if path.is_file() else {}


def _content(token: Any) -> str | None:
    """A token of tokenizer_config.json: a text, or an object with its ``content``."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) and token else None


@contextmanager
def _guard(message: str) -> Iterator[None]:
    """Turn what the library raises over a malformed tokenizer.json into a `ModelError`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # nothing narrower: a panic in Rust is not even an Exception
        raise ModelError(f"{message}: {error}") from error


def _load(path: Path, text: str) -> tokenizers.Tokenizer:
    with _guard(f"{path} is not a valid tokenizer"):
        backend = tokenizers.Tokenizer.from_str(text)
    # Padding and truncation saved with a tokenizer are for training; transformers drops them too.
    backend.no_padding()
    backend.no_truncation()
    return backend


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
