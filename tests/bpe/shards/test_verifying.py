"""Shards are held against their sources, and are read by others."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpe.errors import InputError
from bpe.shards import HELD_OUT, TRAIN, Shards, ShardSources, export_shards, unfinished, verify_shards, write_shards
from bpe.shards.layout import crc32_of
from support.plain_shards import ByteTokenizer

TEXTS = [f"document {number}: ünïcödé" for number in range(100)]
LAYOUT = Path(unfinished.__file__).with_name("LAYOUT.md")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


Write = Callable[..., Shards]


@pytest.fixture
def write(tmp_path: Path, source: Path) -> Write:
    def write(documents: Any = None, **options: Any) -> Shards:
        (tmp_path / "tokenizer.json").write_text("{}")
        options = {"shard_tokens": 500, "held_out": 0.2, **options}
        return write_shards(documents or ShardSources([str(source)]), ByteTokenizer(), tmp_path / "data",
                            tokenizer_file=tmp_path / "tokenizer.json", **options)  # fmt: skip

    return write


def change(shards: Shards, name: str, at: int, value: int) -> None:
    """Put another id into a shard, and its CRC-32 into the index: only the sources can tell now."""
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
def test_shards_just_written_are_right(held_out: float, specials: tuple[bool, bool], write: Write) -> None:
    bos, eos = specials
    shards = write(held_out=held_out, bos=bos, eos=eos)
    found = verify_shards(shards.directory, ByteTokenizer())
    assert (found.documents, found.bytes) == (100, sum(len(text.encode()) for text in TEXTS))
    assert found.files == 2 * sum(len(shards.shards(split)) for split in (TRAIN, HELD_OUT))


@given(
    st.lists(st.binary(max_size=30), min_size=1, max_size=30).filter(lambda d: any(len(x) > 5 for x in d)),
    st.sampled_from([0.0, 0.01, 0.5]),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_any_documents_are_right_once_written(
    tmp_path_factory: pytest.TempPathFactory, documents: list[bytes], held_out: float, bos: bool
) -> None:
    directory = tmp_path_factory.mktemp("shards")
    (directory / "tokenizer.json").write_text("{}")
    write_shards(documents, ByteTokenizer(), directory / "data", tokenizer_file=directory / "tokenizer.json",
                 held_out=held_out, bos=bos, shard_tokens=20)  # fmt: skip
    found = verify_shards(directory / "data", ByteTokenizer(), sources=[documents])
    assert found.documents == sum(map(bool, documents))


@pytest.mark.parametrize("at", [0, 3, 26, 30])
def test_another_id_is_found_with_its_shard_document_and_place(at: int, write: Write) -> None:
    shards = write(held_out=0)
    change(shards, "train-00001.bin", at, ord("x"))
    shard = shards.shards(TRAIN)[1]
    document = int(np.searchsorted(shard.offsets, at, side="right")) - 1
    byte = at - int(shard.offsets[document]) - 1
    place = re.escape(f", byte {byte} (token {at} of the shard): 'x") if byte >= 0 else " does not begin with 256"
    with pytest.raises(InputError, match=rf"train-00001\.bin: document {document}{place}"):
        verify_shards(shards.directory, ByteTokenizer())


def test_a_border_between_documents_that_moved_is_found(write: Write) -> None:
    shards = write(held_out=0, bos=False, eos=False)
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


def test_checksums_are_those_of_zlib(write: Write) -> None:
    directory = write().directory
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
def test_a_file_with_another_checksum_is_named(name: str, write: Write) -> None:
    shards = write()
    raw = bytearray((shards.directory / name).read_bytes())
    raw[2] ^= 1
    (shards.directory / name).write_bytes(raw)
    with pytest.raises(InputError, match=rf"{re.escape(name)}: its CRC-32 differs from that in the index"):
        verify_shards(shards.directory, ByteTokenizer(), hashes_only=True)


def test_sources_with_more_or_fewer_or_other_documents_are_found(write: Write, source: Path) -> None:
    shards = write(held_out=0)
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


def test_a_hash_of_the_sources_that_is_not_theirs_is_found(write: Write) -> None:
    shards = write()
    index = shards.directory / "index.json"
    content = json.loads(index.read_text())
    content["corpus"]["sources"][0]["crc32"] = 0x12AB
    index.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"source 1 has 100 documents .* index says 100 with 000012ab"):
        verify_shards(shards.directory, ByteTokenizer())


def test_sources_that_are_gone_can_be_given_or_left_out(write: Write, source: Path, tmp_path: Path) -> None:
    shards = write()
    moved = source.rename(tmp_path / "moved.jsonl")
    with pytest.raises(InputError, match=r"corpus\.jsonl: no such file.*name the sources.*--hashes-only"):
        verify_shards(shards.directory, ByteTokenizer())
    assert verify_shards(shards.directory, ByteTokenizer(), sources=[moved]).documents == 100
    assert verify_shards(shards.directory, ByteTokenizer(), hashes_only=True).documents == 0


def test_documents_of_a_program_have_to_be_given_again(write: Write) -> None:
    shards = write(TEXTS)
    with pytest.raises(InputError, match="came from stdin or from a program"):
        verify_shards(shards.directory, ByteTokenizer())
    assert verify_shards(shards.directory, ByteTokenizer(), sources=[TEXTS]).documents == 100


def test_shards_of_another_tokenizer_than_given_are_refused(write: Write, tmp_path: Path) -> None:
    shards = write()
    (tmp_path / "other.json").write_text('{"other": 1}')
    with pytest.raises(InputError, match=r"written with another tokenizer than .*other\.json"):
        verify_shards(shards.directory, ByteTokenizer(), tokenizer_file=tmp_path / "other.json")


def test_the_reader_in_the_layout_page_reads_a_shard(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", LAYOUT.read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 6
    shards = write()
    monkeypatch.chdir(shards.directory.parent)
    found: dict[str, Any] = {}
    exec(code, found)
    expected = [ids.tolist() for ids in shards.documents(TRAIN)]
    assert [ids.tolist() for ids in found["documents"]] == expected


@pytest.mark.parametrize("format", ["parquet", "arrow"])
@pytest.mark.parametrize("at_once", [1, 100, 1 << 22])
def test_tables_have_a_list_of_ids_for_each_document(
    format: str, at_once: int, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow
    import pyarrow.parquet

    monkeypatch.setattr("bpe.shards.exporting._TOKENS", at_once)
    shards = write()
    files = export_shards(shards.directory, tmp_path / "out", format)
    for split in (TRAIN, HELD_OUT):
        rows = []
        for file in [file for file in files if file.name.startswith(split)]:
            if format == "parquet":
                table = pyarrow.parquet.read_table(file)
            else:
                table = pyarrow.ipc.open_file(pyarrow.memory_map(str(file))).read_all()
            assert table.column_names == ["input_ids"]
            assert table.schema.field(0).type.value_type == pyarrow.uint16()
            rows += table.column(0).to_pylist()
        assert rows == [ids.tolist() for ids in shards.documents(split)]


def test_arrays_are_the_ids_and_the_offsets(write: Write, tmp_path: Path) -> None:
    shards = write()
    files = export_shards(shards.directory, tmp_path / "out", "npy")
    assert len(files) == 2 * sum(len(shards.shards(split)) for split in (TRAIN, HELD_OUT))
    for shard in shards.shards(TRAIN):
        stem = shard.name.removesuffix(".bin")
        assert np.array_equal(np.load(tmp_path / "out" / f"{stem}.npy", mmap_mode="r"), shard.ids)
        assert np.array_equal(np.load(tmp_path / "out" / f"{stem}.docs.npy"), shard.offsets)


def test_an_export_takes_a_new_or_empty_directory_and_a_known_format(write: Write, tmp_path: Path) -> None:
    shards = write()
    with pytest.raises(InputError, match="the format is 'csv'; it must be one of parquet, arrow, npy"):
        export_shards(shards.directory, tmp_path / "out", "csv")
    with pytest.raises(InputError, match="data: the directory is not empty"):
        export_shards(shards.directory, shards.directory, "npy")
    assert verify_shards(shards.directory, ByteTokenizer()).documents == 100


def test_an_export_that_fails_leaves_no_files(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bpe.shards.exporting as export

    shards = write()
    write_arrays = export._write_arrays

    def fails_at_last(output: Path, shard: Any) -> list[Path]:
        if shard.name.startswith(HELD_OUT):
            raise OSError(28, "No space left on device")
        return write_arrays(output, shard)

    monkeypatch.setattr(export, "_write_arrays", fails_at_last)
    with pytest.raises(OSError, match="No space left"):
        export_shards(shards.directory, tmp_path / "out", "npy")
    assert list((tmp_path / "out").iterdir()) == []
