"""Chat templates, messages, and strategies for tests of chat formats."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from bpe import Tokenizer
from bpe.chat import TemplateChat

SPECIAL = (
    "<|endoftext|>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>", "[INST]", "[/INST]", "<|user|>",
    "<|assistant|>", "<|system|>", "<tool_call>", "</tool_call>", "<|object_ref_start|>", "<think>", "</think>",
)  # fmt: skip


# Templates that resemble published ones.
CHATML = """\
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""


LLAMA3 = """\
{{- bos_token }}
{%- if date_string is not defined %}{% set date_string = strftime_now("%d %b %Y") %}{% endif %}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {%- for tool in tools %}{{- tool | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{%- endif %}
{{- system + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if message.role in ('user', 'system') or (message.role == 'assistant' and 'tool_calls' not in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim }}
        {{- '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}{{- raise_exception("Only one tool call!") }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}{{- "}<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" + message.content | tojson + "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""


QWEN2 = """\
{%- macro parameters(properties) %}
    {%- for name, property in properties.items() %}
        {%- if property.type == 'object' %}<{{ name }}>object</{{ name }}>{% else %}<{{ name }}/>{% endif %}
    {%- endfor %}
{%- endmacro %}
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools if tool.type == 'function' %}
        {{- tool.function.name ~ ': ' }}{{- parameters(tool.function.parameters.properties) }}{{- '\\n' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "tool" %}
        {%- if loop.first or messages[loop.index0 - 1].role != "tool" %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- message.content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != "tool" %}{{- '<|im_end|>\\n' }}{%- endif %}
        {%- continue %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
    {%- for call in message.tool_calls or [] %}
        {%- set call = call.function if call.function is defined else call %}
        {{- '\\n<tool_call>\\n{"name": "' ~ call.name ~ '", "arguments": ' }}
        {{- call.arguments if call.arguments is string else call.arguments | tojson }}
        {{- '}\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


MISTRAL = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] + '\\n\\n' %}{%- set messages = messages[1:] %}
{%- endif %}
{{- bos_token }}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- '[INST] ' }}{%- if loop.last and system is defined %}{{- system }}{%- endif %}
        {{- message['content'] + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message['content'].strip() + eos_token }}
    {%- endif %}
{%- endfor %}
"""


ZEPHYR = """\
{% for message in messages %}
{{ '<|' + message['role'] + '|>' }}
{{ message['content'] + eos_token }}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
"""


MARKED = """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\\n' -}}
    {%- if message.role == 'assistant' -%}
        {%- generation -%}{{- message.content + '<|im_end|>' -}}{%- endgeneration -%}
    {%- else -%}{{- message.content + '<|im_end|>' -}}{%- endif -%}
    {{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""


THINKING = """\
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and '</think>' in content %}{%- set content = content.split('</think>')[-1] %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


TEMPLATES = {
    "chatml": CHATML, "llama3": LLAMA3, "qwen2": QWEN2, "mistral": MISTRAL, "zephyr": ZEPHYR, "marked": MARKED,
    "thinking": THINKING,
}  # fmt: skip


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'How <warm> it is "there", äöü',
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "at": {"type": "object", "properties": {}}},
            },
        },
    }
]


def user(content: str) -> dict[str, Any]:
    """Return a user message."""
    return {"role": "user", "content": content}


def assistant(content: str, **more: Any) -> dict[str, Any]:
    """Return an assistant message."""
    return {"role": "assistant", "content": content, **more}


def template_chat(tokenizer: Tokenizer, name: str) -> TemplateChat:
    """Return the chat format of one of `TEMPLATES`."""
    variables = {"date_string": "26 Jul 2024"} if "date_string" in TEMPLATES[name] else {}
    return TemplateChat(tokenizer, TEMPLATES[name], "<s>", "</s>", variables)


# Text without special tokens, and text full of special tokens and their parts. The filter is needed because hypothesis
# also draws constants that it finds in the code.
drawn_texts = st.text(st.characters(exclude_categories=["Cs", "Co"]), max_size=30)


plain_texts = drawn_texts.filter(lambda text: not any(token in text for token in SPECIAL)) | st.sampled_from(
    ["  two  spaces ", "\n\nlines\n", "", " ", "it's", "{'a': 1}", "<b>&amp;</b>", "日本語 🦙", "object", "user"]
)


pieces = [*SPECIAL, *(token[:cut] for token in SPECIAL for cut in (1, 2, -1, -2)), *(token[1:] for token in SPECIAL)]


hostile_texts = st.lists(
    st.sampled_from([*pieces, "im_end", "|im_end|", "user", "\n", " ", "assistant"]) | plain_texts, max_size=6
).map("".join)
