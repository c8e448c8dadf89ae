"""The tokenizer: its ids are tiktoken's on real and on peculiar text, with every method."""

from __future__ import annotations

import doctest
import gc
import importlib
import os
import pickle
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import example, given
from hypothesis import strategies as st

import bpe
from bpe import Tokenizer
from support.references import BYTE_RANKS, any_text, broken_bytes, byte_tokenizer, encoding_of

BEGIN, END = "<|begin_of_text|>", "<|end_of_text|>"

# Texts below and above the size up to which the core holds the interpreter's lock, and that of a scanner's batch.
MIXED = ["", "a", "Hello, world!", "don't", "x" * 300, " \n" * 400, "日本語" * 200, "word " * 1000, "\0", "tail"]


# Ids on real text


def test_all_sample_texts_get_the_ids_of_tiktoken(
    pair: tuple[Tokenizer, tiktoken.Encoding], corpus_texts: dict[str, str]
) -> None:
    tokenizer, reference = pair
    wrong = [name for name, t in corpus_texts.items() if tokenizer.encode_ordinary(t) != reference.encode_ordinary(t)]
    assert wrong == []


def test_the_standard_library_gets_the_ids_of_tiktoken(pair: tuple[Tokenizer, tiktoken.Encoding]) -> None:
    tokenizer, reference = pair
    modules = sorted(Path(os.__file__).parent.glob("*.py"))
    texts = [module.read_text("utf-8", "replace") for module in modules]
    ours = tokenizer.encode_ordinary_batch(texts, num_threads=2)
    theirs = reference.encode_ordinary_batch(texts, num_threads=2)
    assert [module.name for module, a, b in zip(modules, ours, theirs, strict=True) if a != b] == []


def test_more_distinct_pretokens_than_the_cache_holds_get_the_ids_of_tiktoken(
    llama3: Tokenizer, llama3_reference: tiktoken.Encoding
) -> None:
    """Twice, because the second time the cache holds some of them and has dropped others."""
    generator = random.Random(0)
    lengths = generator.choices((7, 8, 9, 15, 16, 17, 60), k=90_000)
    text = " ".join("".join(generator.choices("abcdefgh", k=length)) for length in lengths)
    expected = llama3_reference.encode_ordinary(text)
    assert llama3.encode_ordinary(text) == expected
    assert llama3.encode_ordinary(text) == expected


@given(data=st.data())
def test_pretokens_that_look_alike_are_not_confused(llama3: Tokenizer, data: st.DataObject) -> None:
    """The cache must not return the ids of another pretoken that differs in its length or in the NULs at its end."""
    lengths = st.sampled_from([1, 2, 7, 8, 9, 15, 16, 17, 255, 256, 257])
    letters = st.sampled_from([b"a", b"\0", b"a\0", b"\0a", b"\xff", b"ab"])
    pretokens = data.draw(
        st.lists(st.builds(lambda unit, length: (unit * length)[:length], letters, lengths), min_size=1, max_size=600)
    )
    alone = [llama3.vocabulary.encoder.encode_pretokens([pretoken]) for pretoken in pretokens]
    assert llama3.vocabulary.encoder.encode_pretokens(pretokens) == [id for ids in alone for id in ids]
    for pretoken, ids in zip(pretokens, alone, strict=True):
        whole = llama3.vocabulary.encoder.find(pretoken)
        assert ids == ([whole] if whole is not None else llama3.vocabulary.encoder.merge(pretoken))


@given(text=any_text)
@example(text="\ud83d\ude00")
@example(text="\ude00\ud83d")
@example(text="a\ud800 \udfff's")
def test_surrogates_are_joined_or_replaced_as_in_tiktoken(
    llama3: Tokenizer, llama3_reference: tiktoken.Encoding, text: str
) -> None:
    assert llama3.encode_ordinary(text) == llama3_reference.encode_ordinary(text)
    assert llama3.encode(text, disallowed_special=()) == llama3_reference.encode(text, disallowed_special=())


@given(text=st.text(st.characters(categories=["Cs", "L"]), max_size=10))
def test_any_surrogates_get_the_ids_of_tiktoken(
    llama3: Tokenizer, llama3_reference: tiktoken.Encoding, text: str
) -> None:
    assert llama3.encode_ordinary(text) == llama3_reference.encode_ordinary(text)


# Bytes


