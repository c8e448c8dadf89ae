"""A tokenizer.json with a normalizer gives the ids and the offsets of `tokenizers`, also once it is written again."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from transformers import Qwen2TokenizerFast  # type: ignore[attr-defined]

from bpe import InputError, Tokenizer
from bpe.formats.byte_level import token_text
from bpe.verify import reference_of, require_identical, verify

PIECES = [
    *("a", "b", "ab", " ", "  ", "\n", "1", "23", ".", "'s", "é", "e\u0301", "e\u0323\u0301", "E\u0301", "\u0301", "Å"),
    *("\u212b", "ﬁ", "½", "가", "\u1100\u1161", "\u1100\u1161\u11a8", "İ", "ß", "\u0f73", "\U0001d15e", "日本", "\0"),
    *("<e\u0301>", "<é>", "<É>", "<x>", "<X>", "<|endoftext|>", "<|Endoftext|>", " <x> "),
]
NORMALIZERS: list[Any] = [
    {"type": "NFC"},
    {"type": "NFD"},
    {"type": "NFKC"},
    {"type": "NFKD"},
    {"type": "Lowercase"},
    {"type": "Sequence", "normalizers": []},
    {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]},
    {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": " "}, {"type": "NFC"}]},
    {"type": "Replace", "pattern": {"String": "a"}, "content": "e\u0301"},
    {"type": "Replace", "pattern": {"Regex": "[ab]+| +$"}, "content": "_"},
    {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None}
    | {"lowercase": True},
]


def small_merges() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the ids and merges of a vocabulary in which "é" is other tokens than "e" and an accent."""
    words = ["é".encode(), b"e\xcc\x81", b"ab", b" a", b" ab", b"  ", "가".encode(), "\u1100".encode(), b" \xc3\xa9"]
    tokens = [bytes([byte]) for byte in range(256)]
    merges = []
    for word in words:
        for cut in range(1, len(word)):
            if word[: cut + 1] not in tokens:
                merges.append((token_text(word[:cut]), token_text(word[cut : cut + 1])))
                tokens.append(word[: cut + 1])
    return {token_text(token): id for id, token in enumerate(tokens)}, merges


def qwen2_file(directory: Path) -> Path:
    """Save Qwen2's tokenizer with a small vocabulary and some added tokens as transformers does."""
    ids, merges = small_merges()
    theirs = Qwen2TokenizerFast(vocab=ids, merges=merges)
    flags: list[dict[str, bool]] = [{"normalized": True}, {"normalized": False}, {"normalized": True, "rstrip": True}]
    for content, each in zip(("<é>", "<e\u0301>", "<x>"), flags, strict=True):
        theirs.add_tokens([tokenizers.AddedToken(content, **each)])
    theirs.save_pretrained(directory)
    return directory / "tokenizer.json"


def assert_alike(ours: Tokenizer, path: Path, seed: int, count: int = 300) -> None:
    theirs = tokenizers.Tokenizer.from_file(str(path))
    generator = random.Random(seed)
    for _ in range(count):
        text = "".join(generator.choices(PIECES, k=generator.randrange(16)))
        expected = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text, allowed_special="all") == expected.ids, text
        if "<|endoftext|>" not in text:
            assert ours.encode_with_offsets(text) == (expected.ids, expected.offsets), text


def with_normalizer(path: Path, entry: Any) -> Path:
    data = json.loads(path.read_bytes())
    data["normalizer"] = entry
    path.write_text(json.dumps(data))
    return path


def test_qwen2_as_transformers_writes_it_has_the_ids_and_offsets_of_tokenizers(tmp_path: Path) -> None:
    path = qwen2_file(tmp_path)
    ours = Tokenizer.from_file(tmp_path)
    assert ours.vocabulary.normalizer == {"type": "NFC"}
    assert ours.pattern.name == "qwen2"
    assert_alike(ours, path, 0, 3000)
    require_identical(verify(ours, [], reference=reference_of(ours, tmp_path)))


