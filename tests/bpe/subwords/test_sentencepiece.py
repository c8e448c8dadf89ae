"""SentencePiece models of Unigram, words and characters: the reference is the package itself."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from bpe import InputError, StreamDecoder, StreamEncoder, Tokenizer
from support.references import any_text, without_surrogates

KINDS = ("unigram", "word", "char")
TEXT = "Hello  naïve 漢字 <think> x\n 123"


def reference(path: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_text_are_those_of_sentencepiece(kind: str, files: Path) -> None:
    tokenizer, theirs = Tokenizer.from_file(files / f"{kind}.model"), reference(files / f"{kind}.model")

    @given(any_text | st.text("the quickn <think> ▁\u3000é", max_size=40))
    @settings(max_examples=300, deadline=None)
    def compare(text: str) -> None:
        ids = theirs.encode(without_surrogates(text))
        assert tokenizer.encode_ordinary(text) == ids
        assert tokenizer.count(text) == len(ids)
        assert tokenizer.encode_to_numpy(text, disallowed_special=()).tolist() == ids
        assert tokenizer.decode(ids) == theirs.decode(ids)

    compare()


def test_all_methods_that_encode_many_texts_agree(files: Path) -> None:
    tokenizer = Tokenizer.from_file(files / "unigram.model")
    texts = ["one text", "", "naïve", TEXT]
    rows = [tokenizer.encode_ordinary(text) for text in texts]
    assert tokenizer.encode_batch(texts) == tokenizer.encode_ordinary_batch(texts, num_threads=2) == rows
    assert tokenizer.count_batch(texts) == [len(row) for row in rows]
    ids, offsets = tokenizer.encode_flat(texts, dtype=np.uint16)
    assert ids.tolist() == [id for row in rows for id in row] and ids.dtype == np.uint16
    assert offsets.tolist() == np.cumsum([0, *map(len, rows)]).tolist()
    with pytest.raises(ValueError, match="out has room for 1 ids, but there are"):
        tokenizer.encode_flat(texts, out=np.zeros(1, np.uint32))
    assert tokenizer.decode_batch(rows) == [tokenizer.decode(row) for row in rows]


def test_a_control_symbol_in_a_text_is_text_unless_it_is_allowed(files: Path) -> None:
    tokenizer, theirs = Tokenizer.from_file(files / "unigram.model"), reference(files / "unigram.model")
    text = "one<|im_end|>two</s>"
    assert tokenizer.special_tokens == {"<s>": 1, "</s>": 2, "<|im_end|>": 3}
    with pytest.raises(ValueError, match=r"special token '<\|im_end\|>', which is disallowed"):
        tokenizer.encode(text)
    assert tokenizer.encode(text, disallowed_special=()) == theirs.encode(text)
    one, two = theirs.encode("one"), theirs.encode("two")
    assert tokenizer.encode(text, allowed_special="all") == [*one, 3, *two, 2]
    some = tokenizer.encode(text, allowed_special={"</s>"}, disallowed_special=())
    assert some == [*theirs.encode("one<|im_end|>two"), 2]
    assert tokenizer.decode(tokenizer.encode(text, allowed_special="all")) == text
    assert tokenizer.encode_ordinary("<think>") == theirs.encode("<think>")  # user-defined: always found
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.prefix_ids) == (1, (2,), [])


def test_offsets_point_into_the_text(files: Path) -> None:
    tokenizer = Tokenizer.from_file(files / "unigram.model")
    content = TEXT.encode()
    ids, spans = tokenizer.encode_with_offsets(TEXT, unit="bytes")
    assert ids == tokenizer.encode_ordinary(TEXT)
    for id, (begin, end) in zip(ids, spans, strict=True):
        surface = content[begin:end].replace(b"\n", b" ")
        assert surface.strip() == tokenizer.decode_single_token_bytes(id).strip()
    characters = tokenizer.encode_with_offsets(TEXT)[1]
    assert [TEXT[begin:end].encode() for begin, end in characters][-3:] == [content[b:e] for b, e in spans][-3:]
    assert tokenizer.truncate(TEXT, 4) == TEXT[: characters[3][1]]
    assert len(tokenizer.encode_ordinary(tokenizer.truncate(TEXT, 4, side="left"))) <= 4


def test_bytes_that_are_not_utf_8_are_replaced_and_keep_their_places(files: Path) -> None:
    tokenizer = Tokenizer.from_file(files / "unigram.model")
    content = b"ab\xff\xfe cd\xe2\x96"
    assert tokenizer.encode_ordinary(content) == tokenizer.encode_ordinary(content.decode(errors="replace"))
    spans = tokenizer.vocabulary.library.spans(content)
    assert spans[-1][1] <= len(content) and spans == sorted(spans)


def test_a_tokenizer_is_pickled_copied_and_streams(files: Path) -> None:
    tokenizer = Tokenizer.from_file(files / "unigram.model").with_boundaries(bos=True)
    for twin in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert twin.encode_ordinary(TEXT) == tokenizer.encode_ordinary(TEXT)
        assert (twin.prefix_ids, twin.special_tokens) == ([1], tokenizer.special_tokens)
    encoder = StreamEncoder(tokenizer)
    assert [*encoder.feed(TEXT[:9]), *encoder.feed(TEXT[9:]), *encoder.flush()] == tokenizer.encode_ordinary(TEXT)
    decoder = StreamDecoder(tokenizer)
    ids = tokenizer.encode_ordinary("naïve")
    assert "".join(map(decoder.feed, ids)) + decoder.flush() == " naïve"


def test_special_tokens_are_added_or_left_out(files: Path) -> None:
    tokenizer = Tokenizer.from_file(files / "unigram.model", special_tokens=["<|new|>"])
    assert tokenizer.special_tokens == {"<s>": 1, "</s>": 2, "<|im_end|>": 3, "<|new|>": 600}
    assert tokenizer.encode("<|new|>", allowed_special="all") == [600]
    assert tokenizer.decode([600]) == "<|new|>" and tokenizer.n_vocab == 601
    again = Tokenizer.from_file(files / "unigram.model").with_special_tokens(["<|new|>"])
    assert again.special_tokens == tokenizer.special_tokens
    assert Tokenizer.from_file(files / "unigram.model", special_tokens=[]).special_tokens == {}
    with pytest.raises(InputError, match="'e' is an ordinary token.*choose another"):
        tokenizer.with_special_tokens(["e"])


def test_a_model_is_saved_as_it_is_and_not_in_other_formats(files: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(files / "unigram.model")
    tokenizer.save(tmp_path / "copy.model")
    assert (tmp_path / "copy.model").read_bytes() == (files / "unigram.model").read_bytes()
    for name in ("copy.json", "copy.tiktoken", "copy.gguf"):
        with pytest.raises(InputError, match=rf"{name}: unigram is a vocabulary of unigram, .* save it as \.model"):
            tokenizer.save(tmp_path / name)
    with pytest.raises(InputError, match="has special tokens that are not in the SentencePiece model, such as"):
        tokenizer.with_special_tokens(["<|new|>"]).save(tmp_path / "new.model")


def test_what_only_bpe_has_is_refused_by_name(files: Path) -> None:
    tokenizer = Tokenizer.from_file(files / "unigram.model")
    begin = "unigram is a vocabulary of unigram, not of BPE, and has no"
    with pytest.raises(InputError, match=f"{begin} mergeable_ranks"):
        tokenizer.mergeable_ranks  # noqa: B018
    with pytest.raises(InputError, match=f"{begin} encode_with_unstable"):
        tokenizer.encode_with_unstable("a")
    with pytest.raises(InputError, match="has no split pattern; leave out the pattern"):
        Tokenizer.from_file(files / "unigram.model", "gpt2")


def test_ids_of_no_token_are_refused(files: Path) -> None:
    tokenizer = Tokenizer.from_file(files / "unigram.model")
    for bad, error in ((600, KeyError), (-1, OverflowError), (1 << 32, OverflowError)):
        with pytest.raises(error):
            tokenizer.decode([1, bad])
    assert tokenizer.encode_single_token(" the") == reference(files / "unigram.model").piece_to_id("▁the")
    with pytest.raises(KeyError):
        tokenizer.encode_single_token("no such token")


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    needs = r"unigram\.model: a SentencePiece model of the type unigram needs the package sentencepiece: pip install"
    with pytest.raises(InputError, match=needs + r" 'bpe-llama\[subwords\]'"):
        Tokenizer.from_file(files / "unigram.model")


def test_a_damaged_model_is_one_clear_error(files: Path, tmp_path: Path) -> None:
    content = (files / "unigram.model").read_bytes()
    damaged = tmp_path / "damaged.model"
    for size in [*range(1, 200), *range(200, len(content), 997), len(content) - 1]:
        damaged.write_bytes(content[:size])
        with pytest.raises(InputError, match=r"damaged\.model: ") as caught:
            Tokenizer.from_file(damaged)
        assert len(str(caught.value).splitlines()) == 1


def test_offsets_count_special_tokens_that_are_allowed(files: Path) -> None:
    tokenizer = Tokenizer.from_file(files / "unigram.model")
    text = "one<|im_end|>two é</s>"
    added = tokenizer.special_matchers.allowed("all")
    ids, spans = tokenizer.vocabulary.encoder.encode_with_places(text, added, False)
    assert ids == tokenizer.encode(text, allowed_special="all")
    assert spans[ids.index(3)] == (3, 13) and spans[-1] == (19, 23)
    assert [end for _, end in spans][:-1] == [begin for begin, _ in spans][1:]  # adjacent