@given(content=broken_bytes())
def test_bytes_of_any_kind_round_trip(pair: tuple[Tokenizer, tiktoken.Encoding], content: bytes) -> None:
    tokenizer, _ = pair
    for each in (content, bytearray(content), memoryview(content)):
        assert tokenizer.decode_bytes(tokenizer.encode_ordinary(each)) == content  # type: ignore[arg-type]


@given(text=any_text)
def test_the_utf8_of_a_text_gets_the_ids_of_the_text(llama3: Tokenizer, text: str) -> None:
    assert llama3.encode_ordinary(text.encode()) == llama3.encode_ordinary(text)  # type: ignore[arg-type]


# Special tokens


@st.composite
def texts_with_specials(draw: st.DrawFn) -> str:
    tokens = st.sampled_from([BEGIN, END, "<|eot_id|>", "<|begin_of", "_text|>", "<|", "|>", "<<|eot_id|>>", " "])
    return "".join(draw(st.lists(st.one_of(tokens, any_text.map(lambda text: text[:6])), max_size=8)))


@given(text=texts_with_specials(), allowed=st.sets(st.sampled_from([BEGIN, END, "<|eot_id|>", "<|unknown|>"])))
@example(text=BEGIN, allowed={BEGIN})
@example(text=f"{BEGIN}{BEGIN}{END}", allowed={BEGIN, END})
@example(text=f"<|begin_of{END}_text|> {BEGIN}  ", allowed={BEGIN, END})
@example(text=f"a  {END}  b", allowed={END})
def test_allowed_special_tokens_become_ids_and_the_rest_text_as_in_tiktoken(
    llama3: Tokenizer, llama3_reference: tiktoken.Encoding, text: str, allowed: set[str]
) -> None:
    expected = llama3_reference.encode(text, allowed_special=allowed, disallowed_special=())
    assert llama3.encode(text, allowed_special=allowed, disallowed_special=()) == expected
    everything = llama3_reference.encode(text, allowed_special="all")
    assert llama3.encode(text, allowed_special="all") == everything
    assert llama3.encode_to_numpy(text, allowed_special="all").tolist() == everything
    assert llama3.encode_batch([text, text], allowed_special="all") == [everything, everything]


@given(
    text=texts_with_specials(),
    allowed=st.sets(st.sampled_from([BEGIN, END])),
    disallowed=st.one_of(st.just("all"), st.sets(st.sampled_from([BEGIN, "<|eot_id|>", "plain", " "]))),
)
def test_disallowed_special_tokens_raise_where_tiktoken_raises(
    llama3: Tokenizer, llama3_reference: tiktoken.Encoding, text: str, allowed: set[str], disallowed: set[str] | str
) -> None:
    options = {"allowed_special": allowed, "disallowed_special": disallowed}
    try:
        expected = llama3_reference.encode(text, **options)  # type: ignore[arg-type]
    except ValueError:
        for encode in (llama3.encode, llama3.encode_to_numpy, lambda text, **kw: llama3.encode_batch(["", text], **kw)):
            with pytest.raises(ValueError, match="disallowed"):
                encode(text, **options)  # type: ignore[operator]
    else:
        assert llama3.encode(text, **options) == expected  # type: ignore[arg-type]


def test_the_message_on_a_disallowed_token_names_it_and_both_ways_out(llama3: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"<\|eot_id\|>.*allowed_special=.*disallowed_special=\(\)"):
        llama3.encode("bye<|eot_id|>")


def test_the_longest_of_the_special_tokens_that_begin_at_one_place_is_used() -> None:
    tokenizer = byte_tokenizer(special_tokens={"<a>": 300, "<a><b>": 301, "<a><b><c>": 302, "b": 303})
    assert tokenizer.encode("<a><b>x<a><b><c>.<a>", allowed_special="all") == [301, 120, 302, 46, 300]
    assert tokenizer.encode("<a><b>", allowed_special={"<a>", "b"}, disallowed_special=()) == [300, 60, 303, 62]


def test_a_special_token_at_either_end_alone_and_doubled_leaves_no_empty_part() -> None:
    tokenizer = byte_tokenizer(special_tokens={"|": 300})
    for text, ids in {"|": [300], "||": [300, 300], "|a": [300, 97], "a|": [97, 300], "": []}.items():
        assert tokenizer.encode(text, allowed_special="all") == ids


