from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpe.errors import InputError
from bpe.shards import HELD_OUT, TRAIN, Shards, ShardSources, write_shards
from support.plain_shards import ByteTokenizer

Write = Callable[..., Shards]

DOCUMENTS: list[bytes | str] = [f"document {number} of many".encode() for number in range(300)]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(documents: Any = DOCUMENTS, *, into: str = "data", n_vocab: int = 258, **arguments: Any) -> Shards:
        file = tmp_path / "tokenizer.json"
        file.write_text('{"some": "tokenizer"}')
        return write_shards(documents, ByteTokenizer(n_vocab), tmp_path / into, tokenizer_file=file, **arguments)

    return write


def texts(shards: Shards, split: str) -> list[bytes]:
    return [bytes(ids[ids < 256].astype(np.uint8)) for ids in shards.documents(split)]


def test_every_document_comes_back_once_between_its_two_special_tokens(write: Write) -> None:
    shards = write(shard_tokens=500)
    assert sorted(texts(shards, TRAIN) + texts(shards, HELD_OUT)) == sorted(DOCUMENTS)
    for split in (TRAIN, HELD_OUT):
        for ids in shards.documents(split):
            assert (ids[0], ids[-1]) == (shards.bos_id, shards.eos_id) == (256, 257)
            assert (ids[1:-1] < 256).all()


def test_documents_of_a_split_keep_their_order_from_the_first_on_that_is_held_out(write: Write) -> None:
    shards = write(shard_tokens=500)
    train, held_out = ([DOCUMENTS.index(text) for text in texts(shards, split)] for split in (TRAIN, HELD_OUT))
    assert held_out == sorted(held_out)
    assert train[held_out[0] :] == sorted(train[held_out[0] :])
    assert set(train[: held_out[0]]) == set(range(held_out[0]))


def test_counts_are_those_of_the_documents(write: Write) -> None:
    shards = write(shard_tokens=500)
    for split in (TRAIN, HELD_OUT):
        documents = texts(shards, split)
        assert shards.document_count(split) == len(documents)
        assert shards.byte_count(split) == sum(map(len, documents))
        assert shards.token_count(split) == sum(map(len, documents)) + 2 * len(documents)
        assert shards.token_count(split) == sum(map(len, shards.tokens(split)))


def test_shards_hold_whole_documents_and_no_more_tokens_than_asked(write: Write) -> None:
    shards = write([*DOCUMENTS, b"x" * 700], shard_tokens=500)
    sizes = [len(ids) for split in (TRAIN, HELD_OUT) for ids in shards.tokens(split)]
    assert sorted(size for size in sizes if size > 500) == [702]
    assert len(sizes) > 10
    assert all(ids[0] == 256 and ids[-1] == 257 for ids in shards.tokens(TRAIN))


def test_special_tokens_may_be_left_out(write: Write) -> None:
    shards = write(bos=False, eos=False)
    assert shards.bos_id is None is shards.eos_id
    assert all((ids < 256).all() for ids in shards.documents(TRAIN))


@pytest.mark.parametrize(("n_vocab", "dtype"), [(258, "<u2"), (65_536, "<u2"), (65_537, "<u4"), (128_256, "<u4")])
def test_ids_take_two_bytes_where_they_fit(n_vocab: int, dtype: str, write: Write) -> None:
    shards = write(n_vocab=n_vocab)
    assert shards.dtype == np.dtype(dtype)
    assert shards.eos_id == n_vocab - 1
    assert int(shards.tokens(TRAIN)[0].max()) == n_vocab - 1
    shards.check()


def test_token_bytes_are_the_lengths_of_text(write: Write) -> None:
    shards = write(n_vocab=300)
    assert shards.token_bytes.tolist() == [1] * 256 + [0] * 44


def test_text_and_its_bytes_are_the_same_document(write: Write) -> None:
    documents = [f"Dokument № {number}" for number in range(50)]
    one, other = write(documents), write([text.encode() for text in documents], into="other")
    assert one.fingerprint == other.fingerprint


def test_a_document_stays_on_its_side_when_others_come_and_go(write: Write) -> None:
    everything, odd = write(held_out=0.2), write(DOCUMENTS[1::2], into="odd", held_out=0.2)
    assert set(texts(odd, HELD_OUT)) == set(texts(everything, HELD_OUT)) & set(DOCUMENTS[1::2])
    assert len(texts(odd, HELD_OUT)) > 0


