"""Templates in the styles of published families: the ids are those of transformers."""

from __future__ import annotations

import json
import random
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from bpe import InputError, Tokenizer, train
from bpe.chat import TemplateChat
from support.chat_families import DOCUMENTS, FAMILIES, TOKENS, TOOLS, random_dialog

VARIABLES: dict[str, list[Any]] = {
    "date_string": ["26 Jul 2024"], "enable_thinking": [True, False], "thinking": [True, False],
    "thinking_budget": [0, 600, -1], "reasoning_effort": ["high"], "builtin_tools": [["weather", "code_interpreter"]],
    "tools_in_user_message": [False], "add_vision_id": [True], "citation_mode": ["fast"], "skip_think": [False],
    "controls": [{"citations": True}], "xml_tools": [["<a>"]],
}  # fmt: skip


# Tokens that are not special, which text of a message may become, and tokens that strip the space behind them.
NOT_SPECIAL = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
STRIPPING = ("<|end|>", "<|user|>", "<|assistant|>", "<|im_sep|>")


@pytest.fixture(scope="module")
def file(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    special = [*TOKENS, *NOT_SPECIAL]
    made = train(str(corpora), vocab_size=800 + len(special), pattern="llama3", special_tokens=special, name="families")
    path = tmp_path_factory.mktemp("families") / "tokenizer.json"
    made.save(path)
    content = json.loads(path.read_text())
    for token in content["added_tokens"]:
        token["special"] = token["content"] not in NOT_SPECIAL
        token["rstrip"] = token["content"] in STRIPPING
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def tokenizer(file: Path) -> Tokenizer:
    return Tokenizer.from_file(file)


@pytest.fixture(scope="module")
def reference(file: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_file=str(file), bos_token="<s>", eos_token="</s>")


def chosen_variables(source: str, chance: random.Random) -> dict[str, Any]:
    return {
        name: chance.choice(values) for name, values in VARIABLES.items() if name in source and chance.random() < 0.4
    }


def compare(
    tokenizer: Tokenizer, reference: PreTrainedTokenizerFast, source: str, chance: random.Random, **options: Any
) -> bool:
    """Compare the ids of a random dialog; return whether the template accepts it."""
    dialog = random_dialog(chance, **options)
    given = {
        "tools": chance.choice((None, TOOLS)) if "tools" in source else None,
        "documents": chance.choice((None, DOCUMENTS)) if "documents" in source else None,
        "add_generation_prompt": chance.random() < 0.5,
    }
    if dialog[-1]["role"] == "assistant" and "tool_calls" not in dialog[-1] and chance.random() < 0.2:
        given |= {"add_generation_prompt": False, "continue_final_message": True}
    variables = chosen_variables(source, chance)
    chat = TemplateChat(tokenizer, source, "<s>", "</s>", {})
    if variables:
        chat = TemplateChat(tokenizer, source, "<s>", "</s>", variables)
    try:
        expected = reference.apply_chat_template(dialog, chat_template=source, return_dict=False, **given, **variables)
    except Exception:
        with pytest.raises(InputError):
            chat.encode(dialog, **given)
        return False
    assert chat.encode(dialog, **given) == expected, (dialog, given, variables)
    if not given["add_generation_prompt"] and "continue_final_message" not in given and not given["documents"]:
        with suppress(InputError):  # where it is unclear what the assistant wrote
            assert chat.encode_with_mask(dialog, given["tools"])[0] == expected, (dialog, given, variables)
    return True


@pytest.mark.parametrize("dialogs", [6, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FAMILIES)
def test_ids_equal_those_of_transformers(
    tokenizer: Tokenizer, reference: PreTrainedTokenizerFast, name: str, dialogs: int
) -> None:
    chance = random.Random(f"{name} {dialogs}")
    accepted = sum(
        compare(tokenizer, reference, FAMILIES[name], chance, calls=number % 2 == 0) for number in range(dialogs)
    )
    assert accepted >= dialogs / 6


IN_PARTS = ("llama3.2-vision", "llama4", "qwen2-vl", "gemma3", "mistral-small-tekken", "glm4.5", "kimi-k2", "minimax")


@pytest.mark.parametrize("name", IN_PARTS)
def test_content_in_parts_stays_in_parts_where_the_template_reads_them(
    tokenizer: Tokenizer, reference: PreTrainedTokenizerFast, name: str
) -> None:
    chance, source, accepted = random.Random(name), FAMILIES[name], 0
    for _ in range(25):
        dialog = random_dialog(chance, parts=True, calls=False)
        chat = TemplateChat(tokenizer, source, "<s>", "</s>")
        images = [part for message in dialog for part in message["content"] if part == {"type": "image"}]
        if images and name in ("glm4.5", "minimax"):  # which leave images out
            with pytest.raises(InputError, match="message .* a part of type 'image', which the chat template cannot"):
                chat.encode(dialog)
            continue
        try:
            expected = reference.apply_chat_template(
                dialog, chat_template=source, return_dict=False, add_generation_prompt=True
            )
        except Exception:
            with pytest.raises(InputError):
                chat.encode(dialog)
            continue
        assert chat.encode(dialog) == expected, dialog
        accepted += 1
    assert accepted >= 5


@pytest.mark.parametrize("name", sorted({*FAMILIES} - {*IN_PARTS} - {"formatted"}))
def test_content_in_parts_becomes_text_where_the_template_reads_text(tokenizer: Tokenizer, name: str) -> None:
    chat = TemplateChat(tokenizer, FAMILIES[name], "<s>", "</s>")

    def dialog(texts: list[str], parts: bool) -> list[Any]:
        content: Any = [{"type": "text", "text": text} for text in texts] if parts else "\n".join(texts)
        return [{"role": "user", "content": content}]

    assert chat.encode(dialog(["Is it", "warm?"], True)) == chat.encode(dialog(["Is it", "warm?"], False))
    with pytest.raises(InputError, match="^message 1: .*'image_url'.*use text"):
        chat.encode([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}])


def test_the_templates_own_reason_against_images_is_given(tokenizer: Tokenizer) -> None:
    chat = TemplateChat(tokenizer, FAMILIES["llama3.2-vision"], "<s>", "</s>")
    parts = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    with pytest.raises(InputError, match="A system message is incompatible with images"):
        chat.encode([{"role": "system", "content": "Be short."}, {"role": "user", "content": parts}])


TAKES_TEXT = (
    "functionary-v2", "functionary-v3.1", "functionary-v3.2", "deepseek-r1", "deepseek-v3.1", "qwen3", "kimi-k2",
    "nemotron-nano",
)  # fmt: skip
WITH_CALLS = sorted(name for name, source in FAMILIES.items() if "arguments" in source and "tool_calls" in source)


@pytest.mark.parametrize("name", WITH_CALLS)
def test_arguments_as_json_text_are_decoded_once_unless_the_template_writes_text(
    tokenizer: Tokenizer, reference: PreTrainedTokenizerFast, name: str
) -> None:
    source = FAMILIES[name]
    chat = TemplateChat(tokenizer, source, "<s>", "</s>")

    def dialog(arguments: Any) -> list[Any]:
        call = {"type": "function", "id": "call00000", "function": {"name": "weather", "arguments": arguments}}
        result = {"role": "tool", "name": "weather", "tool_call_id": "call00000", "content": "-3"}
        return [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", "tool_calls": [call]}, result]

    text = '{"city":  "Oslo \\"north\\"", "hours": [1]}'
    options: Any = {"chat_template": source, "add_generation_prompt": True, "tools": TOOLS}
    try:
        taken = text in reference.apply_chat_template(dialog(text), tokenize=False, **options)
    except Exception:
        taken = False
    assert taken == (name in TAKES_TEXT)
    form = dialog(text if taken else json.loads(text))
    expected = reference.apply_chat_template(form, return_dict=False, **options)
    assert chat.encode(dialog(text), tools=TOOLS) == expected
    if not taken:
        with pytest.raises(InputError, match="^message 2: the arguments of the call to 'weather' are not JSON"):
            chat.encode(dialog('{"city": '), tools=TOOLS)


@pytest.mark.parametrize("name", sorted({*FAMILIES} - {"gpt-oss", "phi4-mini", "formatted"}))  # two look for tokens
def test_tokens_in_messages_stay_text(tokenizer: Tokenizer, name: str) -> None:
    chance = random.Random(name)
    chat = TemplateChat(tokenizer, FAMILIES[name], "<s>", "</s>")
    mask = str.maketrans({character: "~" for character in {*"".join(TOKENS)} - {*"\n "}})

    def tokens(dialog: list[Any]) -> list[int]:
        return [id for id in chat.encode(dialog) if tokenizer.is_special_token(id)]

    def hostile() -> str:
        words = [chance.choice((chance.choice(TOKENS), chance.choice(TOKENS)[1:-1], "é")) for _ in range(4)]
        return chance.choice(("", " ", "|")).join(words)

    for _ in range(6):
        texts = [hostile() for _ in range(3)]
        dialogs = [
            [{"role": role, "content": text} for role, text in zip(("user", "assistant", "user"), each, strict=True)]
            for each in (texts, [text.translate(mask) for text in texts])
        ]
        assert tokens(dialogs[0]) == tokens(dialogs[1])
        text = chat.render(dialogs[0])
        stripped = re.sub(rf"({'|'.join(map(re.escape, STRIPPING))})\s+", r"\1", text)
        assert tokenizer.decode(chat.encode(dialogs[0])) in (text, stripped)
