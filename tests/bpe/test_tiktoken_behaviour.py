"""The tokenizer in the place of tiktoken.Encoding: the same results, and the same exceptions for wrong arguments.

These tests cover what tiktoken's own tests cover, on the vocabularies that installed packages contain.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import multiprocessing
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Set
from typing import Any

import numpy as np
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from bpe import StreamDecoder, StreamEncoder, Tokenizer
from support.references import any_text, broken_bytes, byte_tokenizer, encoding_of

Pair = tuple[Tokenizer, tiktoken.Encoding]


def outcome(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Return the result of a call in a form that can be compared, or the type of its exception."""
    try:
        result = function(*arguments, **options)
    except Exception as error:
        return type(error)
    return result.tolist() if isinstance(result, np.ndarray) else result


# Text and ids


def test_known_texts_have_the_ids_that_openai_published(cl100k: Tokenizer) -> None:
    assert cl100k.encode("hello world") == [15339, 1917]
    assert cl100k.decode([15339, 1917]) == "hello world"
    assert cl100k.encode("hello <|endoftext|>", allowed_special="all") == [15339, 220, 100257]
    assert cl100k.encode("rer") == [38149]
    assert cl100k.encode("'rer") == [2351, 81]
    assert cl100k.encode("today\n ") == [31213, 198, 220]
    assert cl100k.encode("today\n \n") == [31213, 27907]
    assert cl100k.encode("today\n  \n") == [31213, 14211]
    assert cl100k.encode(" \x850") == [220, 126, 227, 15]
    assert cl100k.encode("👍") == cl100k.encode("\ud83d\udc4d") == [9468, 239, 235]
    assert cl100k.encode("\ud83d") == cl100k.encode("\ufffd")


def test_runs_of_one_character_get_the_ids_of_tiktoken(pair: Pair) -> None:
    tokenizer, reference = pair
    for unit in ("0", "a", "^", "'s", " ", "\n", "é", "日"):
        for count in (*range(1, 18), 1000):
            assert tokenizer.encode(unit * count) == reference.encode(unit * count)


