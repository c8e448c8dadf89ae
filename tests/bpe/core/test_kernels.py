"""Test that every encoding kernel that this processor supports gives tiktoken's ids.

Each encoder encodes a text twice: first it fills its cache of pretokens ("cold"), then it reads from it ("warm").
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
import tiktoken
from hypothesis import example, given
from hypothesis import strategies as st

from bpe import Tokenizer, _core
from bpe.patterns import PATTERNS, SCANNED
from bpe.verify import HARD_CASES
from support.references import BYTE_RANKS, any_text, broken_bytes, core_encoder, encoding_of, peculiar_text

KERNELS = _core.kernels()

LARGEST_RANK = 2**21 - 2
FIRST_TOO_LARGE_FOR_A_WORD = 2**20  # a word in the cache's tables holds up to three ids of 20 bits


class Encoders:
    """An encoder for each kernel, and tiktoken's encoding, of one vocabulary."""

    def __init__(self, ranks: Mapping[bytes, int], pattern: str = "gpt2") -> None:
        self.by_kernel = {kernel: core_encoder(ranks, pattern, kernel) for kernel in KERNELS}
        self.plain = self.by_kernel["plain"]
        self.pattern = PATTERNS[pattern]
        self.reference = tiktoken.Encoding(
            "kernels", pat_str=PATTERNS[pattern].text, mergeable_ranks=dict(ranks), special_tokens={}
        )

    def ids(self, text: str | bytes) -> list[int]:
        """Return the ids of a text, after checking that all kernels agree, both cold and warm."""
        results = [ours.encode(text, None) for ours in self.by_kernel.values() for _ in ("cold", "warm")]
        assert all(ids == results[0] for ids in results)
        return results[0]

    def assert_text(self, text: str) -> None:
        assert self.ids(text) == self.reference.encode_ordinary(text)

    def assert_bytes(self, text: bytes) -> None:
        """Compare with the plain routines on each pretoken, because tiktoken does not accept bytes."""
        assert self.pattern.scanner is not None
        expected = []
        begin = 0
        for end in _core.scan(self.pattern.scanner, text, "plain").tolist():
            whole = self.plain.find(text[begin:end])
            expected += self.plain.merge_plain(text[begin:end]) if whole is None else [whole]
            begin = end
        assert self.ids(text) == expected

    def assert_pretokens(self, pretokens: Iterable[bytes]) -> None:
        """Compare the pretokens with tiktoken, together in a batch and each alone."""
        pretokens = list(pretokens)
        expected = [list(self.reference._encode_single_piece(pretoken)) for pretoken in pretokens]
        joined = [id for ids in expected for id in ids]
        for ours in self.by_kernel.values():
            for _ in ("cold", "warm"):
                assert ours.encode_pretokens(pretokens) == joined
                assert [ours.encode_pretokens([pretoken]) for pretoken in pretokens] == expected

    def assert_merged(self, piece: bytes) -> None:
        expected = self.plain.merge_plain(piece)
        for ours in self.by_kernel.values():
            assert ours.merge(piece) == expected


@pytest.fixture(scope="module")
def encoders(llama3: Tokenizer) -> Encoders:
    return Encoders(llama3.mergeable_ranks, "llama3")


@pytest.fixture
def cold(llama3: Tokenizer) -> Encoders:
    """Encoders of Llama 3's vocabulary with an empty cache."""
    return Encoders(llama3.mergeable_ranks, "llama3")


@pytest.mark.parametrize("pattern", SCANNED)
def test_sample_texts_and_hard_cases_have_the_ids_of_tiktoken_with_every_pattern(
    pattern: str, gpt2: Tokenizer, corpus_texts: dict[str, str]
) -> None:
    encoders = Encoders(gpt2.mergeable_ranks, pattern)
    for text in (*HARD_CASES, *corpus_texts.values()):
        encoders.assert_text(text)


def test_sample_texts_and_hard_cases_have_the_ids_of_tiktoken_with_llama_3(
    encoders: Encoders, corpus_texts: dict[str, str]
) -> None:
    for text in (*HARD_CASES, *corpus_texts.values()):
        encoders.assert_text(text)


