"""The methods that tiktoken does not have: counting, truncating and offsets."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpe import Tokenizer
from support.references import any_text, peculiar_text

texts = any_text | peculiar_text
whole_texts = texts.filter(lambda text: not any("\ud800" <= character <= "\udfff" for character in text))


@given(batch=st.lists(texts, max_size=8))
def test_counts_are_the_numbers_of_ids(llama3: Tokenizer, batch: list[str]) -> None:
    assert llama3.count_batch(batch) == [len(llama3.encode_ordinary(text)) for text in batch]
    assert llama3.count_batch(batch) == [llama3.count(text) for text in batch]


@given(text=whole_texts, data=st.data())
def test_a_truncated_text_is_a_beginning_or_an_end_that_fits(llama3: Tokenizer, text: str, data: st.DataObject) -> None:
    whole = llama3.count(text)
    limit = data.draw(st.integers(0, whole + 1))
    side: Literal["left", "right"] = data.draw(st.sampled_from(["left", "right"]))
    kept = llama3.truncate(text, limit, side=side)
    assert llama3.count(kept) <= limit
    assert text.startswith(kept) if side == "right" else text.endswith(kept)
    if limit >= whole:
        assert kept == text


def test_truncating_keeps_as_many_tokens_as_possible(llama3: Tokenizer) -> None:
    text = "The quick brown fox jumps over the lazy dog."
    assert llama3.truncate(text, 4) == "The quick brown fox"
    assert llama3.truncate(text, 3, side="left") == " lazy dog."
    assert llama3.truncate("日本語", 0) == ""


@given(text=texts)
def test_offsets_in_bytes_split_the_text_into_its_tokens(llama3: Tokenizer, text: str) -> None:
    ids, spans = llama3.encode_with_offsets(text, unit="bytes")
    content = llama3.decode_bytes(ids)
    assert ids == llama3.encode_ordinary(text)
    assert [content[begin:end] for begin, end in spans] == llama3.decode_tokens_bytes(ids)


@given(text=texts)
def test_offsets_in_characters_span_each_token_and_no_more_than_necessary(llama3: Tokenizer, text: str) -> None:
    ids, spans = llama3.encode_with_offsets(text)
    assert {type(place) for span in spans for place in span} <= {int}
    characters = llama3.decode(ids)
    starts = [len(characters[:place].encode()) for place in range(len(characters) + 1)]
    end = 0
    for token, (first, last) in zip(llama3.decode_tokens_bytes(ids), spans, strict=True):
        begin, end = end, end + len(token)
        assert starts[first] <= begin < starts[first + 1]
        assert starts[last - 1] < end <= starts[last]


@pytest.mark.parametrize("arguments", [{"max_tokens": -1}, {"max_tokens": 1, "side": "middle"}])
def test_wrong_arguments_of_truncate_are_refused(llama3: Tokenizer, arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="max_tokens|side"):
        llama3.truncate("some text", **arguments)  # type: ignore[arg-type]


def test_an_unknown_unit_of_offsets_is_refused(llama3: Tokenizer) -> None:
    with pytest.raises(ValueError, match="unit"):
        llama3.encode_with_offsets("text", unit="words")  # type: ignore[arg-type]
