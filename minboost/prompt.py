"""Instruction and query to token ids, and where exactly each of them lies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from .chat_template import ChatTemplate, TemplateError
from .errors import InputError, ModelError
from .span import Span
from .tokenizer import Tokenizer

ROLES = ("system", "user", "raw")

Region = tuple[int, int]
"""Characters ``[start, stop)`` of a prompt."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as the model reads it. Spans count tokens from the first, BOS included."""

    text: str
    """The rendered prompt. A raw prompt's BOS is in ``ids`` only."""
    ids: list[int]
    instruction: Span | None
    """Exactly the instruction's tokens, those that overlap its characters; None without one."""
    query: Span
    role: str
    """The form used: "system", "user" or "raw"."""
    notes: tuple[str, ...]
    """What the user should be told: which form stands in for the one asked for, and why."""
    offsets: list[Region] = field(repr=False)
    """The characters of ``text`` behind each token."""
    regions: tuple[Region, ...] = field(repr=False)
    """The characters of ``text`` that are the user's own."""
    sources: dict[str, tuple[str, Region]] = field(repr=False)
    """The user's "instruction" and "query" as given, and where in ``text`` each first stands."""

    @property
    def prefix(self) -> Span:
        """From the first token to the end of the instruction; `InputError` without one."""
        if self.instruction is None:
            raise InputError("the prompt has no instruction, so no prefix that ends with it")
        return Span(0, self.instruction.stop)

    def find(self, text: str) -> list[Span]:
        """Every occurrence of text in the instruction and the query, in order, as token spans.

        Raises `InputError` naming the text if it is empty or does not occur.
        """
        spans = []
        for start, stop in self.regions:
            place = self.text.find(text, start, stop) if text else -1
            while place >= 0:
                spans.append(_span(self.offsets, (place, place + len(text)), repr(text)))
                place = self.text.find(text, place + len(text), stop)
        if not spans:
            raise InputError(f"the text {text!r} does not occur in the instruction or the query")
        return spans

    def within(self, name: str, start: int, stop: int) -> Span:
        """The tokens of characters ``[start, stop)`` of the "instruction" or "query" as given."""
        given, (first, last) = self.sources[name]
        trimmed = given.find(self.text[first:last])  # white space that the template took off
        region = (max(first, first + start - trimmed), min(last, first + stop - trimmed))
        return _span(self.offsets, region, repr(given[start:stop]))


def build_prompt(
    tokenizer: Tokenizer,
    *,
    instruction: str | None,
    query: str,
    role: str = "system",
    date: datetime | None = None,
) -> Prompt:
    """Render and encode a prompt.

    role "system" puts the instruction in the system turn and the query in the user turn; "user"
    puts both in one user turn, with an empty line between; "raw" does so without the chat template.
    A template without a system turn falls back to "user", a checkpoint without a template to "raw",
    each with a note. ``date`` is the clock for templates that print the date; default now.

    Control-token strings in instruction or query stay text. For other texts the ids equal those of
    transformers' ``apply_chat_template``, or for "raw" of its ``tokenizer(text)``.

    Raises `InputError` for an unknown role or an empty text, `ModelError` if the template fails or
    changes the texts so that they cannot be found again.
    """
    if role not in ROLES:
        raise InputError(f"role {role!r} is none of {', '.join(ROLES)}")
    texts = [query] if instruction is None else [instruction, query]
    names = ("instruction", "query")[-len(texts) :]
    for name, text in zip(names, texts, strict=True):
        if not text.strip():
            raise InputError(f"the {name} is empty")
    notes: list[str] = []
    template = tokenizer.chat_template
    layout: _Layout | None = None
    if role != "raw" and template is None:
        role = "raw"
        notes.append("the checkpoint has no chat template; the prompt is the plain text")
    if role != "raw" and template is not None:
        now = datetime.now() if date is None else date
        layout = _lay_out(tokenizer, template, role, texts, now)
        if layout is None and role == "system" and instruction is not None:
            role = "user"
            notes.append(
                "the chat template has no system turn; the instruction stands in front of the "
                "query in the user turn"
            )
            layout = _lay_out(tokenizer, template, role, texts, now)
        if layout is None:
            raise ModelError(
                "the chat template leaves out the query or the instruction; "
                "role raw works without the template"
            )
    if layout is None:
        text = "\n\n".join(texts)
        ends = [[(0, len(texts[0]))], [(len(text) - len(query), len(text))]]
        layout = _Layout(text, ends[-len(texts) :])
    for name, places in zip(names, layout.places, strict=True):
        if len(places) > 1:
            notes.append(
                f"the chat template writes the {name} {len(places)} times; the first counts"
            )
    regions = tuple(sorted(place for places in layout.places for place in places))
    encoding = tokenizer.encode(layout.text, plain=regions, add_special_tokens=role == "raw")
    spans = [
        _span(encoding.offsets, places[0], f"the {name}")
        for name, places in zip(names, layout.places, strict=True)
    ]
    return Prompt(
        text=layout.text,
        ids=encoding.ids,
        instruction=None if instruction is None else spans[0],
        query=spans[-1],
        role=role,
        notes=tuple(notes),
        offsets=encoding.offsets,
        regions=regions,
        sources={
            name: (given, places[0])
            for name, given, places in zip(names, texts, layout.places, strict=True)
        },
    )


