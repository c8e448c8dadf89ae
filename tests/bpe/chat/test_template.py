"""Chat formats defined by templates, compared with transformers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from bpe import InputError, Tokenizer
from bpe.chat import ChatFormat, TemplateChat
from support.chat_dialogs import MARKED, TEMPLATES, TOOLS, assistant, plain_texts, template_chat, user


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


@pytest.mark.slow
@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None)
@given(messages=dialogs, add_generation_prompt=st.booleans())
def test_ids_equal_those_of_transformers(
    small: Tokenizer,
    transformers_tokenizer: PreTrainedTokenizerFast,
    name: str,
    messages: list[Any],
    add_generation_prompt: bool,
) -> None:
    ours = template_chat(small, name).encode(messages, add_generation_prompt)
    assert ours == theirs(transformers_tokenizer, name, messages, add_generation_prompt=add_generation_prompt)


@pytest.mark.parametrize("name", ["llama3", "qwen2"])
def test_ids_of_calls_and_tools_equal_those_of_transformers(
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
def test_mask_of_generation_blocks_equals_that_of_transformers(
    small: Tokenizer, transformers_tokenizer: PreTrainedTokenizerFast, messages: list[Any]
) -> None:
    expected = transformers_tokenizer.apply_chat_template(
        messages, chat_template=MARKED, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = template_chat(small, "marked").encode_with_mask(messages)
    assert (ids, mask) == (expected["input_ids"], [bool(own) for own in expected["assistant_masks"]])


@settings(max_examples=60, deadline=None)
@given(messages=dialogs)
def test_mask_without_generation_blocks_equals_that_with_blocks(small: Tokenizer, messages: list[Any]) -> None:
    if messages[0]["role"] == "system":  # without a system message, CHATML writes its own
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
def test_mask_covers_answers_and_the_tokens_that_end_them(small: Tokenizer, name: str, expected: str) -> None:
    messages = [user("a"), assistant("one"), user("b"), assistant("two")]
    assert written(template_chat(small, name), small, messages) == expected


def test_mask_covers_calls_and_tokens_shared_with_the_header(small: Tokenizer) -> None:
    messages = [user("a"), assistant("", tool_calls=[{"name": "f", "arguments": {"x": 1}}])]
    assert written(template_chat(small, "qwen2"), small, messages) == (
        '\n\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call><|im_end|>'
    )


def test_mask_is_rejected_if_the_template_rewrites_earlier_turns(small: Tokenizer) -> None:
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
def test_token_that_a_template_writes_after_an_answer_ends_a_turn(small: Tokenizer, name: str, ends: set[str]) -> None:
    known = Tokenizer(
        "known",
        pat_str="llama3",
        mergeable_ranks=small.mergeable_ranks,
        special_tokens={token: 2000 + number for number, token in enumerate(sorted({"<s>", *ends}))},
    )
    chat = TemplateChat(known, TEMPLATES[name], "<s>", "</s>")
    assert chat.end_ids == {known.special_tokens[end] for end in ends}


def test_template_receives_variables_and_the_date(small: Tokenizer) -> None:
    template = "{{ strftime_now('%Y') | length }}{% if not enable_thinking %}off{% endif %}{{ bos_token }}{{ unk }}"
    ids = TemplateChat(small, template, "<s>", variables={"enable_thinking": False}).encode([])
    assert small.decode(ids) == "4off<s>"


def test_tool_use_template_is_used_with_tools(small: Tokenizer) -> None:
    chat = TemplateChat(small, {"default": "plain", "tool_use": "with tools"})
    assert small.decode(chat.encode([])) == "plain"
    assert small.decode(chat.encode([], tools=TOOLS)) == "with tools"
    with pytest.raises(InputError, match="no default chat template among tool_use"):
        TemplateChat(small, {"tool_use": "with tools"})
