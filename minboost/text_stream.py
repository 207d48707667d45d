"""Token ids → text, piece by piece, exactly as decoding them all at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

import tokenizers

_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class TextStream:
    """Text of ids as they come: all pieces joined equal ``decode`` of all ids, exactly.

    A piece is held back while later ids could change it: a character cut by a token border, and in
    models with byte tokens (``<0xE2>``) the whole run of them, which is text only if all of it is
    valid. ``tokenizers.decoders.DecodeStream`` can lose part of the whole.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        decode: Callable[[Sequence[int]], str],
        *,
        silent: Collection[int],
    ) -> None:
        """``decode`` gives the text of ids, in which those of ``silent`` do not show."""
        self._backend = backend
        self._decode_ids = decode
        self._silent = silent
        self._ids: list[int] = []
        self._emitted = 0  # characters
        # ids[_context:_settled] are emitted and shown again, so that what follows them is decoded
        # as in the whole; _context_text, their text, is not empty unless they are the beginning.
        self._context = self._settled = 0
        self._context_text = ""

    def push(self, token_id: int) -> str:
        """Take the next id; return the text that is now certain."""
        name = self._backend.id_to_token(token_id)
        if name is None or token_id in self._silent:
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
        return self._decode_ids(self._ids[start:])