@pytest.mark.parametrize("unit", ["^", "0", "a", "'s", " ", "\n"])
def test_catastrophically_repetitive_text_round_trips(pair: Pair, unit: str) -> None:
    tokenizer, _ = pair
    for text in (unit * 10_000, " " + unit * 10_000, " " + unit * 10_000 + "\n"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_million_letters_are_encoded_as_tiktoken_merges_them(o200k: Tokenizer) -> None:
    reference = encoding_of(o200k)
    assert o200k.encode("x" * 1_000_000) == reference.encode("x" * 1_000_000)


def test_an_empty_text_has_no_ids(pair: Pair) -> None:
    tokenizer, _ = pair
    assert tokenizer.encode("") == tokenizer.encode_ordinary("") == []
    assert tokenizer.encode_batch([]) == []
    assert tokenizer.decode([]) == ""


@given(text=st.text())
def test_any_text_round_trips(pair: Pair, text: str) -> None:
    tokenizer, _ = pair
    assert tokenizer.decode(tokenizer.encode(text, disallowed_special=())) == text
    assert tokenizer.encode_ordinary(text) == tokenizer.encode(text, disallowed_special=())


@given(batch=st.lists(st.text(), max_size=8))
def test_any_batch_round_trips(pair: Pair, batch: list[str]) -> None:
    tokenizer, reference = pair
    ids = tokenizer.encode_batch(batch, allowed_special="all")
    assert ids == [tokenizer.encode(text, allowed_special="all") for text in batch]
    assert ids == reference.encode_batch(batch, allowed_special="all")
    assert tokenizer.encode_ordinary_batch(batch) == reference.encode_ordinary_batch(batch)
    assert tokenizer.decode_batch(ids) == reference.decode_batch(ids) == batch
    assert tokenizer.decode_bytes_batch(ids) == [text.encode() for text in batch]


def test_every_token_is_found_by_its_bytes(pair: Pair) -> None:
    tokenizer, _ = pair
    for id in range(tokenizer.n_vocab):
        try:
            token = tokenizer.decode_single_token_bytes(id)
        except KeyError:
            continue
        assert tokenizer.encode_single_token(token) == id


def test_token_byte_values_are_those_of_tiktoken_in_its_order(pair: Pair) -> None:
    tokenizer, reference = pair
    assert tokenizer.token_byte_values() == reference.token_byte_values()


def test_arrays_of_ids_have_the_type_of_tiktokens(pair: Pair) -> None:
    tokenizer, reference = pair
    for text in ("", "hello world", "ab " * 1000):
        ours, theirs = tokenizer.encode_to_numpy(text), reference.encode_to_numpy(text)
        assert (ours.dtype, ours.shape, ours.tolist()) == (theirs.dtype, theirs.shape, theirs.tolist())


# Special tokens

SPECIAL = {"<|a|>": 300, "<|b|>": 301, "all": 302}


class SetOfItsOwn(Set[Any]):
    """A set that is not a subclass of the built-in ones."""

    def __init__(self, tokens: Iterable[Any] = ("<|a|>",)) -> None:
        self._tokens = list(tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._tokens

    def __iter__(self) -> Iterator[Any]:
        return iter(self._tokens)

    def __len__(self) -> int:
        return len(self._tokens)


class Text(str):
    """A subclass of str."""


# Makes each argument anew, because an iterator can be read only once.
ARGUMENTS: dict[str, Callable[[], Any]] = {
    "all": lambda: "all",
    "all, of a subclass": lambda: Text("all"),
    "none": lambda: "none",
    "empty str": lambda: "",
    "name": lambda: "<|a|>",
    "None": lambda: None,
    "empty set": set,
    "set": lambda: {"<|a|>"},
    "frozenset": lambda: frozenset({"<|a|>"}),
    "set of a subclass": lambda: {Text("<|a|>")},
    "set of all": lambda: {"all"},
    "unknown": lambda: {"<|unknown|>"},
    "known and unknown": lambda: {"<|a|>", "x"},
    "set of the empty string": lambda: {""},
    "list": lambda: ["<|a|>"],
    "empty list": list,
    "list of all": lambda: ["all"],
    "tuple": lambda: ("<|a|>",),
    "empty tuple": tuple,
    "dict": lambda: {"<|a|>": 1},
    "empty dict": dict,
    "keys": lambda: {"<|a|>": 1}.keys(),
    "no keys": lambda: {}.keys(),
    "values": lambda: {1: "<|a|>"}.values(),
    "generator": lambda: (token for token in ["<|a|>"]),
    "empty iterator": lambda: iter(()),
    "set of its own": SetOfItsOwn,
    "number": lambda: 5,
    "zero": lambda: 0,
    "True": lambda: True,
    "False": lambda: False,
    "bytes": lambda: b"<|a|>",
    "no bytes": lambda: b"",
    "set of int": lambda: {1},
    "set of bytes": lambda: {b"<|a|>"},
    "set of None": lambda: {None},
    "str and int": lambda: {"<|a|>", 1},
    "list of int": lambda: [1],
    "list of lists": lambda: [[1]],
    "surrogate": lambda: {"\ud800"},
    "object": object,
}
TEXTS = ["hello", "x<|a|>y", "<|b|>", "<|a|><|b|>", "all", "n", ""]


@pytest.mark.parametrize("method", ["encode", "encode_to_numpy", "encode_batch", "encode_with_unstable"])
def test_every_kind_of_allowed_and_disallowed_is_taken_or_refused_as_in_tiktoken(method: str) -> None:
    tokenizer = byte_tokenizer(special_tokens=SPECIAL)
    ours, theirs = getattr(tokenizer, method), getattr(encoding_of(tokenizer), method)
    differing = []
    for (allowed, make_allowed), (disallowed, make_disallowed), text in itertools.product(
        ARGUMENTS.items(), ARGUMENTS.items(), TEXTS
    ):
        results = []
        for function in (ours, theirs):
            options = {"allowed_special": make_allowed(), "disallowed_special": make_disallowed()}
            results.append(outcome(function, [text] if method == "encode_batch" else text, **options))
        if method == "encode_with_unstable":  # the completions have no particular order
            results = [(r[0], sorted(map(tuple, r[1]))) if isinstance(r, tuple) else r for r in results]
        if results[0] != results[1]:
            differing.append((allowed, disallowed, text, results))
    assert differing == []


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("pattern", ["gpt2", r"\w+|\W"])
def test_no_string_but_all_ever_allows_a_special_token(pattern: str, text: str) -> None:
    tokenizer = byte_tokenizer(pattern, special_tokens=SPECIAL)
    for wrong in ("none", "", "<|a|>", "ALL", None, ["<|a|>"], ("<|a|>",), {"<|a|>": 300}):
        options: dict[str, Any] = {"allowed_special": wrong, "disallowed_special": ()}
        for encode in (
            tokenizer.encode,
            tokenizer.encode_to_numpy,
            tokenizer.encode_with_unstable,
            lambda text, **options: tokenizer.encode_batch([text], **options),
            lambda text, **options: tokenizer.encode_flat([text], **options),
            lambda text, **options: tokenizer.encode_files([__file__], **options),
            lambda _, **options: StreamEncoder(tokenizer, **options),
        ):
            with pytest.raises(TypeError, match="allowed_special"):
                encode(text, **options)  # type: ignore[operator]


def test_a_collection_of_disallowed_tokens_that_can_be_read_once_holds_for_all_texts_of_a_batch() -> None:
    for pattern in ("gpt2", r"\w+|\W"):
        tokenizer = byte_tokenizer(pattern, special_tokens=SPECIAL)
        with pytest.raises(ValueError, match=r"<\|a\|>"):
            tokenizer.encode_batch(["x", "y", "<|a|>"], disallowed_special=iter(["<|a|>"]))  # type: ignore[arg-type]
        encoder = StreamEncoder(tokenizer, disallowed_special=iter(["<|a|>"]))  # type: ignore[arg-type]
        for _ in range(2):
            with pytest.raises(ValueError, match=r"<\|a\|>"):
                encoder.feed("x <|a|>")
                encoder.flush()


def test_the_special_tokens_of_cl100k_are_ids_text_or_errors(cl100k: Tokenizer) -> None:
    end, prefix, middle = "<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>"
    ids = {token: cl100k.encode_single_token(token) for token in (end, prefix, middle)}
    assert ids[end] == cl100k.eot_token
    special = set(ids.values())
    text = f"{end} hello {prefix} there {middle}"
    for disallowed in ("all", {end}, {prefix}, [middle], (end, middle), frozenset({prefix})):
        with pytest.raises(ValueError, match="disallowed"):
            cl100k.encode(text, disallowed_special=disallowed)  # type: ignore[arg-type]
    assert not special & set(cl100k.encode(text, disallowed_special=()))
    for disallowed in ("all", ()):
        assert special <= set(cl100k.encode(text, allowed_special="all", disallowed_special=disallowed))  # type: ignore[arg-type]
    for token, id in ids.items():
        found = set(cl100k.encode(text, allowed_special={token}, disallowed_special=()))
        assert special & found == {id}


# Bytes and single pretokens


def test_bytes_of_a_truncated_text_get_the_ids_of_tiktoken(pair: Pair) -> None:
    tokenizer, reference = pair
    for content in (b" \xec\x8b\xa4\xed", b"hello \xff", b"a  \n \xe6", b"it's\xffit's  x", b"", b"<|endoftext|>"):
        assert tokenizer._encode_bytes(content) == reference._encode_bytes(content)


@given(content=st.one_of(st.binary(), broken_bytes()))
def test_any_bytes_get_the_ids_of_tiktoken(pair: Pair, content: bytes) -> None:
    tokenizer, reference = pair
    ids = tokenizer._encode_bytes(content)
    assert ids == reference._encode_bytes(content)
    assert tokenizer.decode_bytes(ids) == content
    if content:  # tiktoken panics on an empty piece
        assert tokenizer._encode_single_piece(content) == reference._encode_single_piece(content)
    assert tokenizer._encode_single_piece(b"") == []


@given(text=any_text)
def test_text_that_is_not_split_or_is_split_in_python_gets_the_ids_of_tiktoken(pair: Pair, text: str) -> None:
    tokenizer, reference = pair
    if text:
        piece = outcome(reference._encode_single_piece, text)
        assert outcome(tokenizer._encode_single_piece, text) == piece
    native = outcome(reference._encode_only_native_bpe, text)
    assert outcome(tokenizer._encode_only_native_bpe, text) == native


def test_bytes_get_the_ids_of_tiktoken_with_a_pattern_without_a_scanner(cl100k: Tokenizer) -> None:
    options: dict[str, Any] = {"mergeable_ranks": cl100k.mergeable_ranks, "special_tokens": {"<|x|>": 200_000}}
    for pattern in (r"\w+|\W", r"[a-z]+"):
        tokenizer = Tokenizer("slow", pat_str=pattern, **options)
        reference = tiktoken.Encoding("slow", pat_str=pattern, **options)
        for content in (b"hello \xec\x8b", b"", b"hello  ", b"\xff", b"hello\xff there", b"1234 \xff", b"<|x|>\xff"):
            assert tokenizer._encode_bytes(content) == reference._encode_bytes(content)
            text = content.decode("utf-8", "ignore")
            assert tokenizer._encode_only_native_bpe(text) == reference._encode_only_native_bpe(text)


# Wrong arguments

NOT_IDS = [
    *([300_000], [-1], [2**32], [2**70], ["a"], [None], [1.5], [b"a"], [[1]]),
    *("abc", "", 5, None, {1: 2}, {1, 2}, np.array(3), np.int64(3)),
]
IDS = [[], (1, 2), range(3), np.array([1, 2]), np.array([1, 2], np.uint32), [True], b"ab", bytearray(b"ab")]


@pytest.mark.parametrize("method", ["decode", "decode_bytes", "decode_tokens_bytes", "decode_with_offsets"])
@pytest.mark.parametrize("ids", [*NOT_IDS, *IDS, [100_256]], ids=repr)
def test_ids_are_decoded_or_refused_with_the_exception_of_tiktoken(
    cl100k: Tokenizer, cl100k_reference: tiktoken.Encoding, method: str, ids: Any
) -> None:
    assert outcome(getattr(cl100k, method), ids) == outcome(getattr(cl100k_reference, method), ids)
    if method in ("decode", "decode_bytes"):
        batch, reference = getattr(cl100k, f"{method}_batch"), getattr(cl100k_reference, f"{method}_batch")
        assert outcome(batch, [ids]) == outcome(reference, [ids])


def test_ids_that_can_be_read_only_once_are_refused_as_in_tiktoken(
    cl100k: Tokenizer, cl100k_reference: tiktoken.Encoding
) -> None:
    for method in ("decode", "decode_bytes", "decode_tokens_bytes", "decode_with_offsets"):
        ours = outcome(getattr(cl100k, method), iter([1, 2]))
        assert ours == outcome(getattr(cl100k_reference, method), iter([1, 2]))


@pytest.mark.parametrize("token", [5, 100_256, 100_257, 300_000, -1, 2**32, 2**70, "a", None, 1.5, [1], True], ids=repr)
def test_single_ids_are_taken_or_refused_as_in_tiktoken(
    cl100k: Tokenizer, cl100k_reference: tiktoken.Encoding, token: Any
) -> None:
    for method in ("decode_single_token_bytes", "is_special_token"):
        assert outcome(getattr(cl100k, method), token) == outcome(getattr(cl100k_reference, method), token)


@pytest.mark.parametrize(
    "token", ["hello", b"hello", "two words", b"\xff\xfe\xff", "", b"", "\ud83d", 5, None, "<|endoftext|>"], ids=repr
)
def test_single_tokens_are_found_or_refused_as_in_tiktoken(
    cl100k: Tokenizer, cl100k_reference: tiktoken.Encoding, token: Any
) -> None:
    assert outcome(cl100k.encode_single_token, token) == outcome(cl100k_reference.encode_single_token, token)


@pytest.mark.parametrize("text", [5, None, ["a"], 1.5, {"a"}, 1j], ids=repr)
def test_anything_but_text_is_refused_as_in_tiktoken(
    cl100k: Tokenizer, cl100k_reference: tiktoken.Encoding, text: Any
) -> None:
    for tokenizer in (cl100k, cl100k_reference):
        for method in ("encode", "encode_ordinary", "encode_to_numpy", "encode_with_unstable"):
            with pytest.raises(TypeError):
                getattr(tokenizer, method)(text)
        for method in ("_encode_bytes", "_encode_single_piece", "_encode_only_native_bpe"):
            with pytest.raises(TypeError):
                getattr(tokenizer, method)(text)
        for method in ("encode_batch", "encode_ordinary_batch"):
            with pytest.raises(TypeError):
                getattr(tokenizer, method)([text])
        with pytest.raises(TypeError):
            tokenizer._encode_bytes("hello")  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [0, -1, "a"])
def test_a_number_of_threads_below_one_is_refused_as_in_tiktoken(
    cl100k: Tokenizer, cl100k_reference: tiktoken.Encoding, threads: Any
) -> None:
    for method, batch in {
        "encode_batch": ["a"],
        "encode_ordinary_batch": ["a"],
        "decode_batch": [[1]],
        "decode_bytes_batch": [[1]],
    }.items():
        expected = outcome(getattr(cl100k_reference, method), batch, num_threads=threads)
        assert outcome(getattr(cl100k, method), batch, num_threads=threads) == expected
        assert expected in (ValueError, TypeError)
    for method in ("encode_flat", "count_batch"):
        assert outcome(getattr(cl100k, method), ["a"], num_threads=threads) in (ValueError, TypeError)


# Offsets


def offsets_by_prefixes(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """Return where each token begins in the text, by decoding the ids before it."""
    text = tokenizer.decode(ids, errors="strict")
    prefixes = [tokenizer.decode(ids[:index], errors="ignore") for index in range(len(ids))]
    return [next((i for i, (a, b) in enumerate(zip(text, p, strict=False)) if a != b), len(p)) for p in prefixes]


@given(text=st.text())
def test_offsets_are_those_of_the_decoded_prefixes(
    cl100k: Tokenizer, cl100k_reference: tiktoken.Encoding, text: str
) -> None:
    ids = cl100k.encode(text, allowed_special="all")
    expected = offsets_by_prefixes(cl100k, ids)
    assert cl100k.decode_with_offsets(ids) == (text, expected) == cl100k_reference.decode_with_offsets(ids)


def test_offsets_of_text_whose_tokens_cut_characters(cl100k: Tokenizer) -> None:
    for text, offsets in {
        "": [],
        "hello world": [0, 5],
        "hello world<|endoftext|> green cow": [0, 5, 11, 24, 30],
        "我非常渴望与人工智能一起工作": [0, 1, 2, 3, 3, 4, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12, 13],
        "நடிகர் சூர்யா": [0, 0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 9, 9, 10, 11, 12, 12],
        " Ġ除": [0, 1],
    }.items():
        assert cl100k.decode_with_offsets(cl100k.encode(text, allowed_special="all")) == (text, offsets)
    with pytest.raises(KeyError):
        cl100k.decode_with_offsets([cl100k.max_token_value + 1])
    with pytest.raises(UnicodeDecodeError):
        cl100k.decode_with_offsets(cl100k._encode_bytes(b"\x80"))


# Copies


@pytest.mark.parametrize("make", [lambda each: pickle.loads(pickle.dumps(each)), copy.copy, copy.deepcopy])
def test_copies_encode_as_the_original(cl100k: Tokenizer, make: Callable[[Tokenizer], Tokenizer]) -> None:
    twin = make(cl100k)
    assert twin.encode("hello world") == cl100k.encode("hello world")
    assert (twin.name, twin.n_vocab, twin._pat_str) == (cl100k.name, cl100k.n_vocab, cl100k._pat_str)
    assert twin.special_tokens == cl100k.special_tokens


def test_tiktokens_recipe_to_add_a_special_token_works(cl100k: Tokenizer) -> None:
    extended = Tokenizer(
        "extended",
        pat_str=cl100k._pat_str,
        mergeable_ranks=cl100k._mergeable_ranks,
        special_tokens={**cl100k._special_tokens, "<|pickle|>": 100_300},
    )
    for twin in (extended, pickle.loads(pickle.dumps(extended))):
        assert twin.encode("hello <|pickle|>", allowed_special="all") == [15339, 220, 100_300]


# Names and signatures


def test_every_method_of_tiktoken_takes_the_same_arguments() -> None:
    for name, function in inspect.getmembers(tiktoken.Encoding, inspect.isfunction):
        if name.startswith("__"):
            continue
        theirs = dict(inspect.signature(function).parameters)
        ours = dict(inspect.signature(getattr(Tokenizer, name)).parameters)
        del theirs["self"], ours["self"]
        assert [*ours][: len(theirs)] == [*theirs], name
        for parameter in theirs:
            assert ours[parameter].kind == theirs[parameter].kind, (name, parameter)
            if parameter != "allowed_special":  # a set there, a frozenset here
                assert ours[parameter].default == theirs[parameter].default, (name, parameter)


@pytest.mark.parametrize("kind", [Tokenizer, StreamEncoder, StreamDecoder])
def test_every_public_method_shows_its_signature(kind: type) -> None:
    assert inspect.signature(kind).parameters
    for name, method in inspect.getmembers(kind, callable):
        if not name.startswith("__"):
            assert inspect.signature(method).parameters or name.startswith("from_"), name
            assert inspect.getdoc(method) or name.startswith("_"), name
    assert str(inspect.signature(Tokenizer.encode_ordinary)) == "(self, /, text)"
    assert str(inspect.signature(byte_tokenizer().encode_ordinary)) == "(text)"


def test_encode_ordinary_takes_its_text_by_position_or_name_and_nothing_else(cl100k: Tokenizer) -> None:
    encode: Any = cl100k.encode_ordinary
    assert encode("hello") == encode(text="hello") == [15339]
    for arguments, options in [((), {}), (("a", "b"), {}), (("a",), {"text": "b"}), ((), {"texts": "a"})]:
        with pytest.raises(TypeError, match="text"):
            encode(*arguments, **options)
    with pytest.raises(TypeError, match="not initialized"):
        Tokenizer.__new__(Tokenizer).encode_ordinary("a")


# Other processes


def test_bound_methods_can_be_pickled(llama3: Tokenizer) -> None:
    text, ids = "Hello world", [9906, 1917]
    for method, argument in [
        (llama3.encode_ordinary, text),
        (llama3.encode, text),
        (llama3.encode_with_offsets, text),
        (llama3.count, text),
        (llama3.encode_single_token, "Hello"),
        (llama3.encode_batch, [text]),
        (llama3.decode, ids),
        (llama3.decode_bytes, ids),
        (llama3.decode_with_offsets, ids),
        (StreamDecoder(llama3).feed, 9906),
    ]:
        twin: Callable[[Any], Any] = pickle.loads(pickle.dumps(method))
        assert twin(argument) == method(argument)  # type: ignore[operator]
    assert pickle.loads(pickle.dumps(llama3.encode_to_numpy))(text).tolist() == ids


def test_a_pool_of_processes_maps_a_method_over_texts(cl100k: Tokenizer) -> None:
    texts = ["hello world", "", "a b c"] * 3
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(cl100k.encode_ordinary, texts) == [cl100k.encode_ordinary(text) for text in texts]


def test_two_names_with_one_id_are_encoded_as_in_tiktoken() -> None:
    """As in o200k_harmony, where a reserved name has the id of another special token."""
    tokenizer = byte_tokenizer(special_tokens={"<|a|>": 300, "<|reserved|>": 300, "<|end|>": 301})
    reference = encoding_of(tokenizer)
    text = "x<|a|><|reserved|>y<|end|>"
    for allowed in ("all", {"<|reserved|>"}, {"<|a|>", "<|end|>"}):
        options: dict[str, Any] = {"allowed_special": allowed, "disallowed_special": ()}
        assert tokenizer.encode(text, **options) == reference.encode(text, **options)
    assert tokenizer.special_tokens_set == reference.special_tokens_set
    assert tokenizer.n_vocab == reference.n_vocab
    assert tokenizer.encode_single_token("<|reserved|>") == reference.encode_single_token("<|reserved|>") == 300
    assert tokenizer.is_special_token(300)
    assert tokenizer.decode([300]) in ("<|a|>", "<|reserved|>")


@pytest.mark.parametrize(
    "array", [np.array([1, 2]), np.int64(3), np.array(["a", 1], object), np.array("a"), np.zeros((2, 2), np.uint8)]
)
def test_arrays_of_numbers_are_no_text(array: Any) -> None:
    """Their memory could be read as bytes, which for objects are addresses."""
    tokenizer = byte_tokenizer()
    reference = encoding_of(tokenizer)
    for name in ("encode", "encode_ordinary", "encode_to_numpy", "encode_with_unstable", "encode_single_token",
                 "_encode_bytes", "_encode_single_piece"):  # fmt: skip
        for each in (tokenizer, reference):
            with pytest.raises(TypeError):
                getattr(each, name)(array)
    for batch in (tokenizer.encode_batch, tokenizer.encode_ordinary_batch, tokenizer.count_batch):
        with pytest.raises(TypeError):
            batch([array])
    for text in (b"ab", bytearray(b"ab"), memoryview(b"ab"), np.frombuffer(b"ab", np.uint8)):
        assert tokenizer.encode_ordinary(text) == tokenizer.encode("ab")  # type: ignore[arg-type]


@pytest.mark.parametrize("pattern", [5, None, b".+", re.compile(".+")])
def test_a_split_pattern_that_is_no_str_is_refused(pattern: Any) -> None:
    ranks = {bytes([byte]): byte for byte in range(256)}
    for kind in (Tokenizer, tiktoken.Encoding):
        with pytest.raises(TypeError):
            kind("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
