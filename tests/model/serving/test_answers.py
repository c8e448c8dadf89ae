"""The text of an answer from its tokens: characters, stop strings and log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bpe import Tokenizer
from model.serving.answers import Answer, ShownToken, TokenTexts, logprobs_of_completion
from model.serving.texts import Chosen
from support.pieces import trained
from support.serving import byte_tokenizer

TOKENIZER = byte_tokenizer()
END = TOKENIZER.encode_single_token("<|im_end|>")


def read(ids: Sequence[int], stops: Sequence[str] = (), logprobs: bool = False) -> tuple[Answer, str, list[ShownToken]]:
    """Return an answer, its text and its tokens."""
    answer = Answer(TokenTexts(TOKENIZER, [END]), stops)
    text, tokens = "", []
    for place, id in enumerate(ids):
        finish = "end" if id == END else "length" if place == len(ids) - 1 else None
        delta = answer.feed(Chosen(0, id, -1.0 if logprobs else None, [(id, -1.0)] if logprobs else [], finish))
        text += "".join(piece.text for piece in delta.pieces)
        tokens += delta.tokens
        if answer.finish is not None:
            break
    return answer, text, tokens


@given(st.text("aé🦙", max_size=12), st.lists(st.text("aé🦙", min_size=1, max_size=3), max_size=3), st.booleans())
def test_an_answer_is_its_text_up_to_the_first_stop_string(text: str, stops: list[str], ends: bool) -> None:
    ids = [*text.encode(), *([END] if ends else [])]
    if not ids:
        return
    answer, found, tokens = read(ids, stops, logprobs=True)
    ended = [(text.index(stop) + len(stop), -len(stop)) for stop in stops if stop in text]
    expected = text[: sum(min(ended))] if ended else text
    assert found == expected
    assert answer.finish == ("stop" if ended or ends else "length")
    assert b"".join(token.content for token in tokens) == expected.encode()
    assert [token.offset for token in tokens] == [
        place for place, character in enumerate(expected) for _ in character.encode()
    ]


@given(st.lists(st.integers(0, 255), min_size=1, max_size=12))
def test_bytes_that_are_no_text_are_replaced_as_in_decoding(ids: list[int]) -> None:
    answer, found, tokens = read(ids, logprobs=True)
    assert found == bytes(ids).decode(errors="replace")
    assert answer.count == len(tokens) == len(ids)


def test_special_tokens_are_no_text_unless_they_mark_calls() -> None:
    ids = TOKENIZER.encode("a<tool_call>b<|im_start|>c", allowed_special="all")
    texts = TokenTexts(TOKENIZER, [END], ["<tool_call>"])
    assert b"".join(map(texts.printed, ids)) == b"a<tool_call>bc"
    assert texts.printed(10_000) == texts.shown(10_000) == b""


def test_tokens_that_are_no_utf_8_have_names_of_their_own() -> None:
    tokens = [ShownToken(b"\xc3", -1.0, [(b"\xc3", -1.0), (b"\xc4", -2.0)], 0)]
    assert logprobs_of_completion(tokens) == {
        "tokens": ["bytes:\\xc3"],
        "token_logprobs": [-1.0],
        "top_logprobs": [{"bytes:\\xc4": -2.0, "bytes:\\xc3": -1.0}],
        "text_offset": [0],
    }


def test_a_text_that_ends_without_a_token_keeps_what_was_held_back() -> None:
    answer = Answer(TokenTexts(TOKENIZER, [END]), ["abc"])
    answer.feed(Chosen(0, ord("a")))
    delta = answer.feed(Chosen(0, None, finish="length"))
    assert [piece.text for piece in delta.pieces] == ["a"] and answer.finish == "length" and answer.count == 1


def test_a_message_does_not_begin_with_the_space_that_encoding_adds(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(trained("llama"))
    tokenizer = Tokenizer.from_file(tmp_path / "tokenizer.model")
    ids = tokenizer.encode("the fox")
    for is_message, expected in ((True, "the fox"), (False, " the fox")):
        answer = Answer(TokenTexts(tokenizer, tokenizer.eos_ids), is_message=is_message)
        pieces = [piece.text for id in ids for piece in answer.feed(Chosen(0, id)).pieces]
        assert "".join(pieces) == expected
