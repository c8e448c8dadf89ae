"""Test that cutting a text, at places that the core allows or for several threads, never changes pretokens or ids."""

from __future__ import annotations

import random

import numpy as np
import pytest
import tiktoken
from hypothesis import example, given

from bpe import Tokenizer, _core
from bpe.patterns import PATTERNS, SCANNED, Pattern
from support.references import any_text, broken_bytes, byte_tokenizer, peculiar_text

each_pattern = pytest.mark.parametrize("pattern", SCANNED.values(), ids=SCANNED.keys())

texts = (any_text | peculiar_text).map(lambda text: text.encode("utf-8", "replace")) | broken_bytes()

# One character of each kind that the patterns distinguish, and bytes that are not characters.
KINDS = [
    *(
        "a",
        "s",
        "A",
        "ʰ",
        "日",
        "ſ",
        "l",
        "1",
        "½",
        "\u0301",
        "'",
        "’",
        " ",
        "\u3000",
        "\t",
        "\n",
        "\r",
        "/",
        ".",
        "👩",
    ),
    *(b"\xc5", b"\xbf", b"\xe3\x80", b"\xff"),
]


def plain_ends(pattern: Pattern, text: bytes) -> list[int]:
    assert pattern.scanner is not None
    ends: list[int] = _core.scan(pattern.scanner, text, "plain").tolist()
    return ends


def cuts_of(pattern: Pattern, text: bytes) -> list[int]:
    assert pattern.scanner is not None
    return _core.Splitter.scanned(pattern.scanner).cuts(text)