def test_special_tokens_of_any_characters_are_found() -> None:
    tokens = {"é": 300, "日本": 301, "\0": 302, "<|x|>": 303, "👩": 304, " ": 305}
    tokenizer = byte_tokenizer(special_tokens=tokens)
    reference = encoding_of(tokenizer)
    text = "aé日日本\0<|x|><|x| 👩."
    assert tokenizer.encode(text, allowed_special="all") == reference.encode(text, allowed_special="all")


def test_text_between_special_tokens_is_split_as_a_text_of_its_own(llama3: Tokenizer) -> None:
    """So white space before a special token counts as white space at the end of a text."""
    ids = llama3.encode(f"a   {END}b", allowed_special="all")
    assert ids == [*llama3.encode("a   "), llama3.special_tokens[END], *llama3.encode("b")]


def test_an_empty_special_token_and_an_id_out_of_range_are_refused() -> None:
    for tokens in ({"": 300}, {"<a>": -1}, {"<a>": 2**32}):
        with pytest.raises(ValueError):
            byte_tokenizer(special_tokens=tokens)


def test_a_special_token_with_a_surrogate_is_refused() -> None:
    for token in ("\ud800", "a\udfffb"):
        with pytest.raises(ValueError):
            byte_tokenizer(special_tokens={token: 300})


def test_many_special_tokens_in_a_long_text_take_linear_time_with_and_without_a_scanner() -> None:
    for pattern in ("gpt2", r"\w+|\W"):
        tokenizer = byte_tokenizer(pattern, special_tokens={"<|x|>": 300})
        assert tokenizer.encode("a<|x|>" * 100_000, allowed_special="all") == [97, 300] * 100_000


def test_lists_of_ids_hold_and_release_one_reference_for_each_id(llama3: Tokenizer) -> None:
    text = "a tokenizer of its own " * 100
    ids = llama3.encode_ordinary(text)
    last = ids[-2]
    held = sys.getrefcount(last)
    lists = [llama3.encode_ordinary(text) for _ in range(5)]
    assert sys.getrefcount(last) == held + 5 * ids.count(last)
    del lists
    assert sys.getrefcount(last) == held


def test_the_garbage_collector_does_not_track_lists_of_ids(llama3: Tokenizer) -> None:
    lists = [llama3.encode_ordinary("some text"), *llama3.encode_ordinary_batch(["some", "text"])]
    assert not any(map(gc.is_tracked, lists))


# Decoding


@given(text=texts_with_specials())
def test_decoding_returns_the_text(llama3: Tokenizer, text: str) -> None:
    assert llama3.decode(llama3.encode(text, allowed_special="all")) == text
    assert llama3.decode(llama3.encode_ordinary(text)) == text


@given(ids=st.lists(st.integers(0, 128_255), max_size=20))
def test_any_ids_decode_as_in_tiktoken(llama3: Tokenizer, llama3_reference: tiktoken.Encoding, ids: list[int]) -> None:
    expected = llama3_reference.decode_bytes(ids)
    assert llama3.decode_bytes(ids) == expected
    for sequence in (tuple(ids), np.array(ids, np.uint32), np.array(ids, np.int64), list(np.array(ids, np.int32))):
        assert llama3.decode_bytes(sequence) == expected  # type: ignore[arg-type]
    assert llama3.decode_tokens_bytes(ids) == llama3_reference.decode_tokens_bytes(ids)
    assert llama3.decode(ids) == llama3_reference.decode(ids)


def test_bytes_that_are_not_utf8_decode_as_errors_says(llama3: Tokenizer) -> None:
    ids = llama3.encode_ordinary(b"a\xffb")  # type: ignore[arg-type]
    assert llama3.decode(ids) == "a\ufffdb"
    assert llama3.decode(ids, errors="ignore") == "ab"
    assert llama3.decode(ids, errors="surrogateescape") == "a\udcffb"
    with pytest.raises(UnicodeDecodeError):
        llama3.decode(ids, errors="strict")


@pytest.mark.parametrize("id", [128_256, 2**24, 2**32 - 1])
def test_an_unknown_id_is_a_key_error(llama3: Tokenizer, id: int) -> None:
    for decode in (llama3.decode, llama3.decode_bytes, llama3.decode_tokens_bytes):
        with pytest.raises(KeyError, match=str(id)):
            decode([0, id])
    with pytest.raises(KeyError, match=str(id)):
        llama3.decode_single_token_bytes(id)
    with pytest.raises(KeyError):
        llama3.decode(np.array([id], np.uint32))


