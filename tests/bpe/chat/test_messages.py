"""Messages of the wrong form."""

from __future__ import annotations

from typing import Any

import pytest

from bpe import InputError
from bpe.chat import Llama3Chat, check_messages
from support.chat_dialogs import user


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
        ({"role": "user", "content": ["Hi"]}, "a list"),
        ({"role": "user", "content": {"text": "Hi"}}, "a dict"),
        ({"role": "user", "content": [{"type": "text"}]}, 'part 1 of "content" has the type "text", but no "text"'),
        ({"role": "user", "content": [{"type": "image", "url": "x"}]}, "a part of type 'image'.*use text"),
        ({"role": "user", "content": "Hi", "tool_calls": []}, "tool_calls"),
        ({"role": "assistant", "content": None, "tool_calls": []}, "missing"),
        ({"role": "assistant", "content": "", "tool_calls": "f()"}, "tool_calls"),
        ({"role": "assistant", "content": "", "tool_calls": ["f()"]}, "a tool call must be"),
        ({"role": "assistant", "content": "", "tool_calls": [{"function": "f"}]}, "a tool call must be"),
        ({"role": "assistant", "content": "", "tool_calls": [{"arguments": {}}]}, "a tool call must be"),
    ],
)
def test_malformed_message_is_rejected_with_its_number(llama3_chat: Llama3Chat, message: Any, words: str) -> None:
    with pytest.raises(InputError, match=f"^message 2: .*{words}"):
        llama3_chat.encode([user("Hi"), message])


@pytest.mark.parametrize("messages", ["Hi", {"role": "user", "content": "Hi"}, None, iter([])])
def test_dialog_that_is_not_a_list_is_rejected(messages: Any) -> None:
    with pytest.raises(InputError, match="a dialog must be a list of messages"):
        check_messages(messages)
