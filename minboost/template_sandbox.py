"""A jinja2 sandbox that bounds what a chat template can cost.

A template comes with a checkpoint, so it is somebody else's program. It runs in jinja2's immutable
sandbox, set up as transformers sets it up, and within a budget:

- every loop iteration, macro call and function call counts against ``MAX_STEPS`` and against
  ``MAX_SECONDS`` of this thread's CPU time, whether or not anything is written;
- no joined, added, multiplied or rendered text or list grows past ``MAX_CHARS`` plus four times the
  length of the input, and no number past a thousand bits;
- a number handed to a filter or a method (a width, an indent) may not exceed ``MAX_ARGUMENT``, and
  ``range`` keeps the sandbox's own limit of 100,000.

So a template that loops, recurses or doubles stops within about two seconds with a `ModelError`.
A single call of a filter is not interrupted; its inputs are bounded as above.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from functools import wraps
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from .errors import ModelError

# The budget of one rendering; real templates take some hundred steps and under a millisecond.
MAX_CHARS = 1 << 20
MAX_STEPS = 500_000
MAX_SECONDS = 1.5
MAX_ARGUMENT = 1_000


class TemplateError(ModelError):
    """The chat template refused the messages by ``raise_exception``; ``message`` is its reason."""

    def __init__(self, message: str) -> None:
        super().__init__(f"the chat template refuses these messages: {message}")
        self.message = message


def compile_template(source: str) -> jinja2.Template:
    """Parse and instrument a template; jinja2's own errors where it is not valid."""
    return _Environment().from_string(source)


def render(template: jinja2.Template, *, input_chars: int, variables: dict[str, Any]) -> str:
    """Render within a budget that grows with ``input_chars``, the length of the messages."""
    token = _budget.set(_Budget(MAX_CHARS + 4 * input_chars))
    try:
        return template.render(**variables)
    finally:
        _budget.reset(token)


# --- the budget ----------------------------------------------------------------------------------


