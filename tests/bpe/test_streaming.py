"""Streams: decoding to complete characters, encoding to ids that stay, and stop strings, however a text is cut."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import tiktoken
from hypothesis import example, given
from hypothesis import strategies as st

from bpe import StreamEncoder, Tokenizer, _core
from bpe.patterns import PATTERNS
from bpe.streaming import StopStrings, StreamDecoder
from support.references import any_text, broken_bytes, byte_tokenizer, peculiar_text

BYTES = byte_tokenizer(special_tokens={"<|é|>": 300})


@pytest.mark.slow
@given(text=any_text.filter(lambda text: text.isprintable()))
@example(text="aé日👩\U0010ffff")
def test_only_complete_characters_are_returned(text: str) -> None:
    decoder = StreamDecoder(BYTES)
    pieces = [decoder.feed(id) for id in text.encode()]
    expected = [piece for character in text for piece in ["", "", "", character][-len(character.encode()) :]]
    assert pieces == expected
    assert decoder.flush() == ""


@given(content=broken_bytes(), errors=st.sampled_from(["replace", "ignore", "surrogateescape", "backslashreplace"]))
def test_the_decoded_pieces_join_to_the_result_of_decode(llama3: Tokenizer, content: bytes, errors: str) -> None:
    for tokenizer in (llama3, BYTES):
        ids = tokenizer.encode_ordinary(content)  # type: ignore[arg-type]
        decoder = StreamDecoder(tokenizer, errors)
        assert "".join(map(decoder.feed, ids)) + decoder.flush() == tokenizer.decode(ids, errors)


def test_special_tokens_are_decoded_to_their_text(llama3: Tokenizer) -> None:
    decoder = StreamDecoder(llama3)
    assert decoder.feed(llama3.special_tokens["<|eot_id|>"]) == "<|eot_id|>"
    assert StreamDecoder(BYTES).feed(300) == "<|é|>"


def test_an_incomplete_character_is_treated_as_errors_says() -> None:
    for errors, expected in {"replace": "\ufffd", "ignore": "", "surrogateescape": "\udce2\udc82"}.items():
        decoder = StreamDecoder(BYTES, errors)
        assert [decoder.feed(0xE2), decoder.feed(0x82)] == ["", ""]
        assert decoder.flush() == expected
    decoder = StreamDecoder(BYTES, "strict")
    decoder.feed(0xE2)
    with pytest.raises(UnicodeDecodeError):
        decoder.flush()


def test_a_decoder_can_be_used_again_after_flush() -> None:
    decoder = StreamDecoder(BYTES)
    decoder.feed(0xE2)
    assert decoder.flush() == "\ufffd"
    assert decoder.flush() == ""
    assert decoder.feed(ord("a")) == "a"


def test_an_unknown_id_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="299"):
        StreamDecoder(BYTES).feed(299)


# Encoding


def assert_that_a_stream_is_right(
    tokenizer: Tokenizer, whole: list[int], pieces: Sequence[str | bytes], **specials: Any
) -> None:
    encoder = StreamEncoder(tokenizer, **specials)
    assert [id for piece in pieces for id in encoder.feed(piece)] + encoder.flush() == whole, pieces


pairs_of_texts = st.tuples(any_text | peculiar_text, any_text | peculiar_text)


@pytest.mark.slow
@given(texts=pairs_of_texts)
@example(texts=("中AB", "c"))
@example(texts=("a'", "ll"))
@example(texts=("a \n ", "\nb"))
@example(texts=("'l", "l"))
@example(texts=("a's'", "s"))
@example(texts=(".\n/", "\n/"))
@example(texts=("\u0301AB", "c"))
@example(texts=(" 中\u0301", "'\u017f"))
def test_returned_ids_stay_the_same_whatever_follows(
    pair: tuple[Tokenizer, tiktoken.Encoding], texts: tuple[str, str]
) -> None:
    tokenizer, reference = pair
    start, end = texts
    whole = reference.encode_ordinary(start + end)
    encoder = StreamEncoder(tokenizer, disallowed_special=())
    given = encoder.feed(start)
    assert given == whole[: len(given)]
    assert given + encoder.feed(end) + encoder.flush() == whole


@pytest.mark.slow
@given(content=broken_bytes() | any_text.map(lambda text: text.encode("utf-8", "replace")), data=st.data())
def test_bytes_split_anywhere_get_the_ids_of_the_whole(
    pair: tuple[Tokenizer, tiktoken.Encoding], content: bytes, data: st.DataObject
) -> None:
    tokenizer, _ = pair
    whole = tokenizer.encode_ordinary(content)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=6)))
    pieces = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    assert_that_a_stream_is_right(tokenizer, whole, pieces, disallowed_special=())
    single = [content[i : i + 1] for i in range(len(content))]
    assert_that_a_stream_is_right(tokenizer, whole, single, disallowed_special=())


@given(text=any_text | st.text(st.sampled_from("a \ud83d\ude00\udc00é"), max_size=12))
@example(text="a\ud83d")
@example(text="\ud83d\ude00")
@example(text="\ud83d\ud83d\ude00\ude00")
def test_a_str_fed_character_by_character_gets_the_ids_of_the_whole(llama3: Tokenizer, text: str) -> None:
    assert_that_a_stream_is_right(llama3, llama3.encode_ordinary(text), list(text), disallowed_special=())


def pieces_of_kinds() -> list[bytes]:
    characters = ["a", "s", "l", "v", "e", "A", "日", "ſ", "1", "\u0301", "'", " ", "\n", "\t", "/", ".", "\u3000"]
    return [character.encode() for character in characters]


@pytest.mark.parametrize("name", ["gpt2", "cl100k", "llama3", "qwen2", "o200k", "smollm"])
def test_exactly_the_pretokens_that_may_change_are_held_back(name: str) -> None:
    """All texts of up to three characters of each kind, and many longer ones, with all short continuations."""
    pattern = PATTERNS[name]
    assert pattern.scanner is not None
    scanner = pattern.scanner
    tokenizer = byte_tokenizer(name)  # an id is a byte, so that the number of ids tells where the last pretoken ended
    kinds = pieces_of_kinds()
    generator = random.Random(0)
    texts = [a + b + c for a in [b"", *kinds] for b in [b"", *kinds] for c in kinds]
    texts += [b"".join(generator.choices(kinds, k=generator.randint(4, 9))) for _ in range(1500)]
    more = [b"", *kinds, b"ll", b"ve"]
    for text in texts:
        ends = [set(_core.scan(scanner, text + end).tolist()) for end in more]
        unchanged = 0
        for end in sorted(ends[0]):
            if not all(end in others for others in ends):
                break
            unchanged = end
        assert len(StreamEncoder(tokenizer).feed(text)) == unchanged, text


def test_the_sample_texts_in_pieces_get_the_ids_of_the_whole(
    pair: tuple[Tokenizer, tiktoken.Encoding], corpus_texts: dict[str, str]
) -> None:
    tokenizer, _ = pair
    generator = random.Random(0)
    for text in corpus_texts.values():
        content = text.encode()
        whole = tokenizer.encode_ordinary(content)
        for largest in (1, 30, 6000):
            size = min(len(content), 20_000 if largest == 1 else len(content))
            pieces, position = [], 0
            while position < size:
                pieces.append(content[position : position + generator.randint(1, largest)])
                position += len(pieces[-1])
            expected = whole if position >= len(content) else tokenizer.encode_ordinary(content[:position])
            assert_that_a_stream_is_right(tokenizer, expected, pieces, disallowed_special=())


@pytest.mark.parametrize("run", ["a", " ", "\n", ".", "1", "!\u0301", "/\n", "\n ", "中A", "aB", "日", "x y", "a'"])
def test_a_long_run_in_small_pieces_gets_the_ids_of_the_whole(
    pair: tuple[Tokenizer, tiktoken.Encoding], run: str
) -> None:
    """Scanning all held-back text for each piece would take minutes."""
    tokenizer, _ = pair
    text = "x" + run * 60_000 + "y 1"
    assert_that_a_stream_is_right(tokenizer, tokenizer.encode_ordinary(text), list(text), disallowed_special=())


def test_a_long_run_is_returned_once_it_ends(llama3: Tokenizer) -> None:
    for run, end, waits in (("a" * 5000, " ", 1), (" " * 5000, "b", 2), ("." * 5000, "c", 1), ("日" * 5000, "。", 1)):
        encoder = StreamEncoder(llama3)
        ids = encoder.feed(run) + encoder.feed(end)
        assert len(llama3.decode(ids)) == len(run) + 1 - waits


# Special tokens that begin like each other, contain each other, and begin like text.
OVERLAPPING = {"<|a|>": 300, "<|a|>b": 301, "a": 302, "ab c": 303, "b c": 304, "\n\n": 305, "é": 306, "<": 307}


@given(
    text=st.lists(st.sampled_from([*OVERLAPPING, *"<|a>bc \n'sé1.", "<|a", "|>b", "日"]), max_size=12).map("".join),
    allowed=st.sets(st.sampled_from(list(OVERLAPPING))),
    name=st.sampled_from(["gpt2", "cl100k", "llama3", "qwen2", "o200k", "smollm", r"\w+|\W+"]),
    data=st.data(),
)
def test_special_tokens_split_anywhere_are_found(text: str, allowed: set[str], name: str, data: st.DataObject) -> None:
    tokenizer = byte_tokenizer(name, OVERLAPPING)
    whole = tokenizer.encode(text, allowed_special=allowed, disallowed_special=())
    content = text.encode()
    cut = data.draw(st.integers(0, len(content)))
    for pieces in (list(text), [content[:cut], content[cut:]]):
        assert_that_a_stream_is_right(tokenizer, whole, pieces, allowed_special=allowed, disallowed_special=())


@given(
    text=st.lists(st.sampled_from([*OVERLAPPING, *"<|a>bc \n", "word "]), max_size=8).map("".join),
    allowed=st.sets(st.sampled_from(list(OVERLAPPING))),
    disallowed=st.just("all") | st.sets(st.sampled_from([*OVERLAPPING, "word w", "ord"])),
)
def test_disallowed_special_tokens_raise_as_they_do_in_encode(text: str, allowed: set[str], disallowed: Any) -> None:
    tokenizer = byte_tokenizer("llama3", OVERLAPPING)
    specials: dict[str, Any] = {"allowed_special": allowed, "disallowed_special": disallowed}
    try:
        whole = tokenizer.encode(text, **specials)
    except ValueError:
        with pytest.raises(ValueError, match="disallowed"):
            assert_that_a_stream_is_right(tokenizer, [], list(text), **specials)
    else:
        assert_that_a_stream_is_right(tokenizer, whole, list(text), **specials)


def test_a_refused_piece_counts_as_not_fed(llama3: Tokenizer) -> None:
    encoder = StreamEncoder(llama3)
    ids = encoder.feed("Hello wor<|eot")
    with pytest.raises(ValueError, match="eot_id"):
        encoder.feed("_id|>")
    assert ids + encoder.feed("ld") + encoder.flush() == llama3.encode("Hello wor<|eotld")


def test_words_are_returned_when_they_end(llama3: Tokenizer) -> None:
    encoder = StreamEncoder(llama3)
    given = [llama3.decode(encoder.feed(piece)) for piece in ("Hel", "lo", " wor", "ld, 123", "4", "\n", "\n", "x")]
    assert given == ["", "", "Hello", " world, 123", "", "4", "", "\n\n"]
    assert llama3.decode(encoder.flush()) == "x"


@pytest.mark.parametrize("name", ["llama3", r"\w+|\W+"])
def test_an_encoder_can_be_used_again_after_flush(name: str) -> None:
    tokenizer = byte_tokenizer(name, he=256)
    encoder = StreamEncoder(tokenizer)
    for _ in range(2):
        assert encoder.feed("h") + encoder.feed(b"") + encoder.feed("") + encoder.feed("e") + encoder.flush() == [256]
        assert encoder.flush() == []


def test_without_a_place_to_cut_all_ids_come_with_flush() -> None:
    encoder = StreamEncoder(byte_tokenizer(r"(?s).+", {"<|x|>": 300}))
    assert encoder.feed("one two <|x") == []
    with pytest.raises(ValueError, match="<|x|>"):
        encoder.feed("|>")
    assert encoder.feed("y") == []
    assert encoder.flush() == list(b"one two <|xy")


@pytest.mark.parametrize("pattern", [r"\w+|\W", r"\w+|\s+(?!\S)|\s|[^\w\s]", r"[a-c]+", r"\p{N}{1,3}|\P{N}", r"(?s).+"])
def test_a_text_cut_at_every_place_gets_the_ids_of_the_whole_by_any_pattern(pattern: str) -> None:
    tokenizer = byte_tokenizer(pattern, {"<|x|>": 300}, ab=256)
    generator = random.Random(pattern)
    for _ in range(300):
        text = "".join(generator.choices(["a", "b", "é", " ", "\n", "12", "<|x|>", ".", "日", "ab"], k=12))
        expected = tokenizer.encode(text, allowed_special="all")
        content = text.encode()
        for cut in range(len(content) + 1):
            encoder = StreamEncoder(tokenizer, allowed_special="all")
            assert encoder.feed(content[:cut]) + encoder.feed(content[cut:]) + encoder.flush() == expected


@pytest.mark.parametrize("piece", [None, 5, 1.5, ["a"]])
def test_feeding_something_other_than_text_is_a_type_error(llama3: Tokenizer, piece: object) -> None:
    for encoder in (StreamEncoder(llama3), StreamEncoder(byte_tokenizer(r"\w+|\W+"))):
        with pytest.raises(TypeError, match="str or bytes"):
            encoder.feed(piece)  # type: ignore[arg-type]
        encoder.feed("\ud83d")
        with pytest.raises(TypeError, match="str or bytes"):
            encoder.feed(piece)  # type: ignore[arg-type]


@given(st.text("abX", max_size=20), st.lists(st.text("abX", min_size=1, max_size=4), max_size=3), st.data())
def test_the_place_of_a_stop_does_not_depend_on_the_pieces(text: str, stops: list[str], data: Any) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    ends = [(end, stop) for end in range(len(text) + 1) for stop in stops if text[:end].endswith(stop)]
    first = min((end for end, _ in ends), default=None)
    longest = max((len(stop) for end, stop in ends if end == first), default=0)
    expected = text if first is None else text[: first - longest]
    found = StopStrings(stops)
    assert "".join([*map(found.feed, pieces), found.flush()]) == expected
    assert found.stopped == (first is not None)


# Copies


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("pattern", ["llama3", r"\w+|\W"])
@given(text=any_text, data=st.data())
def test_a_copy_of_an_encoder_and_the_original_encode_different_texts(
    make: Callable[[Any], Any], pattern: str, text: str, data: st.DataObject
) -> None:
    tokenizer = byte_tokenizer(pattern, ab=256, th=257, the=258)
    other = data.draw(any_text)
    cut = data.draw(st.integers(0, len(text)))
    encoder = StreamEncoder(tokenizer, disallowed_special=())
    ids = encoder.feed(text[:cut])
    twin = make(encoder)
    theirs = twin.feed(other)
    ours = encoder.feed(text[cut:])
    assert ids + theirs + twin.flush() == tokenizer.encode_ordinary(text[:cut] + other)
    assert ids + ours + encoder.flush() == tokenizer.encode_ordinary(text)


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_copy_of_a_decoder_and_the_original_decode_different_ids(make: Callable[[Any], Any]) -> None:
    decoder = StreamDecoder(BYTES)
    first, second, third = "日".encode()
    assert decoder.feed(first) + decoder.feed(second) == ""
    twin = make(decoder)
    assert twin.feed(third) == "日"
    assert decoder.feed(ord("a")) == "\ufffda"
    assert decoder.feed(third) + decoder.flush() == twin.feed(third) + twin.flush() == "\ufffd"


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_copy_of_stop_strings_and_the_original_see_different_texts(make: Callable[[Any], Any]) -> None:
    stops = StopStrings(["END"])
    assert stops.feed("one EN") == "one "
    twin = make(stops)
    assert (twin.feed("D two"), twin.stopped) == ("", True)
    assert (stops.feed("tire"), stops.stopped) == ("ENtire", False)


@pytest.mark.parametrize("stops", ["END", [5], [b"END"]])
def test_stop_strings_that_are_no_list_of_texts_are_refused(stops: Any) -> None:
    with pytest.raises(TypeError, match="list of str"):
        StopStrings(stops)
