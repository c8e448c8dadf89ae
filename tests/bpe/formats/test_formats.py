"""Tokenizer files: other programs give the same ids for what we write, and damaged files are refused with a reason."""

from __future__ import annotations

import errno
import gzip
import importlib.util
import json
import os
import pickle
import random
import tracemalloc
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tiktoken.load
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from bpe import InputError, Tokenizer
from bpe.files import write_atomically
from bpe.formats.byte_level import byte_characters, token_text
from bpe.patterns import DIGITS_THEN_GPT2, PATTERNS
from bpe.published_patterns import LLAMA3
from support.references import BYTE_RANKS, byte_tokenizer, is_pinned


def rank_lines(ranks: dict[bytes, int]) -> bytes:
    return b"".join(b"%s %d\n" % (b64encode(token), rank) for token, rank in ranks.items())


BYTE_LINES = rank_lines(BYTE_RANKS)


# tiktoken's ranks


@pytest.mark.parametrize("suffix", [".model", ".tiktoken"])
def test_ranks_round_trip(gpt2: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # else tiktoken keeps a copy outside of the test's directory
    path = tmp_path / f"ranks{suffix}"
    gpt2.save(path)
    again = Tokenizer.from_file(path, pattern="gpt2")
    assert again.mergeable_ranks == gpt2.mergeable_ranks
    assert again.special_tokens == gpt2.special_tokens
    assert tiktoken.load.load_tiktoken_bpe(str(path)) == gpt2.mergeable_ranks


def test_the_ranks_that_were_read_are_written_byte_for_byte(llama3: Tokenizer, tmp_path: Path) -> None:
    spec = importlib.util.find_spec("llama_models")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    original = Path(spec.submodule_search_locations[0]) / "llama3" / "tokenizer.model"
    llama3.save(tmp_path / "tokenizer.model")
    assert (tmp_path / "tokenizer.model").read_bytes() == original.read_bytes()


def test_llama_3_is_recognised_under_any_file_name(llama3: Tokenizer, tmp_path: Path) -> None:
    llama3.save(tmp_path / "some.tiktoken")
    again = Tokenizer.from_file(tmp_path / "some.tiktoken")
    assert (again.name, again.pattern.name) == ("llama3", "llama3")
    assert again.special_tokens["<|begin_of_text|>"] == 128_000
    assert again.special_tokens["<|eot_id|>"] == 128_009
    assert again.special_tokens["<|python_tag|>"] == 128_010
    assert again.n_vocab == 128_256


def test_cl100k_is_recognised_with_its_unused_ids_and_special_tokens(cl100k: Tokenizer) -> None:
    assert (cl100k.name, cl100k.pattern.name) == ("cl100k_base", "cl100k")
    assert cl100k.special_tokens["<|endofprompt|>"] == 100_276
    assert cl100k.n_vocab == 100_277


def test_arguments_override_the_recognised_pattern_and_special_tokens(llama3: Tokenizer, tmp_path: Path) -> None:
    llama3.save(tmp_path / "ranks.model")
    read = Tokenizer.from_file(tmp_path / "ranks.model", pattern="gpt2", special_tokens=["<|x|>", "<|y|>"])
    assert read.pattern.name == "gpt2"
    assert read.special_tokens == {"<|x|>": 128_000, "<|y|>": 128_001}
    read = Tokenizer.from_file(tmp_path / "ranks.model", special_tokens={"<|x|>": 200_000})
    assert read.special_tokens == {"<|x|>": 200_000}
    assert read.pattern.name == "llama3"


def test_gzipped_files_are_read(gpt2: Tokenizer, tmp_path: Path) -> None:
    for suffix in (".model", ".json"):
        gpt2.save(tmp_path / f"plain{suffix}")
        path = tmp_path / f"zipped{suffix}.gz"
        path.write_bytes(gzip.compress((tmp_path / f"plain{suffix}").read_bytes()))
        assert Tokenizer.from_file(path, pattern="gpt2").mergeable_ranks == gpt2.mergeable_ranks
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(InputError, match=f"{path.name}: the gzip archive is damaged"):
            Tokenizer.from_file(path)


@pytest.mark.parametrize("archive", [False, True])
def test_a_huge_file_of_another_kind_is_refused_by_its_beginning(
    archive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tokenizer.model"
    if archive:
        path.write_bytes(gzip.compress(bytes(1 << 26), 1))
    else:
        with open(path, "wb") as file:
            file.truncate(1 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"tokenizer\.model: not a tokenizer file"):
            Tokenizer.from_file(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_an_archive_of_far_more_content_than_a_tokenizer_has_is_not_decompressed(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(gzip.compress(b"{" + b" " * 10_000_000))
    with pytest.raises(
        InputError, match="its content is more than 2,.* bytes, and so no tokenizer.*; download or copy"
    ):
        Tokenizer.from_file(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n",
            "a pointer of Git LFS: run git lfs pull",
        ),
        (b"<!DOCTYPE html><html></html>", "a web page: download the file itself"),
        (b"PK\x03\x04\0\0", "a ZIP archive or weights of PyTorch: give the tokenizer's file"),
        (b"\x80\x02}q\0.", "a pickle, which is never loaded: give the tokenizer's file"),
        (b"", "empty: download or copy it again"),
        (b" \n", "empty: download or copy it again"),
    ],
)
def test_a_file_of_another_kind_is_named(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"tokenizer\.model: not a tokenizer file; .*; it is {what}"):
        Tokenizer.from_file(path)


def test_messages_about_long_texts_are_cut_and_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    vocab = {"a": 0, "b" * 1_000_000 + "\u0007": "x"}
    step = {"type": "ByteLevel", "add_prefix_space": False}
    path.write_text(json.dumps({"model": {"type": "BPE", "vocab": vocab, "merges": []}, "pre_tokenizer": step}))
    with pytest.raises(InputError) as caught:
        Tokenizer.from_file(path)
    message = str(caught.value)
    assert len(message) < 2000 and message.isprintable()
    assert message.endswith("has the id 'x'; an id is an integer from 0 to 2**32 - 1")
    path.write_bytes(BYTE_LINES + b"YWI= 0\n")
    with pytest.raises(InputError, match="rank 0 appears twice; download or copy it again"):
        Tokenizer.from_file(path, pattern="gpt2")


def test_blank_lines_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "ranks.model"
    path.write_bytes(BYTE_LINES.replace(b"\n", b"\r\n") + b"\r\n\n" + b"YWI= 256")
    assert Tokenizer.from_file(path, pattern="gpt2").encode("ab") == [256]


def test_ranks_without_a_pattern_are_refused_with_the_names_of_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "ranks.model").write_bytes(BYTE_LINES)
    with pytest.raises(
        InputError,
        match=r"ranks\.model: .*no split pattern.*pattern='llama3'.*gpt2, cl100k, llama3, qwen2, o200k, llama4",
    ):
        Tokenizer.from_file(tmp_path / "ranks.model")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a tokenizer file"),
        (b"\n\n", "not a tokenizer file"),
        (b"text", "not a tokenizer file"),
        (b"\x80\x04 pickle", "not a tokenizer file"),
        (b"IQ== 0\n!!!! 1\n", "line 2 is not base64 followed by a space and a rank"),
        (b"IQ== 0\n\nIg= 1\n", "line 3 is not base64 followed by a space and a rank"),
        (b"IQ== 0\nIg==\n", "line 2 is not base64 followed by a space and a rank"),
        (b"IQ== 0\nIg== \n", "line 2 is not base64 followed by a space and a rank"),
        (b"IQ== 0\nIg== -1\n", "line 2 is not base64 followed by a space and a rank"),
        (b"IQ== 0\nIg== 1 2\n", "line 2 is not base64 followed by a space and a rank"),
        (b"IQ== 0\nIg==  1\n", "line 2 is not base64 followed by a space and a rank"),
        (b"IQ== 0\nIg== 1.0\n", "line 2 is not base64 followed by a space and a rank"),
        (b"IQ== 0\n 1\n", "line 2 is not base64 followed by a space and a rank"),
        (b"IQ== 0\nI=== 1\n", "line 2 is not base64 followed by a space and a rank"),
        (b"IQ== 0\n==== 1\n", "line 2 is not base64 followed by a space and a rank"),
        (b"IQ== 0\nI=Q= 1\n", "line 2 is not base64 followed by a space and a rank"),
        (b"IQ== 0\n\xff\xff\xff\xff 1\n", "line 2 is not base64 followed by a space and a rank"),
        (b"IQ== 0\nIg== 99999999999999999999999999\n", "line 2 is not base64 followed by a space and a rank"),
        (b"IQ== 99999999999\n", "not base64"),
        (BYTE_LINES + b"YWI= 16777216\n", "16777216"),
        (BYTE_LINES + b"YWI= 999999999\n", "999999999"),
        (BYTE_LINES + b"YWI= 0\n", "rank 0 appears twice"),
        (BYTE_LINES + b"YWI= 256\nYWI= 257\n", "b'ab'"),
        (BYTE_LINES + b"YWI= 257\n", "no token has the rank 256"),
        (BYTE_LINES[:-10], "byte"),
        (BYTE_LINES[7:], "no token has the rank 0"),
    ],
)
def test_damaged_ranks_are_refused_with_the_file_and_the_reason(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "ranks.model"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        Tokenizer.from_file(path, pattern="gpt2", special_tokens=())
    assert str(caught.value).startswith(str(path))


def test_a_missing_rank_that_a_special_token_has_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "ranks.model").write_bytes(BYTE_LINES + b"YWI= 257\n")
    tokenizer = Tokenizer.from_file(tmp_path / "ranks.model", pattern="gpt2", special_tokens={"<|endoftext|>": 256})
    assert tokenizer.encode("<|endoftext|>ab", allowed_special="all") == [256, 257]


