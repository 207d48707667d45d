"""Spans: token positions of one sequence, the one way in which places of a prompt are named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .checks import as_integer
from .errors import InputError


@dataclass(frozen=True)
class Span:
    """Token positions ``[start, stop)`` of one sequence, counted from its first token."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        for end in ("start", "stop"):
            object.__setattr__(self, end, as_integer(f"span {end}", getattr(self, end), -(1 << 62)))
        if not 0 <= self.start < self.stop:
            raise InputError(
                f"span [{self.start}, {self.stop}) is empty or negative: "
                "0 <= start < stop must hold"
            )

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return f"[{self.start}, {self.stop})"


def check_span(span: object, length: int) -> Span:
    """``span`` itself, if it is a Span that lies in a prompt of ``length`` tokens."""
    if not isinstance(span, Span):
        raise InputError(f"on bare ids the span to boost must be a Span, got {span!r}")
    if span.stop > length:
        raise InputError(
            f"span [{span.start}, {span.stop}) does not lie in the prompt of {length} tokens"
        )
    return span


def merged(spans: Sequence[Span]) -> list[Span]:
    """The same tokens as spans that do not overlap, in order."""
    result: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, span.stop)):
        if result and span.start < result[-1].stop:
            result[-1] = Span(result[-1].start, max(span.stop, result[-1].stop))
        else:
            result.append(span)
    return result


def outside(spans: Sequence[Span], length: int) -> list[Span]:
    """The tokens of ``[0, length)`` that lie in none of ``spans``, as spans in order."""
    result, at = [], 0
    for span in merged(spans):
        if at < span.start:
            result.append(Span(at, span.start))
        at = max(at, span.stop)
    if at < length:
        result.append(Span(at, length))
    return result
