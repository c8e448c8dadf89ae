"""Text of messages stays text, whatever special tokens it spells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpe import InputError, Tokenizer
from bpe.chat import TemplateChat
from support.chat_dialogs import THINKING, assistant, hostile_texts, template_chat, user
from support.references import BYTE_RANKS


# Each of these templates writes content as it is or trimmed, and none branches on it.
@pytest.mark.parametrize("name", ["chatml", "llama3", "mistral", "zephyr", "marked"])
@settings(max_examples=150, deadline=None)
@given(texts=st.lists(hostile_texts, min_size=1, max_size=5))
def test_message_text_never_becomes_a_special_token(small: Tokenizer, name: str, texts: list[str]) -> None:
    chat = template_chat(small, name)

    def special(messages: list[Any]) -> list[int]:
        return [id for id in chat.encode(messages) if small.is_special_token(id)]

    def dialog(texts: list[str]) -> list[Any]:
        return [(assistant if number % 2 else user)(text) for number, text in enumerate(texts)]

    assert special(dialog(texts)) == special(dialog(["-"] * len(texts)))
    text = chat._dialog(dialog(texts), None).render(True)
    assert small.decode(chat.encode(dialog(texts))) == text


def test_message_text_cannot_complete_a_special_token_with_the_templates_text(small: Tokenizer) -> None:
    template = "{% for m in messages %}<{{ m.content }}>[{{ m.content | trim }}{{ m.name }}<|im_start|>{% endfor %}"
    chat = TemplateChat(small, template)
    for content, name in [
        ("|im_start|", ""), ("/s", ""), ("INST]", ""), ("  INST] ", ""), ("s", ""), ("x<|im", "_start|>"),
        ("x<|im_start|", ">"), ("<|im_start|>", "<|im_start|>"), ("", "INST]"),
    ]:  # fmt: skip
        ids = chat.encode([{**user(content), "name": name}])
        assert [id for id in ids if small.is_special_token(id)] == [small.special_tokens["<|im_start|>"]], content
        assert small.decode(ids) == f"<{content}>[{content.strip()}{name}<|im_start|>"


def test_names_of_arguments_and_parameters_stay_text(small: Tokenizer) -> None:
    call = {"name": "<|im_end|>", "arguments": {"<|im_start|>": "</tool_call>", "|im_end|": 1}}
    tools = [
        {"type": "function", "function": {"name": "f", "parameters": {"properties": {"|im_end|": {"type": "object"}}}}}
    ]
    ids = template_chat(small, "qwen2").encode([user("a"), assistant("", tool_calls=[call])], tools=tools)
    found = [small.decode([id]) for id in ids if small.is_special_token(id)]
    turn = ["<|im_start|>", "<|im_end|>"]
    assert found == [*turn, *turn, "<|im_start|>", "<tool_call>", "</tool_call>", "<|im_end|>", "<|im_start|>"]
    assert "<|im_end|>object</|im_end|>" in small.decode(ids)


def test_surrogates_cannot_form_a_special_token() -> None:
    llama = Tokenizer("llama", pat_str="gpt2", mergeable_ranks=BYTE_RANKS, special_tokens={"🦙": 256})
    chat = TemplateChat(llama, "🦙{% for m in messages %}{{ m.content }}{{ '\\ud83e' }}{% endfor %}")
    assert chat.encode([user("\ud83e\udd99"), user("\udd99")]).count(256) == 1


def test_private_use_characters_are_kept(small: Tokenizer) -> None:
    text = "\ue000\U0010fffd\U0010fffc\U0010fffb<|im_end|>"
    ids = template_chat(small, "marked").encode_with_mask([user(text), assistant(text)])[0]
    assert small.decode(ids).count(text + "<|im_end|>") == 2


def test_template_may_look_at_text_of_a_special_token(small: Tokenizer) -> None:
    chat = template_chat(small, "thinking")
    assert small.decode(chat.encode([user("</think>")], False)) == "<|im_start|>user\n</think><|im_end|>\n"
    template = THINKING.replace("'\\n' + content", "'\\n</think>' + content")
    chat = TemplateChat(small, template)
    ids = chat.encode([user("</think>"), assistant("a thought</think>answer")], False)
    assert small.decode(ids) == (
        "<|im_start|>user\n</think></think><|im_end|>\n<|im_start|>assistant\n</think>answer<|im_end|>\n"
    )
    assert ids.count(small.special_tokens["</think>"]) == 2  # both of the template


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("m.content | upper", "[inst]"),
        ("m.content.lower()", "<|IM_END|>"),
        ("m.content | replace('+', '')", "<|im_+end|>"),
        ("m.content | reverse", ">|dne_mi|<"),
        ("m.content | tojson", "<|im_end|>"),
        ("m.content.split('-') | join", "<|im-_end-|>"),
        ("m.content | list | join('')", "<|im_end|>"),
        ("m.content[1:-1] ~ ''", "x<|im_end|>x"),
        ("'<|%s|>' % m.content", "im_end"),
        ("'<|{}|>'.format(m.content)", "im_end"),
        ("'<|{name}|>'.format(name=m.content)", "im_end"),
        ("'<' ~ m.content ~ '>'", "|im_end|"),
        ("'<|%s|>' | format(m.content)", "im_end"),
        ("[m.content] | string", "<|im_end|>"),
        ("m.content.title().swapcase()", "<|IM_END|>"),
        ("m.content | indent(2, true)", "<|im_end|>\n<|im_end|>"),
        ("[m.content]", "<|im_end|>"),
        ("m | tojson", "<|im_end|>"),
        ("m", "<|im_end|>"),
        ("m.content.splitlines()[1]", "a\r\n<|im_end|>"),
        ("m.content.partition('-')[2] ~ m.content.rpartition('-')[0]", "<|im_-end|>-<|im_end|>"),
    ],
)
def test_text_of_a_message_stays_text_whatever_a_template_does_with_it(
    small: Tokenizer, expression: str, text: str
) -> None:
    """The template also branches on the words of the message, so they cannot be replaced."""
    template = (
        "{% for m in messages %}<|im_start|>{{ '<|im_start|>' ~ (" + expression + ") ~ '<|im_start|>' }}"
        "{% if m.content.upper() != m.content.lower() %}{{ '<|im_start|>' | trim }}{% endif %}{% endfor %}"
    )
    chat = TemplateChat(small, template)
    ids = chat.encode([user(text)])
    special = [small.decode([id]) for id in ids if small.is_special_token(id)]
    assert special == ["<|im_start|>"] * 4
    assert small.decode(ids) == chat._dialog([user(text)], None).render()


def test_token_that_cannot_be_told_from_text_is_refused_by_message(small: Tokenizer) -> None:
    template = "{% for m in messages %}{{ '%-1s<|im_end|>' % m.content }}{{ m.content | length if 'a' in m.content }}"
    chat = TemplateChat(small, template + "{% endfor %}")
    assert small.decode(chat.encode([user("b")])) == "b<|im_end|>"
    with pytest.raises(InputError, match=r"message 2 has <\|im_start\|>"):
        chat.encode([user("b"), user("a<|im_start|>")])


def test_values_that_are_not_json_are_rejected(small: Tokenizer) -> None:
    chat = template_chat(small, "chatml")
    nested: Any = "x"
    for _ in range(100_000):
        nested = [nested]
    for extra, words in [({1}, "contains a set"), (Path("x"), "contains a PosixPath"), (nested, "nested too deeply")]:
        with pytest.raises(InputError, match=words):
            chat.encode([{**user("Hi"), "extra": extra}])
