"""Comparison of a tokenizer with its reference, as users run it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import sentencepiece
import tiktoken
import tokenizers

from bpe import InputError, Tokenizer, train
from bpe.formats import sentencepiece as sentencepiece_format
from bpe.verify import (
    HARD_CASES,
    Difference,
    Verification,
    huggingface_reference,
    reference_of,
    reference_of_vocabulary,
    require_identical,
    special_cases,
    tiktoken_reference,
    verify,
    vocabulary_cases,
)
from bpe.vocabulary import Vocabulary
from support.pieces import hard_texts, trained
from support.references import byte_tokenizer

TIKTOKEN = f"tiktoken {tiktoken.__version__}"
TOKENIZERS = f"tokenizers {tokenizers.__version__}"


def built_in(tokenizer: Tokenizer) -> int:
    """Return how many cases are compared before the first document."""
    special = list(special_cases(sorted(tokenizer.special_tokens)))
    return len(HARD_CASES) + len(special) + len(list(vocabulary_cases(tokenizer)))


@pytest.mark.slow
def test_exact_tokenizer_passes_the_hard_cases_and_the_sample_texts(
    pair: tuple[Tokenizer, tiktoken.Encoding], corpus_texts: dict[str, str]
) -> None:
    texts = [text.encode() for text in corpus_texts.values()]
    report = verify(pair[0], texts)
    require_identical(report)
    assert report.reference == TIKTOKEN
    assert report.documents == built_in(pair[0]) + len(texts)
    assert report.differing == report.not_utf8 == report.reference_failed == 0


@pytest.mark.parametrize("pattern", ["gpt2", "llama3", "o200k", "smollm"])
def test_tokenizer_json_is_compared_with_tokenizers_on_the_same_file(
    corpora: Path, corpus_texts: dict[str, str], tmp_path: Path, pattern: str
) -> None:
    special = ["<|end|>", "<|end|>er", "a<|", "|>", "日本"]
    train(str(corpora), vocab_size=1500, pattern=pattern, special_tokens=special).save(tmp_path / "tokenizer.json")
    tokenizer = Tokenizer.from_file(tmp_path)
    texts = [text.encode() for text in corpus_texts.values()]
    report = verify(tokenizer, texts, reference=reference_of(tokenizer, tmp_path))
    require_identical(report)
    assert report.reference == TOKENIZERS
    assert report.documents == built_in(tokenizer) + len(texts)


@pytest.mark.slow
def test_llama_3_as_tokenizer_json_passes(llama3: Tokenizer, tmp_path: Path) -> None:
    llama3.save(tmp_path / "tokenizer.json")
    tokenizer = Tokenizer.from_file(tmp_path / "tokenizer.json")
    report = verify(tokenizer, [], reference=reference_of(tokenizer, tmp_path / "tokenizer.json"))
    require_identical(report)
    assert report.reference == TOKENIZERS
    assert report.documents > 300


def test_ranks_are_compared_with_tiktoken(llama3: Tokenizer, tmp_path: Path) -> None:
    llama3.save(tmp_path / "ranks.model")
    assert reference_of(llama3, tmp_path / "ranks.model").name == TIKTOKEN


def test_differing_id_is_reported_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = byte_tokenizer(ab=256)
    encode = Tokenizer.encode_ordinary
    monkeypatch.setattr(
        Tokenizer, "encode_ordinary", lambda self, text: list(text.encode()) if text == "x é ab" else encode(self, text)
    )
    report = verify(tokenizer, [b"fine", "x é ab".encode()])
    assert report.differing == 1
    assert report.first_difference == Difference("document 2", 5, "x é ".encode(), 97, 256)
    assert str(report.first_difference) == "document 2, byte 5, after 'x é ': 97 here, 256 in the reference"
    with pytest.raises(InputError, match=f"1 documents differ from the reference, {TIKTOKEN}; first: document 2"):
        require_identical(report)


def test_file_with_other_settings_is_reported_as_a_difference(tmp_path: Path) -> None:
    """The reference is the file as ``tokenizers`` reads it, not what we made of it."""
    path = tmp_path / "tokenizer.json"
    byte_tokenizer(qz=256, zq=257).save(path)
    right, wrong = byte_tokenizer(qz=256, zq=257), byte_tokenizer(zq=256, qz=257)
    reference = reference_of(right, path)
    require_identical(verify(right, [b"one qzq"], reference=reference))
    report = verify(wrong, [b"one qzq"], reference=reference)
    # The cases of the vocabulary find it: 128 characters of one byte, each on a line, then a token of two bytes.
    assert report.differing == 3
    difference = report.first_difference
    assert isinstance(difference, Difference)
    assert (difference.document, difference.byte) == ("tokens 0 to 1000 by line", 256)
    assert (difference.ours, difference.theirs) == (256, 257)


def test_special_token_that_only_the_file_has_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    byte_tokenizer(special_tokens={"<|x|>": 300}).save(path)
    tokenizer = byte_tokenizer()
    report = verify(tokenizer, [b"fine", "é<|x|>".encode()], reference=reference_of(tokenizer, path))
    assert report.first_difference == Difference("document 2", 2, "é".encode(), ord("<"), 300)
    report = verify(byte_tokenizer(), ["é<|x|>".encode()])
    assert report.differing == 0


def test_added_tokens_of_different_precedence_are_reported(tmp_path: Path) -> None:
    """tokenizers looks for those that are not normalized first, wherever they stand, and then for the others."""
    path = tmp_path / "tokenizer.json"
    tokenizer = byte_tokenizer(special_tokens={"ab<": 300, "<x>": 301})
    tokenizer.save(path)
    require_identical(verify(tokenizer, [], reference=reference_of(tokenizer, path)))
    data = json.loads(path.read_bytes())
    data["added_tokens"][0]["normalized"] = True
    path.write_text(json.dumps(data), "utf-8")
    report = verify(tokenizer, [b"1 ab<x>"], reference=reference_of(tokenizer, path))
    assert report.first_difference == Difference("special tokens '<ab<x>'", 1, b"<", 300, ord("a"))


def test_difference_at_the_end_of_one_side_says_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = Tokenizer.encode_ordinary
    monkeypatch.setattr(
        Tokenizer, "encode_ordinary", lambda self, text: encode(self, text)[: 2 if text == "abc" else None]
    )
    report = verify(byte_tokenizer(), [b"abc"])
    assert str(report.first_difference) == "document 1, byte 2, after 'ab': no token here, 99 in the reference"


def test_truncation_and_padding_settings_of_the_file_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    byte_tokenizer().save(path)
    theirs = tokenizers.Tokenizer.from_file(str(path))
    theirs.enable_truncation(5)
    theirs.enable_padding(length=8)
    theirs.save(str(path))
    require_identical(verify(byte_tokenizer(), [b"more than five"], reference=reference_of(byte_tokenizer(), path)))


def test_special_tokens_that_begin_another_one_are_not_compared_with_tiktoken() -> None:
    """It takes whichever of the two its hash table has first."""
    tokenizer = byte_tokenizer(special_tokens={"<a>": 300, "<a>b": 301, "<a>bc": 302, "b<": 303, "<": 304})
    assert tiktoken_reference(tokenizer).special_tokens == {"<a>bc", "b<"}
    require_identical(verify(tokenizer, [b"<a>b<a>bc"]))


def test_special_cases_have_adjacent_nested_overlapping_and_truncated_tokens() -> None:
    cases = set(special_cases(["<ab>", "b><c"]))
    assert cases >= {"<ab>b><c", "b><c<ab>", "<ab<ab>", "<ab><c", "<ab>ab>", "<ab", "ab>"}
    assert list(special_cases([])) == []


def test_file_that_tokenizers_rejects_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    byte_tokenizer(ab=256).save(path)
    data = json.loads(path.read_bytes())
    data["pre_tokenizer"]["pretokenizers"][1]["type"] = "NoSuch"
    with pytest.raises(InputError, match=rf"tokenizer\.json: {TOKENIZERS} cannot read this file"):
        huggingface_reference(path, json.dumps(data).encode())


@pytest.mark.parametrize("package", ["tiktoken", "tokenizers"])
def test_missing_package_raises_module_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    path = tmp_path / ("tokenizer.json" if package == "tokenizers" else "ranks.model")
    byte_tokenizer().save(path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=package):
        reference_of(byte_tokenizer(), path)


def test_text_that_is_not_utf8_is_checked_for_the_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[int] = []
    tokenizer = byte_tokenizer()
    report = verify(tokenizer, [b"\xff\xfe", b"text"], lambda report: reports.append(report.documents))
    assert (report.not_utf8, report.differing) == (1, 0)
    assert reports == [built_in(tokenizer) + 1, built_in(tokenizer) + 2]
    monkeypatch.setattr(Tokenizer, "decode_bytes", lambda self, ids: b"")
    assert verify(byte_tokenizer(), [b"\xff"]).first_difference is not None


def test_text_on_which_the_reference_fails_is_skipped() -> None:
    report = verify(byte_tokenizer("llama3"), [b" " * 1_000_001 + b"x"])
    assert (report.reference_failed, report.differing) == (1, 0)


def test_empty_verification_has_no_difference() -> None:
    require_identical(Verification(TIKTOKEN))


@pytest.mark.parametrize("name", ["plain", "bytes", "llama", "user-defined", "suffix, bytes", "nmt_nfkc_cf", "ids"])
def test_a_sentencepiece_model_is_compared_with_sentencepiece(name: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(trained(name))
    tokenizer = Tokenizer.from_file(path)
    report = verify(tokenizer, [text.encode() for text in hard_texts(200)], reference=reference_of(tokenizer, path))
    require_identical(report)
    assert report.reference == f"sentencepiece {sentencepiece.__version__}"
    assert report.documents > len(HARD_CASES) + 200
    other = Tokenizer.from_vocabulary(sentencepiece_format.read(trained("identity"), "other", None, None))
    assert verify(other, [], reference=reference_of(tokenizer, path)).differing > 0


def test_pieces_in_a_tokenizer_json_are_compared_with_tokenizers(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    Tokenizer.from_vocabulary(sentencepiece_format.read(trained("llama"), "pieces", None, None)).save(path)
    tokenizer = Tokenizer.from_file(path)
    report = verify(tokenizer, [text.encode() for text in hard_texts(200)], reference=reference_of(tokenizer, path))
    require_identical(report)
    assert report.reference == TOKENIZERS


def test_what_tiktoken_cannot_express_is_not_compared_with_it(tmp_path: Path) -> None:
    plain = byte_tokenizer().vocabulary
    arrays = (plain.tokens, plain.offsets, plain.ids)
    lower = Vocabulary("lower", plain.pattern, *arrays, normalizer={"type": "Lowercase"})
    with pytest.raises(InputError, match="lower normalizes text .* save the tokenizer as a tokenizer.json"):
        tiktoken_reference(Tokenizer.from_vocabulary(lower))


def test_pieces_that_no_tokenizer_json_expresses_are_compared_with_sentencepiece(tmp_path: Path) -> None:
    vocabulary = sentencepiece_format.read(trained("user-defined"), "pieces", None, None)
    pieces = Tokenizer.from_vocabulary(vocabulary)
    with pytest.raises(InputError, match="precompiled_charsmap"):
        pieces.save(tmp_path / "pieces.json")
    reference = reference_of_vocabulary(pieces)
    assert reference.name == f"sentencepiece {sentencepiece.__version__} (the vocabulary as a .model)"
    texts = list(hard_texts(50))
    assert [reference.encode_special(text) for text in texts] == pieces.encode_ordinary_batch(texts)
