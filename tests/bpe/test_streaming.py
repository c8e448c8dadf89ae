"""Text that arrives token by token: whole characters only, and in the end the same text."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from references import any_text, broken_bytes, byte_tokenizer

from bpe import Tokenizer
from bpe.streaming import StreamDecoder

BYTES = byte_tokenizer(special_tokens={"<|é|>": 300})


@given(text=any_text.filter(lambda text: text.isprintable()))
@example(text="aé日👩\U0010ffff")
def test_only_whole_characters_are_given_out(text: str) -> None:
    decoder = StreamDecoder(BYTES)
    pieces = [decoder.feed(id) for id in text.encode()]
    expected = [piece for character in text for piece in ["", "", "", character][-len(character.encode()) :]]
    assert pieces == expected
    assert decoder.flush() == ""


@given(content=broken_bytes(), errors=st.sampled_from(["replace", "ignore", "surrogateescape", "backslashreplace"]))
def test_the_pieces_join_up_to_what_decode_gives(llama3: Tokenizer, content: bytes, errors: str) -> None:
    for tokenizer in (llama3, BYTES):
        ids = tokenizer.encode_ordinary(content)  # type: ignore[arg-type]
        decoder = StreamDecoder(tokenizer, errors)
        assert "".join(map(decoder.feed, ids)) + decoder.flush() == tokenizer.decode(ids, errors)


def test_special_tokens_are_given_out_as_text(llama3: Tokenizer) -> None:
    decoder = StreamDecoder(llama3)
    assert decoder.feed(llama3.special_tokens["<|eot_id|>"]) == "<|eot_id|>"
    assert StreamDecoder(BYTES).feed(300) == "<|é|>"


def test_an_unfinished_character_is_treated_as_errors_says() -> None:
    for errors, expected in {"replace": "\ufffd", "ignore": "", "surrogateescape": "\udce2\udc82"}.items():
        decoder = StreamDecoder(BYTES, errors)
        assert [decoder.feed(0xE2), decoder.feed(0x82)] == ["", ""]
        assert decoder.flush() == expected
    decoder = StreamDecoder(BYTES, "strict")
    decoder.feed(0xE2)
    with pytest.raises(UnicodeDecodeError):
        decoder.flush()


def test_a_decoder_begins_anew_after_the_end() -> None:
    decoder = StreamDecoder(BYTES)
    decoder.feed(0xE2)
    assert decoder.flush() == "\ufffd"
    assert decoder.flush() == ""
    assert decoder.feed(ord("a")) == "a"


def test_an_id_that_no_token_has_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="299"):
        StreamDecoder(BYTES).feed(299)
