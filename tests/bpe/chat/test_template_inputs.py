"""What a template gets: tools, documents, roles, thoughts, results of tools, and a message to continue."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from bpe import InputError, Tokenizer
from bpe.chat import Llama3Chat, TemplateChat
from support.chat_dialogs import CHATML, MISTRAL, TOOLS, assistant, user

EVERYTHING = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}|{{ m.reasoning_content }}|{{ m.thinking }}|{{ 'content' in m }}<|im_end|>{% endfor %}
{{ tools | tojson }}{{ documents | tojson }}"""


@pytest.mark.parametrize(
    "messages",
    [
        [user("Hi"), assistant("Yo", thinking="hm")],
        [user("Hi"), assistant("Yo", reasoning="hm", reasoning_content=None)],
        [user("Hi"), {"role": "assistant", "content": None, "reasoning_content": "a"}, {"role": "assistant"}],
        [{"role": "developer", "content": "Be brief."}, {"role": "tool", "content": {"degrees": [-3, None, True]}}],
        [{"role": "tool", "content": [1, "a"]}, {"role": "tool_response", "content": 5}],
    ],
)
def test_ids_equal_those_of_transformers(
    small: Tokenizer, transformers_tokenizer: PreTrainedTokenizerFast, messages: list[Any]
) -> None:
    documents = [{"title": "a", "text": "b"}]
    chat = TemplateChat(small, EVERYTHING)
    expected = transformers_tokenizer.apply_chat_template(
        messages, chat_template=EVERYTHING, tools=TOOLS, documents=documents, return_dict=False
    )
    assert chat.encode(messages, False, TOOLS, documents) == expected
    assert chat.encode(messages, False, json.dumps(TOOLS), documents) == expected  # type: ignore[arg-type]
    assert chat.encode(messages, False, [json.dumps(tool) for tool in TOOLS], documents) == expected  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        ("{", "tools: not JSON"),
        ("{}", '"tools" must be a list of JSON schemas, not a dict'),
        (["{"], "tool 1: not JSON"),
        ([TOOLS[0], 5], "tool 2: expected a JSON schema, not a int"),
        ([TOOLS[0], "5"], "tool 2: expected a JSON schema, not a int"),
        ([print], "tool 1: expected a JSON schema, not a builtin_function_or_method"),
    ],
)
def test_tools_that_are_not_schemas_are_refused(small: Tokenizer, tools: Any, words: str) -> None:
    with pytest.raises(InputError, match=f"^{words}"):
        TemplateChat(small, EVERYTHING).encode([user("Hi")], tools=tools)


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ("a", '"documents" must be a list of objects, not a str'),
        ([{}, "a"], "document 2: expected an object, not a str"),
    ],
)
def test_documents_that_are_not_objects_are_refused(small: Tokenizer, documents: Any, words: str) -> None:
    with pytest.raises(InputError, match=f"^{words}"):
        TemplateChat(small, EVERYTHING).encode([user("Hi")], documents=documents)


def test_tools_and_documents_that_a_template_leaves_out_are_named_in_a_warning(small: Tokenizer) -> None:
    chat = TemplateChat(small, CHATML)
    with pytest.warns(UserWarning, match="the chat template does not write tools"):
        chat.encode([user("Hi")], tools=TOOLS)
    with pytest.warns(UserWarning, match="the chat template does not write documents"):
        chat.encode([user("Hi")], documents=[{"text": "a"}])
    with pytest.warns(UserWarning, match="does not read the variable 'thinking'"):
        TemplateChat(small, CHATML, variables={"thinking": False})


def test_message_of_a_role_that_the_template_leaves_out_is_refused(small: Tokenizer) -> None:
    template = "{% for m in messages %}{% if m.role in ('user', 'critic') %}{{ m.content }}{% endif %}{% endfor %}"
    chat = TemplateChat(small, template)
    assert small.decode(chat.encode([user("a"), {"role": "critic", "content": "b"}])) == "ab"
    with pytest.raises(InputError, match="^message 2: the chat template leaves out messages of the role 'narrator'"):
        chat.encode([user("a"), {"role": "narrator", "content": "b"}])


def test_role_cannot_hold_a_token(small: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"^message 1: the role is 'user<\|im_end\|>'; it must be a word"):
        TemplateChat(small, CHATML).encode([{"role": "user<|im_end|>", "content": "a"}])


@pytest.mark.parametrize("content", ["Well, ", "Well,", "", [{"type": "text", "text": "Well, "}], "a<|im_end|>"])
@pytest.mark.parametrize("trim", ["", " | trim"])
def test_last_message_is_left_open_as_in_transformers(
    small: Tokenizer, transformers_tokenizer: PreTrainedTokenizerFast, content: Any, trim: str
) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content" + trim + " }}"
        "{% else %}{% for part in m.content %}{{ part.text" + trim + " }}{% endfor %}{% endif %}<|im_end|>{% endfor %}"
    )
    messages = [user("Hi"), assistant(content)]
    expected = transformers_tokenizer.apply_chat_template(
        messages, chat_template=template, continue_final_message=True, tokenize=False
    )
    chat = TemplateChat(small, template)
    ids = chat.encode(messages, continue_final_message=True)
    assert small.decode(ids) == chat.render(messages, continue_final_message=True) == expected
    assert ids.count(small.special_tokens["<|im_end|>"]) == 1


def test_what_cannot_be_continued_is_refused(small: Tokenizer) -> None:
    chat = TemplateChat(small, MISTRAL, "<s>", "</s>")
    with pytest.raises(InputError, match="either add_generation_prompt or continue_final_message"):
        chat.encode([user("Hi")], add_generation_prompt=True, continue_final_message=True)
    with pytest.raises(InputError, match="no message to continue"):
        chat.encode([], continue_final_message=True)
    with pytest.raises(InputError, match='^message 1: it has no text in "thinking" to continue'):
        chat.encode([user("Hi")], continue_final_message="thinking")
    with pytest.raises(InputError, match='^message 1: the chat template does not write its "note" as it is'):
        chat.encode([{**user("Hi"), "note": "x"}], continue_final_message="note")


def test_llama_3s_format_leaves_a_message_open_and_joins_parts(small: Tokenizer) -> None:
    chat = Llama3Chat(small)
    parts = [{"type": "text", "text": "We"}, {"type": "text", "text": "ll"}]
    begun = chat.encode([user("Hi")])
    assert chat.encode([user("Hi"), assistant("Well")], continue_final_message=True) == begun + small.encode("Well")
    open_parts = chat.encode([user("Hi"), assistant(parts)], continue_final_message=True)  # type: ignore[arg-type]
    assert open_parts == begun + small.encode("We") + small.encode("ll")
    result = {"role": "tool", "content": {"degrees": -3}}
    assert small.decode(chat.encode([user("Hi"), result], False)).endswith(
        'ipython<|end_header_id|>\n\n{"degrees": -3}<|eot_id|>'
    )
    with pytest.raises(InputError, match="cannot list documents"):
        chat.encode([user("Hi")], documents=[{}])
    with pytest.raises(InputError, match="cannot continue 'thinking'"):
        chat.encode([user("Hi")], continue_final_message="thinking")
