"""Chat templates: messages → the prompt text of one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2

from .errors import ModelError
from .files import read_json_object, read_text
from .template_sandbox import TemplateError, compile_template, render

__all__ = ["ChatTemplate", "TemplateError"]

MAX_SOURCE = 1 << 20
"""Longest chat template that is read, in characters; real ones stay under 30,000."""


class ChatTemplate:
    """The chat template of one checkpoint: a text, or several by name of which ``default`` is used.

    Compiled at first use, so that a checkpoint with a broken template still serves raw prompts.
    """

    def __init__(self, sources: str | Mapping[str, str], special_tokens: Mapping[str, str]) -> None:
        self.sources = {"default": sources} if isinstance(sources, str) else dict(sources)
        self._special_tokens = dict(special_tokens)

    @classmethod
    def from_folder(
        cls, folder: Path, config: Mapping[str, Any], special_tokens: Mapping[str, str]
    ) -> ChatTemplate | None:
        """Find the template where transformers does; None if the checkpoint has none.

        Files win over the ``chat_template`` of tokenizer_config.json (``config``):
        chat_template.jinja, additional_chat_templates/*.jinja; chat_template.json comes last.
        """
        paths = {"default": folder / "chat_template.jinja"}
        more = folder / "additional_chat_templates"
        paths |= {path.stem: path for path in sorted(more.glob("*.jinja"))[:64]}
        files = {
            name: read_text(path, MAX_SOURCE) for name, path in paths.items() if path.is_file()
        }
        found: Any = files or config.get("chat_template")
        legacy = folder / "chat_template.json"
        if found is None and legacy.is_file():
            found = read_json_object(legacy, limit=MAX_SOURCE).get("chat_template")
        if found is None:
            return None
        if isinstance(found, list):
            found = {
                entry.get("name"): entry.get("template")
                for entry in found
                if isinstance(entry, dict)
            }
        if isinstance(found, str):
            found = {"default": found}
        if not isinstance(found, dict) or not all(
            isinstance(part, str) and len(part) <= MAX_SOURCE
            for pair in found.items()
            for part in pair
        ):
            raise ModelError(
                f"{folder.name}: chat_template must be a text, or a list of name and template, "
                f"of at most {MAX_SOURCE} characters each"
            )
        return cls(found, special_tokens)

    def render(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        add_generation_prompt: bool = True,
        now: datetime | None = None,
    ) -> str:
        """Render messages, each with ``role`` and ``content``; ``now`` is the template's clock.

        Raises `TemplateError` if the template refuses the messages, `ModelError` if it is not
        valid, has no default, fails, or exceeds its budget.
        """
        template = self._compiled
        now = datetime.now() if now is None else now
        try:
            return render(
                template,
                input_chars=sum(len(text) for m in messages for text in m.values()),
                variables={
                    **self._special_tokens,
                    "messages": [dict(message) for message in messages],
                    "tools": None,
                    "documents": None,
                    "add_generation_prompt": add_generation_prompt,
                    "strftime_now": lambda format: now.strftime(str(format)[:100]),
                },
            )
        except ModelError:
            raise
        except RecursionError:
            raise ModelError("the chat template recurses without end") from None
        except Exception as error:  # a template can raise whatever Python can
            raise ModelError(f"the chat template fails: {type(error).__name__}: {error}") from error

    @cached_property
    def _compiled(self) -> jinja2.Template:
        if "default" not in self.sources:
            names = ", ".join(sorted(self.sources))
            raise ModelError(f"the checkpoint has chat templates ({names}) but none named default")
        try:
            return compile_template(self.sources["default"])
        except jinja2.TemplateSyntaxError as error:
            raise ModelError(
                f"the chat template 'default' is not valid (line {error.lineno}): {error.message}"
            ) from error
        except (RecursionError, MemoryError, SyntaxError, ValueError, OverflowError) as error:
            raise ModelError(
                f"the chat template 'default' cannot be compiled: {type(error).__name__}"
            ) from error
