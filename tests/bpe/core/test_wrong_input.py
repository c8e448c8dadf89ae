"""Test that wrong input to the C++ core raises an exception, and never crashes or gives a wrong result."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from bpe import _core

BYTES = bytes(range(256))
OFFSETS = np.arange(257, dtype=np.uint64)
IDS = np.arange(256, dtype=np.uint32)
NO_SPECIALS = _core.SpecialTokens({})
SPLITTER = _core.Splitter.scanned(0)


def encoder(
    tokens: object = BYTES,
    offsets: object = OFFSETS,
    ids: object = IDS,
    splitter: object = SPLITTER,
    specials: object = None,
) -> _core.Encoder:
    return _core.Encoder(tokens, offsets, ids, splitter, specials or {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("offsets", "ids"),
    [
        (OFFSETS[:-1], IDS),
        (OFFSETS[:0], IDS[:0]),
        (OFFSETS + np.uint64(1), IDS),
        (OFFSETS[::-1].copy(), IDS),
        (np.where(OFFSETS == 7, np.uint64(2**63), OFFSETS), IDS),
        (np.where(OFFSETS == 7, np.uint64(2**64 - 1), OFFSETS), IDS),
        (np.where(OFFSETS == 7, np.uint64(6), OFFSETS), IDS),  # an empty token
        (OFFSETS, IDS[:-1]),
        (OFFSETS, IDS * 0),
        (OFFSETS, IDS + np.uint32(2**32 - 256)),
    ],
)
def test_offsets_or_ids_that_do_not_fit_the_tokens_are_refused(offsets: object, ids: object) -> None:
    with pytest.raises(ValueError):
        encoder(offsets=offsets, ids=ids)


ENCODER = encoder(specials={"<|x|>": 300})

NOT_TEXT = [None, 5, 1.5, [], {}, object(), memoryview(b"abcdef")[::2]]


@pytest.mark.parametrize("value", NOT_TEXT, ids=lambda value: type(value).__name__)
def test_values_that_are_not_text_raise_a_type_error_in_every_call(value: object) -> None:
    calls: list[Callable[[object], object]] = [
        lambda value: ENCODER.encode(value, None),  # type: ignore[arg-type]
        lambda value: ENCODER.encode_all([value], None, 2),  # type: ignore[list-item]
        lambda value: NO_SPECIALS.first_of([value], None),  # type: ignore[list-item]
        SPLITTER.split,  # type: ignore[list-item]
        SPLITTER.places,  # type: ignore[list-item]
        SPLITTER.cuts,  # type: ignore[list-item]
        lambda value: _core.Stream(ENCODER, None, None).feed(value),  # type: ignore[arg-type]
        lambda value: _core.Stream(value, None, None),  # type: ignore[arg-type]
        lambda value: ENCODER.encode_pretokens(["a", value]),  # type: ignore[list-item]
        ENCODER.merge,  # type: ignore[list-item]
        ENCODER.find,  # type: ignore[list-item]
        NO_SPECIALS.first_in,  # type: ignore[list-item]
        lambda value: _core.scan(0, value),  # type: ignore[arg-type]
        lambda value: _core.Counter(SPLITTER, NO_SPECIALS).add([value], 1, 2),  # type: ignore[list-item]
        _core.parse_ranks,  # type: ignore[list-item]
        lambda value: _core.strings(value, 0, 1),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call(value)


def test_length_prefixed_strings_are_never_read_beyond_the_end() -> None:
    texts = ["", "é" * 3, "x" * 100]
    content = b"_" + b"".join(struct.pack("<Q", len(text.encode())) + text.encode() for text in texts)
    assert _core.strings(content, 1, 3) == (texts, len(content))
    assert _core.strings(memoryview(content), 9, 1) == (texts[1:2], 9 + 8 + 6)
    assert _core.strings(content, len(content), 0) == ([], len(content))
    assert _core.strings(struct.pack("<Q", 2) + b"a\xff", 0, 1) == (["a\ufffd"], 10)
    for size in range(len(content)):
        assert _core.strings(content[:size], 1, 3) is None
    for at, count in ((1, 4), (1, 2**64 - 1), (len(content), 1), (2**64 - 1, 1), (2**64 - 8, 2)):
        assert _core.strings(content, at, count) is None
    for length in (2**64 - 1, 2**64 - 8, 2**63, 3):
        assert _core.strings(struct.pack("<Q", length) + b"ab", 0, 1) is None
    for wrong in (-1, 2**64, None):
        with pytest.raises((TypeError, OverflowError)):
            _core.strings(content, wrong, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("id", [None, "a", 1.5, -1, 2**32])
def test_a_special_token_with_an_invalid_id_is_refused(id: object) -> None:
    for make in (_core.SpecialTokens, lambda specials: encoder(specials=specials)):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            make({"<|x|>": id})  # type: ignore[dict-item, operator]


@pytest.mark.parametrize("pattern", [6, 99, 256, -1])
def test_an_unknown_scanner_is_refused(pattern: int) -> None:
    with pytest.raises((ValueError, RuntimeError)):
        _core.Splitter.scanned(pattern)


@pytest.mark.parametrize("splitter", [None, 0, "gpt2", object(), _core.Splitter.__new__(_core.Splitter)])
def test_an_encoder_or_counter_with_something_else_than_a_splitter_is_refused(splitter: object) -> None:
    with pytest.raises(TypeError):
        encoder(splitter=splitter)
    with pytest.raises(TypeError):
        _core.Counter(splitter, NO_SPECIALS)  # type: ignore[arg-type]


def test_an_object_whose_constructor_never_ran_cannot_be_used() -> None:
    class Careless(_core.Encoder):
        def __init__(self) -> None:
            pass

    for use in (
        lambda: Careless().encode("a", None),
        lambda: _core.Encoder.__new__(_core.Encoder).encode("a", None),
        lambda: len(_core.Counter.__new__(_core.Counter)),
    ):
        with pytest.raises(TypeError):
            use()


def test_texts_that_change_while_they_are_read_are_encoded_safely() -> None:
    texts = ["abc" * 100] * 10
    buffer = bytearray(b"abc " * 1000)

    def changing() -> Iterator[str | bytearray]:
        yield "abc" * 100
        texts.clear()
        yield buffer
        with pytest.raises(BufferError):  # the core holds the buffer, so it cannot be resized
            buffer.extend(bytes(10**6))
        yield buffer

    ids, offsets = ENCODER.encode_all(changing(), None, 2)
    assert offsets.tolist() == [0, 300, 4300, 8300]
    assert ids[:3].tolist() == [97, 98, 99]


def test_an_exception_from_an_iterable_propagates() -> None:
    def failing() -> Iterator[str]:
        yield "a"
        raise LookupError("gone")

    for call in (
        lambda: ENCODER.encode_all(failing(), None, 2),
        lambda: ENCODER.encode_pretokens(failing()),
        lambda: _core.Counter(SPLITTER, NO_SPECIALS).add(failing(), 1, 2),
    ):
        with pytest.raises(LookupError, match="gone"):
            call()


def test_a_counter_can_grow_during_training() -> None:
    counter = _core.Counter(SPLITTER, NO_SPECIALS)
    counter.add_pretokens([f"{i:x}" for i in range(5000)], 1)
    offsets, ids = np.arange(257, dtype=np.uint64), np.arange(256, dtype=np.uint32)
    learned: list[int] = []

    def grow(merges: int) -> bool:
        learned.append(merges)
        counter.add(["more text"] * 10, 1, 4)
        return True

    _core.train_merges(counter, BYTES, offsets, ids, 1000, 1, 0, 2, grow, lambda merges: None)
    assert learned == [256, 512, 768]
    assert counter.counts()[2].tolist() == [10 * len(learned)] * 2
