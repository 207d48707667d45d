"""One answer as it grows: tokens → text, piece by piece, until an end token or a stop string."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from .checks import as_text
from .errors import InputError
from .tokenizer import Tokenizer


class Answer:
    """Collects the tokens of one sequence and says when it has ended.

    ``ids`` holds every token, the end token included; ``text`` has neither special tokens nor the
    stop string. ``finish_reason`` is None while it goes on, then "stop" or "length".
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        eos_ids: Collection[int],
        stop: str | Sequence[str] = (),
        max_new_tokens: int,
    ) -> None:
        stop = (stop,) if isinstance(stop, str) else stop
        if not isinstance(stop, Iterable) or not all(as_text("a stop string", s) for s in stop):
            raise InputError(f"stop must be a text or texts, none of them empty, got {stop!r}")
        self.ids: list[int] = []
        self.text = ""
        self.finish_reason: str | None = None
        self._stream = tokenizer.stream()
        self._eos_ids = frozenset(eos_ids)
        self._stop = tuple(stop)
        self._max_new_tokens = max_new_tokens
        self._held = ""  # text that may be the beginning of a stop string

    def push(self, token: int) -> str:
        """Take the next token; return the text that is now certain."""
        self.ids.append(token)
        if token in self._eos_ids:
            return self.close("stop")
        piece = self._emit(self._stream.push(token))
        if self.finish_reason is None and len(self.ids) >= self._max_new_tokens:
            return piece + self.close("length")
        return piece

    def close(self, reason: str) -> str:
        """End the answer; return what was still held back."""
        piece = self._emit(self._stream.finish())
        if self.finish_reason is None:
            self.finish_reason = reason
            self.text += self._held
            piece, self._held = piece + self._held, ""
        return piece

    def _emit(self, piece: str) -> str:
        if self.finish_reason is not None:
            return ""
        if not self._stop:
            self.text += piece
            return piece
        pending = self._held + piece
        found = [at for at in (pending.find(text) for text in self._stop) if at >= 0]
        if found:
            certain, self._held = pending[: min(found)], ""
            self.finish_reason = "stop"
        else:
            hold = max(_overlap(pending, text) for text in self._stop)
            certain, self._held = pending[: len(pending) - hold], pending[len(pending) - hold :]
        self.text += certain
        return certain


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