@given(text=any_text | peculiar_text)
def test_any_text_has_the_ids_of_tiktoken(encoders: Encoders, text: str) -> None:
    encoders.assert_text(text)


@given(text=broken_bytes())
@example(text=b"\xe3\x83\xbb\xbf \xe2\x80\xbb\xbf")
def test_bytes_that_are_not_utf8_have_the_ids_of_the_plain_routines(encoders: Encoders, text: bytes) -> None:
    encoders.assert_bytes(text)


# The lengths that fill a key, a lane, a window or a table entry, and the lengths around them.
LENGTHS = [*range(1, 21), *range(62, 69), *range(120, 131), *range(254, 261)]

FILLERS = [b"\0", b"\x07", b"\x08", b"\x0f", b"a", b"x\0", b"\0x", b"\xff", "é".encode(), "日".encode(), b"qz", b" "]


def of_length(filler: bytes, length: int) -> bytes:
    return (filler * length)[:length]


def test_the_cache_distinguishes_runs_of_the_same_byte_by_their_length(cold: Encoders) -> None:
    """A run of eight \\x07 and a run of fifteen once had the same key."""
    pretokens = [of_length(filler, length) for filler in FILLERS for length in LENGTHS]
    random.Random(0).shuffle(pretokens)
    cold.assert_pretokens(pretokens)
    cold.assert_pretokens([b"\x07" * 8, b"\x07" * 15, b"\x07" * 8, b"\x07" * 7])


def test_the_cache_distinguishes_pretokens_that_are_prefixes_of_each_other(cold: Encoders) -> None:
    word = bytes(random.Random(1).choices(range(1, 256), k=260))
    cold.assert_pretokens([word[:length] for length in range(1, 261)])
    cold.assert_pretokens([word[:length] + b"\0" * nuls for length in LENGTHS[:22] for nuls in range(9)])
    cold.assert_pretokens([b"\0" * nuls + word[:length] for length in LENGTHS[:22] for nuls in range(9)])


@pytest.mark.parametrize("filler", ["\0", "\7", "a", "é", "日", "👩", "."])
@pytest.mark.parametrize("before", ["", " ", "1", "\n", "some words before 1"])
def test_pretokens_of_every_length_at_the_end_of_a_text_have_the_ids_of_tiktoken(
    encoders: Encoders, filler: str, before: str
) -> None:
    """Near the end of a text, an 8-byte load would read beyond it, so the last bytes take another path."""
    for length in LENGTHS:
        encoders.assert_text(before + filler * length)


def test_texts_of_a_few_bytes_have_the_ids_of_tiktoken(encoders: Encoders) -> None:
    """Check all 5,460 texts of up to six of four characters; most end in the middle of an 8-byte word."""
    for length in range(1, 7):
        for text in map("".join, product("a 1\0", repeat=length)):
            encoders.assert_text(text)


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_pretokens_of_1_to_257_ids_have_the_ids_of_tiktoken(step: int) -> None:
    """A table entry holds up to three small ids, its store up to 255 ids of any size; 256 ids are never cached."""
    ranks = {bytes([byte]): byte * step for byte in range(256)} | {b"ab": 256 * step, b"abab": 257 * step}
    encoders = Encoders(ranks)
    counts = [1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 17, 254, 255, 256, 257]
    pretokens = [of_length(b"ba" * parity + b"ab", count) for parity in (0, 1) for count in counts]
    pretokens += [of_length(b"xyz", count) for count in counts]
    encoders.assert_pretokens(pretokens)
    encoders.assert_text(" ".join(pretoken.decode() for pretoken in pretokens * 3))
    assert len(encoders.ids("x" * 255)) == 255


def test_ids_around_the_largest_that_fits_into_a_table_word_have_the_ids_of_tiktoken() -> None:
    edge = FIRST_TOO_LARGE_FOR_A_WORD
    large = [edge - 2, edge - 1, edge, edge + 1, LARGEST_RANK - 1, LARGEST_RANK]
    tokens = [b"ab", b"cd", b"ef", b"abab", b"longer token", b"a token of more than fifteen bytes"]
    for shift in range(len(large)):
        ranks = BYTE_RANKS | dict(zip(tokens, large[shift:] + large[:shift], strict=True))
        encoders = Encoders(ranks)
        words = [
            b"".join(parts) for count in range(1, 4) for parts in product((b"ab", b"cd", b"ef", b"x"), repeat=count)
        ]
        encoders.assert_pretokens([*tokens, *words, *(word * 7 for word in words)])
        encoders.assert_text(" ".join(word.decode() for word in words))


