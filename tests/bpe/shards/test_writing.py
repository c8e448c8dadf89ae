"""Writing shards: what is in them, and how documents are split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpe.errors import InputError
from bpe.shards import HELD_OUT, TRAIN, Shards, write_shards
from support.plain_shards import DOCUMENTS, ByteTokenizer

Write = Callable[..., Shards]


def texts(shards: Shards, split: str) -> list[bytes]:
    return [bytes(ids[ids < 256].astype(np.uint8)) for ids in shards.documents(split)]


def test_every_document_comes_back_once_between_its_two_special_tokens(write: Write) -> None:
    shards = write(shard_tokens=500)
    assert sorted(texts(shards, TRAIN) + texts(shards, HELD_OUT)) == sorted(DOCUMENTS)
    for split in (TRAIN, HELD_OUT):
        for ids in shards.documents(split):
            assert (ids[0], ids[-1]) == (shards.bos_id, shards.eos_id) == (256, 257)
            assert (ids[1:-1] < 256).all()


def test_documents_of_a_split_keep_their_order_after_the_first_held_out_one(write: Write) -> None:
    shards = write(shard_tokens=500)
    train, held_out = ([DOCUMENTS.index(text) for text in texts(shards, split)] for split in (TRAIN, HELD_OUT))
    assert held_out == sorted(held_out)
    assert train[held_out[0] :] == sorted(train[held_out[0] :])
    assert set(train[: held_out[0]]) == set(range(held_out[0]))


def test_counts_equal_those_of_the_documents(write: Write) -> None:
    shards = write(shard_tokens=500)
    for split in (TRAIN, HELD_OUT):
        documents = texts(shards, split)
        assert shards.document_count(split) == len(documents)
        assert shards.byte_count(split) == sum(map(len, documents))
        assert shards.token_count(split) == sum(map(len, documents)) + 2 * len(documents)
        assert shards.token_count(split) == sum(map(len, shards.tokens(split)))


def test_shards_hold_whole_documents_and_at_most_shard_tokens(write: Write) -> None:
    shards = write([*DOCUMENTS, b"x" * 700], shard_tokens=500)
    sizes = [len(ids) for split in (TRAIN, HELD_OUT) for ids in shards.tokens(split)]
    assert sorted(size for size in sizes if size > 500) == [702]
    assert len(sizes) > 10
    assert all(ids[0] == 256 and ids[-1] == 257 for ids in shards.tokens(TRAIN))


def test_special_tokens_can_be_left_out(write: Write) -> None:
    shards = write(bos=False, eos=False)
    assert shards.bos_id is None is shards.eos_id
    assert all((ids < 256).all() for ids in shards.documents(TRAIN))


@pytest.mark.parametrize(("n_vocab", "dtype"), [(258, "<u2"), (65_536, "<u2"), (65_537, "<u4"), (128_256, "<u4")])
def test_ids_take_two_bytes_if_they_fit(n_vocab: int, dtype: str, write: Write) -> None:
    shards = write(n_vocab=n_vocab)
    assert shards.dtype == np.dtype(dtype)
    assert shards.eos_id == n_vocab - 1
    assert int(shards.tokens(TRAIN)[0].max()) == n_vocab - 1
    shards.check()


def test_token_bytes_are_the_lengths_of_the_tokens_text(write: Write) -> None:
    shards = write(n_vocab=300)
    assert shards.token_bytes.tolist() == [1] * 256 + [0] * 44


def test_str_and_its_utf8_bytes_are_the_same_document(write: Write) -> None:
    documents = [f"Dokument № {number}" for number in range(50)]
    one, other = write(documents), write([text.encode() for text in documents], into="other")
    assert one.fingerprint == other.fingerprint


def test_document_stays_in_its_split_when_others_are_added_or_removed(write: Write) -> None:
    everything, odd = write(held_out=0.2), write(DOCUMENTS[1::2], into="odd", held_out=0.2)
    assert set(texts(odd, HELD_OUT)) == set(texts(everything, HELD_OUT)) & set(DOCUMENTS[1::2])
    assert len(texts(odd, HELD_OUT)) > 0


def test_share_is_held_out_and_another_seed_holds_out_other_documents(write: Write) -> None:
    one, other = write(held_out=0.3), write(into="other", held_out=0.3, seed=1)
    # Four standard deviations of 300 draws are 0.11.
    assert 0.19 < one.document_count(HELD_OUT) / 300 < 0.41
    assert set(texts(one, HELD_OUT)) != set(texts(other, HELD_OUT))


@pytest.mark.parametrize("held_out", [0.001, 0.05, 0.5, 0.95, 0.999])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_both_splits_get_a_document_however_few_there_are(count: int, held_out: float, write: Write) -> None:
    shards = write(DOCUMENTS[:count], held_out=held_out)
    assert shards.document_count(TRAIN) >= 1 <= shards.document_count(HELD_OUT)
    assert sorted(texts(shards, TRAIN) + texts(shards, HELD_OUT)) == sorted(DOCUMENTS[:count])


def test_single_document_is_cut_near_its_end(write: Write) -> None:
    text = b"The only document of this corpus, which is long enough to be cut in two pieces."
    shards = write([text], held_out=0.1)
    (head,), (tail,) = texts(shards, TRAIN), texts(shards, HELD_OUT)
    assert head + tail == text
    assert shards.token_count(HELD_OUT) == 8
    assert shards.byte_count(TRAIN) == len(head)
    assert shards.byte_count(HELD_OUT) == len(tail) == 7  # and the token that ends the document


def test_nothing_is_held_out_at_share_0(write: Write) -> None:
    shards = write(held_out=0)
    assert shards.document_count(TRAIN) == 300
    assert shards.tokens(HELD_OUT) == [] == list(shards.documents(HELD_OUT))


def test_empty_documents_are_skipped(write: Write) -> None:
    shards = write([b"", *DOCUMENTS[:5], ""])
    assert shards.document_count(TRAIN) + shards.document_count(HELD_OUT) == 5


def test_large_corpus_is_encoded_in_batches(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    tokenizer = ByteTokenizer()
    stream = (bytes([65 + number]) * (1 << 20) for number in range(10))  # can be read only once
    shards = write_shards(stream, tokenizer, tmp_path / "data", tokenizer_file=file, held_out=0, batch_bytes=4 << 20)
    assert tokenizer.batches == 3
    assert shards.byte_count(TRAIN) == 10 << 20


def test_each_thread_encodes_its_own_batch_and_all_share_a_long_document(tmp_path: Path) -> None:
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
def test_too_little_text_is_rejected(documents: list[bytes | str], write: Write) -> None:
    with pytest.raises(InputError, match=r"no document|too little"):
        write(documents)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"shard_tokens": 0}, "shard_tokens"), ({"held_out": 1.0}, "held_out"), ({"held_out": -0.1}, "held_out"),
     ({"seed": -1}, "seed")],
)  # fmt: skip
def test_arguments_out_of_range_are_rejected_by_name(arguments: dict[str, Any], name: str, write: Write) -> None:
    with pytest.raises(InputError, match=f"^{name} is"):
        write(**arguments)


def test_rewriting_with_less_text_leaves_no_old_files(write: Write) -> None:
    before = write(shard_tokens=500)
    after = write(DOCUMENTS[:40], shard_tokens=500)
    assert after.directory == before.directory
    names = {path.name for path in after.directory.iterdir()}
    shards = [shard for split in (TRAIN, HELD_OUT) for shard in after.shards(split)]
    files = {name for shard in shards for name in (shard.name, shard.documents_name)}
    assert names == files | {"index.json", "token_bytes.bin", "tokenizer.json"}


def test_interrupted_directory_is_reported_as_unfinished(tmp_path: Path, write: Write) -> None:
    def interrupted() -> Any:
        yield from DOCUMENTS[:10]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(interrupted(), batch_bytes=1)
    with pytest.raises(InputError, match=r"index\.json.*interrupted, run it again"):
        Shards(tmp_path / "data")


def test_existing_shards_stay_until_the_new_ones_are_complete(write: Write) -> None:
    before = write(DOCUMENTS[:100])

    def interrupted() -> Any:
        yield from DOCUMENTS[:10]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(interrupted(), batch_bytes=1)
    assert Shards(before.directory).fingerprint == before.fingerprint
    assert write(each for each in DOCUMENTS).fingerprint != before.fingerprint
    assert not (before.directory / "work").exists()
