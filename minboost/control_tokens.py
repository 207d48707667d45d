"""Keeping a user's text from becoming control tokens: what spells ``<|eot_id|>`` stays text."""

from __future__ import annotations

import bisect
import re
import secrets
from collections.abc import Mapping, Sequence

import tokenizers
from tokenizers import AddedToken

from .errors import InputError


class Twin:
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


def encode_apart(
    twin: Twin, text: str, plain: Sequence[tuple[int, int]], *, add_special_tokens: bool
) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids and offsets of text in whose ``plain`` regions control tokens are text.


    The template's own control tokens are rewritten to those names, so that all text is encoded
    in one piece, in its context, and what a user spells is text like any other.
    """
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
    return ids, offsets


def _gaps(regions: Sequence[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """What the regions leave of [0, length)."""
    gaps, position = [], 0
    for start, stop in sorted(regions):
        if position < start:
            gaps.append((position, start))
        position = max(position, stop)
    return [*gaps, (position, length)]
