"""vocab.json and merges.txt give the ids that the tokenizer classes of transformers give for the same directory."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from bpe import InputError, Tokenizer
from bpe.formats.byte_level import token_text
from bpe.formats.tokenizer_classes import _OF_MODEL, _SAME_AS, class_of
from bpe.verify import reference_of, require_identical, verify

CLASSES = [
    *("GPT2Tokenizer", "GPT2TokenizerFast", "Qwen2Tokenizer", "GPTNeoXTokenizer", "RobertaTokenizer", "BartTokenizer"),
    *("LEDTokenizerFast", "BlenderbotTokenizer", "CodeGenTokenizer", "CohereTokenizer", "DebertaTokenizer"),
    *("WhisperTokenizer", "MvpTokenizer", "LongformerTokenizer"),
]
PIECES = [
    *("a", "b", "ab", " ", "  ", "\n", "1", "23", ".", "'s", "'S", "é", "e\u0301", "가", "日", "\0"),
    *(
        "<s>",
        "</s>",
        "<mask>",
        " <mask> ",
        "<unk>",
        "<pad>",
        "<|endoftext|>",
        "<|im_end|>",
        "<think>",
        "<e\u0301>",
        "<é>",
    ),
]
SPECIAL = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
BESIDE: list[dict[str, dict[str, Any]]] = [
    {},
    {"tokenizer_config.json": {"add_prefix_space": True, "eos_token": "<|im_end|>", "pad_token": None}},
    {
        "special_tokens_map.json": {
            "mask_token": {"content": "<mask>", **SPECIAL, "lstrip": True},
            "eos_token": "<|im_end|>",
            "additional_special_tokens": ["<think>", "<|im_end|>"],
        }
    },
    {"added_tokens.json": {"<think>": 270, "<é>": 271, "<|im_end|>": 272}, "special_tokens_map.json": {}},
    {
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                "265": {"content": "<|im_end|>", **SPECIAL, "special": True},
                "266": {"content": "<think>", **SPECIAL, "normalized": True, "special": False},
                "267": {"content": "<é>", **SPECIAL, "normalized": True, "rstrip": True, "special": False},
            },
            "eos_token": "<|im_end|>",
            "bos_token": "<é>",
        },
        "special_tokens_map.json": {"eos_token": "<é>"},
    },
    {"tokenizer_config.json": {"bos_token": {"__type": "AddedToken", "content": "<think>", **SPECIAL, "rstrip": True}}},
]


def write_files(directory: Path, tokenizer_class: str | None, beside: dict[str, dict[str, Any]]) -> None:
    tokens = [bytes([byte]) for byte in range(256)]
    merges = [(b"a", b"b"), (b" ", b"ab"), ("é".encode()[:1], "é".encode()[1:]), (b" ", b" "), (b"2", b"3")]
    tokens += [left + right for left, right in merges]
    ids = {token_text(token): id for id, token in enumerate(tokens)}
    if tokenizer_class == "RobertaTokenizer":
        ids |= {token: len(ids) + number for number, token in enumerate(("<s>", "</s>", "<pad>"))}
    if tokenizer_class == "WhisperTokenizer":
        ids |= {"<|startoftranscript|>": len(ids), "<|notimestamps|>": len(ids) + 1}
    (directory / "vocab.json").write_text(json.dumps(ids))
    lines = ["#version: 0.2", *(f"{token_text(left)} {token_text(right)}" for left, right in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    config = {} if tokenizer_class is None else {"tokenizer_class": tokenizer_class}
    files = {"tokenizer_config.json": {}, **beside}
    for name, content in files.items():
        own = config if name == "tokenizer_config.json" else {}
        if content or own:
            (directory / name).write_text(json.dumps({**own, **content}))


def assert_alike(ours: Tokenizer, theirs: Any, seed: int, count: int = 400) -> None:
    generator = random.Random(seed)
    for _ in range(count):
        text = "".join(generator.choices(PIECES, k=generator.randrange(14)))
        expected = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text, allowed_special="all") == expected, text


@pytest.mark.parametrize("number", range(len(BESIDE)))
@pytest.mark.parametrize("name", CLASSES)
def test_a_directory_gives_the_ids_of_transformers_and_so_does_what_is_saved(
    name: str, number: int, tmp_path: Path
) -> None:
    write_files(tmp_path, name, BESIDE[number])
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer.from_file(tmp_path)
    begin, end = ours.vocabulary.boundaries.prefix_ids, ours.vocabulary.boundaries.suffix_ids
    assert theirs.encode("ab") == [*begin, *theirs.encode("ab", add_special_tokens=False), *end]
    assert {token.content: token.id for token in ours.vocabulary.added_tokens} == theirs.get_added_vocab()
    assert set(ours.special_tokens) == {str(t) for t in theirs.added_tokens_decoder.values() if t.special}
    assert_alike(ours, theirs, number)
    for path in (tmp_path / "vocab.json", tmp_path / "merges.txt"):
        assert Tokenizer.from_file(path).encode("ab é<think>", allowed_special="all") == ours.encode(
            "ab é<think>", allowed_special="all"
        )
    require_identical(verify(ours, [], reference=reference_of(ours, tmp_path)))
    saved = tmp_path / "saved.json"
    ours.save(saved)
    assert_alike(ours, transformers.PreTrainedTokenizerFast(tokenizer_file=str(saved)), number, 100)


def test_without_a_tokenizer_class_the_pattern_is_needed(tmp_path: Path) -> None:
    write_files(tmp_path, None, {})
    with pytest.raises(InputError, match=r"vocab\.json: no tokenizer_config\.json .* name the pattern.*GPT2Tokenizer"):
        Tokenizer.from_file(tmp_path)
    ours = Tokenizer.from_file(tmp_path, pattern="gpt2")
    assert (ours.pattern.name, ours.encode("ab é")) == ("gpt2", [256, 32, 258])
    write_files(tmp_path, "SpecialTokenizer", {})
    with pytest.raises(InputError, match="reads it as 'SpecialTokenizer'.*name the pattern"):
        Tokenizer.from_file(tmp_path)


@pytest.mark.parametrize(
    ("config", "tokenizer_class", "expected"),
    [
        ({"model_type": "gpt2"}, None, "GPT2Tokenizer"),
        ({"model_type": "codegen"}, None, "GPT2Tokenizer"),
        ({"model_type": "qwen3_vl"}, None, "Qwen2Tokenizer"),
        ({"model_type": "bart"}, None, "RobertaTokenizer"),
        ({"model_type": "deberta"}, None, "DebertaTokenizer"),
        ({"model_type": "olmo"}, None, "GPTNeoXTokenizer"),
        ({"model_type": "gpt2", "tokenizer_class": "Qwen2TokenizerFast"}, None, "Qwen2Tokenizer"),
        ({"model_type": "gpt2", "tokenizer_class": "Qwen2Tokenizer"}, "GPT2Tokenizer", "GPT2Tokenizer"),
        ({"model_type": "qwen2"}, "GPT2Tokenizer", "Qwen2Tokenizer"),
        ({"model_type": "llama"}, "GPT2Tokenizer", "GPT2Tokenizer"),
    ],
)
def test_the_configuration_of_the_model_decides_as_in_transformers(
    config: dict[str, str], tokenizer_class: str | None, expected: str, tmp_path: Path
) -> None:
    write_files(tmp_path, tokenizer_class, {"config.json": config})
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (class_of(tmp_path), type(theirs).__name__) == (expected, expected)
    ours = Tokenizer.from_file(tmp_path)
    assert_alike(ours, theirs, 0, 100)
    require_identical(verify(ours, [], reference=reference_of(ours, tmp_path)))


@pytest.mark.parametrize("type", sorted(_OF_MODEL))
def test_each_type_of_model_has_the_class_of_transformers(type: str) -> None:
    theirs = TOKENIZER_MAPPING_NAMES[type]
    assert theirs is not None
    name = theirs.removesuffix("Fast")
    assert _OF_MODEL[type] == _SAME_AS.get(name, name)


@pytest.mark.parametrize(
    ("config", "tokenizer_class", "reason"),
    [
        ({"model_type": "llama"}, None, "only the model_type 'llama', which does not tell the split pattern; name the"),
        ({"model_type": 5}, None, "only the model_type 5, which does not"),
        ({"model_type": "qwen3_5"}, "Qwen2Tokenizer", "reads it as 'Qwen3_5Tokenizer'.*name the pattern"),
        ({}, "LlamaTokenizerFast", "reads it as 'LlamaTokenizer'.*--pattern gpt2"),
        ({}, "CLIPTokenizer", "reads it as 'CLIPTokenizer'"),
        ({}, "PreTrainedTokenizerFast", "set tokenizer_class to one of GPT2Tokenizer"),
    ],
)
def test_a_class_that_does_not_read_the_two_files_is_refused(
    config: dict[str, Any], tokenizer_class: str | None, reason: str, tmp_path: Path
) -> None:
    write_files(tmp_path, tokenizer_class, {"config.json": config})
    with pytest.raises(InputError, match=reason):
        Tokenizer.from_file(tmp_path)


def test_words_with_a_suffix_are_refused_whatever_the_pattern(tmp_path: Path) -> None:
    write_files(tmp_path, None, {})
    ids = json.loads((tmp_path / "vocab.json").read_text())
    ids |= {f"{letter}</w>": len(ids) + number for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    (tmp_path / "vocab.json").write_text(json.dumps(ids))
    with pytest.raises(InputError, match=r"vocab\.json: words end with </w>, as in CLIP's tokenizer; only byte-level"):
        Tokenizer.from_file(tmp_path, pattern="gpt2")


def test_settings_of_a_class_are_not_ignored(tmp_path: Path) -> None:
    write_files(tmp_path, "WhisperTokenizer", {"tokenizer_config.json": {"language": "french"}})
    with pytest.raises(InputError, match="\"language\" is 'french', which puts other tokens in front of a text"):
        Tokenizer.from_file(tmp_path)
    write_files(tmp_path, "BlenderbotTokenizer", {})
    with pytest.raises(InputError, match='"add_prefix_space" is true by default of BlenderbotTokenizer, which cannot'):
        Tokenizer.from_file(tmp_path, pattern="gpt2")


def test_whisper_s_missing_tokens_are_named(tmp_path: Path) -> None:
    write_files(tmp_path, "GPT2Tokenizer", {"tokenizer_config.json": {}})
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "WhisperTokenizer"}')
    with pytest.raises(
        InputError, match=r"the token '<\|startoftranscript\|>', which is put around each text, is miss"
    ):
        Tokenizer.from_file(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("merges.txt", "a b\n\n", r"merges\.txt: line 2 is ''; expected two tokens"),
        ("merges.txt", "a b c\n", r"merges\.txt: line 1 is 'a b c'"),
        ("merges.txt", "a q\n", "makes 'aq', which is not a token"),
        ("vocab.json", '{"a": 1, "b', "not complete JSON"),
        ("vocab.json", '{"a": 1, "b": "2"}', "the token 'b' has the id '2'"),
        ("tokenizer_config.json", '{"tokenizer_class": "GPT2Tokenizer", "image_token": "<i>"}', '"image_token" is not'),
        ("tokenizer_config.json", '{"tokenizer_class": "GPT2Tokenizer", "eos_token": 5}', '"eos_token" .* is 5'),
        ("tokenizer_config.json", '{"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": 1}', "expected true or"),
        ("added_tokens.json", '{"x": "y"}', r"added_tokens\.json: the token 'x' has the id 'y'"),
    ],
)
def test_damaged_files_are_refused_with_the_place(name: str, content: str, reason: str, tmp_path: Path) -> None:
    write_files(tmp_path, "GPT2Tokenizer", {})
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=reason):
        Tokenizer.from_file(tmp_path)


def test_missing_merges_are_named(tmp_path: Path) -> None:
    write_files(tmp_path, "GPT2Tokenizer", {})
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(InputError, match=r"vocab\.json: there is no merges\.txt beside it"):
        Tokenizer.from_file(tmp_path / "vocab.json")


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json"])
def test_truncated_files_and_flipped_bits_give_an_error_or_another_vocabulary(name: str, tmp_path: Path) -> None:
    write_files(tmp_path, "RobertaTokenizer", BESIDE[4])
    content = (tmp_path / name).read_bytes()
    generator = random.Random(name)
    refused = 0
    for number in range(100):
        damaged = bytearray(content)
        if number % 2:
            del damaged[generator.randrange(len(damaged)) :]
        else:
            damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        (tmp_path / name).write_bytes(damaged)
        try:
            Tokenizer.from_file(tmp_path)
        except InputError:
            refused += 1
    assert refused > 20
