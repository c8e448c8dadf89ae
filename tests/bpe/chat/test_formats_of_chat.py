"""Dialogs: their ids are those of Meta's and Hugging Face's own code, and text in them stays text."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_models.datatypes import RawMessage, StopReason, ToolCall
from llama_models.llama3.chat_format import ChatFormat as MetaChat
from llama_models.llama3.tokenizer import Tokenizer as MetaTokenizer
from transformers import PreTrainedTokenizerFast

from bpe import InputError, Tokenizer, train
from bpe.chat import ChatFormat, Llama3Chat, TemplateChat, chat_format, check_messages
from support.references import BYTE_RANKS

SPECIAL = (
    "<|endoftext|>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>", "[INST]", "[/INST]", "<|user|>",
    "<|assistant|>", "<|system|>", "<tool_call>", "</tool_call>", "<|object_ref_start|>", "<think>", "</think>",
)  # fmt: skip

# Templates in the manner of the published ones.
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
    return {"role": "user", "content": content}


def assistant(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


@pytest.fixture(scope="module")
def small(corpora: Path) -> Tokenizer:
    return train(str(corpora), vocab_size=1500, pattern="llama3", special_tokens=SPECIAL, name="small")


@pytest.fixture(scope="module")
def transformers_tokenizer(small: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    path = tmp_path_factory.mktemp("small") / "tokenizer.json"
    small.save(path)
    return PreTrainedTokenizerFast(tokenizer_file=str(path), bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module")
def meta() -> MetaChat:
    return MetaChat(MetaTokenizer.get_instance())


@pytest.fixture(scope="module")
def llama3_chat(llama3: Tokenizer) -> Llama3Chat:
    return Llama3Chat(llama3)


def template_chat(tokenizer: Tokenizer, name: str) -> TemplateChat:
    return TemplateChat(tokenizer, TEMPLATES[name], "<s>", "</s>", {"date_string": "26 Jul 2024"})


# Text without special tokens, and text that is full of them, and of their parts. hypothesis also draws
# the constants that it finds in the code.
drawn_texts = st.text(st.characters(exclude_categories=["Cs", "Co"]), max_size=30)
plain_texts = drawn_texts.filter(lambda text: not any(token in text for token in SPECIAL)) | st.sampled_from(
    ["  two  spaces ", "\n\nlines\n", "", " ", "it's", "{'a': 1}", "<b>&amp;</b>", "日本語 🦙", "object", "user"]
)
pieces = [*SPECIAL, *(token[:cut] for token in SPECIAL for cut in (1, 2, -1, -2)), *(token[1:] for token in SPECIAL)]
hostile_texts = st.lists(
    st.sampled_from([*pieces, "im_end", "|im_end|", "user", "\n", " ", "assistant"]) | plain_texts, max_size=6
).map("".join)


# --- Llama 3's format ---

arguments = st.dictionaries(hostile_texts, hostile_texts | st.integers() | st.booleans() | st.none(), max_size=3)
calls = st.tuples(st.sampled_from(["weather", "f-1", "<|eot_id|>"]), arguments) | st.one_of(
    *(
        st.tuples(st.just(name), hostile_texts.map(lambda text, field=field: {field: text}))
        for name, field in [("brave_search", "query"), ("wolfram_alpha", "query"), ("code_interpreter", "code")]
    )
)
turns = st.one_of(
    st.tuples(st.sampled_from(["system", "user", "tool", "ipython"]), hostile_texts, st.just([]), st.just(False)),
    st.tuples(st.just("assistant"), hostile_texts, st.lists(calls, max_size=2), st.booleans()),
)


def ours_and_metas(turns: Sequence[Any]) -> tuple[list[dict[str, Any]], list[RawMessage]]:
    ours, theirs = [], []
    for number, (role, content, calls, waits) in enumerate(turns):
        message = {"role": role, "content": content}
        if calls:
            message["tool_calls"] = [
                {
                    "type": "function",
                    "function": {"name": name, "arguments": json.dumps(given) if number % 2 else given},
                }
                for name, given in calls
            ]
        if waits:
            message["stop_reason"] = "end_of_message"
        ours.append(message)
        theirs.append(
            RawMessage(
                role="tool" if role == "ipython" else role,
                content=content,
                tool_calls=[ToolCall(call_id="", tool_name=name, arguments=given) for name, given in calls],
                stop_reason=StopReason.end_of_message if waits else StopReason.end_of_turn,
            )
        )
    return ours, theirs


@settings(max_examples=300, deadline=None)
@given(turns=st.lists(turns, max_size=6))
def test_llama3_ids_are_metas(llama3_chat: Llama3Chat, meta: MetaChat, turns: list[Any]) -> None:
    ours, theirs = ours_and_metas(turns)
    assert llama3_chat.encode(ours) == meta.encode_dialog_prompt(theirs).tokens


@settings(max_examples=100, deadline=None)
@given(turns=st.lists(turns, max_size=6), cut=st.integers(0, 6))
def test_a_longer_llama3_dialog_begins_with_a_shorter_one(llama3_chat: Llama3Chat, turns: list[Any], cut: int) -> None:
    messages, _ = ours_and_metas(turns)
    beginning = llama3_chat.encode(messages[:cut], messages[cut : cut + 1] and messages[cut]["role"] == "assistant")
    assert llama3_chat.encode(messages)[: len(beginning)] == beginning


@settings(max_examples=100, deadline=None)
@given(turns=st.lists(turns, max_size=6))
def test_the_llama3_mask_has_what_follows_upon_a_prompt_for_an_answer(
    llama3_chat: Llama3Chat, turns: list[Any]
) -> None:
    messages, _ = ours_and_metas(turns)
    ids, mask = llama3_chat.encode_with_mask(messages)
    assert ids == llama3_chat.encode(messages, add_generation_prompt=False)
    expected = [False] * len(ids)
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            begin = len(llama3_chat.encode(messages[:number]))
            end = len(llama3_chat.encode(messages[: number + 1], add_generation_prompt=False))
            expected[begin:end] = [True] * (end - begin)
            assert ids[end - 1] in llama3_chat.end_ids
    assert mask == expected


def test_llama3_tokens_end_a_turn(llama3: Tokenizer, llama3_chat: Llama3Chat) -> None:
    names = ("<|end_of_text|>", "<|eot_id|>", "<|eom_id|>")
    assert llama3_chat.end_ids == {llama3.special_tokens[name] for name in names}


def test_llama3_format_has_no_place_for_tools(llama3_chat: Llama3Chat) -> None:
    with pytest.raises(InputError, match="system message"):
        llama3_chat.encode([user("Hi")], tools=TOOLS)


def test_llama3_format_needs_its_special_tokens(small: Tokenizer) -> None:
    ranks = small.mergeable_ranks
    bare = Tokenizer("bare", pat_str="llama3", mergeable_ranks=ranks, special_tokens={"<|begin_of_text|>": 5000})
    with pytest.raises(InputError, match=r"<\|start_header_id\|>.*Llama 3"):
        Llama3Chat(bare)


def test_a_call_of_the_code_interpreter_needs_the_python_tag(small: Tokenizer) -> None:
    without = {token: id for token, id in small.special_tokens.items() if token != "<|python_tag|>"}
    first = Tokenizer("3.0", pat_str="llama3", mergeable_ranks=small.mergeable_ranks, special_tokens=without)
    call = {"name": "code_interpreter", "arguments": {"code": "1 + 1"}}
    with pytest.raises(InputError, match=r"message 2: .*<\|python_tag\|>"):
        Llama3Chat(first).encode([user("?"), assistant("", tool_calls=[call])])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"name": "f", "arguments": "{"}, "not JSON"),
        ({"name": "f", "arguments": "[" * 100_000}, "not JSON"),
        ({"name": "f", "arguments": "[1]"}, "not a JSON object"),
        ({"name": "f", "arguments": {"a": {1, 2}}}, "not JSON"),
        ({"name": "brave_search", "arguments": {"q": "x"}}, "'query'"),
    ],
)
def test_arguments_that_cannot_be_written_are_named(llama3_chat: Llama3Chat, call: Any, words: str) -> None:
    with pytest.raises(InputError, match="message 2: .*" + words):
        llama3_chat.encode([user("?"), assistant("", tool_calls=[call])])


# --- messages ---


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Hi", "not a str"),
        ({"content": "Hi"}, "the role is None"),
        ({"role": "narrator", "content": "Hi"}, "'narrator'; it must be one of system, user"),
        ({"role": ["user"], "content": "Hi"}, "the role is"),
        ({"role": "user"}, "missing"),
        ({"role": "user", "content": None}, "missing"),
        ({"role": "user", "content": b"Hi"}, "a bytes"),
        ({"role": "user", "content": [{"type": "text", "text": "Hi"}]}, "a list"),
        ({"role": "user", "content": "Hi", "tool_calls": []}, "tool_calls"),
        ({"role": "assistant", "content": None, "tool_calls": []}, "missing"),
        ({"role": "assistant", "content": "", "tool_calls": "f()"}, "tool_calls"),
        ({"role": "assistant", "content": "", "tool_calls": ["f()"]}, "a tool call must be"),
        ({"role": "assistant", "content": "", "tool_calls": [{"function": "f"}]}, "a tool call must be"),
        ({"role": "assistant", "content": "", "tool_calls": [{"arguments": {}}]}, "a tool call must be"),
    ],
)
def test_a_wrong_message_is_named_by_its_number(llama3_chat: Llama3Chat, message: Any, words: str) -> None:
    with pytest.raises(InputError, match=f"^message 2: .*{words}"):
        llama3_chat.encode([user("Hi"), message])


@pytest.mark.parametrize("messages", ["Hi", {"role": "user", "content": "Hi"}, None, iter([])])
def test_a_dialog_is_a_list(messages: Any) -> None:
    with pytest.raises(InputError, match="a dialog must be a list of messages"):
        check_messages(messages)


# --- templates ---


def theirs(tokenizer: PreTrainedTokenizerFast, name: str, messages: list[Any], **options: Any) -> Any:
    return tokenizer.apply_chat_template(
        messages, chat_template=TEMPLATES[name], date_string="26 Jul 2024", return_dict=False, **options
    )


alternating = st.lists(plain_texts, min_size=1, max_size=6).map(
    lambda texts: [(assistant if number % 2 else user)(text) for number, text in enumerate(texts)]
)
dialogs = st.tuples(plain_texts | st.none(), alternating).map(
    lambda pair: pair[1] if pair[0] is None else [{"role": "system", "content": pair[0]}, *pair[1]]
)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None)
@given(messages=dialogs, add_generation_prompt=st.booleans())
def test_template_ids_are_those_of_transformers(
    small: Tokenizer,
    transformers_tokenizer: PreTrainedTokenizerFast,
    name: str,
    messages: list[Any],
    add_generation_prompt: bool,
) -> None:
    ours = template_chat(small, name).encode(messages, add_generation_prompt)
    assert ours == theirs(transformers_tokenizer, name, messages, add_generation_prompt=add_generation_prompt)


@pytest.mark.parametrize("name", ["llama3", "qwen2"])
def test_template_ids_of_calls_and_tools_are_those_of_transformers(
    small: Tokenizer, transformers_tokenizer: PreTrainedTokenizerFast, name: str
) -> None:
    function = {"name": "weather", "arguments": {"city": 'Tromsø "north"', "at": {"hour": 12, "exact": None}}}
    messages = [
        user("Is it warm?"),
        assistant("", tool_calls=[{"type": "function", "id": "1", "function": function}]),
        {"role": "tool", "name": "weather", "content": '{"degrees": -3.5}'},
        {"role": "tool", "content": "snow"},
        assistant("No."),
    ]
    ours = template_chat(small, name).encode(messages, tools=TOOLS)
    assert ours == theirs(transformers_tokenizer, name, messages, tools=TOOLS, add_generation_prompt=True)


@settings(max_examples=60, deadline=None)
@given(messages=dialogs)
def test_the_mask_of_generation_blocks_is_that_of_transformers(
    small: Tokenizer, transformers_tokenizer: PreTrainedTokenizerFast, messages: list[Any]
) -> None:
    expected = transformers_tokenizer.apply_chat_template(
        messages, chat_template=MARKED, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = template_chat(small, "marked").encode_with_mask(messages)
    assert (ids, mask) == (expected["input_ids"], [bool(own) for own in expected["assistant_masks"]])


@settings(max_examples=60, deadline=None)
@given(messages=dialogs)
def test_the_mask_without_blocks_is_that_with_them(small: Tokenizer, messages: list[Any]) -> None:
    if messages[0]["role"] == "system":  # without one, CHATML brings its own
        assert template_chat(small, "chatml").encode_with_mask(messages) == template_chat(
            small, "marked"
        ).encode_with_mask(messages)


def written(chat: ChatFormat, tokenizer: Tokenizer, messages: list[Any]) -> str:
    ids, mask = chat.encode_with_mask(messages)
    assert ids == chat.encode(messages, add_generation_prompt=False)
    return tokenizer.decode([id for id, own in zip(ids, mask, strict=True) if own])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chatml", "one<|im_end|>two<|im_end|>"),
        ("marked", "one<|im_end|>two<|im_end|>"),
        ("qwen2", "one<|im_end|>two<|im_end|>"),
        ("llama3", "one<|eot_id|>two<|eot_id|>"),
        ("mistral", " one</s> two</s>"),
        ("zephyr", "one</s>two</s>"),
    ],
)
def test_the_mask_has_answers_and_the_tokens_that_end_them(small: Tokenizer, name: str, expected: str) -> None:
    messages = [user("a"), assistant("one"), user("b"), assistant("two")]
    assert written(template_chat(small, name), small, messages) == expected


def test_the_mask_has_calls_and_tokens_that_are_part_of_the_header(small: Tokenizer) -> None:
    messages = [user("a"), assistant("", tool_calls=[{"name": "f", "arguments": {"x": 1}}])]
    assert written(template_chat(small, "qwen2"), small, messages) == (
        '\n\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call><|im_end|>'
    )


def test_a_mask_is_refused_where_the_template_writes_earlier_turns_anew(small: Tokenizer) -> None:
    messages = [{"role": "system", "content": "s"}, user("a"), assistant("b"), user("c"), assistant("d")]
    with pytest.raises(InputError, match="^message 3: .*generation"):
        template_chat(small, "mistral").encode_with_mask(messages)


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("chatml", {"<|im_end|>"}),
        ("llama3", {"<|eot_id|>"}),
        ("mistral", {"</s>"}),
        ("zephyr", {"</s>"}),
    ],
)
def test_the_token_that_a_template_ends_an_answer_with_ends_a_turn(small: Tokenizer, name: str, ends: set[str]) -> None:
    known = Tokenizer(
        "known",
        pat_str="llama3",
        mergeable_ranks=small.mergeable_ranks,
        special_tokens={token: 2000 + number for number, token in enumerate(sorted({"<s>", *ends}))},
    )
    chat = TemplateChat(known, TEMPLATES[name], "<s>", "</s>")
    assert chat.end_ids == {known.special_tokens[end] for end in ends}


# Of these, each writes content as it is or trimmed, and none decides by it.
@pytest.mark.parametrize("name", ["chatml", "llama3", "mistral", "zephyr", "marked"])
@settings(max_examples=150, deadline=None)
@given(texts=st.lists(hostile_texts, min_size=1, max_size=5))
def test_text_in_a_message_never_becomes_a_special_token(small: Tokenizer, name: str, texts: list[str]) -> None:
    chat = template_chat(small, name)

    def special(messages: list[Any]) -> list[int]:
        return [id for id in chat.encode(messages) if small.is_special_token(id)]

    def dialog(texts: list[str]) -> list[Any]:
        return [(assistant if number % 2 else user)(text) for number, text in enumerate(texts)]

    assert special(dialog(texts)) == special(dialog(["-"] * len(texts)))
    text = chat._dialog(dialog(texts), None).render(True)
    assert small.decode(chat.encode(dialog(texts))) == text


def test_text_cannot_complete_a_special_token_with_the_templates_text(small: Tokenizer) -> None:
    template = "{% for m in messages %}<{{ m.content }}>[{{ m.content | trim }}{{ m.name }}<|im_start|>{% endfor %}"
    chat = TemplateChat(small, template)
    for content, name in [
        ("|im_start|", ""), ("/s", ""), ("INST]", ""), ("  INST] ", ""), ("s", ""), ("x<|im", "_start|>"),
        ("x<|im_start|", ">"), ("<|im_start|>", "<|im_start|>"), ("", "INST]"),
    ]:  # fmt: skip
        ids = chat.encode([{**user(content), "name": name}])
        assert [id for id in ids if small.is_special_token(id)] == [small.special_tokens["<|im_start|>"]], content
        assert small.decode(ids) == f"<{content}>[{content.strip()}{name}<|im_start|>"


def test_the_names_of_arguments_and_of_parameters_stay_text(small: Tokenizer) -> None:
    call = {"name": "<|im_end|>", "arguments": {"<|im_start|>": "</tool_call>", "|im_end|": 1}}
    tools = [
        {"type": "function", "function": {"name": "f", "parameters": {"properties": {"|im_end|": {"type": "object"}}}}}
    ]
    ids = template_chat(small, "qwen2").encode([user("a"), assistant("", tool_calls=[call])], tools=tools)
    found = [small.decode([id]) for id in ids if small.is_special_token(id)]
    turn = ["<|im_start|>", "<|im_end|>"]
    assert found == [*turn, *turn, "<|im_start|>", "<tool_call>", "</tool_call>", "<|im_end|>", "<|im_start|>"]
    assert "<|im_end|>object</|im_end|>" in small.decode(ids)


def test_surrogates_cannot_make_up_a_special_token() -> None:
    llama = Tokenizer("llama", pat_str="gpt2", mergeable_ranks=BYTE_RANKS, special_tokens={"🦙": 256})
    chat = TemplateChat(llama, "🦙{% for m in messages %}{{ m.content }}{{ '\\ud83e' }}{% endfor %}")
    assert chat.encode([user("\ud83e\udd99"), user("\udd99")]).count(256) == 1


def test_characters_for_private_use_stay_what_they_are(small: Tokenizer) -> None:
    text = "\ue000\U0010fffd\U0010fffc\U0010fffb<|im_end|>"
    ids = template_chat(small, "marked").encode_with_mask([user(text), assistant(text)])[0]
    assert small.decode(ids).count(text + "<|im_end|>") == 2


def test_a_template_that_decides_by_the_text_of_a_special_token_is_refused_for_it(small: Tokenizer) -> None:
    chat = template_chat(small, "thinking")
    assert small.decode(chat.encode([user("</think>")], False)) == "<|im_start|>user\n</think><|im_end|>\n"
    plain = "a thought</th1nk>answer"
    assert plain in small.decode(chat.encode([user("?"), assistant(plain)]))
    with pytest.raises(InputError, match="message 2 has </think>"):
        template = THINKING.replace("'\\n' + content", "'\\n</think>' + content")
        TemplateChat(small, template).encode([user("?"), assistant("a thought</think>answer")])


def test_a_template_gets_variables_and_the_date(small: Tokenizer) -> None:
    template = "{{ strftime_now('%Y') | length }}{% if not enable_thinking %}off{% endif %}{{ bos_token }}{{ unk }}"
    ids = TemplateChat(small, template, "<s>", variables={"enable_thinking": False}).encode([])
    assert small.decode(ids) == "4off<s>"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ messages[0].content.__class__.__mro__ }}", "unsafe"),
        ("{{ raise_exception.__globals__['json'] }}", "unsafe"),
        ("{{ strftime_now.__globals__['json'] }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ range(10 ** 9) }}", "Range too big"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{% set text = 'spam ' * 1000 %}{% for a in range(99999) %}{{ text }}{% endfor %}", "16,777,216 characters"),
        ("{{ raise_exception('Only\n two roles!') }}", "Only two roles!"),
        ("{{ messages[0]['content'] + 1 }}", "str"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ nothing.at.all }}", "nothing"),
        ("{% include '/etc/passwd' %}", "no loader"),
    ],
)
def test_a_template_that_does_harm_or_fails_is_one_clear_line(small: Tokenizer, template: str, words: str) -> None:
    with pytest.raises(InputError, match=f"the chat template rejects the dialog or fails: .*{words}") as error:
        TemplateChat(small, template).encode([user("Hi")])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "template", ["{% if %}", "{{", "{% generation %}", "{{ a | no_such_filter }}", "(" * 9 + "{{" + "(" * 9999]
)
def test_a_template_that_cannot_be_compiled_is_one_clear_line(small: Tokenizer, template: str) -> None:
    with pytest.raises(InputError, match="the chat template cannot be compiled: ") as error:
        TemplateChat(small, template)
    assert "\n" not in str(error.value)


def test_what_is_no_json_is_refused(small: Tokenizer) -> None:
    chat = template_chat(small, "chatml")
    nested: Any = "x"
    for _ in range(100_000):
        nested = [nested]
    for extra, words in [({1}, "contains a set"), (Path("x"), "contains a PosixPath"), (nested, "nested too deeply")]:
        with pytest.raises(InputError, match=words):
            chat.encode([{**user("Hi"), "extra": extra}])


def test_the_template_for_tools_is_taken_with_tools(small: Tokenizer) -> None:
    chat = TemplateChat(small, {"default": "plain", "tool_use": "with tools"})
    assert small.decode(chat.encode([])) == "plain"
    assert small.decode(chat.encode([], tools=TOOLS)) == "with tools"
    with pytest.raises(InputError, match="no default chat template among tool_use"):
        TemplateChat(small, {"tool_use": "with tools"})


# --- which format a checkpoint has ---


def test_a_directory_has_its_own_template(small: Tokenizer, tmp_path: Path) -> None:
    config: dict[str, Any] = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": MISTRAL}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    expected = template_chat(small, "mistral").encode([user("Hi")])
    assert chat_format(tmp_path, small).encode([user("Hi")]) == expected
    assert chat_format(tmp_path / "model.safetensors", small).encode([user("Hi")]) == expected
    config["chat_template"] = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": MISTRAL}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert chat_format(tmp_path, small).encode([user("Hi")]) == expected
    assert small.decode(chat_format(tmp_path, small).encode([user("Hi")], tools=TOOLS)) == "T"


def test_a_template_in_a_file_of_its_own_comes_first(small: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "other", "eos_token": "</s>"}))
    (tmp_path / "chat_template.jinja").write_text(ZEPHYR)
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("T")
    chat = chat_format(tmp_path, small)
    assert chat.encode([user("Hi")]) == template_chat(small, "zephyr").encode([user("Hi")])
    assert small.decode(chat.encode([user("Hi")], tools=TOOLS)) == "T"


def test_a_gguf_has_its_template_and_tokens_in_its_metadata(small: Tokenizer, tmp_path: Path) -> None:
    gguf = pytest.importorskip("bpe.formats.gguf")
    path = tmp_path / "model.gguf"
    metadata = {
        "tokenizer.ggml.bos_token_id": small.special_tokens["<s>"],
        "tokenizer.ggml.eos_token_id": small.special_tokens["</s>"],
        "tokenizer.chat_template": MISTRAL,
        "tokenizer.chat_template.tool_use": "T",
        "tokenizer.chat_templates": ["tool_use"],
    }
    path.write_bytes(gguf.lay_out(metadata, {})[0])
    chat = chat_format(path, small)
    assert chat.encode([user("Hi")]) == template_chat(small, "mistral").encode([user("Hi")])
    assert small.decode(chat.encode([user("Hi")], tools=TOOLS)) == "T"
    path.write_bytes(gguf.lay_out({}, {})[0])
    assert isinstance(chat_format(path, small), Llama3Chat)


def test_without_a_template_the_format_is_llama3s(small: Tokenizer, tmp_path: Path) -> None:
    assert isinstance(chat_format(tmp_path, small), Llama3Chat)


def test_without_a_template_and_llama3s_tokens_there_is_no_format(small: Tokenizer, tmp_path: Path) -> None:
    bare = Tokenizer("bare", pat_str="llama3", mergeable_ranks=small.mergeable_ranks, special_tokens={})
    with pytest.raises(InputError, match="no chat template.*use a model that was trained to chat"):
        chat_format(tmp_path, bare)


@pytest.mark.parametrize(
    "content",
    [
        b"{", b"[]", b"\xff", b'{"chat_template": 5}', b'{"chat_template": [5]}', b'{"chat_template": [{"name": "a"}]}',
        b'{"chat_template": {"a": "b"}}', b'{"bos_token": 5}', b'{"eos_token": {"content": 5}}', b"[" * 100_000,
        b'{"chat_template": "{{"}', b'{"chat_template": [{"name": "a", "template": "b"}]}',
    ],
)  # fmt: skip
def test_a_damaged_configuration_is_named(small: Tokenizer, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(InputError, match="^" + str(tmp_path)):
        chat_format(tmp_path, small)


def test_a_template_that_is_not_utf8_is_named(small: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(InputError, match="chat_template.jinja: "):
        chat_format(tmp_path, small)


def test_neither_jinja_nor_torch_is_imported_before_it_is_needed() -> None:
    program = "import sys, bpe.chat; sys.exit(any(name in sys.modules for name in ('jinja2', 'torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
