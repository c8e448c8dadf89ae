"""The chat format of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bpe import InputError, Tokenizer
from bpe.chat import Llama3Chat, TemplateChat, chat_format
from support.chat_dialogs import MISTRAL, TOOLS, ZEPHYR, template_chat, user


def test_directory_uses_its_own_template(small: Tokenizer, tmp_path: Path) -> None:
    config: dict[str, Any] = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": MISTRAL}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    expected = template_chat(small, "mistral").encode([user("Hi")])
    assert chat_format(tmp_path, small).encode([user("Hi")]) == expected
    assert chat_format(tmp_path / "model.safetensors", small).encode([user("Hi")]) == expected
    config["chat_template"] = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": MISTRAL}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert chat_format(tmp_path, small).encode([user("Hi")]) == expected
    assert small.decode(chat_format(tmp_path, small).encode([user("Hi")], tools=TOOLS)) == "T"


def test_template_in_a_separate_file_takes_precedence(small: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "other", "eos_token": "</s>"}))
    (tmp_path / "chat_template.jinja").write_text(ZEPHYR)
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("T")
    chat = chat_format(tmp_path, small)
    assert chat.encode([user("Hi")]) == template_chat(small, "zephyr").encode([user("Hi")])
    assert small.decode(chat.encode([user("Hi")], tools=TOOLS)) == "T"


def test_gguf_uses_the_template_and_tokens_of_its_metadata(small: Tokenizer, tmp_path: Path) -> None:
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
    path.write_bytes(gguf.lay_out({**metadata, "tokenizer.chat_template": 5}, {})[0])
    with pytest.raises(InputError, match="model.gguf: tokenizer.chat_template is 5; expected the text"):
        chat_format(path, small)
    path.write_bytes(gguf.lay_out({}, {})[0])
    assert isinstance(chat_format(path, small), Llama3Chat)


def test_format_without_a_template_is_llama_3s(small: Tokenizer, tmp_path: Path) -> None:
    assert isinstance(chat_format(tmp_path, small), Llama3Chat)


def test_checkpoint_without_template_and_llama_3s_tokens_is_rejected(small: Tokenizer, tmp_path: Path) -> None:
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
def test_damaged_configuration_is_rejected_by_name(small: Tokenizer, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(InputError, match="^" + str(tmp_path)):
        chat_format(tmp_path, small)


def test_template_that_is_not_utf8_is_rejected_by_name(small: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(InputError, match="chat_template.jinja: "):
        chat_format(tmp_path, small)


def test_template_is_chosen_by_name_and_gets_variables(small: Tokenizer, tmp_path: Path) -> None:
    config = {"chat_template": [
        {"name": "default", "template": "d{{ think }}"}, {"name": "rag", "template": "{{ documents[0].text }}"}
    ]}  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert small.decode(chat_format(tmp_path, small, variables={"think": 0}).encode([user("")])) == "d0"
    rag = chat_format(tmp_path, small, "rag")
    assert small.decode(rag.encode([user("")], documents=[{"text": "<s>x"}])) == "<s>x"
    with pytest.raises(InputError, match=f"^{tmp_path}: no chat template 'tool_use'; there are default, rag"):
        chat_format(tmp_path, small, "tool_use")
    with pytest.raises(InputError, match=f"^{tmp_path}: .*does not read the variable 'thinking'; it reads think$"):
        chat_format(tmp_path, small, variables={"thinking": 0})
    with pytest.raises(InputError, match="holds a part of the dialog"):
        chat_format(tmp_path, small, variables={"messages": []})


def test_llama_3s_format_has_no_names_and_no_variables(small: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{tmp_path}: no chat template, so Llama 3's format"):
        chat_format(tmp_path, small, variables={"enable_thinking": False})
    with pytest.raises(InputError, match=f"^{tmp_path}: no chat template, so Llama 3's format"):
        chat_format(tmp_path, small, "tool_use")


def test_template_of_the_processor_is_used_if_there_is_no_other(small: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "processor"}))
    assert small.decode(chat_format(tmp_path, small).encode([user("Hi")])) == "processor"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "tokenizer"}))
    assert small.decode(chat_format(tmp_path, small).encode([user("Hi")])) == "tokenizer"
    (tmp_path / "tokenizer_config.json").unlink()
    for content in ("{", "[]", '{"chat_template": 5}'):
        (tmp_path / "chat_template.json").write_text(content)
        with pytest.raises(InputError, match=f"^{tmp_path / 'chat_template.json'}: "):
            chat_format(tmp_path, small)


def test_templates_read_the_special_tokens_of_all_kinds(small: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<|eom_id|>", "unk_token": "[INST]"}))
    config = {"unk_token": {"content": "</s>"}, "chat_template": "{{ pad_token ~ unk_token ~ (bos_token or '-') }}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "added_tokens_decoder": {}}))
    ids = chat_format(tmp_path, small).encode([user("Hi")])
    assert ids == small.encode("<|eom_id|></s>-", allowed_special="all")


def test_a_template_reads_nothing_for_a_special_token_that_there_is_not(small: Tokenizer, tmp_path: Path) -> None:
    """As in transformers, which leaves the variable undefined; None would be written as that word."""
    template = (
        "{{ bos_token }}{{ 'defined' if eos_token is defined }}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": None, "chat_template": template}))
    assert small.decode(chat_format(tmp_path, small).encode([user("Hi")])) == "Hi"
    assert small.decode(TemplateChat(small, template).encode([user("Hi")])) == "Hi"


def test_templates_read_the_tokens_that_only_a_model_has(small: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    small.save(tmp_path / "tokenizer.json")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "image_token": "[INST]",
        "extra_special_tokens": {"img_token": "</s>"},
        "add_bos_token": False,
        "chat_template": "{{ image_token ~ img_token }}{% for m in messages %}{{ m.content }}{% endfor %}",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = chat_format(tmp_path, small).encode([user("Hi")], add_generation_prompt=False)
    assert ids == theirs.apply_chat_template([user("Hi")], return_dict=False)
    assert ids[:2] == [small.special_tokens["[INST]"], small.special_tokens["</s>"]]


@pytest.mark.parametrize("listed", [True, False])
def test_the_map_of_special_tokens_takes_precedence_as_in_transformers(
    listed: bool, tmp_path: Path, small: Tokenizer
) -> None:
    transformers = pytest.importorskip("transformers")
    small.save(tmp_path / "tokenizer.json")
    ids = {token.content: token.id for token in small.vocabulary.added_tokens}
    first, second, *_ = ids
    decoder = {"added_tokens_decoder": {str(id): {"content": text, "special": True} for text, id in ids.items()}}
    template = "{{ eos_token }}{% for message in messages %}{{ message.content }}{% endfor %}"
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": first, "chat_template": template}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, **(decoder if listed else {})}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": second}))
    dialog = [{"role": "user", "content": "Hi"}]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(dialog, return_dict=False)
    assert chat_format(tmp_path, small).encode(dialog, add_generation_prompt=False) == theirs
    assert theirs[0] == (ids[first] if listed else ids[second])


def test_a_rejected_dialog_is_refused_with_the_file_and_a_remedy(small: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{% if m.role == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}{% endfor %}"
    )
    chat = chat_format(tmp_path, small)
    system = {"role": "system", "content": "Be brief."}
    reason = f"{tmp_path}: the chat template rejects the dialog or fails: System role not supported; "
    with pytest.raises(InputError, match=f"^{reason}it takes no system message.*without --system"):
        chat.encode([system, user("Hi")])
    with pytest.raises(InputError, match=f"^{reason}change the messages"):
        chat.encode([system])
