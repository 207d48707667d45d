"""Chat templates: the text transformers renders, within a budget that no template can exceed.

The templates are written in the style of the families they are named for.
"""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from minboost.chat_template import ChatTemplate, TemplateError
from minboost.errors import ModelError

TEMPLATES = {
    "llama3": """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\nToday Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "llama2": "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}"
    "{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "mistral1": "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}",
    "mistral3": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace(last=loop_messages|selectattr("role", "equalto", "user")|list|length) %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if loop.index0 + 1 == ns.last and system_message is defined %}
        {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
    {%- else %}
        {{- "[INST] " + message["content"] + "[/INST]" }}
    {%- endif %}
{%- endfor %}
""",
    "chatml": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "qwen25": """{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "qwen3": """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if '</think>' in content %}
        {%- set reason = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1] %}
    {%- endif %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",  # noqa: E501 (as its author wrote it)
    "generation": "{% for m in messages %}{% generation %}{{ m | tojson }}{% endgeneration %}"
    "{{ strftime_now('%Y') }}{% if loop.first %}{% continue %}{% endif %}\n"
    "    {% set x = m.content ~ 3 ~ none %}\n{{ x }} {{ '%s|%5.2f' % ('a', 2) }}{% endfor %}\n",
}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
SYSTEM = {"role": "system", "content": "Be <b>brief</b>. \n"}
USER = {"role": "user", "content": " Why? 'é' \"🎉\" </think> x"}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("messages", [[USER], [SYSTEM, USER]], ids=["user", "system"])
def test_text_equals_transformers(name, messages):
    def theirs() -> str:
        (text,), _ = render_jinja_template(
            [messages], chat_template=TEMPLATES[name], add_generation_prompt=True, **SPECIAL
        )
        return text

    ours = ChatTemplate(TEMPLATES[name], SPECIAL)
    if name == "mistral1" and len(messages) == 2:
        with pytest.raises(TemplateError) as caught:
            ours.render(messages)
        assert caught.value.message == "Conversation roles must alternate user/assistant"
    else:
        assert ours.render(messages) == theirs()


def test_the_clock_is_the_callers():
    text = ChatTemplate(TEMPLATES["llama3"], SPECIAL).render([USER], now=datetime(2020, 2, 29))
    assert "Today Date: 29 Feb 2020" in text


def test_messages_stay_as_they_were():
    messages = [{"role": "user", "content": "x"}]
    with pytest.raises(ModelError, match="SecurityError"):
        ChatTemplate("{{ messages[0].update(content='y') }}", {}).render(messages)
    assert messages == [{"role": "user", "content": "x"}]


LOOPS = {
    "silent nested loops": "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}"
    "{% endfor %}",
    "filtered nested loops": "{% for a in range(100000) %}{% for b in range(100000) if false %}"
    "{% endfor %}{% endfor %}",
    "macros that double": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
    "{% endmacro %}{{ f(90) }}",
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "doubling by +": "{% set n = namespace(x='ab') %}{% for i in range(99) %}"
    "{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling by ~": "{% set n = namespace(x='ab') %}{% for i in range(99) %}"
    "{% set n.x = n.x ~ n.x %}{% endfor %}",
    "squaring": "{% set n = namespace(x=99) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}"
    "{% endfor %}",
    "a power": "{{ 9 ** (9 ** 9) }}",
    "a product": "{{ 'a' * 10 ** 9 }}",
    "nested lists": "{% set n = namespace(x=[1]) %}{% for i in range(99) %}"
    "{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
    "a long output": "{% for i in range(100000) %}{{ 'a' * 1000 }}{% endfor %}",
    "a long block": "{% set x %}{% for i in range(99999) %}{{ 'a' * 999 }}{% endfor %}{% endset %}",
    "one text many times": "{{ ['a' * 1000000] * 100000 }}",
    "a long separator": "{{ range(100000) | join('a' * 1000000) }}",
    "a long separator of lazy texts": "{{ range(99999) | map('string') | join('a' * 1000000) }}",
    "a lazy separator": "{{ ('a' * 1000000).join(range(100000) | map('string')) }}",
    "lazy copies": "{{ range(99999) | map('replace', '1', 'a' * 1000000) | list | length }}",
    "a wide filter": "{{ 'a' | center(1000000000) }}",
    "a wide method": "{{ 'a'.ljust(1000000000) }}",
    "wide bytes": "{{ 'a'.encode().ljust(1000000000) }}",
    "a wide format": "{{ '%1000000000d' % 1 }}",
    "a computed format": "{{ '{:{w}}'.format_map({'w': 1000000000}) }}",
    "a long range": "{{ range(1000000000) | list }}",
}


@pytest.mark.parametrize("source", LOOPS.values(), ids=LOOPS)
def test_a_template_without_end_is_stopped(source):
    template, start = ChatTemplate(source, {}), time.process_time()
    with pytest.raises(ModelError, match="chat template") as caught:
        template.render([USER])
    assert "MemoryError" not in str(caught.value)
    assert time.process_time() - start < 4


def test_the_budget_is_each_renderings_own():
    template = ChatTemplate("{% for i in range(90000) %}{% endfor %}{{ messages|length }}", {})
    assert [template.render([USER]) for _ in range(6)] == ["1"] * 6


def test_long_honest_messages_are_rendered():
    long = {"role": "user", "content": "word <think> " * 200_000}
    template = ChatTemplate("{{ messages[0].content.replace('<think>', '') | trim ~ '!' }}", {})
    assert len(template.render([long])) == 1_199_999
    assert ChatTemplate(TEMPLATES["qwen3"], SPECIAL).render([long]).count("<think>") == 200_000


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for %}", r"'default' is not valid \(line 1\)"),
        ("x\n{{ 'a' }", r"'default' is not valid \(line 2\)"),
        ("{{" + "(" * 5000 + ")" * 5000 + "}}", "cannot be compiled"),
        ("{% include 'x' %}", "fails"),
        ("{{ messages.foo.bar }}", "UndefinedError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
    ],
)
def test_a_broken_template_says_why(source, message):
    with pytest.raises(ModelError, match=message):
        ChatTemplate(source, {}).render([USER])


# --- where templates are found --------------------------------------------------------------------


def _found(folder: Path, config: dict[str, object]) -> str:
    template = ChatTemplate.from_folder(folder, config, {})
    assert template is not None
    return template.render([USER])


def test_files_win_over_the_config_and_default_over_the_others(tmp_path):
    assert ChatTemplate.from_folder(tmp_path, {}, {}) is None
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "json"}))
    assert _found(tmp_path, {}) == "json"
    named = [{"name": "tool_use", "template": "tool"}, {"name": "default", "template": "named"}]
    assert _found(tmp_path, {"chat_template": named}) == "named"
    assert _found(tmp_path, {"chat_template": "text"}) == "text"
    (tmp_path / "chat_template.jinja").write_text("file")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("rag")
    assert _found(tmp_path, {"chat_template": "text"}) == "file"


def test_templates_without_a_default_are_named(tmp_path):
    named = [{"name": "tool_use", "template": "a"}, {"name": "rag", "template": "b"}]
    with pytest.raises(ModelError, match=r"\(rag, tool_use\) but none named default"):
        _found(tmp_path, {"chat_template": named})


@pytest.mark.parametrize("value", [3, [], [3], [{"name": "x"}], {"default": None}, "x" * (1 << 21)])
def test_a_malformed_template_entry_is_refused(tmp_path, value):
    with pytest.raises(ModelError, match=r"chat.template"):
        _found(tmp_path, {"chat_template": value})
