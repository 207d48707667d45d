"""Text to ids and back over the ``tokenizers`` library; user text stays text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tokenizers
from tokenizers import AddedToken

from .chat_template import ChatTemplate
from .control_tokens import Twin, encode_apart
from .errors import InputError
from .text_stream import TextStream
from .tokenizer_files import guard, read_tokenizer

# Added tokens that only shorten ordinary text: runs of spaces and lines, and in Gemma HTML tags.
_ORDINARY = re.compile(
    r"[\s▁]*|</?(table|caption|thead|tbody|tfoot|t[rhd]|h[1-6]|blockquote|strong|em|su[bp]|code|[bius])>"
)


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
        self._twin: Twin | None = None

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """The tokenizer of a checkpoint; `ModelError` naming the file that is wrong."""
        backend, special, template = read_tokenizer(folder)
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
        with guard("the tokenizer fails on the text"):
            encoded = self.backend.encode(text, add_special_tokens=add_special_tokens)
        offsets = [
            self._trim(text, i, *span) for i, span in zip(encoded.ids, encoded.offsets, strict=True)
        ]
        encoding = Encoding(encoded.ids, offsets)
        if self._control_in(text, encoding, plain) is None:
            return encoding
        twin = self._twin_for(text)
        with guard("the tokenizer fails on the text"):
            apart = encode_apart(twin, text, plain, add_special_tokens=add_special_tokens)
        encoding = Encoding(*apart)
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

    def _twin_for(self, text: str) -> Twin:
        while self._twin is None or self._twin.nonce in text:
            self._twin = Twin(self.backend, self._added, self._guarded)
        return self._twin

    # --- ids to text ------------------------------------------------------------------------------

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of ids; control tokens flagged special are left out unless asked for."""
        with guard("the tokenizer fails on the ids"):
            return str(self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def stream(self, *, skip_special_tokens: bool = True) -> TextStream:
        """Decode one id at a time."""
        return TextStream(
            self.backend,
            partial(self.decode, skip_special_tokens=skip_special_tokens),
            silent=self.control_ids if skip_special_tokens else (),
        )