def test_bytes_may_have_the_largest_ranks_and_a_larger_one_is_refused() -> None:
    ranks = {bytes([byte]): LARGEST_RANK - 255 + byte for byte in range(256)} | {b"ab": 0, b"\xff\xff": 1}
    encoders = Encoders(ranks)
    encoders.assert_text("abba" * 40 + " \U0010ffff xyz")
    encoders.assert_pretokens([b"\xff" * length for length in LENGTHS])
    for kernel in KERNELS:
        with pytest.raises(ValueError, match=f"rank {LARGEST_RANK + 1} is above the limit of {LARGEST_RANK}"):
            core_encoder(BYTE_RANKS | {b"ab": LARGEST_RANK + 1}, "gpt2", kernel)


@pytest.mark.parametrize("merges", [[], [b"!!"], [b"!!", b"!!!!"], [b"!!!"], [b'!"', b'"!']])
def test_rank_0_is_encoded_as_any_other_rank(merges: list[bytes]) -> None:
    """Empty table entries are zero, which rank 0 must not be mistaken for."""
    others = [bytes([byte]) for byte in range(256) if byte != ord("!")]
    ranks = {token: rank for rank, token in enumerate([b"!", *others, *merges])}
    encoders = Encoders(ranks)
    for length in LENGTHS:
        encoders.assert_merged(b"!" * length)
        encoders.assert_merged(b'!"' * length)
        encoders.assert_text("!" * length + " a" + '!"' * length)
    encoders.assert_pretokens([b"!" * length for length in LENGTHS])


# Letters, characters of two, three and four bytes, and bytes that begin or continue no character.
ALPHABETS = [b"a", b"ab", b"abc ", b"\0\1", "éa".encode(), "日本a".encode(), "👩é".encode(), b"\xc3\xa9\xff\xa9b"]


def vocabularies(letters: bytes, seed: int) -> Iterator[Encoders]:
    """Yield vocabularies of tokens over few letters at random ranks; halves may have higher ranks or be no tokens."""
    generator = random.Random(seed)
    for count in (3, 12, 60):
        tokens = {bytes(generator.choices(letters, k=min(generator.randint(2, 12), 2 + count))) for _ in range(count)}
        tokens |= {piece for piece in (letters[:2], letters[:3]) if len(piece) > 1}
        order = generator.sample(sorted(tokens), len(tokens))
        yield Encoders(BYTE_RANKS | {token: 256 + rank for rank, token in enumerate(order)})


@pytest.mark.parametrize("letters", ALPHABETS, ids=repr)
def test_merging_strings_of_every_length_equals_the_plain_routine(letters: bytes) -> None:
    """The core merges in lanes, in windows or with a heap, depending on the length and on whether windows agree."""
    generator = random.Random(2)
    for encoders in vocabularies(letters, seed=3):
        for length in (*range(1, 140), *range(140, 400, 13), 400):
            period = bytes(generator.choices(letters, k=generator.randint(1, 9)))
            encoders.assert_merged(bytes(generator.choices(letters, k=length)))
            encoders.assert_merged(of_length(period, length))


@st.composite
def odd_vocabularies(draw: st.DrawFn) -> dict[bytes, int]:
    """Draw single bytes and tokens of whole and partial characters, in any order."""
    letters = draw(st.sampled_from([b"a\xc3\xa9", b"\xc3\xa9\xaa", "日a".encode(), b"b\xe3\x80\x81", "é👩".encode()]))
    token = st.lists(st.sampled_from(list(letters)), min_size=2, max_size=6).map(bytes)
    characters = st.sampled_from([b"\xc3\xa9", b"\xe3\x80", b"\xe3\x80\x80", "日".encode(), b"\xa9\xa9", b"\x80\x80"])
    tokens = draw(st.lists(token | characters, unique=True, max_size=20))
    return BYTE_RANKS | {token: 256 + rank for rank, token in enumerate(tokens)}


