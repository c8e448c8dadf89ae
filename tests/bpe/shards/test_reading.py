"""Opening shards: damage is found and named, and the fingerprint tells shards apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpe.errors import InputError
from bpe.shards import TRAIN, Shards, ShardSources
from support.plain_shards import DOCUMENTS

Write = Callable[..., Shards]


def first_shard(shards: Shards) -> Path:
    return shards.directory / "train-00000.bin"


def test_truncated_shard_is_named(write: Write) -> None:
    shards = write()
    path = first_shard(shards)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"train-00000\.bin.*truncated"):
        Shards(shards.directory)


def test_missing_shard_is_named(write: Write) -> None:
    shards = write()
    first_shard(shards).unlink()
    with pytest.raises(InputError, match=r"train-00000\.bin.*cannot be read"):
        Shards(shards.directory)


def test_id_beyond_the_vocabulary_is_reported_with_its_place(write: Write) -> None:
    shards = write()
    raw = bytearray(first_shard(shards).read_bytes())
    raw[14:16] = (999).to_bytes(2, "little")
    first_shard(shards).write_bytes(raw)
    with pytest.raises(InputError, match=r"train-00000\.bin: token 7 is 999, in document 0, beyond .* 258"):
        Shards(shards.directory).check()


def test_documents_out_of_order_are_reported(write: Write) -> None:
    shards = write()
    path = shards.directory / "train-00000.docs"
    offsets = np.fromfile(path, "<i8")
    offsets[3] = 0
    path.write_bytes(offsets.tobytes())
    with pytest.raises(InputError, match="out of order"):
        Shards(shards.directory).check()


def test_replaced_tokenizer_is_rejected(write: Write) -> None:
    shards = write()
    shards.tokenizer_path.write_text('{"another": "tokenizer"}')
    with pytest.raises(InputError, match="not the tokenizer that these shards were written with"):
        Shards(shards.directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, "version 1"),
        ({"format": "other"}, "'other'"),
        ({"dtype": "int8"}, "not an index"),
        ({"splits": {}}, "not an index"),
        ({"n_vocab": "many"}, "not an index"),
        ({"tokenizer_file": 7}, "not an index"),
    ],
)
def test_unknown_index_is_rejected(change: dict[str, Any], message: str, write: Write) -> None:
    path = write().directory / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        Shards(path.parent)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '"index"'])
def test_index_that_is_not_an_object_is_rejected(text: str, write: Write) -> None:
    path = write().directory / "index.json"
    path.write_text(text)
    with pytest.raises(InputError, match="not an index"):
        Shards(path.parent)


def test_index_cannot_point_outside_its_directory(write: Write, tmp_path: Path) -> None:
    path = write().directory / "index.json"
    (tmp_path / "secret.bin").write_bytes(first_shard(write()).read_bytes())
    index = json.loads(path.read_text())
    index["splits"]["train"]["shards"][0]["file"] = "../secret.bin"
    path.write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"index\.json: not an index .*'\.\./secret\.bin' is not the name of a shard"):
        Shards(path.parent)


def test_unknown_split_is_rejected_naming_the_known_ones(write: Write) -> None:
    with pytest.raises(InputError, match="'test'.*train, held_out"):
        write().tokens("test")


def test_shards_are_read_only_views(write: Write) -> None:
    ids = write().tokens(TRAIN)[0]
    assert isinstance(ids, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 0


def damaged(index: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a path such as "splits.train.tokens"."""
    *keys, last = path.split(".")
    for key in keys:
        index = index[int(key)] if key.isdigit() else index[key]
    index[last] = value


@pytest.mark.parametrize(
    ("path", "harmless"),
    [
        ("n_vocab", []),
        ("bos_id", [None]),
        ("dtype", []),
        ("tokenizer_file", []),
        ("splits.train.tokens", []),
        ("splits.held_out.documents", []),
        ("splits.train.shards", []),
        ("splits.train.shards.0.tokens", []),
        ("splits.train.shards.0.documents", []),
        ("splits.train.shards.0.bytes", []),
        ("splits.train.shards.0.file", []),
        ("splits.train.shards.0.documents_file", []),
        ("corpus", []),
        ("corpus.sources", [[]]),
        ("corpus.exclude", [[]]),
        ("corpus.sources.0.files", [[]]),
        ("corpus.separator", [None, "7", "..", "../x", "/etc/passwd", "a\0b"]),
    ],
)
def test_index_with_an_impossible_value_is_rejected_in_one_line(path: str, harmless: list[Any], write: Write) -> None:
    file = write(DOCUMENTS[:20]).directory / "index.json"
    content = file.read_text()
    values = [-1, True, 1.5, 1 << 63, float("nan"), [7], [], {"a": 1}, None, "7", "..", "../x", "/etc/passwd", "a\0b"]
    for value in values:
        index = json.loads(content)
        damaged(index, path, value)
        file.write_text(json.dumps(index))
        if value in harmless:
            Shards(file.parent)
            continue
        with pytest.raises(InputError) as error:
            Shards(file.parent)
        assert "\n" not in str(error.value)


def test_fingerprint_depends_on_documents_share_and_special_tokens(write: Write) -> None:
    fingerprints = {
        write(DOCUMENTS, into="0").fingerprint,
        write(DOCUMENTS[1:], into="1").fingerprint,
        write(DOCUMENTS, into="2", held_out=0.5).fingerprint,
        write(DOCUMENTS, into="3", bos=False).fingerprint,
        write([*DOCUMENTS[:-1], b"document 298 of many"], into="4").fingerprint,
    }
    assert len(fingerprints) == 5


def test_fingerprint_does_not_depend_on_where_documents_came_from(write: Write, tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": text.decode()}) + "\n" for text in DOCUMENTS))
    from_file = write(ShardSources(tmp_path / "corpus.jsonl"), into="other")
    assert from_file.fingerprint == write().fingerprint
    assert from_file.corpus["sources"][0]["files"][0]["path"] == str(tmp_path / "corpus.jsonl")