@pytest.mark.parametrize("id", [-1, -(2**40), 2**32, 2**64, 2**200])
def test_a_number_out_of_the_range_of_ids_is_an_overflow_error(llama3: Tokenizer, id: int) -> None:
    with pytest.raises(OverflowError):
        llama3.decode([id])
    with pytest.raises(OverflowError):
        llama3.decode_single_token_bytes(id)


@pytest.mark.parametrize("ids", ["abc", 5, None, [1.5], ["a"], [None], [b"a"], [[1]], {"a": 1}, np.array([1.5])])
def test_decoding_something_other_than_ids_is_a_type_error(llama3: Tokenizer, ids: object) -> None:
    with pytest.raises(TypeError):
        llama3.decode(ids)  # type: ignore[arg-type]


def test_an_unused_id_between_tokens_is_a_key_error() -> None:
    tokenizer = byte_tokenizer(ab=300)
    assert tokenizer.decode([300]) == "ab"
    assert tokenizer.n_vocab == 301
    with pytest.raises(KeyError, match="299"):
        tokenizer.decode([299])


# The other methods


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_batches_get_the_ids_of_the_single_texts_on_any_number_of_threads(
    llama3: Tokenizer, corpus_texts: dict[str, str], threads: int
) -> None:
    texts = [*MIXED, *corpus_texts.values(), *MIXED] * 3  # more than one block of work
    expected = [llama3.encode_ordinary(text) for text in texts]
    assert llama3.encode_ordinary_batch(texts, num_threads=threads) == expected
    assert llama3.encode_batch(texts, num_threads=threads, disallowed_special=()) == expected
    ids, offsets = llama3.encode_flat(texts, num_threads=threads)
    assert (ids.dtype, offsets.dtype) == (np.uint32, np.int64)
    assert [ids[a:b].tolist() for a, b in zip(offsets, offsets[1:], strict=False)] == expected
    assert (offsets[0], offsets[-1]) == (0, len(ids))


@pytest.mark.parametrize("texts", [[], [""], ["", ""], ["", "a", ""]])
def test_batches_of_empty_texts_have_no_ids(llama3: Tokenizer, texts: list[str]) -> None:
    expected = [llama3.encode(text) for text in texts]
    assert llama3.encode_batch(texts) == expected
    assert llama3.encode_ordinary_batch(iter(texts)) == expected
    ids, offsets = llama3.encode_flat(texts)
    assert len(ids) == sum(map(len, expected))
    assert len(offsets) == len(texts) + 1


def test_all_encoding_methods_return_the_same_ids(llama3: Tokenizer) -> None:
    for text in MIXED:
        ids = llama3.encode(text)
        array = llama3.encode_to_numpy(text)
        assert array.dtype == np.uint32
        assert array.tolist() == ids == llama3.encode_ordinary(text)
        assert llama3.count(text) == len(ids)


def test_changing_an_array_of_ids_does_not_change_later_results(llama3: Tokenizer) -> None:
    array = llama3.encode_to_numpy("Hello, world!")
    array[:] = 0
    assert llama3.encode("Hello, world!") != array.tolist()


def test_many_threads_at_once_get_the_ids_of_one(llama3: Tokenizer, corpus_texts: dict[str, str]) -> None:
    texts = [*MIXED, *corpus_texts.values()]
    expected = [llama3.encode_ordinary(text) for text in texts]
    shuffled = random.Random(0).choices(range(len(texts)), k=400)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: llama3.encode_ordinary(texts[i]), shuffled))
    assert results == [expected[i] for i in shuffled]


@pytest.mark.parametrize("text", [5, None, 1.5, ["a"], {"a"}, object()])
def test_encoding_something_other_than_text_is_a_type_error(llama3: Tokenizer, text: object) -> None:
    slow = byte_tokenizer(r"\w+|\W+")
    for encode in (
        llama3.encode,
        llama3.encode_ordinary,
        llama3.encode_to_numpy,
        llama3.count,
        lambda text: llama3.encode_batch([text]),
        lambda text: llama3.encode_ordinary_batch([text]),
        lambda text: llama3.encode_flat([text]),
        slow.encode,
        slow.encode_ordinary,
    ):
        with pytest.raises(TypeError, match="str or bytes"):
            encode(text)  # type: ignore[operator]