def parts_of(text: bytes, cuts: list[int]) -> list[bytes]:
    return [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def assert_that_cuts_change_nothing(pattern: Pattern, text: bytes) -> None:
    """Check each cut alone, then all cuts at once."""
    ends = plain_ends(pattern, text)
    cuts = cuts_of(pattern, text)
    for chosen in [*([cut] for cut in cuts), cuts]:
        begin = 0
        joined: list[int] = []
        for part in parts_of(text, chosen):
            joined += [begin + end for end in plain_ends(pattern, part)]
            begin += len(part)
        assert joined == ends, (text, chosen)


@each_pattern
@given(text=texts)
@example(text=b"a\n\n")
@example(text=b"it's \n\n1 \n.\n/x\n'll")
@example(text="aſ'ſ1\u0301 日\u3000本.".encode())
def test_cuts_never_change_the_pretokens_of_a_text(pattern: Pattern, text: bytes) -> None:
    assert_that_cuts_change_nothing(pattern, text)


@each_pattern
def test_cuts_never_change_the_pretokens_of_short_texts_of_all_kinds_of_characters(pattern: Pattern) -> None:
    """Check all texts of two and three characters of `KINDS`, and 4,000 random texts of four to twelve."""
    kinds = [kind if isinstance(kind, bytes) else kind.encode() for kind in KINDS]
    generator = random.Random(0)
    short = [a + b + c for a in [b"", *kinds] for b in kinds for c in kinds]
    long = [b"".join(generator.choices(kinds, k=generator.randint(4, 12))) for _ in range(4000)]
    for text in short + long:
        assert_that_cuts_change_nothing(pattern, text)


@each_pattern
def test_cuts_never_change_the_pretokens_of_the_sample_texts(pattern: Pattern, corpus_texts: dict[str, str]) -> None:
    """Check all cuts at once, and five random cuts of each text one at a time, within the text around them."""
    generator = random.Random(0)
    for text in corpus_texts.values():
        content = text.encode()
        cuts = cuts_of(pattern, content)
        assert set(cuts) <= set(plain_ends(pattern, content))
        parts = zip([0, *cuts], parts_of(content, cuts), strict=True)
        assert [begin + end for begin, part in parts for end in plain_ends(pattern, part)] == plain_ends(
            pattern, content
        )
        for cut in generator.sample(cuts, min(5, len(cuts))):
            begin = max(0, cut - 300)
            assert_that_cuts_change_nothing(pattern, content[begin : cut + 300])


@each_pattern
def test_ordinary_text_has_cuts_and_runs_have_none(pattern: Pattern) -> None:
    assert cuts_of(pattern, b"one two") == [3]
    assert cuts_of(pattern, "\u6c34,\u706b\u3002".encode()) == [3, 7]
    for run in (" " * 100, "a" * 100, "." * 100, "", "a", " a", "\n a"):
        assert cuts_of(pattern, run.encode()) == []


def test_smollm_cuts_before_and_after_each_number() -> None:
    assert cuts_of(PATTERNS["smollm"], "a  1½ '2s".encode()) == [1, 3, 4, 6, 8, 9]


@each_pattern
@given(text=broken_bytes())
def test_cuts_are_never_within_a_character(pattern: Pattern, text: bytes) -> None:
    """Compare with the characters that Python's decoder finds."""
    starts = {0}
    for character in text.decode("utf-8", "surrogateescape"):
        starts.add(max(starts) + len(character.encode("utf-8", "surrogateescape")))
    assert set(cuts_of(pattern, text)) <= starts


# Threads


def long_text(corpus_texts: dict[str, str]) -> str:
    """Return more than a megabyte of text with runs that cannot be cut."""
    return ("".join(corpus_texts.values()) + " " * 50_000 + "日" * 30_000 + "!?" * 20_000 + "\n" * 40_000) * 2


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_long_texts_have_the_same_ids_on_any_number_of_threads(
    pair: tuple[Tokenizer, tiktoken.Encoding], corpus_texts: dict[str, str], threads: int
) -> None:
    tokenizer, _ = pair
    text = long_text(corpus_texts)
    ids, offsets = tokenizer.encode_flat(["", text, "a", text[:100_000], ""], num_threads=threads)
    expected = [tokenizer.encode_ordinary(each) for each in ("", text, "a", text[:100_000], "")]
    assert [ids[a:b].tolist() for a, b in zip(offsets, offsets[1:], strict=False)] == expected


def test_long_texts_on_several_threads_have_the_ids_of_tiktoken(
    pair: tuple[Tokenizer, tiktoken.Encoding], corpus_texts: dict[str, str]
) -> None:
    tokenizer, reference = pair
    text = "".join(corpus_texts.values())
    assert tokenizer.encode_flat([text], num_threads=4)[0].tolist() == reference.encode_ordinary(text)


@pytest.mark.parametrize(
    "text", [" " * 10**6, "a" * 10**6, "日" * 300_000, "x y " * 10**5, ".\n" * 300_000, "1" * 10**6]
)
def test_a_single_run_has_the_same_ids_on_several_threads(llama3: Tokenizer, text: str) -> None:
    assert llama3.encode_flat([text], num_threads=4)[0].tolist() == llama3.encode_ordinary(text)


# Special tokens that contain possible cuts, that overlap, and that share a beginning.
SPECIALS = {"a b": 300, "b a": 301, "<|x y|>": 302, "<|x y|>,": 303, "b": 304, " b a b a b ": 305, "1.\n": 306}


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "o200k", "smollm"])
@pytest.mark.parametrize("seed", range(6))
def test_special_tokens_are_never_cut_between_threads(pattern: str, seed: int) -> None:
    tokenizer = byte_tokenizer(pattern, SPECIALS)
    generator = random.Random(seed)
    pieces = generator.sample([*SPECIALS, "a", " ", "<|x", " y|>", ",", "1", ".", "\n", "word "], 8)
    text = "".join(generator.choices(pieces, k=60_000))
    expected = tokenizer.encode(text, allowed_special="all")
    for threads in (2, 8):
        ids, _ = tokenizer.encode_flat([text], num_threads=threads, allowed_special="all")
        assert ids.tolist() == expected
    some = {"a b", "1.\n", "<|x y|>,"}
    batch = [text, "a", text]
    found = tokenizer.encode_batch(batch, num_threads=3, allowed_special=some, disallowed_special=())
    assert found == [tokenizer.encode(each, allowed_special=some, disallowed_special=()) for each in batch]


def test_a_text_of_only_special_tokens_is_encoded_on_several_threads() -> None:
    tokenizer = byte_tokenizer("llama3", SPECIALS)
    text = "a b" * 100_000
    assert tokenizer.encode_flat([text], num_threads=4, allowed_special="all")[0].tolist() == [300] * 100_000


# Arguments and results of encode_flat


