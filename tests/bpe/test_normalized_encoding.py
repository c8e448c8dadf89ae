"""Vocabularies that normalize text: the ids are those of tokenizers, and spans are in the original text."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken as TheirToken
from tokenizers import models, normalizers, pre_tokenizers

from bpe import StreamEncoder, Tokenizer, train_from_iterator
from bpe.errors import InputError
from bpe.formats.byte_level import token_text
from bpe.patterns import find_pattern
from bpe.vocabulary import AddedToken, Vocabulary
from support.references import BYTE_RANKS

NORMALIZERS = [
    normalizers.NFC(),
    normalizers.NFKD(),
    normalizers.Lowercase(),
    normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]),
    normalizers.Sequence([normalizers.Prepend("_"), normalizers.Replace(" ", "__")]),
    normalizers.Strip(),
    normalizers.Sequence([]),
]
ADDED = [
    AddedToken("<a>", 300, special=False),
    AddedToken("Hé", 301, special=False, normalized=True),
    AddedToken("<b> ", 302, special=False, normalized=True, rstrip=True),
    AddedToken("<c>", 303, special=True, lstrip=True),
    AddedToken("x", 304, special=False, normalized=True, single_word=True),
]
PIECES = [
    "a",
    "x",
    " ",
    "  ",
    "é",
    "e\u0301",
    "ﬁ",
    "Hé",
    "HE\u0301",
    "hé",
    "<a>",
    "<b> ",
    "<B> ",
    "<c>",
    "İ",
    "가",
    "\n",
]


def pair(normalizer: Any) -> tuple[Tokenizer, tokenizers.Tokenizer]:
    """Return our tokenizer of single bytes with a normalizer, and theirs with the same."""
    plain = Vocabulary.from_ranks("normalized", find_pattern("gpt2"), BYTE_RANKS, {})
    theirs = tokenizers.Tokenizer(models.BPE({token_text(token): id for token, id in BYTE_RANKS.items()}, []))
    theirs.normalizer = normalizer
    entry = json.loads(theirs.to_str())["normalizer"]
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    renumbered = []
    for token in ADDED:
        flags = {name: getattr(token, name) for name in ("lstrip", "rstrip", "single_word", "normalized", "special")}
        theirs.add_tokens([TheirToken(token.content, **flags)])
        id = theirs.token_to_id(token.content)
        assert id is not None
        renumbered.append(token._replace(id=id))
    arrays = (plain.tokens, plain.offsets, plain.ids)
    vocabulary = Vocabulary("normalized", plain.pattern, *arrays, renumbered, merges_only=True, normalizer=entry)
    return Tokenizer.from_vocabulary(vocabulary), theirs


@pytest.mark.parametrize("number", range(len(NORMALIZERS)))
def test_normalized_text_with_added_tokens_has_the_ids_of_tokenizers(number: int) -> None:
    ours, theirs = pair(NORMALIZERS[number])
    generator = random.Random(number)
    for _ in range(1000):
        text = "".join(generator.choices(PIECES, k=generator.randint(0, 10)))
        expected = theirs.encode(text).ids
        assert ours.encode(text, allowed_special="all") == expected, text
        assert ours.encode_to_numpy(text, allowed_special="all").tolist() == expected
        stream = StreamEncoder(ours, allowed_special="all")
        ids = [id for character in text for id in stream.feed(character)]
        assert ids + stream.flush() == expected, text


@pytest.mark.parametrize("number", range(len(NORMALIZERS)))
def test_a_long_text_on_two_threads_has_the_ids_of_one(number: int) -> None:
    ours, _ = pair(NORMALIZERS[number])
    text = "".join(random.Random(number).choices([*PIECES, "some words ", "\n"], k=100_000))
    expected = ours.encode(text, allowed_special="all")
    assert ours.encode_flat([text], num_threads=2, allowed_special="all")[0].tolist() == expected


def test_spans_are_in_the_original_text() -> None:
    lower, _ = pair(normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]))
    assert lower.encode_with_offsets("ÀB") == ([97, 98], [(0, 1), (1, 2)])
    assert lower.encode_with_offsets("ÀB", unit="bytes") == ([97, 98], [(0, 2), (2, 3)])
    prepended, _ = pair(normalizers.Prepend("_"))
    ids, spans = prepended.encode_with_offsets("ab")
    assert ids == [95, 97, 98]
    assert spans[1:] == [(0, 1), (1, 2)]


def test_a_text_that_is_normalized_is_neither_continued_by_tiktoken_s_rules_nor_trained_on() -> None:
    ours, _ = pair(normalizers.Lowercase())
    with pytest.raises(InputError, match="StreamEncoder"):
        ours.encode_with_unstable("a")
    with pytest.raises(InputError, match="normalizes text"):
        train_from_iterator(["text"], 400, base=ours)


def test_added_tokens_that_normalization_makes_equal_are_refused() -> None:
    plain = Vocabulary.from_ranks("equal", find_pattern("gpt2"), BYTE_RANKS, {})

    def vocabulary(*added: AddedToken) -> Vocabulary:
        parts = (plain.pattern, plain.tokens, plain.offsets, plain.ids)
        return Vocabulary("equal", *parts, added, normalizer={"type": "Lowercase"})

    upper, lower = (AddedToken(text, id, special=False) for id, text in ((300, "[MASK]"), (301, "[mask]")))
    searched = upper._replace(normalized=True), lower._replace(normalized=True)
    with pytest.raises(InputError, match=r"'\[MASK\]' \(id 300\) and '\[mask\]' \(id 301\) are the same.*to false"):
        vocabulary(*searched)
    vocabulary(searched[0], lower)
    vocabulary(*searched[:1])


def test_an_added_token_that_normalization_empties_is_refused() -> None:
    plain = Vocabulary.from_ranks("empty", find_pattern("gpt2"), BYTE_RANKS, {})
    added = [AddedToken(" ", 300, special=False, normalized=True)]
    with pytest.raises(InputError, match="empty after normalization"):
        Vocabulary(
            "empty",
            plain.pattern,
            plain.tokens,
            plain.offsets,
            plain.ids,
            added,
            normalizer={
                "type": "Strip",
                "strip_left": True,
                "strip_right": True,
            },
        )