def test_a_subclass_of_str_is_encoded_as_a_str(llama3: Tokenizer) -> None:
    class Odd(str):
        def encode(self, *_: object) -> bytes:  # type: ignore[override]
            raise RuntimeError("not to be called")

    assert llama3.encode(Odd("Hello \ud83d")) == llama3.encode("Hello \ud83d")


# The vocabulary


def test_single_tokens_are_found_by_bytes_and_text(llama3: Tokenizer, llama3_reference: tiktoken.Encoding) -> None:
    for token in ("hello", b"hello", " world", BEGIN, BEGIN.encode(), b"\xff", "日本"):
        assert llama3.encode_single_token(token) == llama3_reference.encode_single_token(token)
    for token in ("hello world", b"", b"\xff\xfe\xfd", "<|nothing|>"):
        with pytest.raises(KeyError):
            llama3.encode_single_token(token)
    with pytest.raises(TypeError):
        llama3.encode_single_token(5)  # type: ignore[arg-type]


def test_the_vocabulary_is_described_as_in_tiktoken(llama3: Tokenizer, llama3_reference: tiktoken.Encoding) -> None:
    assert llama3.n_vocab == llama3_reference.n_vocab == 128_256
    assert llama3.max_token_value == llama3_reference.max_token_value
    assert llama3.special_tokens_set == llama3_reference.special_tokens_set
    assert llama3.token_byte_values() == sorted(llama3_reference.token_byte_values())
    assert llama3.is_special_token(128_000)
    assert not llama3.is_special_token(127_999)
    with pytest.raises(KeyError):
        _ = llama3.eot_token
    assert byte_tokenizer(special_tokens={"<|endoftext|>": 256}).eot_token == 256


def test_every_public_name_of_tiktoken_exists(llama3: Tokenizer, llama3_reference: tiktoken.Encoding) -> None:
    public = {name for name in dir(llama3_reference) if not name.startswith("_")}
    assert public - set(dir(llama3)) == set()


def test_returned_mappings_are_copies(llama3: Tokenizer) -> None:
    llama3.special_tokens.clear()
    llama3.mergeable_ranks.clear()
    assert len(llama3.special_tokens) == 256
    assert len(llama3.mergeable_ranks) == 128_000


def test_a_pickled_tokenizer_encodes_the_same(pair: tuple[Tokenizer, tiktoken.Encoding]) -> None:
    tokenizer, _ = pair
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.encode("Hello  world, it's 12345") == tokenizer.encode("Hello  world, it's 12345")
    assert copy.special_tokens == tokenizer.special_tokens
    assert copy.mergeable_ranks == tokenizer.mergeable_ranks
    assert (copy.name, copy.pattern) == (tokenizer.name, tokenizer.pattern)


def test_invalid_ranks_are_refused() -> None:
    for wrong, message in [
        ({b"ab": 255}, "twice"),
        ({b"": 256}, "empty"),
        ({b"ab": -1}, "rank"),
        ({b"ab": 2**32}, "rank"),
        ({b"ab": 2**24}, "rank"),
        ({b"ab": 1.5}, "rank"),
        ({b"ab": "256"}, "rank"),
    ]:
        with pytest.raises(ValueError, match=message):
            Tokenizer("", pat_str="gpt2", mergeable_ranks=BYTE_RANKS | wrong, special_tokens={})  # type: ignore[arg-type]
    for missing in (0, 97, 255):
        ranks = {token: rank for token, rank in BYTE_RANKS.items() if rank != missing}
        with pytest.raises(ValueError, match="byte"):
            Tokenizer("", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={})
    with pytest.raises(ValueError, match="byte"):
        Tokenizer("", pat_str="gpt2", mergeable_ranks={}, special_tokens={})


def test_explicit_n_vocab_is_checked() -> None:
    def make(count: int, id: int = 256) -> Tokenizer:
        return Tokenizer(
            "", pat_str="gpt2", mergeable_ranks=BYTE_RANKS, special_tokens={"<|x|>": id}, explicit_n_vocab=count
        )

    assert make(257).n_vocab == 257
    for count, id in [(0, 256), (256, 256), (258, 256), (257, 257), (258, 257)]:  # the last two leave a hole
        with pytest.raises(ValueError, match="explicit_n_vocab"):
            make(count, id)


# Patterns without a scanner

