"""The options of a byte-level BPE model give the ids of `tokenizers`, or are refused by name."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from bpe import InputError, Tokenizer
from bpe.formats.byte_level import token_text

LETTERS = [*"abxyz \n", "é", "日", "ab", "  ", "xyz", "\0"]
FALLBACK = ("<0x78>", "<0xC4>", "<0xA0>")  # "x", and the two bytes of the character that stands for a space


def write_file(path: Path, missing: bytes, more: tuple[str, ...], options: dict[str, Any]) -> None:
    """Write a tokenizer.json that lacks some bytes, with more tokens and with options of the model."""
    tokens = [bytes([byte]) for byte in range(256) if byte not in missing]
    merges = [(b"a", b"b"), (b"y", b"z"), (b"x", b"yz"), (b" ", b" "), ("é".encode()[:1], "é".encode()[1:])]
    merges = [(left, right) for left, right in merges if not set(left + right) & set(missing)]
    tokens += [left + right for left, right in merges]
    ids = {token_text(token): id for id, token in enumerate(tokens)}
    ids |= {text: len(ids) + number for number, text in enumerate(more)}
    model = {"type": "BPE", "vocab": ids, "merges": [[token_text(part) for part in pair] for pair in merges]}
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    data = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": step, "model": model | options}
    path.write_text(json.dumps(data | {"decoder": step}))


def assert_alike(ours: Tokenizer, path: Path, seed: int) -> None:
    theirs = tokenizers.Tokenizer.from_file(str(path))
    generator = random.Random(seed)
    for _ in range(400):
        text = "".join(generator.choices(LETTERS, k=generator.randrange(12)))
        assert ours.encode_ordinary(text) == theirs.encode(text).ids, text


@pytest.mark.parametrize(
    ("missing", "more", "options"),
    [
        (b"", (), {"dropout": 0.0}),
        (b"", (), {"dropout": 0}),
        (b"", (), {"dropout": None, "continuing_subword_prefix": "", "end_of_word_suffix": ""}),
        (b"", ("<unk>",), {"unk_token": "<unk>", "fuse_unk": True}),
        (b"", (), {"unk_token": "<none>", "fuse_unk": False}),
        (b"", FALLBACK, {"byte_fallback": True}),
        (b"x", (), {"byte_fallback": True}),
        (b"x", (), {"byte_fallback": True, "fuse_unk": True}),
        (b"x \n", ("<0xC4>", "<0x0A>"), {"byte_fallback": True}),
        (b"x", ("<0xC4>", "<0xA0>"), {"byte_fallback": True}),
        (b"\xc0\xff", ("<unk>",), {"unk_token": "<unk>", "byte_fallback": True}),
        (b"xz", ("<unk>",), {"unk_token": None, "fuse_unk": True}),
        (b"x", FALLBACK, {"byte_fallback": True}),
        (b" x", FALLBACK[1:], {"byte_fallback": True}),
        (b" xz", (*FALLBACK[1:], "<unk>"), {"byte_fallback": True, "unk_token": "<unk>"}),
        (b"xz", ("<unk>",), {"unk_token": "<unk>"}),
        (b"xz", ("<unk>",), {"unk_token": "<unk>", "fuse_unk": True}),
        (b"xz", ("<unk>",), {"unk_token": "<unk>", "ignore_merges": True}),
        (b"xz", (), {"ignore_merges": True}),
    ],
)
def test_options_give_the_ids_of_tokenizers(
    missing: bytes, more: tuple[str, ...], options: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    write_file(path, missing, more, options)
    ours = Tokenizer.from_file(path)
    assert_alike(ours, path, 0)
    ours.save(tmp_path / "saved.json")
    assert_alike(ours, tmp_path / "saved.json", 1)


@pytest.mark.parametrize(
    ("missing", "more", "options", "reason"),
    [
        (b"", (), {"dropout": 0.5}, "dropout = 0.5"),
        (b"", (), {"dropout": float("nan")}, "dropout = nan"),
        (b"xz", (), {"unk_token": "<none>", "fuse_unk": True}, r"2 bytes, such as b'x', .*unk_token = '<none>'"),
        (b"", (), {"continuing_subword_prefix": "##"}, "continuing_subword_prefix = '##'"),
        (b"", (), {"end_of_word_suffix": "</w>"}, "end_of_word_suffix = '</w>'"),
    ],
)
def test_what_the_core_cannot_do_is_refused_by_name(
    missing: bytes, more: tuple[str, ...], options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    write_file(path, missing, more, options)
    with pytest.raises(InputError, match=reason):
        Tokenizer.from_file(path)