class _Budget:
    """What one rendering may still cost. CPU time, so that a busy machine fails no template."""

    def __init__(self, chars: int) -> None:
        self.chars = chars
        self.steps = MAX_STEPS
        self.deadline = time.thread_time() + MAX_SECONDS

    def tick(self) -> None:
        self.steps -= 1
        late = self.steps % 16 == 0 and time.thread_time() > self.deadline  # the clock is slow
        if self.steps < 0 or late:
            raise ModelError(
                f"the chat template does not end: it took more than {MAX_STEPS} steps "
                f"or {MAX_SECONDS} s of processor time"
            )

    def check(self, size: int) -> None:
        if size > self.chars:
            raise ModelError(f"the chat template writes more than {self.chars} characters")

    def size(self, value: Any) -> int:
        """Characters and items in value, all the way down; refuses what is too large."""
        total, stack = 0, [value]
        while stack:
            item = stack.pop()
            total += 1
            if isinstance(item, int) and item.bit_length() > 1000:
                raise ModelError("the chat template computes a number of more than 1000 bits")
            if isinstance(item, (str, bytes, range)):
                total += len(item)
            elif isinstance(item, (list, tuple, dict)):
                self.check(total + len(item))
                stack.extend(item)
                stack.extend(item.values() if isinstance(item, dict) else ())
            self.check(total)
        return total

    def count(self, values: Iterator[Any]) -> Iterator[Any]:
        """The values of a lazy filter, as long as their sum stays in bounds."""
        total = 0
        for value in values:
            self.tick()
            total += self.size(value)
            self.check(total)
            yield value

    def check_call(self, name: str, subject: Any, arguments: Sequence[Any]) -> None:
        """Refuse a call of a filter or of a text's method whose result could dwarf its inputs."""
        self.tick()
        size = self.size(subject)
        for value in arguments:
            if isinstance(value, int) and abs(value) > MAX_ARGUMENT:
                raise ModelError(
                    f"the chat template calls {name} with a number above {MAX_ARGUMENT}"
                )
            if name in ("join", "replace", "translate"):
                self.check(size * self.size(value) // 64)
            elif name in ("indent", "tojson", "expandtabs") and isinstance(value, int):
                self.check(size * abs(value) // 64)
        if name in ("format", "format_map", "%") and _WIDE_FORMAT.search(str(subject)):
            raise ModelError("the chat template formats with a width above 999 or a computed one")


# Only a width lets a format outgrow its arguments: "%9999d", "%*d", "{:9999}", "{:{width}}".
_WIDE_FORMAT = re.compile(r"%(\([^)]*\))?[^a-zA-Z%]*(\d{4}|\*)|\{[^}]*(\d{4}|\{)")
_budget: ContextVar[_Budget] = ContextVar("_budget")


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter within the budget of the rendering that calls it."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0  # after the context or environment

    @wraps(function)  # keeps jinja's mark of what to pass
    def call(*args: Any, **kwargs: Any) -> Any:
        budget = _budget.get()
        args = _listed(args)
        budget.check_call(name, args[first], [*args[first + 1 :], *kwargs.values()])
        result = function(*args, **kwargs)
        if isinstance(result, Iterator):
            return budget.count(result)
        budget.size(result)
        return result

    return call


def _listed(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments with lazy values (of ``map``, ``select``) made lists, so that they have a size."""
    return tuple(list(value) if isinstance(value, Iterator) else value for value in args)


def _bounded_concat(parts: Iterable[str]) -> str:
    budget, total, texts = _budget.get(), 0, []
    for part in parts:
        total += len(part)
        budget.check(total)
        texts.append(part)
    return "".join(texts)


def _bounded_output(value: Any) -> Any:
    _budget.get().size(value)
    return value


# --- the environment -----------------------------------------------------------------------------


def _tojson(
    x: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: jinja's own filter would escape HTML characters."""
    return json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: object) -> None:
    raise TemplateError(str(message))


class _Support(Extension):
    """The ``{% generation %}`` tag, and what the compiled template calls to stay in its budget."""

    tags = {"generation"}  # noqa: RUF012 (jinja declares it so)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("pass_on"), [], [], body).set_lineno(line)

    def pass_on(self, caller: Callable[[], str]) -> str:
        return caller()

    def tick(self) -> None:
        _budget.get().tick()

    def concat(self, *values: Any) -> str:
        return _bounded_concat(str(_bounded_output(value)) for value in values)


class _Instrument(NodeTransformer):
    """Count each turn of a loop and measure each ``~``; `_Environment.call` counts the calls.

    Both go to an attribute of the extension, which no template can rename or shadow.
    """

    def __init__(self, support: _Support) -> None:
        self.support = support

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 (named by the visitor)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(self.support.call_method("tick")))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self.support.call_method("concat", node.nodes)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})
    concat = staticmethod(_bounded_concat)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Support, loopcontrols],
            finalize=_bounded_output,
        )
        self.filters["tojson"] = _tojson
        self.filters = {name: _bounded(name, call) for name, call in self.filters.items()}
        self.globals["raise_exception"] = _raise_exception
        for name in ("urlize", "pprint"):  # slow on long texts, and of no use here
            del self.filters[name]
        del self.globals["lipsum"]

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _Instrument(self.extensions[_Support.identifier]).visit(tree)  # type: ignore[arg-type]
        return tree.set_environment(self)  # type: ignore[return-value]

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = _budget.get()
        if operator == "%" and isinstance(left, str):
            budget.check_call("%", left, ())
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            budget.check(left.bit_length() * abs(right))
        elif operator == "*":
            for many, count in ((left, right), (right, left)):
                if isinstance(many, (str, bytes, list, tuple)) and isinstance(count, int):
                    budget.check(len(many) * count)
        result = super().call_binop(context, operator, left, right)
        budget.size(result)
        return result

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        budget = _budget.get()
        budget.tick()
        method = getattr(obj, "__wrapped__", obj)  # the sandbox wraps str.format
        subject = getattr(method, "__self__", None)
        if isinstance(subject, (str, bytes, int)):
            args = _listed(args)
            budget.check_call(method.__name__, subject, [*args, *kwargs.values()])
        result = super().call(context, obj, *args, **kwargs)
        if not isinstance(subject, Extension):
            budget.size(result)
        return result
