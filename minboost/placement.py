"""Where the methods of a request act: GUIDE's tags read, spans found in the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .checks import as_text
from .errors import InputError
from .methods import Guide, Latent, Method
from .methods.guide import Tagged, read_tags
from .prompt import Prompt
from .span import Span, check_span


@dataclass(frozen=True)
class Placement:
    """A request's texts as the model is to read them, and its methods with what they act on."""

    instruction: str | None
    query: str
    methods: tuple[Method, ...]
    tags: dict[str, list[Tagged]]
    """What stood between tags in the "instruction" and the "query"."""

    def spans(self, prompt: Prompt) -> list[tuple[Method, list[Span]]]:
        """Each method and the token spans of ``prompt`` that it names.

        A Guide whose request has tags becomes one for each of their levels, with its own delta.

        Raises:
            InputError: a span that is not there.
        """
        levels: dict[float, list[Span]] = {}
        for name, tags in self.tags.items():
            for tag in tags:
                levels.setdefault(tag.level, []).append(prompt.within(name, tag.start, tag.stop))
        placed: list[tuple[Method, list[Span]]] = []
        for method in self.methods:
            if isinstance(method, Guide) and levels:
                placed += [
                    (replace(method, delta=method.delta * level), spans)
                    for level, spans in levels.items()
                ]
            else:
                placed.append((method, resolve_spans(method, prompt)))
        return placed


def place(methods: Sequence[Method], *, instruction: str | None, query: str) -> Placement:
    """Read the tags where a Guide is among the methods; for all others they are plain text.

    Raises:
        InputError: a tag that is not closed, and the like (``read_tags``), or no text.
    """
    texts = {"query": as_text("query", query)}
    if instruction is not None:
        texts = {"instruction": as_text("instruction", instruction), **texts}
    tags: dict[str, list[Tagged]] = {}
    if any(isinstance(method, Guide) for method in methods):
        for name, text in texts.items():
            texts[name], tags[name] = read_tags(name, text)
    return Placement(texts.get("instruction"), texts["query"], tuple(methods), tags)


def resolve_spans(method: Method, prompt: Prompt) -> list[Span]:
    """The token spans of ``prompt`` that ``method`` names; InputError where there are none."""
    if isinstance(method, Latent):
        return []
    if isinstance(method.span, Span):
        return [check_span(method.span, len(prompt.ids))]
    if method.span in ("instruction", "prefix"):
        if prompt.instruction is None:
            raise InputError(
                f"the boost is on the {method.span}, but the request has no instruction"
            )
        return [prompt.instruction if method.span == "instruction" else prompt.prefix]
    return prompt.find(method.span)