def test_about_the_asked_share_is_held_out_and_another_seed_holds_out_others(write: Write) -> None:
    one, other = write(held_out=0.3), write(into="other", held_out=0.3, seed=1)
    # Four standard deviations of 300 draws are 0.11.
    assert 0.19 < one.document_count(HELD_OUT) / 300 < 0.41
    assert set(texts(one, HELD_OUT)) != set(texts(other, HELD_OUT))


@pytest.mark.parametrize("held_out", [0.001, 0.05, 0.5, 0.95, 0.999])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_both_sides_get_a_document_however_few_there_are(count: int, held_out: float, write: Write) -> None:
    shards = write(DOCUMENTS[:count], held_out=held_out)
    assert shards.document_count(TRAIN) >= 1 <= shards.document_count(HELD_OUT)
    assert sorted(texts(shards, TRAIN) + texts(shards, HELD_OUT)) == sorted(DOCUMENTS[:count])


def test_a_single_document_is_cut_near_its_end(write: Write) -> None:
    text = b"The only document of this corpus, which is long enough to be cut in two pieces."
    shards = write([text], held_out=0.1)
    (head,), (tail,) = texts(shards, TRAIN), texts(shards, HELD_OUT)
    assert head + tail == text
    assert shards.token_count(HELD_OUT) == 8
    assert shards.byte_count(TRAIN) == len(head)
    assert shards.byte_count(HELD_OUT) == len(tail) == 7  # and the token that ends the document


def test_nothing_is_held_out_when_none_is_asked_for(write: Write) -> None:
    shards = write(held_out=0)
    assert shards.document_count(TRAIN) == 300
    assert shards.tokens(HELD_OUT) == [] == list(shards.documents(HELD_OUT))


def test_empty_documents_are_passed_over(write: Write) -> None:
    shards = write([b"", *DOCUMENTS[:5], ""])
    assert shards.document_count(TRAIN) + shards.document_count(HELD_OUT) == 5


def test_much_text_is_encoded_in_batches(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    tokenizer = ByteTokenizer()
    stream = (bytes([65 + number]) * (1 << 20) for number in range(10))  # read once, as it comes
    shards = write_shards(stream, tokenizer, tmp_path / "data", tokenizer_file=file, held_out=0, batch_bytes=4 << 20)
    assert tokenizer.batches == 3
    assert shards.byte_count(TRAIN) == 10 << 20


def test_a_thread_encodes_a_batch_of_its_own_and_all_share_a_long_document(tmp_path: Path) -> None:
    calls: list[tuple[int, int | None]] = []

    class Recording(ByteTokenizer):
        def encode_flat(self, documents: list[bytes | str], *, num_threads: int | None = None) -> Any:
            calls.append((sum(map(len, documents)), num_threads))
            return super().encode_flat(documents)

    (tmp_path / "tokenizer.json").write_text("{}")
    documents = [bytes([65 + number]) * (5000 if number == 7 else 300) for number in range(20)]
    shards = write_shards(documents, Recording(), tmp_path / "data", tokenizer_file=tmp_path / "tokenizer.json",
                          held_out=0, threads=3, batch_bytes=1000)  # fmt: skip
    assert {threads for size, threads in calls if size < 2000} == {1}
    assert {threads for size, threads in calls if size >= 5000} == {3}
    assert texts(shards, TRAIN) == documents


@pytest.mark.parametrize("documents", [[], [b"", ""], [b"a"]])
def test_too_little_text_is_refused(documents: list[bytes | str], write: Write) -> None:
    with pytest.raises(InputError, match=r"no document|too little"):
        write(documents)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"shard_tokens": 0}, "shard_tokens"), ({"held_out": 1.0}, "held_out"), ({"held_out": -0.1}, "held_out"),
     ({"seed": -1}, "seed")],
)  # fmt: skip
def test_arguments_out_of_range_are_refused_by_name(arguments: dict[str, Any], name: str, write: Write) -> None:
    with pytest.raises(InputError, match=f"^{name} is"):
        write(**arguments)


def test_written_again_with_less_nothing_of_before_is_left(write: Write) -> None:
    before = write(shard_tokens=500)
    after = write(DOCUMENTS[:40], shard_tokens=500)
    assert after.directory == before.directory
    names = {path.name for path in after.directory.iterdir()}
    shards = [shard for split in (TRAIN, HELD_OUT) for shard in after.shards(split)]
    files = {name for shard in shards for name in (shard.name, shard.documents_name)}
    assert names == files | {"index.json", "token_bytes.bin", "tokenizer.json"}