@given(
    ranks=odd_vocabularies(),
    pieces=st.lists(st.lists(st.sampled_from(list("aéb日、👩".encode() + b"\xaa")), min_size=1).map(bytes), max_size=5),
    texts=st.lists(st.text(st.sampled_from("aéb日、👩"), min_size=1, max_size=90), max_size=5),
)
@example(ranks=BYTE_RANKS | {b"\xa9\xa9": 256, "é".encode(): 257}, pieces=[b"\xc3\xa9\xa9"], texts=[])
@example(ranks=BYTE_RANKS | {"éb".encode(): 256, b"bc": 257, "é".encode(): 258}, pieces=[], texts=["ébc"])
@example(
    ranks=BYTE_RANKS | {"日b".encode(): 256, b"bc": 257, b"\xe6\x97": 258, "日".encode(): 259},
    pieces=[],
    texts=["日bc"],
)
@example(
    ranks=BYTE_RANKS | {"日".encode(): 256, "日b".encode(): 257, b"bc": 258, b"\xe6\x97": 259},
    pieces=[],
    texts=["日bc"],
)
def test_multi_byte_characters_merge_as_in_tiktoken_at_any_ranks(
    ranks: dict[bytes, int], pieces: list[bytes], texts: list[str]
) -> None:
    """Merging starts from whole characters where no other merge can come first, which depends on the ranks."""
    encoders = Encoders(ranks)
    for piece in [*pieces, *(text.encode() for text in texts)]:
        encoders.assert_merged(piece)
    encoders.assert_pretokens([*pieces, *(text.encode() for text in texts)])


def test_tokens_that_begin_within_a_character_merge_as_in_the_plain_routine(
    llama3: Tokenizer, encoders: Encoders
) -> None:
    """Put each such token after characters that end with the bytes that the token begins with."""
    ranks = llama3.mergeable_ranks
    endings: dict[bytes, list[bytes]] = {}
    for token in ranks:
        if 2 <= len(token) <= 3 and token[0] >= 0xC2:
            for size in range(1, len(token)):
                endings.setdefault(token[-size:], []).append(token)
    pieces = [
        character[:-size] + token
        for token in ranks
        if token[0] & 0xC0 == 0x80
        for size in (1, 2)
        for character in endings.get(token[:size], [])[:40]
    ]
    assert len(pieces) > 1000
    for piece in random.Random(4).sample(pieces, 1000):
        encoders.assert_merged(piece)


@pytest.mark.parametrize(
    "alphabet",
    ["ab", "abcdefghijklmnopqrstuvwxyz", "аеиоуя", "日本語中文字", "👩💻🏽\u200d", "=-", "étaé", " "],
    ids=repr,
)
def test_pretokens_of_10_000_bytes_have_the_ids_of_tiktoken(encoders: Encoders, alphabet: str) -> None:
    generator = random.Random(5)
    piece = "".join(generator.choices(alphabet, k=10_000)).encode()[:10_000]
    for cut in (piece, piece[1:], piece[: generator.randrange(9_000, 10_000)]):
        expected = encoders.reference._encode_single_piece(cut)
        for ours in encoders.by_kernel.values():
            assert ours.encode_pretokens([cut]) == ours.merge(cut) == expected


def test_new_words_repeated_within_a_batch_have_the_ids_of_tiktoken(cold: Encoders) -> None:
    generator = random.Random(6)
    letters = "etaoinshrdluжщ日本"
    cold.assert_text(" Xyzzyquuxfrobnicate" * 50)
    words = ["".join(generator.choices(letters, k=generator.randrange(1, 90))) for _ in range(30)]
    cold.assert_text(" ".join(generator.choices(words, k=900)))


def test_thousands_of_new_words_with_colliding_hash_slots_have_the_ids_of_tiktoken(cold: Encoders) -> None:
    """A batch of 1,024 pretokens has 2,048 hash slots for new pretokens, so about 200 of them share a slot."""
    generator = random.Random(9)
    for length in (2, 4, 7, 8, 12, 15, 16, 40):
        words = ["".join(generator.choices("abcdefgh", k=length)) for _ in range(3000)]
        cold.assert_text(" ".join(words))
        generator.shuffle(words)
        cold.assert_text(" ".join(words))


