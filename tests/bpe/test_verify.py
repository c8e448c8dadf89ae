"""The comparison with the reference that users run: it passes what is exact and finds what is not."""

from __future__ import annotations

import pytest
import tiktoken
from references import byte_tokenizer

from bpe import InputError, Tokenizer
from bpe.verify import HARD_CASES, Report, require_identical, verify


def test_an_exact_tokenizer_passes_the_hard_cases_and_the_sample_texts(
    pair: tuple[Tokenizer, tiktoken.Encoding], corpus_texts: dict[str, str]
) -> None:
    texts = [text.encode() for text in corpus_texts.values()]
    report = verify(pair[0], texts)
    require_identical(report)
    assert report.documents == len(HARD_CASES) + len(texts)
    assert report.differing == report.not_utf8 == 0


def test_what_differs_is_found_and_its_place_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = byte_tokenizer(ab=256)
    encode = Tokenizer.encode_ordinary
    monkeypatch.setattr(
        Tokenizer, "encode_ordinary", lambda self, text: list(text.encode()) if text == "x ab" else encode(self, text)
    )
    report = verify(tokenizer, [b"fine", b"x ab"])
    assert report.differing == 1
    assert report.first_difference == "document 2, token 2, byte 2: 97 here, 256 in the reference"
    with pytest.raises(InputError, match="1 documents differ .* document 2"):
        require_identical(report)


def test_text_that_is_no_utf8_is_held_to_the_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[int] = []
    report = verify(byte_tokenizer(), [b"\xff\xfe", b"text"], lambda report: reports.append(report.documents))
    assert (report.not_utf8, report.differing) == (1, 0)
    assert reports == [len(HARD_CASES) + 1, len(HARD_CASES) + 2]
    monkeypatch.setattr(Tokenizer, "decode_bytes", lambda self, ids: b"")
    assert verify(byte_tokenizer(), [b"\xff"]).first_difference is not None


def test_nothing_compared_is_no_difference() -> None:
    require_identical(Report())