def test_a_directory_whose_writing_was_interrupted_counts_as_unfinished(tmp_path: Path, write: Write) -> None:
    def interrupted() -> Any:
        yield from DOCUMENTS[:10]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(interrupted(), batch_bytes=1)
    with pytest.raises(InputError, match=r"index\.json.*interrupted, run it again"):
        Shards(tmp_path / "data")


def test_shards_that_are_there_stay_until_the_new_ones_are_complete(write: Write) -> None:
    before = write(DOCUMENTS[:100])

    def interrupted() -> Any:
        yield from DOCUMENTS[:10]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(interrupted(), batch_bytes=1)
    assert Shards(before.directory).fingerprint == before.fingerprint
    assert write(each for each in DOCUMENTS).fingerprint != before.fingerprint
    assert not (before.directory / "work").exists()


def first_shard(shards: Shards) -> Path:
    return shards.directory / "train-00000.bin"


def test_a_truncated_shard_is_named(write: Write) -> None:
    shards = write()
    path = first_shard(shards)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"train-00000\.bin.*truncated"):
        Shards(shards.directory)


def test_a_missing_shard_is_named(write: Write) -> None:
    shards = write()
    first_shard(shards).unlink()
    with pytest.raises(InputError, match=r"train-00000\.bin.*cannot be read"):
        Shards(shards.directory)


def test_an_id_beyond_the_vocabulary_is_found_and_its_place_named(write: Write) -> None:
    shards = write()
    raw = bytearray(first_shard(shards).read_bytes())
    raw[14:16] = (999).to_bytes(2, "little")
    first_shard(shards).write_bytes(raw)
    with pytest.raises(InputError, match=r"train-00000\.bin: token 7 is 999, in document 0, beyond .* 258"):
        Shards(shards.directory).check()


def test_documents_out_of_order_are_found(write: Write) -> None:
    shards = write()
    path = shards.directory / "train-00000.docs"
    offsets = np.fromfile(path, "<i8")
    offsets[3] = 0
    path.write_bytes(offsets.tobytes())
    with pytest.raises(InputError, match="out of order"):
        Shards(shards.directory).check()


def test_another_tokenizer_in_its_place_is_refused(write: Write) -> None:
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
def test_an_index_that_is_not_understood_is_refused(change: dict[str, Any], message: str, write: Write) -> None:
    path = write().directory / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        Shards(path.parent)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '"index"'])
def test_an_index_that_is_no_object_is_refused(text: str, write: Write) -> None:
    path = write().directory / "index.json"
    path.write_text(text)
    with pytest.raises(InputError, match="not an index"):
        Shards(path.parent)


def test_an_index_cannot_point_outside_of_its_directory(write: Write, tmp_path: Path) -> None:
    path = write().directory / "index.json"
    (tmp_path / "secret.bin").write_bytes(first_shard(write()).read_bytes())
    index = json.loads(path.read_text())
    index["splits"]["train"]["shards"][0]["file"] = "../secret.bin"
    path.write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"index\.json: not an index .*'\.\./secret\.bin' is not the name of a shard"):
        Shards(path.parent)


def test_an_unknown_split_is_refused_with_the_known_ones(write: Write) -> None:
    with pytest.raises(InputError, match="'test'.*train, held_out"):
        write().tokens("test")


def test_shards_are_read_only_views(write: Write) -> None:
    ids = write().tokens(TRAIN)[0]
    assert isinstance(ids, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 0


def damaged(index: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a path such as "splits.train.tokens"."""
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
def test_an_index_with_a_value_that_cannot_be_is_refused_in_one_line(
    path: str, harmless: list[Any], write: Write
) -> None:
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


def test_other_documents_another_share_or_other_specials_give_another_fingerprint(write: Write) -> None:
    fingerprints = {
        write(DOCUMENTS, into="0").fingerprint,
        write(DOCUMENTS[1:], into="1").fingerprint,
        write(DOCUMENTS, into="2", held_out=0.5).fingerprint,
        write(DOCUMENTS, into="3", bos=False).fingerprint,
        write([*DOCUMENTS[:-1], b"document 298 of many"], into="4").fingerprint,
    }
    assert len(fingerprints) == 5


def test_where_documents_came_from_does_not_change_the_fingerprint(write: Write, tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": text.decode()}) + "\n" for text in DOCUMENTS))
    from_file = write(ShardSources(tmp_path / "corpus.jsonl"), into="other")
    assert from_file.fingerprint == write().fingerprint
    assert from_file.corpus["sources"][0]["files"][0]["path"] == str(tmp_path / "corpus.jsonl")