def test_eight_threads_sharing_an_encoder_get_the_ids_of_tiktoken(cold: Encoders, corpus_texts: dict[str, str]) -> None:
    generator = random.Random(7)
    whole = "".join(corpus_texts.values())
    texts = []
    for _ in range(160):
        start, size = generator.randrange(len(whole)), generator.choice((30, 500, 9000))
        texts.append(whole[start : start + size] + "a " * generator.randrange(200))
    expected = cold.reference.encode_ordinary_batch(texts, num_threads=1)
    for ours in cold.by_kernel.values():
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(lambda text, ours=ours: ours.encode(text, None), texts)) == expected
            counts = threads.map(lambda text, ours=ours: ours.count(text, None), texts)
            assert list(counts) == [len(ids) for ids in expected]


@pytest.mark.parametrize("kernel", KERNELS)
def test_each_kernel_encodes_and_decodes_random_bytes_as_the_tokenizer_does(kernel: str, gpt2: Tokenizer) -> None:
    ours = core_encoder(gpt2.mergeable_ranks, "gpt2", kernel)
    text = bytes(random.Random(8).choices(range(256), k=100_000))
    assert ours.encode(text, None) == gpt2.encode_ordinary(text)
    assert ours.decode_bytes(ours.encode(text, None)) == text
    reference = encoding_of(gpt2)
    latin = text.decode("latin-1")
    assert ours.encode(latin, None) == reference.encode_ordinary(latin)


# Decoding, compared with Python's UTF-8 decoder


def characters() -> list[str]:
    """Return every character of up to three bytes in UTF-8, and three characters of four bytes."""
    return [chr(c) for c in (*range(0xD800), *range(0xE000, 0x10000), 0x10000, 0x1F600, 0x10FFFF)]


@pytest.fixture(scope="module")
def byte_encoders() -> list[_core.Encoder]:
    return [core_encoder(BYTE_RANKS, "gpt2", kernel) for kernel in KERNELS]


def assert_decoded(encoders: list[_core.Encoder], text: bytes) -> None:
    ids = np.frombuffer(text, np.uint8).astype(np.uint32)
    for encoder in encoders:
        assert encoder.decode(ids, "replace") == text.decode("utf-8", "replace")
        assert encoder.decode(ids, "surrogateescape") == text.decode("utf-8", "surrogateescape")


@pytest.mark.parametrize("before", range(5))
def test_every_character_is_decoded_at_any_offset(byte_encoders: list[_core.Encoder], before: int) -> None:
    rows = characters()
    for begin in range(0, len(rows), 500):
        assert_decoded(byte_encoders, ("." * before + "".join(rows[begin : begin + 500])).encode())
    narrow = "".join(map(chr, range(256))) * 2
    for end in range(len(narrow)):
        assert_decoded(byte_encoders, ("." * before + narrow[:end]).encode())


@pytest.mark.parametrize("before", [0, 61, 62, 63])
def test_malformed_bytes_decode_as_in_python(byte_encoders: list[_core.Encoder], before: int) -> None:
    """Combine every first byte with edge values of the second and third, also across the edge of a 64-byte block."""
    edges = [0x00, 0x7F, 0x80, 0x9F, 0xA0, 0xBF, 0xC0, 0xE0, 0xFF]
    for first in range(0x80, 0x100):
        for second in (*edges, 0x8F, 0x90, 0xC2, 0xED):
            for third in edges:
                wrong = bytes([first, second, third])
                for around in ("é", "я"):  # Latin-1 and wider characters give strings of different widths
                    assert_decoded(byte_encoders, b"." * before + wrong + around.encode())
                    assert_decoded(byte_encoders, around.encode() + b"." * before + wrong)


@given(
    text=st.text(st.sampled_from("ab éüяб中文ด😀"), max_size=300),
    cut=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=2),
)
def test_texts_with_wrong_bytes_decode_as_in_python(
    byte_encoders: list[_core.Encoder], text: str, cut: tuple[int, int], changes: list[tuple[int, int]]
) -> None:
    content = bytearray(text.encode())
    for place, byte in changes:
        if content:
            content[place % len(content)] = byte
    assert_decoded(byte_encoders, bytes(content[cut[0] : len(content) - cut[1]]))
