"""Usage of a vocabulary on a text, compared with counts made one token at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import regex
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from bpe import InputError, Tokenizer
from bpe.analysis import usage
from bpe.analysis.usage import Usage, total, usage_of, usages_of, without_special_tokens
from support.references import any_text, byte_tokenizer, without_surrogates


def words_by_hand(tokenizer: Tokenizer, documents: Sequence[str]) -> tuple[int, int, Counter[int]]:
    """Count words, tokens in words, and tokens that hold a word, with the regex module and one token at a time."""
    letter = r"[\p{L}&&[\p{WB=ALetter}\p{WB=Hebrew_Letter}]]"
    words, tokens, whole = 0, 0, Counter[int]()
    for document in documents:
        ids, spans = tokenizer.encode_with_offsets(document, unit="bytes")
        for match in regex.finditer(rf"(?V1)(?<!\p{{M}}){letter}[{letter}\p{{M}}]*", document):
            begin, end = (len(document[:place].encode()) for place in match.span())
            within = [id for id, (first, last) in zip(ids, spans, strict=True) if first < end and last > begin]
            words, tokens = words + 1, tokens + len(within)
            if len(within) == 1:
                whole[within[0]] += 1
    return words, tokens, whole


@pytest.mark.parametrize("batch", [64, 1000, 4 << 20])
def test_word_usage_equals_counts_made_one_token_at_a_time(
    gpt2: Tokenizer, llama3: Tokenizer, corpus_texts: dict[str, str], monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(usage, "BATCH_BYTES", batch)
    documents = [corpus_texts[name][:3000] for name in corpus_texts if "sentences" in name or "code" in name]
    usages = usages_of([gpt2, llama3], [document.encode() for document in documents], "text")
    for tokenizer, found in zip((gpt2, llama3), usages, strict=True):
        words, tokens, whole = words_by_hand(tokenizer, documents)
        assert found.words is not None
        assert (found.words.count, found.words.tokens) == (words, tokens)
        assert {id: count for id, count in enumerate(found.words.whole.tolist()) if count} == whole


@given(st.lists(any_text, max_size=5))
def test_word_usage_of_any_text_equals_counts_made_one_token_at_a_time(texts: list[str]) -> None:
    tokenizer = byte_tokenizer(ab=256, aZ=257)
    documents = [without_surrogates(text) for text in ["a", *texts]]
    # A mark that follows no letter of the selected scripts makes no word of the letters after it.
    documents = [regex.sub(r"(?V1)(?<![\p{L}\p{M}])\p{M}+", "", document) for document in documents]
    found = usage_of(tokenizer, [document.encode() for document in documents], "text").words
    words, tokens, whole = words_by_hand(tokenizer, documents)
    assert found is not None
    assert (found.count, found.tokens, int(found.whole.sum())) == (words, tokens, whole.total())


def test_counts_equal_those_of_tiktokens_ids(
    pair: tuple[Tokenizer, tiktoken.Encoding], corpus_texts: dict[str, str]
) -> None:
    tokenizer, reference = pair
    counted = Counter(id for text in corpus_texts.values() for id in reference.encode_ordinary(text))
    found = usage_of(tokenizer, (text.encode() for text in corpus_texts.values()), "text")
    assert {id: count for id, count in enumerate(found.counts.tolist()) if count} == counted
    assert found.documents == len(corpus_texts)


def test_blocks_hold_the_tokens_that_begin_in_them(gpt2: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "BATCH_BYTES", 5000)
    documents = [b"", b"a tale of two tails " * 150, b"x", b"", b"\xff" * 1000, b"tale" * 400]
    blocks = usage_of(gpt2, documents, "text").blocks
    expected = []
    for number, document in enumerate(documents):
        starts = np.cumsum([0, *(len(token) for token in gpt2.decode_tokens_bytes(gpt2.encode_ordinary(document)))])[
            :-1
        ]
        for begin in range(0, len(document), 1000):
            end = min(begin + 1000, len(document))
            expected.append([number, end - begin, int(np.sum((starts >= begin) & (starts < end)))])
    assert blocks is not None
    assert blocks.T.tolist() == expected


def test_special_tokens_are_text_unless_documents_are_cut_at_them() -> None:
    tokenizer = byte_tokenizer(special_tokens={"<|end|>": 300, "<|end|>er": 301})
    documents = [b"<|end|>one<|end|><|end|>er", b"two"]
    assert usage_of(tokenizer, documents, "text").counts.sum() == sum(map(len, documents))
    assert list(without_special_tokens(tokenizer, documents)) == [b"one", b"two"]
    assert list(without_special_tokens(byte_tokenizer(), documents)) == documents


def test_total_sums_usages_and_has_no_words_if_one_usage_has_none() -> None:
    tokenizer = byte_tokenizer(ab=256)
    parts = [usage_of(tokenizer, texts, "part") for texts in ([b"ab ab"], [b"abc", b"x"])]
    whole, together = total(parts, "all"), usage_of(tokenizer, [b"ab ab", b"abc", b"x"], "all")
    assert whole.counts.tolist() == together.counts.tolist()
    assert whole.words is not None
    assert together.words is not None
    assert (whole.words.count, whole.words.tokens) == (together.words.count, together.words.tokens) == (4, 5)
    assert whole.words.whole.tolist() == together.words.whole.tolist()
    assert whole.documents == 3
    unknown = Usage("training", parts[0].counts)
    assert total([unknown, parts[1]], "all").words is None
    assert total([unknown, parts[1]], "all").documents is None


@pytest.mark.parametrize("documents", [[], [b""], [b"", b""]])
def test_empty_text_is_rejected_by_name(documents: list[bytes]) -> None:
    with pytest.raises(InputError, match=r"held\.txt: no text to measure"):
        usage_of(byte_tokenizer(), documents, "held.txt")
