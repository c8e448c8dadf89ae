"""Llama 3's chat format, compared with Meta's own code."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_models.datatypes import RawMediaItem, RawMessage, RawTextItem, StopReason, ToolCall
from llama_models.llama3.chat_format import ChatFormat as MetaChat
from PIL import Image

from bpe import InputError, Tokenizer
from bpe.chat import Llama3Chat
from support.chat_dialogs import TOOLS, assistant, hostile_texts, user

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
def test_ids_equal_metas(llama3_chat: Llama3Chat, meta: MetaChat, turns: list[Any]) -> None:
    ours, theirs = ours_and_metas(turns)
    assert llama3_chat.encode(ours) == meta.encode_dialog_prompt(theirs).tokens


@settings(max_examples=100, deadline=None)
@given(turns=st.lists(turns, max_size=6), cut=st.integers(0, 6))
def test_ids_of_a_longer_dialog_begin_with_those_of_a_shorter_one(
    llama3_chat: Llama3Chat, turns: list[Any], cut: int
) -> None:
    messages, _ = ours_and_metas(turns)
    beginning = llama3_chat.encode(messages[:cut], messages[cut : cut + 1] and messages[cut]["role"] == "assistant")
    assert llama3_chat.encode(messages)[: len(beginning)] == beginning


@settings(max_examples=100, deadline=None)
@given(turns=st.lists(turns, max_size=6))
def test_mask_covers_the_text_after_the_prompt_for_an_answer(llama3_chat: Llama3Chat, turns: list[Any]) -> None:
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


def test_end_ids_are_llama_3s(llama3: Tokenizer, llama3_chat: Llama3Chat) -> None:
    names = ("<|end_of_text|>", "<|eot_id|>", "<|eom_id|>")
    assert llama3_chat.end_ids == {llama3.special_tokens[name] for name in names}


def test_tools_are_rejected(llama3_chat: Llama3Chat) -> None:
    with pytest.raises(InputError, match="system message"):
        llama3_chat.encode([user("Hi")], tools=TOOLS)


def test_images_are_those_of_meta(llama3_chat: Llama3Chat, meta: MetaChat) -> None:
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, "png")
    picture = RawMediaItem(data=file.getvalue())
    for count in (1, 2):
        theirs: Any = [*[picture] * count, RawTextItem(text="What is it? <|image|>")]
        ids = meta.encode_dialog_prompt([RawMessage(role="user", content=theirs)]).tokens
        # At last, Meta's code replaces the tokenizer's id by that of its models; ours does so in generation.
        expected = [meta.vision_token if id == 128256 else id for id in ids]
        assert expected != ids
        parts: Any = [*[{"type": "image"}] * count, {"type": "text", "text": "What is it? <|image|>"}]
        assert llama3_chat.encode([{"role": "user", "content": parts}]) == expected


def test_images_that_are_not_shown_or_not_learned_are_rejected(llama3_chat: Llama3Chat) -> None:
    image: Any = {"type": "image"}
    dialog: Any = [{"role": "user", "content": [image]}, assistant("A circle.")]
    with pytest.raises(InputError, match=r"message 1: it has an image, which training does not read; use text"):
        llama3_chat.encode_with_mask(dialog)
    for role, part in (("system", image), ("assistant", image), ("user", {**image, "url": "x"})):
        with pytest.raises(InputError, match=r"message 1: its content has a part of type 'image', .*; use text"):
            llama3_chat.encode([{"role": role, "content": [part]}])


def test_tokenizer_without_llama_3s_special_tokens_is_rejected(small: Tokenizer) -> None:
    ranks = small.mergeable_ranks
    bare = Tokenizer("bare", pat_str="llama3", mergeable_ranks=ranks, special_tokens={"<|begin_of_text|>": 5000})
    with pytest.raises(InputError, match=r"<\|start_header_id\|>.*Llama 3"):
        Llama3Chat(bare)


def test_call_to_the_code_interpreter_needs_the_python_tag(small: Tokenizer) -> None:
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
def test_arguments_that_cannot_be_written_are_rejected_by_message(
    llama3_chat: Llama3Chat, call: Any, words: str
) -> None:
    with pytest.raises(InputError, match="message 2: .*" + words):
        llama3_chat.encode([user("?"), assistant("", tool_calls=[call])])
