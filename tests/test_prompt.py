"""Prompts: ids as transformers', spans exact, user text never a control token."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from minboost.boost import Span
from minboost.chat_template import TemplateError
from minboost.errors import InputError, ModelError
from minboost.prompt import Prompt, build_prompt
from minboost.tokenizer import Tokenizer

from .test_chat_template import TEMPLATES
from .test_tokenizer import BUILDS, TEXTS, save

STYLES = {  # template -> tokenizer
    "llama3": "llama3",
    "llama2": "legacy",
    "mistral1": "always",
    "mistral3": "first",
    "chatml": "qwen",
    "qwen25": "qwen",
    "qwen3": "qwen",
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory):
    made = {}
    for name, build in STYLES.items():
        tok, special = BUILDS[build]()
        folder = save(tmp_path_factory.mktemp(name), tok, TEMPLATES[name], **special)
        made[name] = (
            Tokenizer.from_folder(folder),
            transformers.AutoTokenizer.from_pretrained(folder),
        )
    return made


def tokenizer_with(template: object, folder: Path, build: str = "qwen") -> Tokenizer:
    tok, special = BUILDS[build]()
    return Tokenizer.from_folder(save(folder, tok, template, **special))


def shown(tokenizer: Tokenizer, prompt: Prompt, span: Span) -> str:
    return tokenizer.decode(prompt.ids[span.start : span.stop], skip_special_tokens=False)


def check(name: str, pair, instruction: str | None, query: str, role: str) -> Prompt:
    """Ids equal transformers', and the spans hold the texts and no control token."""
    ours, theirs = pair
    prompt = build_prompt(ours, instruction=instruction, query=query, role=role)
    user = query if instruction is None else f"{instruction}\n\n{query}"
    if prompt.role == "raw":
        expected = theirs(user)["input_ids"]
    else:
        messages = [{"role": "user", "content": user}]
        if prompt.role == "system" and instruction is not None:
            messages = [{"role": "system", "content": instruction}]
            messages += [{"role": "user", "content": query}]
        expected = theirs.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=True, return_dict=False
        )
    assert prompt.ids == expected
    for span, text in ((prompt.instruction, instruction), (prompt.query, query)):
        if span is not None and text is not None:
            inside = range(span.start, span.stop)
            found = "".join(
                prompt.text[a:b] for a, b in [(prompt.offsets[k][0], prompt.offsets[k][1]) for k in inside][:1]
            )
            assert text.strip()[:1] in found
            covered = prompt.text[prompt.offsets[span.start][0] : prompt.offsets[span.stop - 1][1]]
            assert text.strip() in covered
            assert len(covered) <= len(text) + 4
            assert not ours.control_ids & {prompt.ids[k] for k in inside}
    assert prompt.role == ("user" if (name, role) == ("mistral1", "system") and instruction else role)
    return prompt


@pytest.mark.parametrize("role", ["system", "user", "raw"])
@pytest.mark.parametrize("name", STYLES)
def test_ids_equal_transformers(checkpoints, name, role):
    for instruction, query in zip(TEXTS, TEXTS[1:] + TEXTS[:1], strict=True):
        check(name, checkpoints[name], instruction, query, role)
        check(name, checkpoints[name], None, query, role)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_ids_equal_transformers_for_any_text(checkpoints, data):
    text = st.text(max_size=30).filter(str.strip)
    instruction, query = data.draw(text), data.draw(text)
    for name, pair in checkpoints.items():
        controls = pair[0].controls(pair[0].encode(instruction + " " + query))
        if not controls and not any("\ud800" <= c <= "\udfff" for c in instruction + query):
            check(name, pair, instruction, query, "system")