@dataclass(frozen=True)
class _Layout:
    text: str
    places: list[list[Region]]
    """For each of the user's texts, where it stands in ``text``; at least one place each."""


def _lay_out(
    tokenizer: Tokenizer, template: ChatTemplate, role: str, texts: list[str], now: datetime
) -> _Layout | None:
    """Render the turns and find the texts in them; None if the template leaves one of them out.

    The template is rendered a second time with marks in place of the texts, which shows what it
    writes around them. A template without a system turn refuses or drops the system text.
    """

    def render(contents: Sequence[str]) -> str:
        if role == "user" or len(contents) == 1:
            messages = [{"role": "user", "content": "\n\n".join(contents)}]
        else:
            messages = [
                {"role": turn, "content": content}
                for turn, content in zip(("system", "user"), contents, strict=True)
            ]
        return template.render(messages, now=now)

    try:
        text = render(texts)
        marks = _marks(len(texts), text + "".join(texts))
        shape = render(marks)
    except TemplateError:
        if role == "system" and len(texts) > 1:
            return None
        raise
    if any(mark not in shape for mark in marks):
        return None
    places = _match(text, shape, marks, texts)
    if places is not None:
        return _Layout(text, places)

    # The template changes the texts by more than trimming. If each still stands there once as it
    # was, and nothing of them became a control token elsewhere, that will do.
    starts = [text.find(t) for t in texts]
    places = [[(start, start + len(t))] for start, t in zip(starts, texts, strict=True)]
    regions = [place[0] for place in places]
    if (
        all(
            start >= 0 and text.find(t, start + 1) < 0
            for start, t in zip(starts, texts, strict=True)
        )
        and (len(texts) == 1 or regions[0][1] <= regions[1][0] or regions[1][1] <= regions[0][0])
        and tokenizer.controls(tokenizer.encode(text, plain=regions))
        == tokenizer.controls(tokenizer.encode(shape))
    ):
        return _Layout(text, places)
    raise ModelError(
        "the chat template changes the instruction or the query, so their tokens cannot be told "
        "from the template's own; role raw works without the template"
    )


def _marks(count: int, taken: str) -> list[str]:
    """Private-use texts that do not occur in what is taken."""
    free = (chr(code) for code in range(0x100000, 0x10FFFE) if chr(code) not in taken)
    return [next(free) * 3 for _ in range(count)]


def _match(
    text: str, shape: str, marks: Sequence[str], texts: Sequence[str]
) -> list[list[Region]] | None:
    """Where the texts, as they are or trimmed, stand in place of the marks; None if they do not."""
    parts = re.split(f"({'|'.join(marks)})", shape)  # literal, mark, literal, mark, ..., literal
    if len(parts) > 2 * 16:
        return None
    places: list[list[Region]] = [[] for _ in texts]

    def walk(k: int, position: int) -> bool:
        if not text.startswith(parts[k], position):
            return False
        position += len(parts[k])
        if k == len(parts) - 1:
            return position == len(text)
        slot = marks.index(parts[k + 1])
        whole = texts[slot]
        for form in dict.fromkeys((whole, whole.rstrip(), whole.lstrip(), whole.strip())):
            stop = position + len(form)
            if text.startswith(form, position) and walk(k + 2, stop):
                places[slot].insert(0, (position, stop))
                return True
        return False

    return places if walk(0, 0) else None


def _span(offsets: Sequence[Region], region: Region, name: str) -> Span:
    """The tokens that overlap a region of characters."""
    start, stop = region
    hit = [k for k, (a, b) in enumerate(offsets) if a < stop and start < b]
    if not hit:
        raise InputError(f"{name} has no tokens: the tokenizer drops all of its characters")
    return Span(hit[0], hit[-1] + 1)
