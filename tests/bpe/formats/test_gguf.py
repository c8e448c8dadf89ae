"""GGUF: the container against the `gguf` package, the tokenizer against `tokenizers`, and every kind of damage."""

from __future__ import annotations

import struct
import warnings
from array import array
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from bpe import InputError, Tokenizer
from bpe.formats.gguf import render, vocabulary_metadata
from bpe.formats.gguf_container import TENSOR_TYPES, Container, lay_out
from bpe.patterns import find_pattern
from bpe.vocabulary import AddedToken, Vocabulary
from support.references import BYTE_RANKS, any_text, byte_tokenizer, is_pinned


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def header(values: bytes = b"", count: int = 0, tensors: bytes = b"", tensor_count: int = 0, version: int = 3) -> bytes:
    content = b"GGUF" + struct.pack("<IQQ", version, tensor_count, count) + values + tensors
    return content.ljust(-(-len(content) // 32) * 32, b"\0")


def tensor(name: bytes = b"t", shape: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0) -> bytes:
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


SMALL: dict[str, Any] = {
    "general.architecture": "llama",
    "a.bool": True,
    "a.number": 7,
    "a.float": 0.5,
    "a.texts": ["", "é", "x" * 40],
    "a.numbers": memoryview(array("i", [1, -2, 3])),
}


def small_file() -> bytes:
    before, places = lay_out(SMALL, {"first": ((2, 32), "Q8_0"), "second": ((3,), "F32")})
    size = max(info.offset + info.n_bytes for info in places.values())
    return before + bytes(size - len(before))


# The container


def test_values_of_all_types_are_read_as_the_gguf_package_wrote_them(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "all.gguf", "llama")
    numbers = {"uint8": 200, "int8": -100, "uint16": 60000, "int16": -30000, "uint32": 2**32 - 1, "int32": -(2**31),
               "uint64": 2**64 - 1, "int64": -(2**63), "float32": 0.25, "float64": 0.1, "bool": True}  # fmt: skip
    for kind, value in numbers.items():
        getattr(writer, f"add_{kind}")(f"k.{kind}", value)
    writer.add_string("k.string", "naïve 日本")
    writer.add_array("k.strings", ["a", "", "é"])
    writer.add_array("k.integers", [1, -2, 3])
    writer.add_array("k.floats", [0.5, -1.5])
    writer.add_array("k.bools", [True, False])
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones((4, 2, 5), np.float16)}
    for name, numbers_of in tensors.items():
        writer.add_tensor(name, numbers_of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    container = Container.open(tmp_path / "all.gguf")
    found = {
        key: value.tolist() if isinstance(value, memoryview) else value for key, value in container.metadata.items()
    }
    assert found == {
        "general.architecture": "llama",
        **{f"k.{kind}": value for kind, value in numbers.items()},
        "k.string": "naïve 日本",
        "k.strings": ["a", "", "é"],
        "k.integers": [1, -2, 3],
        "k.floats": [0.5, -1.5],
        "k.bools": [True, False],
    }
    for name, expected in tensors.items():
        assert container.tensors[name].shape == expected.shape
        assert bytes(container.data(name)) == expected.tobytes()


def test_the_gguf_package_reads_what_lay_out_writes(tmp_path: Path) -> None:
    (tmp_path / "small.gguf").write_bytes(small_file())
    reader = gguf.GGUFReader(tmp_path / "small.gguf")
    for key, value in SMALL.items():
        assert reader.fields[key].contents() == (value.tolist() if isinstance(value, memoryview) else value)
    assert [(each.name, each.tensor_type.name, each.shape.tolist()) for each in reader.tensors] == [
        ("first", "Q8_0", [32, 2]),
        ("second", "F32", [3]),
    ]


@pytest.mark.slow
def test_the_tensors_of_smollm2_lie_where_the_gguf_package_finds_them(smollm2_file: Path) -> None:
    container = Container.open(smollm2_file)
    reader = gguf.GGUFReader(smollm2_file)
    assert {each.name: (each.tensor_type.name, each.data_offset, each.n_bytes, tuple(each.shape.tolist()[::-1]))
            for each in reader.tensors} == {
        name: (info.type, info.offset, info.n_bytes, info.shape) for name, info in container.tensors.items()
    }  # fmt: skip
    name = "blk.3.attn_k.weight"
    before = bytes(container.data(name))
    container.release(container.tensors[name].offset, container.tensors[name].n_bytes)
    assert bytes(container.data(name)) == before


def test_the_sizes_of_blocks_are_those_of_the_gguf_package() -> None:
    theirs = {kind.value: (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {number: theirs[number] for number in TENSOR_TYPES} == TENSOR_TYPES


def test_a_file_of_version_2_is_read() -> None:
    content = small_file()
    container = Container(content[:4] + struct.pack("<I", 2) + content[8:])
    assert (container.version, container.metadata["a.number"]) == (2, 7)


FLOAT = struct.pack("<If", 6, 1.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with b''"),
        (b"GGML" + bytes(40), "begins with b'GGML'"),
        (b"GGUF", "truncated"),
        (header(version=1), "GGUF version 1; only versions 2 and 3"),
        (header(version=4), "GGUF version 4"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (header(count=2**63), "beyond the end"),
        (header(tensor_count=2**63), "beyond the end"),
        (header(struct.pack("<Q", 2**64 - 1), 1), "beyond the end"),
        (header(string(b"k") + struct.pack("<IQ", 8, 2**62), 1), "beyond the end"),
        (header(string(b"k") + struct.pack("<IIQ", 9, 8, 2**61), 1), "beyond the end"),
        (header(string(b"k") + struct.pack("<IIQQ", 9, 8, 1, 2**63), 1), "beyond the end"),
        (header(string(b"k") + struct.pack("<IIQ", 9, 12, 2**61), 1), "beyond the end"),
        (header(string(b"k") + struct.pack("<IIQ", 9, 9, 1) + bytes(16), 1), "only numbers and strings are supported"),
        (header(string(b"k") + struct.pack("<II", 13, 0), 1), "has the type 13, which does not exist"),
        (header(2 * (string(b"k") + FLOAT), 2), "two values for the key 'k'"),
        (header(string(b"general.alignment") + struct.pack("<II", 4, 0), 1), "alignment is 0"),
        (header(string(b"general.alignment") + struct.pack("<II", 4, 12), 1), "alignment is 12"),
        (header(tensors=tensor(shape=(1, 1, 1, 1, 1)), tensor_count=1) + bytes(32), "has 5 dimensions"),
        (header(tensors=tensor(kind=4), tensor_count=1) + bytes(32), "has the unknown type 4"),
        (header(tensors=tensor(shape=(33,), kind=8), tensor_count=1) + bytes(99), "Q8_0 needs a multiple of 32"),
        (header(tensors=tensor(shape=(0,)), tensor_count=1), "so it is empty"),
        (header(tensors=tensor(shape=(2**63, 2**63)), tensor_count=1) + bytes(32), "download incomplete"),
        (header(tensors=tensor(shape=(9,)), tensor_count=1) + bytes(32), "download incomplete"),
        (header(tensors=tensor(offset=2**63), tensor_count=1) + bytes(32), "download incomplete"),
        (header(tensors=tensor(offset=4), tensor_count=1) + bytes(64), "not aligned"),
        (header(tensors=tensor() + tensor(b"u"), tensor_count=2) + bytes(64), "'t' and 'u' overlap"),
        (header(tensors=tensor() + tensor(offset=32), tensor_count=2) + bytes(64), "two tensors are called 't'"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_with_the_reason(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError, match="the file is empty" if not content else message) as caught:
        Container.open(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_truncated_anywhere_is_refused() -> None:
    content = small_file()
    Container(content)
    for size in range(len(content)):
        with pytest.raises(InputError):
            Container(content[:size])


@given(st.lists(st.tuples(st.integers(0, len(small_file()) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_file_with_changed_bytes_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    content = bytearray(small_file())
    for place, byte in changes:
        content[place] = byte
    try:
        container = Container(bytes(content))
    except InputError:
        return
    for name, info in container.tensors.items():
        assert len(container.data(name)) == info.n_bytes


# The tokenizer


@pytest.fixture(scope="module")
def smollm2(smollm2_file: Path) -> Tokenizer:
    return Tokenizer.from_file(smollm2_file)


@pytest.fixture(scope="module")
def smollm2_reference(smollm2_file: Path) -> tokenizers.Tokenizer:
    """`tokenizers` with the vocabulary and the merges of the file, as the gguf package reads them."""
    fields = gguf.GGUFReader(smollm2_file).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    reference = tokenizers.Tokenizer(models.BPE({token: id for id, token in enumerate(tokens)}, merges))
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    types = fields["tokenizer.ggml.token_type"].contents()
    reference.add_special_tokens([token for token, kind in zip(tokens, types, strict=True) if kind == 3])
    return reference


def test_smollm2_has_the_ids_of_tokenizers(
    smollm2: Tokenizer, smollm2_reference: tokenizers.Tokenizer, corpus_texts: dict[str, str]
) -> None:
    assert smollm2.n_vocab == 49152
    assert (smollm2.special_tokens["<|im_start|>"], smollm2.special_tokens["<|im_end|>"]) == (1, 2)
    assert len(smollm2.special_tokens) == 17
    for name, text in corpus_texts.items():
        assert smollm2.encode_ordinary(text) == smollm2_reference.encode(text).ids, name
    chat = "<|im_start|>user\nWhat is 12345 + 6?<|im_end|>\n"
    assert smollm2.encode(chat, allowed_special="all") == smollm2_reference.encode(chat).ids


@given(any_text.filter(is_pinned))
def test_any_text_has_the_ids_of_tokenizers(
    smollm2: Tokenizer, smollm2_reference: tokenizers.Tokenizer, text: str
) -> None:
    assert smollm2.encode(text, allowed_special="all") == smollm2_reference.encode(text).ids


def tokenizer_file(**changes: Any) -> bytes:
    """A vocabulary of bytes and two merges, with some of its metadata replaced; None leaves a key out."""
    made = vocabulary_metadata(byte_tokenizer("llama3", {"<|end|>": 258}, he=256, hel=257).vocabulary, 259)
    for key, value in changes.items():
        made[f"tokenizer.ggml.{key}"] = value
    return lay_out({key: value for key, value in made.items() if value is not None}, {})[0]


def read(content: bytes, tmp_path: Path, **options: Any) -> Tokenizer:
    (tmp_path / "tokenizer.gguf").write_bytes(content)
    return Tokenizer.from_file(tmp_path / "tokenizer.gguf", **options)


@pytest.mark.parametrize("pattern", ["llama3", "gpt2", "qwen2", "smollm"])
def test_a_tokenizer_in_a_gguf_round_trips(pattern: str, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(pattern, {"<|end|>": 300, "<é>": 299}, he=256, hel=257)
    tokenizer.save(tmp_path / "again.gguf")
    again = Tokenizer.from_file(tmp_path / "again.gguf")
    assert again.mergeable_ranks == tokenizer.mergeable_ranks
    assert again.special_tokens == tokenizer.special_tokens
    assert again.pattern == tokenizer.pattern
    text = "hello <|end|> 123 <é>é"
    assert again.encode(text, allowed_special="all") == tokenizer.encode(text, allowed_special="all")


def test_llama_3_round_trips_through_a_gguf(llama3: Tokenizer, tmp_path: Path, corpus_texts: dict[str, str]) -> None:
    again = read(render(llama3.vocabulary), tmp_path)
    assert again.mergeable_ranks == llama3.mergeable_ranks
    assert again.special_tokens == llama3.special_tokens
    for text in corpus_texts.values():
        assert again.encode_ordinary(text) == llama3.encode_ordinary(text)


def test_a_pattern_that_llama_cpp_does_not_have_is_not_written() -> None:
    with pytest.raises(
        InputError, match=r"no pre-tokenizer for the pattern 'cl100k'; it has those of llama3, tekken, gpt2"
    ):
        render(byte_tokenizer("cl100k").vocabulary)


def test_a_special_token_with_the_text_of_another_is_not_written() -> None:
    with pytest.raises(InputError, match="'é' is also an ordinary token, which GGUF"):
        render(byte_tokenizer("gpt2", {"é": 256}).vocabulary)


def test_tokens_that_no_merge_leads_to_are_written_only_where_llama_cpp_uses_them_likewise(tmp_path: Path) -> None:
    def vocabulary(name: str, pattern: str, merges_only: bool = False) -> Vocabulary:
        ranks = BYTE_RANKS | {b"xyz": 256}
        return Vocabulary.from_ranks(name, find_pattern(pattern), ranks, {}, merges_only)

    assert read(render(vocabulary("whole", "llama3")), tmp_path).encode("xyz") == [256]
    begin = "no merge leads to 1 of the tokens; with the pre-tokenizer"
    with pytest.raises(InputError, match=f"{begin} gpt-2, llama.cpp never uses them, unlike whole"):
        render(vocabulary("whole", "gpt2"))
    assert read(render(vocabulary("merged", "llama3", merges_only=True)), tmp_path).encode("xyz") == list(b"xyz")
    with pytest.raises(InputError, match=f"{begin} qwen2, llama.cpp never uses them, unlike whole"):
        render(vocabulary("whole", "qwen2"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "llama"}, "no array tokenizer.ggml.scores of numbers"),
        ({"model": "bert"}, "tokenizer.ggml.model is 'bert'; supported are 'gpt2'.*'llama'"),
        ({"model": None}, "there is no tokenizer.ggml.model; is this a model without a tokenizer"),
        ({"model": ["gpt2"]}, "supported are 'gpt2'"),
        ({"pre": "lama3"}, "pre is 'lama3', which no llama.cpp is known to read; did you mean llama3.*--pattern"),
        ({"pre": "gemma4"}, "pre is 'gemma4', which merges characters instead of bytes.*tokenizer.json"),
        ({"pre": ["a"]}, "tokenizer.ggml.pre is"),
        ({"tokens": None}, "no array tokenizer.ggml.tokens"),
        ({"tokens": "abc"}, "no array tokenizer.ggml.tokens"),
        ({"tokens": ["a", "b"]}, "2 tokens, but 259"),
        ({"tokens": memoryview(array("i", range(259)))}, "no array tokenizer.ggml.tokens of strings"),
        ({"tokens": ["a"] * 259}, "two tokens"),
        ({"tokens": [chr(0x4E00 + id) for id in range(259)]}, "stands for no byte"),
        ({"merges": None}, "no array tokenizer.ggml.merges"),
        ({"merges": ["h e", "he l", "x yz"]}, "entry 2 of the merges, 'x yz', has 'yz', which is not a token"),
        ({"token_type": memoryview(array("i", [5] * 259))}, "empty"),
    ],
)
def test_a_tokenizer_whose_ids_could_not_be_exact_is_refused(changes: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(tokenizer_file(**changes), tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "tokenizer.gguf"))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("pre", [None, ""])
def test_a_missing_value_splits_as_llama_cpp_does_then_with_a_warning(pre: str | None, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="pre, which names the split pattern, is missing; .*pattern= or --patt"):
        tokenizer = read(tokenizer_file(pre=pre), tmp_path)
    assert tokenizer.pattern == read(tokenizer_file(pre="default"), tmp_path).pattern
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(tokenizer_file(pre=pre), tmp_path, pattern="gpt2").pattern.name == "gpt2"


def test_unused_tokens_are_left_out_and_user_defined_ones_are_added_without_being_special(tmp_path: Path) -> None:
    types = array("i", [1] * 256 + [1, 5, 4])
    tokenizer = read(tokenizer_file(token_type=memoryview(types), merges=["h e"]), tmp_path)
    assert b"hel" not in tokenizer.mergeable_ranks
    assert tokenizer.special_tokens == {}
    assert tokenizer.vocabulary.added_tokens == (AddedToken("<|end|>", 258, special=False),)
    assert tokenizer.encode_ordinary("he<|end|>") == [256, 258]


def test_pattern_and_special_tokens_may_be_given(tmp_path: Path) -> None:
    content = tokenizer_file(pre="tekken")
    tokenizer = read(content, tmp_path, pattern="gpt2", special_tokens={"<|other|>": 400})
    assert (tokenizer.pattern.name, tokenizer.special_tokens) == ("gpt2", {"<|other|>": 400})


def test_the_only_gguf_of_a_directory_is_its_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "some.gguf").write_bytes(tokenizer_file())
    assert Tokenizer.from_file(tmp_path).encode("hel") == [257]
    (tmp_path / "other.gguf").write_bytes(tokenizer_file())
    with pytest.raises(InputError, match=r"found other\.gguf, some\.gguf"):
        Tokenizer.from_file(tmp_path)