CUSTOM_PATTERNS = [
    r"\p{L}+|\s+|.",
    r"\p{L}+|\p{N}{1,3}|\s+|.",
    r" ?\w+|[^\s\w]+|\s",
    r"(?i:the)|\p{Lu}?\p{Ll}+|\s+(?!\S)|\s+|[^\s]",
    r"\p{L}+",  # text that it does not match is dropped, as in tiktoken
    r"[a-z]",
    r"[\p{L}&&[^a-z]]+|[a-z]+|\P{L}+",
    r"[[:alpha:]]+|.",
    r"\p{N}{1,3}",
    r"\p{N}{1,3}+|\D",
    r"\w+|\W",
    r"\b\w|\B.",
    r"(?m)^.+$\n?|\s",  # none matches nothing, at which tiktoken panics
    r"\S+$|\S|\s+",
    r"(?<=a)b+|a(?=b)|(?<!\s)\s|\S",
    r"(?>\s+)|\p{Lu}*?\p{Ll}|(?i)[ß-ſk]|[^a-z]",
]


@pytest.mark.parametrize("pattern", CUSTOM_PATTERNS)
@given(text=any_text | st.text(st.sampled_from("abAB½²७7 \n\u3000.éſK日")), data=st.data())
def test_a_pattern_without_a_scanner_gives_the_ids_of_tiktoken(
    llama3: Tokenizer,
    custom_pairs: dict[str, tuple[Tokenizer, tiktoken.Encoding]],
    pattern: str,
    text: str,
    data: st.DataObject,
) -> None:
    tokenizer, reference = custom_pairs[pattern]
    assert tokenizer.pattern.scanner is None
    expected = reference.encode_ordinary(text)
    assert tokenizer.encode_ordinary(text) == expected
    assert tokenizer.count(text) == len(expected)
    assert tokenizer.encode_ordinary_batch([text, "", text]) == [expected, [], expected]
    place = data.draw(st.integers(0, len(text)))
    text = f"{BEGIN}{text[:place]}{END}{text[place:]}"
    expected = reference.encode(text, allowed_special="all")
    assert tokenizer.encode(text, allowed_special="all") == expected
    assert tokenizer.encode_to_numpy(text, allowed_special="all").tolist() == expected
    with pytest.raises(ValueError, match="disallowed"):
        tokenizer.encode(text)


@pytest.fixture(scope="module")
def custom_pairs(gpt2: Tokenizer) -> dict[str, tuple[Tokenizer, tiktoken.Encoding]]:
    """The trained ranks with patterns that have no scanner, and tiktoken with the same."""
    pairs = {}
    for pattern in CUSTOM_PATTERNS:
        tokenizer = Tokenizer(
            "custom", pat_str=pattern, mergeable_ranks=gpt2.mergeable_ranks, special_tokens={BEGIN: 5000, END: 5001}
        )
        pairs[pattern] = tokenizer, encoding_of(tokenizer)
    return pairs


@given(content=broken_bytes())
def test_bytes_of_any_kind_round_trip_without_a_scanner(content: bytes) -> None:
    tokenizer = byte_tokenizer(r"(?s)\p{L}+|.", special_tokens={"<|x|>": 300})
    content = content + b"<|x|>" + content
    ids = tokenizer.encode(content, allowed_special="all")  # type: ignore[arg-type]
    assert tokenizer.decode_bytes(ids) == content
    assert 300 in ids


@pytest.mark.parametrize("pattern", ["(", "[a", r"\p{Nonsense}", "a{2,1}", "(?<!a+)b*)"])
def test_a_pattern_that_does_not_compile_is_refused_at_once(pattern: str) -> None:
    with pytest.raises(ValueError, match="the split pattern"):
        byte_tokenizer(pattern)


def test_a_pattern_is_known_by_its_name_or_its_text(llama3: Tokenizer) -> None:
    assert byte_tokenizer("llama3").pattern == byte_tokenizer(llama3.pattern.text).pattern == llama3.pattern


# Examples


def modules_with_examples() -> list[str]:
    package = Path(bpe.__file__).parent
    modules = [path for path in sorted(package.rglob("*.py")) if ">>> " in path.read_text()]
    return [".".join(path.relative_to(package.parent).with_suffix("").parts) for path in modules]


@pytest.mark.parametrize("module", modules_with_examples())
def test_examples_in_docstrings_give_their_results(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.failed == 0
    assert result.attempted > 0