@given(data=st.data())
def test_a_changed_rank_file_is_read_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = bytearray(BYTE_LINES + b"YWI= 256\n")
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    assert_read_or_refused(bytes(content), tmp_path_factory)


def assert_read_or_refused(content: bytes, directories: pytest.TempPathFactory) -> None:
    path = directories.getbasetemp() / "changed"
    path.write_bytes(content)
    try:
        tokenizer = Tokenizer.from_file(path, pattern="gpt2", special_tokens=())
    except InputError as error:
        assert str(error).startswith(str(path))
        assert len(str(error).splitlines()) == 1
    else:
        assert tokenizer.decode(tokenizer.encode("Hello")) == "Hello"


# tokenizer.json


def ids_by_tokenizers(path: Path, text: str) -> list[int]:
    return list(tokenizers.Tokenizer.from_file(str(path)).encode(text, add_special_tokens=False).ids)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "llama3", "cl100k"])
def test_a_written_tokenizer_json_gives_the_same_ids_in_tokenizers(
    request: pytest.FixtureRequest, tmp_path: Path, corpus_texts: dict[str, str], name: str
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    theirs = tokenizers.Tokenizer.from_file(str(path))
    texts = [text for text in corpus_texts.values() if is_pinned(text)]
    texts += [f"a {special}  b{special}{special}\n" for special in list(tokenizer.special_tokens)[:3]]
    expected = [encoding.ids for encoding in theirs.encode_batch(texts, add_special_tokens=False)]
    assert tokenizer.encode_batch(texts, allowed_special="all") == expected
    assert theirs.decode(expected[0], skip_special_tokens=False) == texts[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "llama3", "cl100k", "smollm"])
