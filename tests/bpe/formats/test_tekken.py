"""Mistral's tekken.json against tiktoken with the same ranks, as mistral-common encodes, and damaged files."""

from __future__ import annotations

import json
import random
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tokenizers

from bpe import InputError, Tokenizer
from bpe.formats import tekken
from bpe.patterns import PATTERNS
from support.pieces import hard_texts, mistral

FILE = "tekken_240911.json"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published tekken.json."""
    path = tmp_path_factory.mktemp("tekken") / "tekken.json"
    path.write_bytes(mistral(FILE))
    return path


@pytest.fixture(scope="module")
def ours(path: Path) -> Tokenizer:
    return Tokenizer.from_file(path)


class Reference:
    """What mistral-common does with a file: tiktoken encodes, and the number of special tokens is added to the ids."""

    def __init__(self, path: Path) -> None:
        data = json.loads(path.read_text("utf-8"))
        config = data["config"]
        self.first = config["default_num_special_tokens"]
        self.size = config["default_vocab_size"]
        vocab = data["vocab"][: self.size - self.first]
        ranks = {b64decode(entry["token_bytes"]): entry["rank"] for entry in vocab}
        self.encoding = tiktoken.Encoding("x", pat_str=config["pattern"], mergeable_ranks=ranks, special_tokens={})

    def encode(self, text: str) -> list[int]:
        return [id + self.first for id in self.encoding.encode_ordinary(text)]


@pytest.fixture(scope="module")
def theirs(path: Path) -> Reference:
    return Reference(path)


def little() -> dict[str, Any]:
    """Return a file with the 256 bytes, four more tokens, of which three are used, and four special tokens."""
    tokens = [bytes([byte]) for byte in range(256)] + [b"he", b"ll", b"hell", b"unused"]
    vocab = [{"rank": i, "token_bytes": b64encode(token).decode(), "token_str": None} for i, token in enumerate(tokens)]
    special = [{"rank": i, "token_str": text, "is_control": True} for i, text in enumerate(("<unk>", "<s>", "</s>"))]
    config = {"pattern": r"\w+|\W", "num_vocab_tokens": 260, "default_vocab_size": 263}
    config |= {"default_num_special_tokens": 4, "version": "v11"}
    return {"config": config, "vocab": vocab, "special_tokens": special}


def read(data: object) -> Tokenizer:
    return Tokenizer.from_vocabulary(tekken.read(json.dumps(data).encode(), "tekken.json", None, None))


def test_ids_are_those_of_tiktoken(ours: Tokenizer, theirs: Reference) -> None:
    for text in hard_texts(1000):
        ids = theirs.encode(text)
        assert ours.encode_ordinary(text) == ids, repr(text)
        assert ours.decode(ids) == text


def test_special_tokens_have_the_first_ids(ours: Tokenizer, theirs: Reference) -> None:
    assert (ours.n_vocab, theirs.size, theirs.first) == (131_072, 131_072, 1000)
    assert [*ours.special_tokens.values()] == [*range(1000)]
    assert (ours.bos_id, ours.eos_ids, ours.add_bos) == (1, (2,), True)
    assert ours.pattern == PATTERNS["tekken"]
    texts = [*ours.special_tokens]
    assert tuple(texts[:20]) == PATTERNS["tekken"].special_tokens
    assert texts[20:] == [f"<SPECIAL_{id}>" for id in range(20, 1000)]
    assert ours.encode_ordinary("<s>") == theirs.encode("<s>")


def test_it_is_found_in_a_directory_and_saved_as_a_tokenizer_json(ours: Tokenizer, path: Path, tmp_path: Path) -> None:
    assert Tokenizer.from_file(path.parent).mergeable_ranks == ours.mergeable_ranks
    saved = tmp_path / "tokenizer.json"
    ours.save(saved)
    reference = tokenizers.Tokenizer.from_file(str(saved))
    again = Tokenizer.from_file(saved)
    for text in hard_texts(200, seed=1):
        ids = ours.encode_ordinary(text)
        assert again.encode_ordinary(text) == reference.encode(text, add_special_tokens=False).ids == ids, repr(text)
    with pytest.raises(InputError, match="cannot be written as tekken.json; save it as .json"):
        tekken.render(ours.vocabulary)


def test_a_file_may_list_its_special_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tekken.json"
    path.write_text(json.dumps(little()))
    reference, ours = Reference(path), Tokenizer.from_file(path)
    assert list(ours.special_tokens) == ["<unk>", "<s>", "</s>", "<SPECIAL_3>"]
    assert ours.encode("hello </s>", allowed_special="all") == [*reference.encode("hello "), 2]
    assert ours.encode_ordinary("hello unused") == reference.encode("hello unused")
    assert ours.n_vocab == reference.size == 263


def test_a_pattern_and_special_tokens_overrule_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tekken.json"
    path.write_text(json.dumps(little()))
    tokenizer = Tokenizer.from_file(path, pattern="llama3", special_tokens={"<end>": 500})
    assert (tokenizer.pattern.name, tokenizer.special_tokens) == ("llama3", {"<end>": 500})
    assert Tokenizer.from_file(path, special_tokens=["<new>"]).special_tokens["<new>"] == 263


def change(*keys: str | int, to: object = ...) -> Callable[[dict[str, Any]], None]:
    """Return a change of a value in a file, or without `to`, its removal."""

    def changed(data: dict[str, Any]) -> None:
        place: Any = data
        for key in keys[:-1]:
            place = place[key]
        if to is ...:
            del place[keys[-1]]
        else:
            place[keys[-1]] = to

    return changed


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change("config"), '"config" of the file is missing; is this a tekken.json'),
        (change("config", to=[]), '"config" of the file is \\[\\]; expected an object'),
        (change("config", "pattern"), '"pattern" of "config" is missing'),
        (change("config", "pattern", to=3), '"pattern" of "config" is 3; expected a string'),
        (
            change("config", "pattern", to="(a"),
            "the split pattern has a \\( without its \\).*at character 1, .*; close the group",
        ),
        (change("config", "default_vocab_size"), '"default_vocab_size" of "config" is missing'),
        (change("config", "default_vocab_size", to="9"), "is '9'; expected a number"),
        (change("config", "default_vocab_size", to=-9), "is -9; expected a number from 0 on"),
        (change("config", "default_vocab_size", to=True), "is True; expected a number from 0 on"),
        (change("config", "default_vocab_size", to=10**9), 'that 999999996 tokens are used, but "vocab" has 260'),
        (change("config", "default_vocab_size", to=100), "that 96 tokens are used"),
        (change("config", "default_num_special_tokens", to=2), "261 tokens are used"),
        (change("config", "version"), '"version" of "config" is missing'),
        (change("special_tokens"), "\"special_tokens\" is missing, which version 'v11' needs"),
        (change("special_tokens", to={}), '"special_tokens" of the file is {}; expected a list'),
        (change("special_tokens", 1, to="<s>"), 'token 1 in "special_tokens" is not an object'),
        (change("special_tokens", 1, "token_str"), '"token_str" of token 1 in "special_tokens" is missing'),
        (change("special_tokens", 1, "token_str", to="<unk>"), "has '<unk>' twice"),
        (change("special_tokens", 1, "token_str", to=""), "token '' is empty"),
        (change("special_tokens", 1, "rank", to=7), 'token 1 in "special_tokens" has the rank 7; is a token missing'),
        (change("vocab"), '"vocab" of the file is missing'),
        (change("vocab", to="x"), "\"vocab\" of the file is 'x'; expected a list"),
        (change("vocab", 5), 'token 5 in "vocab" has the rank 6; is a token missing'),
        (change("vocab", 5, to=None), 'token 5 in "vocab" is not an object'),
        (change("vocab", 5, "rank"), '"rank" of token 5 in "vocab" is missing'),
        (change("vocab", 257, "token_bytes"), '"token_bytes" of token 257 in "vocab" is missing'),
        (change("vocab", 257, "token_bytes", to=1), '"token_bytes" of token 257 in "vocab" is 1; expected a string'),
        (change("vocab", 257, "token_bytes", to="a"), "is 'a', which is not base64"),
        (change("vocab", 257, "token_bytes", to="é==="), "which is not base64"),
        (change("vocab", 257, "token_bytes", to=""), '"token_bytes" of token 257 in "vocab" is empty'),
        (change("vocab", 257, "token_bytes", to="aGU="), '"token_bytes" of token 257 in "vocab" is that of token 256'),
        (change("vocab", 5, "token_bytes", to="Bg=="), "is not the byte of that number"),
    ],
)
def test_damaged_files_are_refused(damage: Callable[[dict[str, Any]], None], message: str, tmp_path: Path) -> None:
    data = little()
    damage(data)
    path = tmp_path / "tekken.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=message) as caught:
        Tokenizer.from_file(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_hostile_counts_take_no_memory() -> None:
    data = little()
    data["config"] |= {"default_vocab_size": 2**31 - 1, "default_num_special_tokens": 2**31 - 1 - 256}
    with pytest.raises(InputError, match='"default_num_special_tokens" is 2147483391, but 3 special tokens are listed'):
        read(data)


def test_truncated_files_and_files_with_other_bytes_are_refused_or_read(tmp_path: Path) -> None:
    content = json.dumps(little()).encode()
    path = tmp_path / "tekken.json"
    rng = random.Random(0)
    for _ in range(300):
        damaged = bytearray(content)
        if rng.random() < 0.5:
            del damaged[rng.randrange(len(damaged)) :]
        else:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            Tokenizer.from_file(path)
        except InputError as error:
            assert str(path) in str(error)