@pytest.mark.parametrize("number", range(len(NORMALIZERS)))
def test_any_normalizer_has_the_ids_and_offsets_of_tokenizers_also_once_written(number: int, tmp_path: Path) -> None:
    path = with_normalizer(qwen2_file(tmp_path), NORMALIZERS[number])
    ours = Tokenizer.from_file(path)
    assert_alike(ours, path, number)
    again = tmp_path / "again.json"
    ours.save(again)
    assert json.loads(again.read_bytes())["normalizer"] == NORMALIZERS[number]
    assert_alike(ours, again, number)
    assert_alike(Tokenizer.from_file(again), path, number)
    require_identical(verify(ours, [], reference=reference_of(ours, path)))


@pytest.mark.parametrize("suffix", [".model", ".gguf"])
def test_formats_without_a_normalizer_are_refused(suffix: str, tmp_path: Path) -> None:
    path = with_normalizer(qwen2_file(tmp_path), {"type": "NFKC"})
    ours = Tokenizer.from_file(path, special_tokens=[])
    with pytest.raises(InputError, match="normalizes text before it is split.*tokenizer.json"):
        ours.save(tmp_path / f"out{suffix}")


def test_ranks_have_no_nfc(tmp_path: Path) -> None:
    qwen2_file(tmp_path)
    ours = Tokenizer.from_file(tmp_path / "tokenizer.json", special_tokens=[])
    with pytest.raises(InputError, match="normalizes text before it is split.*tokenizer.json"):
        ours.save(tmp_path / "out.model")


def without_flags(path: Path) -> Path:
    data = json.loads(path.read_bytes())
    for token in data["added_tokens"]:
        token |= {"lstrip": False, "rstrip": False, "single_word": False}
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize("entry", [{"type": "NFC"}, {"type": "Sequence", "normalizers": [{"type": "NFC"}]}])
def test_a_gguf_leaves_out_nfc_with_a_warning_and_text_in_nfc_keeps_its_ids(entry: Any, tmp_path: Path) -> None:
    ours = Tokenizer.from_file(without_flags(with_normalizer(qwen2_file(tmp_path), entry)))
    path = tmp_path / "out.gguf"
    with pytest.warns(
        UserWarning, match="normalizes text to NFC, which llama.cpp does not do; there, text that is not"
    ):
        ours.save(path)
    again = Tokenizer.from_file(path)
    assert again.vocabulary.normalizer is None
    assert again.pattern.name == "qwen2"
    generator = random.Random(5)
    for _ in range(500):
        text = unicodedata.normalize("NFC", "".join(generator.choices(PIECES, k=generator.randrange(16))))
        assert again.encode(text, allowed_special="all") == ours.encode(text, allowed_special="all"), text
    require_identical(verify(again, [], reference=reference_of(again, path)))
    assert again.encode("e\u0301") != ours.encode("e\u0301")  # as llama.cpp, which does not join the two


def test_a_gguf_without_nfc_cannot_have_a_token_that_nfc_changes(tmp_path: Path) -> None:
    path = without_flags(qwen2_file(tmp_path))
    data = json.loads(path.read_bytes())
    token = {"id": data["added_tokens"][-1]["id"] + 1, "content": "<a\u0301>", "normalized": True, "special": False}
    data["added_tokens"].append({**data["added_tokens"][-1], **token})
    path.write_text(json.dumps(data))
    ours = Tokenizer.from_file(path)
    with pytest.raises(InputError, match="is not in NFC, and llama.cpp would not find it.*write its text in NFC"):
        ours.save(tmp_path / "out.gguf")


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
@pytest.mark.parametrize(
    "normalizer",
    [
        {"type": "Strip", "strip_left": True, "strip_right": False},
        {"type": "Replace", "pattern": {"Regex": "^[a-z ]"}, "content": ""},
        {"type": "Replace", "pattern": {"String": "a"}, "content": "xyz"},
        {"type": "Prepend", "prepend": "é"},
        {"type": "NFKD"},
        {"type": "Sequence", "normalizers": []},
    ],
    ids=["strip", "cut", "grow", "prepend", "nfkd", "none"],
)
def test_a_metaspace_knows_the_first_word_of_a_normalized_text(
    normalizer: dict[str, Any], scheme: str, tmp_path: Path
) -> None:
    path = with_normalizer(qwen2_file(tmp_path), normalizer)
    data = json.loads(path.read_text())
    metaspace = {"type": "Metaspace", "replacement": "Ġ", "prepend_scheme": scheme, "split": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [metaspace, byte_level]}
    path.write_text(json.dumps(data))
    assert_alike(Tokenizer.from_file(path), path, 7, 300)