def test_a_tokenizer_json_round_trips(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    tokenizer.save(tmp_path / "again.json")
    again = Tokenizer.from_file(tmp_path / "again.json")
    assert again.name == "again"
    assert again.mergeable_ranks == tokenizer.mergeable_ranks
    assert again.special_tokens == tokenizer.special_tokens
    assert again.pattern == tokenizer.pattern


@pytest.mark.parametrize(
    ("special_tokens", "listed"),
    [({}, False), ({'\\"é': 600}, False), ({"<|a|>": 600, '\\"é': 602}, True)],  # after a gap, "vocab" lists them, too
)
def test_a_written_tokenizer_json_lists_tokens_and_merges_as_json_dumps_does(
    special_tokens: dict[str, int], listed: bool, tmp_path: Path
) -> None:
    generator = random.Random(1)
    ranks = {bytes([byte]): byte for byte in range(256)}
    while len(ranks) < 600:
        left, right = generator.choices(list(ranks), k=2)
        ranks.setdefault(left + right, len(ranks))
    tokenizer = Tokenizer("x", pat_str="gpt2", mergeable_ranks=ranks, special_tokens=special_tokens)
    tokenizer.save(tmp_path / "x.json")
    content = (tmp_path / "x.json").read_bytes()
    data = json.loads(content)
    assert content == json.dumps(data, ensure_ascii=False, indent=2).encode()
    texts = [token_text(token) for token in ranks]
    expected = {text: id for id, text in enumerate(texts)} | (special_tokens if listed else {})
    assert list(data["model"]["vocab"].items()) == list(expected.items())
    assert data["model"]["merges"] == [[texts[a], texts[b]] for a, b, _ in tokenizer.vocabulary.merges()]


def test_special_tokens_keep_any_ids_in_tokenizers(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer("gpt2", {"<|x|>": 1000, "<|y|>": 300, "日 本": 999}, ab=256, abc=258)
    tokenizer.save(tmp_path / "tokenizer.json")
    text = "<|y|>abc<|x|> 日 本<|x|>"
    assert ids_by_tokenizers(tmp_path / "tokenizer.json", text) == tokenizer.encode(text, allowed_special="all")
    assert Tokenizer.from_file(tmp_path).special_tokens == tokenizer.special_tokens


def test_a_special_token_that_is_also_an_ordinary_token_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'ab'"):
        byte_tokenizer("gpt2", {"ab": 300}, ab=256).save(tmp_path / "tokenizer.json")
    assert list(tmp_path.iterdir()) == []


def test_a_pattern_without_a_scanner_round_trips(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(r'\w+|"é\\|\W', {"<|é|>": 300}, ab=256)
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert again.pattern == tokenizer.pattern
    assert again.special_tokens == tokenizer.special_tokens


STEPS: dict[str, pre_tokenizers.PreTokenizer] = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "llama3": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
}


def train_with_tokenizers(texts: list[str], pattern: str) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = STEPS[pattern]
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=["<|first|>", "<|second|>"],  # they get the first ids
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@pytest.mark.slow
@pytest.mark.parametrize("pattern", STEPS)
def test_a_tokenizer_json_trained_by_tokenizers_gives_the_same_ids_here(
    tmp_path: Path, corpus_texts: dict[str, str], pattern: str
) -> None:
    texts = [text for text in corpus_texts.values() if is_pinned(text)]
    theirs = train_with_tokenizers(texts[::2], pattern)
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.from_file(tmp_path)
    assert ours.pattern == (DIGITS_THEN_GPT2 if pattern == "smollm" else PATTERNS[pattern])
    assert ours.special_tokens == {"<|first|>": 0, "<|second|>": 1}
    texts += ["<|first|> a<|second|><|second|>"]
    expected = [encoding.ids for encoding in theirs.encode_batch(texts, add_special_tokens=False)]
    assert ours.encode_batch(texts, allowed_special="all") == expected


def test_merges_written_as_one_string_are_read(gpt2: Tokenizer, tmp_path: Path) -> None:
    """Older versions of the format write them so."""
    path = tmp_path / "tokenizer.json"
    gpt2.save(path)
    data = json.loads(path.read_bytes())
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    path.write_text(json.dumps(data))
    assert Tokenizer.from_file(path).mergeable_ranks == gpt2.mergeable_ranks


@pytest.fixture(scope="module")
def small_json(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A valid file for the letters h, e, l, o."""
    tokenizer = byte_tokenizer("llama3", {"<|end|>": 300}, he=256, ll=257, hell=258, hello=259)
    path = tmp_path_factory.mktemp("small") / "tokenizer.json"
    tokenizer.save(path)
    return dict(json.loads(path.read_bytes()))


Change = Callable[[dict[str, Any]], object]


def changed(small_json: dict[str, Any], change: Change) -> bytes:
    data = json.loads(json.dumps(small_json))
    change(data)
    return json.dumps(data).encode()


def put(*path: str | int, value: object) -> Change:
    """A change of one place in the file."""

    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


def remove(*path: str | int) -> Change:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        del data[path[-1]]

    return change


SPLIT = ("pre_tokenizer", "pretokenizers", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("model", "type", value="Unigram"), "Unigram"),
        (put("model", "type", value=["BPE"]), "byte-level BPE, Unigram, WordPiece, WordLevel are supported"),
        (put("model", "dropout", value=0.1), "dropout"),
        (put("model", "end_of_word_suffix", value="</w>"), "end_of_word_suffix"),
        (put("model", "continuing_subword_prefix", value="##"), "continuing_subword_prefix"),
        (put("model", "dropout", value=True), '"dropout" of the model is True'),
        (put("model", "ignore_merges", value="yes"), '"ignore_merges" of the model is .yes.'),
        (put("model", "byte_fallback", value=1), '"byte_fallback" of the model is 1'),
        (put("model", "fuse_unk", value=None), '"fuse_unk" of the model is None'),
        (put("model", "unk_token", value=5), '"unk_token" of the model is 5'),
        (put("model", "end_of_word_suffix", value=[]), r'"end_of_word_suffix" of the model is \[\]'),
        (put("decoder", value={"type": "WordPiece"}), "\"decoder\" has 'WordPiece', which is not supported"),
        (put("decoder", value={"type": "Sequence", "decoders": []}), "ByteLevel 0 times"),
        (put("decoder", value={"type": "Sequence"}), 'no list "decoders"'),
        (put("decoder", value={"type": "Sequence", "decoders": [{"type": "Strip"}]}), "'Strip'"),
        (put("decoder", value=["ByteLevel"]), "in place of a step"),
        (put("added_tokens", 0, "lstrip", value="no"), '"lstrip" of the added token .<.end.>. is not true or false'),
        (put("normalizer", value={"type": "Nonsense"}), "\"normalizer\" is of the type 'Nonsense'"),
        (put("normalizer", value={"type": "Prepend"}), '"normalizer .Prepend." has no "prepend"'),
        (put("normalizer", value={}), '"normalizer" is .*; expected an object with a "type"'),
        (put("normalizer", value="lower"), "\"normalizer\" is 'lower'; expected an object"),
        (put("pre_tokenizer", value=None), "pre_tokenizer"),
        (put("pre_tokenizer", value={"type": "Metaspace"}), "Metaspace"),
        (put("pre_tokenizer", value={"type": "Sequence"}), "pre_tokenizer"),
        (put("pre_tokenizer", value={"type": "Sequence", "pretokenizers": [5]}), "pre_tokenizer"),
        (put(*SPLIT, "pattern", value={"Regex": "("}), "the split pattern"),
        (remove("model"), "model"),
        (put("model", value=[]), "model"),
        (remove("model", "vocab"), "vocab"),
        (put("model", "vocab", value={}), "vocab"),
        (put("model", "vocab", value=[["a", 0.5]]), "vocab"),
        (put("model", "vocab", "hello", value=2**24), "16777216"),
        (put("model", "vocab", "hello", value=2**40), "1099511627776"),
        (put("model", "vocab", "hello", value=-1), "-1"),
        (put("model", "vocab", "hello", value=True), "True"),
        (put("model", "vocab", "hello", value=259.0), "259.0"),
        (put("model", "vocab", "hello", value="259"), "259"),
        (put("model", "vocab", "hello", value=None), "None"),
        (put("model", "vocab", "hello", value=[259]), "259"),
        (put("model", "vocab", "hello", value=258), "rank 258 appears twice"),
        (put("model", "vocab", "\ud800", value=260), "surrogate"),
        (
            put("model", "vocab", value={chr(0x4E00 + id): id for id in range(300)}),
            r"entry 0 of the merges, \['h', 'e'\], has 'h', which is not a token",
        ),
        (
            put("model", value={"type": "BPE", "vocab": {chr(0x4E00 + id): id for id in range(300)}, "merges": []}),
            "a character that stands for no byte, as have 299 others",
        ),
        (remove("model", "vocab", "hell"), "entry 2 of the merges.*makes 'hell', which is not a token"),
        (remove("model", "merges"), "merges"),
        (put("model", "merges", value={}), "merges"),
        (put("model", "merges", 0, value="h"), "entry 0"),
        (put("model", "merges", 0, value=["h", "e", "l"]), "entry 0"),
        (put("model", "merges", 0, value=["h", 5]), "entry 0"),
        (put("model", "merges", 0, value=["h", ["e"]]), "entry 0"),
        (put("model", "merges", 0, value=[{}, "e"]), "entry 0"),
        (put("model", "merges", 0, value=None), "entry 0"),
        (put("model", "merges", 0, value=["h", "zz"]), "entry 0 of the merges.*has 'zz', which is not a token"),
        (put("model", "merges", 0, value="hh zz"), "entry 0 of the merges.*has 'hh', which is not a token"),
        (put("added_tokens", value=5), "added_tokens"),
        (put("added_tokens", value="x"), "added_tokens"),
        (put("added_tokens", value={"a": 1}), "added_tokens"),
        (put("added_tokens", 0, value=None), "added_tokens"),
        (put("added_tokens", 0, "content", value=5), "added_tokens"),
        (put("added_tokens", 0, "content", value=""), "empty"),
        (put("added_tokens", 0, "content", value="\ud800"), "ud800"),
        (put("added_tokens", 0, "id", value=2**40), "added_tokens"),
        (put("added_tokens", 0, "id", value=-1), "added_tokens"),
        (put("added_tokens", 0, "id", value=True), "added_tokens"),
        (put("added_tokens", 0, "id", value=5), "follows from the rest"),
    ],
)
def test_a_tokenizer_json_whose_ids_could_not_be_exact_is_refused_with_the_reason(
    small_json: dict[str, Any], tmp_path: Path, change: Change, message: str
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(changed(small_json, change))
    with pytest.raises(InputError, match=message) as caught:
        Tokenizer.from_file(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("ignore_merges", "ids"), [(True, [260]), (False, [120, 121, 122])])
def test_an_unreachable_token_is_used_only_with_ignore_merges(
    small_json: dict[str, Any], tmp_path: Path, ignore_merges: bool, ids: list[int]
) -> None:
    def change(data: Any) -> None:
        data["model"]["vocab"]["xyz"] = 260
        data["model"]["ignore_merges"] = ignore_merges

    path = tmp_path / "tokenizer.json"
    path.write_bytes(changed(small_json, change))
    tokenizer = Tokenizer.from_file(path)
    assert tokenizer.encode("xyz") == ids_by_tokenizers(path, "xyz") == ids
    assert tokenizer.merges_only is not ignore_merges
    tokenizer.save(path)
    assert Tokenizer.from_file(path).encode("xyz") == ids_by_tokenizers(path, "xyz") == ids


@pytest.mark.parametrize(
    "change",
    [
        put("model", "merges", value=[]),
        put("model", "merges", value=["h e"]),
        put("model", "merges", value=["#version: 0.2", "h e", "l l"]),
        put("model", "merges", value=[["l", "o"], ["h", "e"], ["l", "lo"], ["he", "llo"], ["h", "e"]]),
        lambda data: data["model"]["merges"].reverse(),
        lambda data: data["model"].update(merges=data["model"]["merges"][:3]),
    ],
)
@pytest.mark.parametrize("ignore_merges", [True, False])
def test_merges_in_any_order_give_the_ids_of_tokenizers(
    small_json: dict[str, Any], tmp_path: Path, change: Change, ignore_merges: bool
) -> None:
    def more(data: Any) -> None:
        data["model"]["vocab"] |= {"lo": 400, "llo": 290, "日本": 291, "he llo": 292, "": 293}
        data["model"]["ignore_merges"] = ignore_merges
        data["added_tokens"] = []
        change(data)

    path, again = tmp_path / "tokenizer.json", tmp_path / "again.json"
    path.write_bytes(changed(small_json, more))
    tokenizer = Tokenizer.from_file(path)
    tokenizer.save(again)
    copy = pickle.loads(pickle.dumps(Tokenizer.from_file(again)))
    generator = random.Random(0)
    for length in [*range(1, 12), 70, 200]:
        text = "".join(generator.choices("helo 日", k=length))
        expected = ids_by_tokenizers(path, text)
        assert tokenizer.encode(text) == copy.encode(text) == ids_by_tokenizers(again, text) == expected
    for id in (291, 292, 293):
        assert tokenizer.decode([104, id]) == tokenizers.Tokenizer.from_file(str(path)).decode([104, id])
    assert tokenizer.n_vocab == copy.n_vocab == 401
    with pytest.raises(InputError, match=r"tiktoken's format cannot express; write a tokenizer\.json"):
        tokenizer.save(tmp_path / "ranks.tiktoken")


def without_tokens(*tokens: str, **model: Any) -> Change:
    def change(data: Any) -> None:
        data["model"].update(model)
        for token in tokens:
            del data["model"]["vocab"][token]

    return change


def test_bytes_without_a_token_are_dropped_as_in_tokenizers(small_json: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(changed(small_json, without_tokens("!", "Ã", "À", ignore_merges=False)))
    tokenizer = Tokenizer.from_file(path)
    assert tokenizer.unknown_bytes == b"!\xc0\xc3"
    text = "!! h!e!llo hé!l!l"
    assert tokenizer.encode("?!h") == [63, 104]
    assert tokenizer.encode(text) == ids_by_tokenizers(path, text)


@pytest.mark.parametrize("ignore_merges", [False, True])
def test_bytes_without_a_token_become_the_unknown_token_as_in_tokenizers(
    small_json: dict[str, Any], tmp_path: Path, ignore_merges: bool
) -> None:
    path = tmp_path / "tokenizer.json"
    text = "!! h!e!llo hé!l!l a?"
    for unknown, options in ((None, {}), ("?", {}), ("?", {"fuse_unk": True})):
        change = without_tokens("!", "a", ignore_merges=ignore_merges, unk_token=unknown, **options)
        path.write_bytes(changed(small_json, change))
        assert Tokenizer.from_file(path).encode(text) == ids_by_tokenizers(path, text)
    path.write_bytes(changed(small_json, without_tokens("!", ignore_merges=ignore_merges, unk_token="<none>")))
    with pytest.raises(InputError, match=r"1 bytes, such as b'!'.*unk_token = '<none>' is no token"):
        Tokenizer.from_file(path)


def test_a_file_without_tokens_for_bytes_that_never_are_in_utf_8_opens(
    small_json: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(changed(small_json, without_tokens("À", ignore_merges=False, unk_token="?")))  # never in UTF-8
    assert Tokenizer.from_file(path).encode("?") == [63]


def test_a_merges_only_vocabulary_cannot_be_written_as_ranks(small_json: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(changed(small_json, without_tokens("!", ignore_merges=False)))
    with pytest.raises(InputError, match=r"write a tokenizer\.json"):
        Tokenizer.from_file(path).save(tmp_path / "ranks.model")


@pytest.mark.parametrize("keep", [1, 100, 1000, -1, -3])
def test_a_truncated_tokenizer_json_is_refused(small_json: dict[str, Any], tmp_path: Path, keep: int) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(json.dumps(small_json).encode()[:keep])
    with pytest.raises(InputError, match="truncated"):
        Tokenizer.from_file(path)


@pytest.mark.parametrize(
    "content",
    [
        b'{"model":' + b"[" * 100_000,
        b'{"model":' + b'{"a":' * 100_000,
        b'{"model": \xff}',
        b'{"model": {"vocab": {"a": ' + b"9" * 5000 + b"}}}",
        b'{"model": {"vocab": {5: 5}}}',
        b"{}",
        b"{}{}",
        b"{",
    ],
)
def test_hostile_json_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        Tokenizer.from_file(path)
    assert str(caught.value).startswith(str(path))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.slow
@given(data=st.data(), value=json_values)
def test_any_value_in_any_place_of_a_tokenizer_json_is_read_or_refused(
    small_json: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, value: object
) -> None:
    path: list[str | int] = []
    place: Any = small_json
    while isinstance(place, (dict, list)) and place and (not path or data.draw(st.booleans())):
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        path.append(data.draw(st.sampled_from(keys)))
        place = place[path[-1]]
    assert_read_or_refused(changed(small_json, put(*path, value=value)), tmp_path_factory)


# Files and directories


def test_the_format_is_detected_from_the_content_and_not_the_name(gpt2: Tokenizer, tmp_path: Path) -> None:
    gpt2.save(tmp_path / "json.model", format="huggingface")
    gpt2.save(tmp_path / "ranks.json", format="tiktoken")
    assert (tmp_path / "json.model").read_bytes().startswith(b"{")
    for name in ("json.model", "ranks.json"):
        assert Tokenizer.from_file(tmp_path / name, pattern="gpt2").mergeable_ranks == gpt2.mergeable_ranks


def test_a_directory_is_read_as_the_tokenizer_in_it(gpt2: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"one of tokenizer\.json, tokenizer\.model"):
        Tokenizer.from_file(tmp_path)
    gpt2.save(tmp_path / "tokenizer.model")
    assert Tokenizer.from_file(tmp_path, pattern="gpt2").mergeable_ranks == gpt2.mergeable_ranks
    gpt2.save(tmp_path / "tokenizer.json")
    assert Tokenizer.from_file(tmp_path).mergeable_ranks == gpt2.mergeable_ranks


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        Tokenizer.from_file(tmp_path / "nothing.json")


def test_an_unknown_suffix_or_format_is_refused_with_the_known_ones(gpt2: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.json, \.model, \.tiktoken"):
        gpt2.save(tmp_path / "tokenizer.txt")
    with pytest.raises(InputError, match="huggingface, tiktoken"):
        gpt2.save(tmp_path / "tokenizer.json", format="onnx")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_writing_to_a_missing_directory_is_an_error_with_the_name(gpt2: Tokenizer, tmp_path: Path) -> None:
    target = tmp_path / "missing" / "tokenizer.json"
    with pytest.raises(FileNotFoundError) as caught:
        gpt2.save(target)
    assert caught.value.filename == str(target)


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    gpt2: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path / "tokenizer.json"
    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OSError, match="No space left") as caught:
            gpt2.save(target)
        assert caught.value.filename == str(target)
        assert list(tmp_path.iterdir()) == []
    target.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OSError, match="No space left"):
            gpt2.save(target)
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"old"


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), write_atomically(tmp_path / "file") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_written_file_has_the_permissions_of_any_new_file(gpt2: Tokenizer, tmp_path: Path) -> None:
    gpt2.save(tmp_path / "tokenizer.model")
    (tmp_path / "plain").touch()
    assert (tmp_path / "tokenizer.model").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_device_or_pipe_is_written_to_instead_of_replaced(tmp_path: Path) -> None:
    """Such as with `-o /dev/stdout`. A link is followed instead of replaced."""
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to("real")
    with write_atomically(tmp_path / "link") as file:
        file.write(b"content")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"content"
    reading, writing = os.pipe()
    with write_atomically(f"/dev/fd/{writing}") as file:
        file.write(b"content")
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"content"


def test_the_characters_for_bytes_are_those_of_tokenizers() -> None:
    assert sorted(byte_characters()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    text = "a\0\x7f\u00a0é\n "
    shown = "".join(byte_characters()[byte] for byte in text.encode())
    assert pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)[0][0] == shown
