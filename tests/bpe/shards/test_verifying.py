"""Verification finds every difference and names its place."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpe.errors import InputError
from bpe.shards import HELD_OUT, TRAIN, Shards, verify_shards, write_shards
from bpe.shards.layout import crc32_of
from support.plain_shards import TEXTS, ByteTokenizer

Write = Callable[..., Shards]


def change(shards: Shards, name: str, at: int, value: int) -> None:
    """Write another id into a shard and update its CRC-32, so that only the sources reveal the change."""
    path = shards.directory / name
    ids = np.fromfile(path, shards.dtype)
    ids[at] = value
    path.write_bytes(ids.tobytes())
    index = shards.directory / "index.json"
    content = json.loads(index.read_text())
    for split in content["splits"].values():
        for shard in split["shards"]:
            if shard["file"] == name:
                shard["crc32"] = crc32_of(path)
    index.write_text(json.dumps(content))


@pytest.mark.parametrize("held_out", [0, 0.001, 0.2, 0.999])
@pytest.mark.parametrize("specials", [(True, True), (True, False), (False, True), (False, False)])
def test_newly_written_shards_pass(held_out: float, specials: tuple[bool, bool], write_corpus: Write) -> None:
    bos, eos = specials
    shards = write_corpus(held_out=held_out, bos=bos, eos=eos)
    found = verify_shards(shards.directory, ByteTokenizer())
    assert (found.documents, found.bytes) == (100, sum(len(text.encode()) for text in TEXTS))
    assert found.files == 2 * sum(len(shards.shards(split)) for split in (TRAIN, HELD_OUT))


@given(
    st.lists(st.binary(max_size=30), min_size=1, max_size=30).filter(lambda d: any(len(x) > 5 for x in d)),
    st.sampled_from([0.0, 0.01, 0.5]),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_shards_of_any_documents_pass(
    tmp_path_factory: pytest.TempPathFactory, documents: list[bytes], held_out: float, bos: bool
) -> None:
    directory = tmp_path_factory.mktemp("shards")
    (directory / "tokenizer.json").write_text("{}")
    write_shards(documents, ByteTokenizer(), directory / "data", tokenizer_file=directory / "tokenizer.json",
                 held_out=held_out, bos=bos, shard_tokens=20)  # fmt: skip
    found = verify_shards(directory / "data", ByteTokenizer(), sources=[documents])
    assert found.documents == sum(map(bool, documents))


@pytest.mark.parametrize("at", [0, 3, 26, 30])
def test_changed_id_is_reported_with_its_shard_document_and_place(at: int, write_corpus: Write) -> None:
    shards = write_corpus(held_out=0)
    change(shards, "train-00001.bin", at, ord("x"))
    shard = shards.shards(TRAIN)[1]
    document = int(np.searchsorted(shard.offsets, at, side="right")) - 1
    byte = at - int(shard.offsets[document]) - 1
    place = re.escape(f", byte {byte} (token {at} of the shard): 'x") if byte >= 0 else " does not begin with 256"
    with pytest.raises(InputError, match=rf"train-00001\.bin: document {document}{place}"):
        verify_shards(shards.directory, ByteTokenizer())


def test_moved_boundary_between_documents_is_reported(write_corpus: Write) -> None:
    shards = write_corpus(held_out=0, bos=False, eos=False)
    path = shards.directory / "train-00000.docs"
    offsets = np.fromfile(path, "<i8")
    offsets[3] += 1
    path.write_bytes(offsets.tobytes())
    index = shards.directory / "index.json"
    content = json.loads(index.read_text())
    content["splits"]["train"]["shards"][0]["documents_crc32"] = crc32_of(path)
    index.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"train-00000\.bin: document 2, byte"):
        verify_shards(shards.directory, ByteTokenizer())


def test_checksums_equal_those_of_zlib(write_corpus: Write) -> None:
    directory = write_corpus().directory
    listed = [
        shard
        for split in json.loads((directory / "index.json").read_text())["splits"].values()
        for shard in split["shards"]
    ]
    for shard in listed:
        assert shard["crc32"] == zlib.crc32((directory / shard["file"]).read_bytes())
        assert shard["documents_crc32"] == zlib.crc32((directory / shard["documents_file"]).read_bytes())
    assert len(listed) > 1


@pytest.mark.parametrize("name", ["train-00000.bin", "train-00000.docs", "held_out-00000.bin"])
def test_file_with_another_checksum_is_named(name: str, write_corpus: Write) -> None:
    shards = write_corpus()
    raw = bytearray((shards.directory / name).read_bytes())
    raw[2] ^= 1
    (shards.directory / name).write_bytes(raw)
    with pytest.raises(InputError, match=rf"{re.escape(name)}: its CRC-32 differs from that in the index"):
        verify_shards(shards.directory, ByteTokenizer(), hashes_only=True)


def test_sources_with_more_fewer_or_other_documents_are_reported(write_corpus: Write, source: Path) -> None:
    shards = write_corpus(held_out=0)
    lines = source.read_text().splitlines(keepends=True)
    source.write_text("".join([*lines, '{"text": "one more"}\n']))
    with pytest.raises(InputError, match=r"more documents than train; the first missing .* begins with 'one more'"):
        verify_shards(shards.directory, ByteTokenizer())
    source.write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match=r"train-\d+\.bin: document \d+ and those after it are not in the sources"):
        verify_shards(shards.directory, ByteTokenizer())
    source.write_text("".join([lines[1], lines[0], *lines[2:]]))
    with pytest.raises(InputError, match=r"train-00000\.bin: document 0, byte 9 .*'0: .* here, '1: .* in the source"):
        verify_shards(shards.directory, ByteTokenizer())


def test_wrong_hash_of_a_source_is_reported(write_corpus: Write) -> None:
    shards = write_corpus()
    index = shards.directory / "index.json"
    content = json.loads(index.read_text())
    content["corpus"]["sources"][0]["crc32"] = 0x12AB
    index.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"source 1 has 100 documents .* index says 100 with 000012ab"):
        verify_shards(shards.directory, ByteTokenizer())


def test_missing_sources_can_be_given_or_skipped(write_corpus: Write, source: Path, tmp_path: Path) -> None:
    shards = write_corpus()
    moved = source.rename(tmp_path / "moved.jsonl")
    with pytest.raises(InputError, match=r"corpus\.jsonl: no such file.*name the sources.*--hashes-only"):
        verify_shards(shards.directory, ByteTokenizer())
    assert verify_shards(shards.directory, ByteTokenizer(), sources=[moved]).documents == 100
    assert verify_shards(shards.directory, ByteTokenizer(), hashes_only=True).documents == 0


def test_documents_of_a_program_must_be_given_again(write_corpus: Write) -> None:
    shards = write_corpus(TEXTS)
    with pytest.raises(InputError, match="came from stdin or from a program"):
        verify_shards(shards.directory, ByteTokenizer())
    assert verify_shards(shards.directory, ByteTokenizer(), sources=[TEXTS]).documents == 100


def test_shards_of_another_tokenizer_are_rejected(write_corpus: Write, tmp_path: Path) -> None:
    shards = write_corpus()
    (tmp_path / "other.json").write_text('{"other": 1}')
    with pytest.raises(InputError, match=r"written with another tokenizer than .*other\.json"):
        verify_shards(shards.directory, ByteTokenizer(), tokenizer_file=tmp_path / "other.json")