def test_encode_flat_handles_special_tokens_as_encode_does(llama3: Tokenizer) -> None:
    special = "<|eot_id|>"
    whole = [f"one{special}two", special, "three"]
    ids, _ = llama3.encode_flat(whole)
    assert ids.tolist() == [id for text in whole for id in llama3.encode_ordinary(text)]
    ids, offsets = llama3.encode_flat(whole, allowed_special={special}, disallowed_special="all")
    assert ids.tolist() == [id for text in whole for id in llama3.encode(text, allowed_special={special})]
    assert offsets[-1] == len(ids)
    for disallowed in ("all", {special}):
        with pytest.raises(ValueError, match="eot_id"):
            llama3.encode_flat(iter(whole), disallowed_special=disallowed)  # type: ignore[arg-type]


SMALL = byte_tokenizer("gpt2", {"<|x|>": 0xFFFF}, ab=256)
SLOW = byte_tokenizer(r"\w+|\W+", {"<|x|>": 0xFFFF}, ab=256)


@pytest.fixture(params=["scanner", "regex"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """A tokenizer with a native scanner, and one without."""
    return SMALL if request.param == "scanner" else SLOW


@pytest.mark.parametrize("size", [0, 1, 5, 1_000_000])
def test_16_bit_ids_equal_32_bit_ids(tokenizer: Tokenizer, size: int) -> None:
    text = ("ab cd<|x|>" * (size // 10 + 1))[:size]
    wide, offsets = tokenizer.encode_flat([text, "ab"], allowed_special="all", num_threads=2)
    narrow, same = tokenizer.encode_flat([text, "ab"], allowed_special="all", num_threads=2, dtype=np.uint16)
    assert (wide.dtype, narrow.dtype) == (np.uint32, np.uint16)
    assert np.array_equal(wide, narrow)
    assert np.array_equal(offsets, same)


def test_16_bit_ids_are_refused_for_a_vocabulary_with_larger_ids(llama3: Tokenizer) -> None:
    with pytest.raises(ValueError, match="128255"):
        llama3.encode_flat(["a"], dtype=np.uint16)
    with pytest.raises(ValueError, match="int64"):
        llama3.encode_flat(["a"], dtype=np.int64)  # type: ignore[call-overload]


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_ids_are_written_into_the_given_array(tokenizer: Tokenizer, dtype: type[np.uint32]) -> None:
    out = np.full(10, 7, dtype=dtype)
    ids, offsets = tokenizer.encode_flat(["ab cd", "", "e"], dtype=dtype, out=out)
    assert np.shares_memory(ids, out)
    assert out.tolist() == [256, 32, 99, 100, 101, 7, 7, 7, 7, 7]
    assert ids.tolist() == [256, 32, 99, 100, 101]
    assert offsets.tolist() == [0, 4, 4, 5]
    exact = np.zeros(5, dtype=dtype)
    assert tokenizer.encode_flat(["ab cd", "", "e"], dtype=dtype, out=exact)[0].tolist() == ids.tolist()


def test_a_too_small_array_is_refused_and_left_unchanged(tokenizer: Tokenizer) -> None:
    memory = np.full(10, 7, dtype=np.uint32)
    with pytest.raises(ValueError, match="room for 4 ids, but there are 5"):
        tokenizer.encode_flat(["ab cd", "", "e"], out=memory[:4])
    assert memory.tolist() == [7] * 10


def test_an_array_of_the_wrong_type_or_layout_is_refused(tokenizer: Tokenizer) -> None:
    frozen = np.zeros(10, np.uint32)
    frozen.flags.writeable = False
    wrong: list[object] = [
        *(np.zeros(10, np.int32), np.zeros(10, np.uint16), np.zeros(10, ">u4"), np.zeros((2, 5), np.uint32)),
        *(np.zeros(20, np.uint32)[::2], frozen, [0] * 10, bytearray(40)),
    ]
    for out in wrong:
        with pytest.raises(ValueError, match="uint32"):
            tokenizer.encode_flat(["ab"], out=out)  # type: ignore[call-overload]
        if tokenizer is SMALL:
            with pytest.raises(TypeError, match="uint32"):
                tokenizer.vocabulary.encoder.encode_all(["ab"], None, 1, out=out)  # type: ignore[arg-type]


def test_writing_to_a_returned_array_never_changes_later_results(llama3: Tokenizer) -> None:
    ids, _ = llama3.encode_flat(["word " * 400_000], num_threads=2)
    first = ids[:10].copy()
    ids[:] = 0
    again, _ = llama3.encode_flat(["word " * 400_000], num_threads=2)
    assert again[:10].tolist() == first.tolist()
    assert again.flags.owndata is False and again.flags.writeable
