"""Resuming: files do not depend on threads, batches and interruptions. They equal those of a plain writer."""

from __future__ import annotations

import errno
import gzip
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bpe.corpus import documents as documents_of
from bpe.errors import InputError
from bpe.shards import Shards, ShardSources, builder, growing, locking, write_shards
from support.plain_shards import ByteTokenizer, plain_shards

OPTIONS: dict[str, Any] = {"shard_tokens": 60, "held_out": 0.3, "bos": True, "eos": True, "seed": 0}


@pytest.fixture(autouse=True, scope="module")
def _no_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


class Killed(BaseException):
    """Raised in place of the operation at which the process is killed."""


class Kill:
    """Stops every operation on files from a given number on, as if the process had been killed."""

    def __init__(self, at: int) -> None:
        self.left = at

    def dies_at(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise Killed
            return function(*args, **kwargs)

        return operation


@contextmanager
def killed(at: int) -> Iterator[Kill]:
    kill = Kill(at)
    places = (
        *((os, name) for name in ("replace", "fsync")),
        *((Path, name) for name in ("unlink", "mkdir", "rmdir")),
        *((growing._GrowingFile, name) for name in ("write", "flush", "close")),
        (shutil, "rmtree"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "SAVE_EVERY", 0)
        for owner, name in places:
            patch.setattr(owner, name, kill.dies_at(getattr(owner, name)))
        yield kill


def write(directory: Path, documents: Any, **options: Any) -> Shards:
    file = directory / "tokenizer.json"
    file.write_text("{}")
    return write_shards(documents, ByteTokenizer(), directory / "data", tokenizer_file=file, **{**OPTIONS, **options})


def files_of(shards: Shards) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in shards.directory.iterdir()}


some_documents = st.lists(st.binary(max_size=40), min_size=2, max_size=40).filter(lambda d: sum(map(bool, d)) > 1)
some_options = st.fixed_dictionaries(
    {
        "shard_tokens": st.integers(1, 100),
        "held_out": st.sampled_from([0.0, 0.01, 0.3, 0.5, 0.99]),
        "bos": st.booleans(),
        "eos": st.booleans(),
        "seed": st.sampled_from([0, 1, 2**64 - 1]),
    }
)


@given(
    documents=some_documents,
    options=some_options,
    batches=st.lists(st.integers(1, 300), min_size=1, max_size=4),
    kills=st.lists(st.integers(0, 120), max_size=3),
    threads=st.sampled_from([None, 1, 3]),
)
@settings(max_examples=50, deadline=None)
@example([b"a", b"b"], OPTIONS, [1], [], None)
@example([b"", b"same", b"same", b"same"], OPTIONS, [1], [3, 9], 1)
def test_files_equal_those_of_a_plain_writer_for_any_threads_batches_and_kills(
    documents: list[bytes], options: dict[str, Any], batches: list[int], kills: list[int], threads: int | None
) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        sizes = itertools.cycle(batches)
        for at in kills:
            with killed(at):
                try:
                    write(directory, documents, **options, threads=threads, batch_bytes=next(sizes))
                except Killed:
                    continue
                break
        shards = write(directory, documents, **options, threads=threads, batch_bytes=next(sizes))
        shards.check()
        files = files_of(shards)
        expected = plain_shards(documents, **options)
        assert {name: files.pop(name, None) for name in expected} == expected
        assert set(files) == {"index.json", "token_bytes.bin", "tokenizer.json"}


@pytest.fixture
def corpus(tmp_path: Path) -> ShardSources:
    """One file of each kind, with 35 documents in total."""
    import pyarrow
    import pyarrow.parquet

    folder = tmp_path / "corpus"
    folder.mkdir()
    texts = [f"Document {number}: " + "äöü text " * (number % 7) for number in range(35)]
    (folder / "a.txt").write_bytes("\n<|end|>\n".join(texts[:10]).encode() + b"\xff\xfe not UTF-8")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts[10:20])
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    pyarrow.parquet.write_table(pyarrow.table({"text": texts[20:30]}), folder / "c.parquet", row_group_size=3)
    (folder / "d.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[30:]))
    return ShardSources([folder / "a.txt", folder], separator="<|end|>", exclude=["*.no"])


def expected_of(corpus: ShardSources) -> dict[str, bytes]:
    texts = documents_of(corpus.listed(), separator=corpus.separator, exclude=corpus.exclude)
    return plain_shards(texts, **{**OPTIONS, "shard_tokens": 500})


def test_every_kind_of_source_becomes_shards(corpus: ShardSources, tmp_path: Path) -> None:
    for batch_bytes in (1, 100, 1 << 20):
        files = files_of(write(tmp_path, corpus, batch_bytes=batch_bytes, shard_tokens=500))
        for name, content in expected_of(corpus).items():
            assert files[name] == content


def test_writer_killed_at_any_moment_resumes_to_the_same_files(corpus: ShardSources, tmp_path: Path) -> None:
    whole = files_of(write(tmp_path, corpus, shard_tokens=500))
    resumed = 0
    for at in itertools.count(0, 7):
        directory = tmp_path / str(at % 2)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        try:
            with killed(at):
                write(directory, corpus, batch_bytes=400, shard_tokens=500)
            break
        except Killed:
            resumed += (directory / "data" / "work" / "state.json").exists()
        assert files_of(write(directory, corpus, batch_bytes=300, shard_tokens=500)) == whole
    assert resumed > 10


def test_writer_killed_repeatedly_finishes(corpus: ShardSources, tmp_path: Path) -> None:
    whole = files_of(write(tmp_path, corpus, shard_tokens=500))
    directory = tmp_path / "again"
    directory.mkdir()
    for count in itertools.count(1):
        try:
            with killed(28 + count % 3):  # varied: a writer that dies after its last step would start over each time
                shards = write(directory, corpus, batch_bytes=200, shard_tokens=500)
            break
        except Killed:
            assert count < 100
    assert count > 3
    assert files_of(shards) == whole


class Encoding(ByteTokenizer):
    """A tokenizer that counts its documents and raises KeyboardInterrupt after a given number."""

    def __init__(self, interrupted_after: int = 1 << 30, by: type[BaseException] = KeyboardInterrupt) -> None:
        super().__init__()
        self.documents, self._last, self._by = 0, interrupted_after, by

    def encode_flat(self, documents: list[bytes | str], *, num_threads: int | None = None) -> Any:
        if self.documents >= self._last:
            raise self._by
        self.documents += len(documents)
        return super().encode_flat(documents)


DOCUMENTS = [f"document {number}".encode() for number in range(100)]


def begin(directory: Path, documents: Any = DOCUMENTS, after: int = 50, **options: Any) -> None:
    """Start to write and interrupt the work after some documents."""
    file = directory / "tokenizer.json"
    file.write_text("{}")
    with pytest.raises(KeyboardInterrupt):
        write_shards(documents, Encoding(after), directory / "data", tokenizer_file=file, batch_bytes=1, threads=1,
                     **{**OPTIONS, **options})  # fmt: skip


def test_documents_encoded_before_an_interrupt_are_not_encoded_again(tmp_path: Path) -> None:
    begin(tmp_path)
    rest = Encoding()
    write_shards(DOCUMENTS, rest, tmp_path / "data", tokenizer_file=tmp_path / "tokenizer.json", **OPTIONS)
    assert rest.documents == 50


@pytest.mark.parametrize(
    ("option", "value"), [("held_out", 0.5), ("seed", 3), ("shard_tokens", 61), ("bos", False), ("eos", False)]
)
def test_resuming_with_other_options_is_rejected(option: str, value: Any, tmp_path: Path) -> None:
    begin(tmp_path)
    with pytest.raises(InputError, match=f"work: these shards were begun with {option}.*remove this directory"):
        write(tmp_path, DOCUMENTS, **{option: value})
    assert files_of(write(tmp_path, DOCUMENTS))  # nothing was lost


def test_resuming_with_another_tokenizer_is_rejected(tmp_path: Path) -> None:
    begin(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"another": "tokenizer"}')
    with pytest.raises(InputError, match="begun with tokenizer_sha256"):
        write_shards(DOCUMENTS, ByteTokenizer(), tmp_path / "data", tokenizer_file=tmp_path / "tokenizer.json",
                     **OPTIONS)  # fmt: skip


def test_resuming_with_other_documents_is_rejected(tmp_path: Path) -> None:
    begin(tmp_path)
    with pytest.raises(InputError, match=r"list: these are not the documents of the interrupted run"):
        write(tmp_path, [b"first", *DOCUMENTS])


def test_changed_source_is_named(tmp_path: Path) -> None:
    source = tmp_path / "corpus.jsonl"
    source.write_text("".join(json.dumps({"text": text.decode()}) + "\n" for text in DOCUMENTS))
    begin(tmp_path, ShardSources(source))
    source.write_text(source.read_text() + '{"text": "more"}\n')
    with pytest.raises(InputError, match=r"corpus\.jsonl has changed.*the unfinished shards are in .*data.work"):
        write(tmp_path, ShardSources(source))


@pytest.mark.parametrize("damage", [b"", b"{}", b"[" * 100_000, None])
def test_damaged_state_is_named(damage: bytes | None, tmp_path: Path) -> None:
    begin(tmp_path)
    state = tmp_path / "data" / "work" / "state.json"
    state.write_bytes(state.read_bytes().replace(b"49", b"48") if damage is None else damage)
    with pytest.raises(InputError, match=r"work.state\.json: the saved state is damaged; remove .*work to start over"):
        write(tmp_path, DOCUMENTS)


@pytest.mark.parametrize("number", [0, 2])
def test_truncated_unfinished_shard_is_named(number: int, tmp_path: Path) -> None:
    begin(tmp_path)
    path = sorted((tmp_path / "data" / "work").glob("train-*.bin"))[number]
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match=rf"{path.name}: .* bytes, but .* were written"):
        write(tmp_path, DOCUMENTS)


@pytest.mark.parametrize("documents", [[], [b""], [b"", ""]])
def test_empty_corpus_leaves_no_files(documents: Sequence[Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no document"):
        write(tmp_path, documents)
    assert not (tmp_path / "data").exists()


def test_directory_with_other_files_is_rejected_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("all of it")
    with pytest.raises(InputError, match=r"data: this directory holds other files \(thesis\.tex\)"):
        write(tmp_path, DOCUMENTS)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["thesis.tex"]


def test_foreign_index_is_rejected_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "index.json").write_text('{"pages": 7}')
    with pytest.raises(InputError, match=r"index\.json: not an index of token shards; name a new"):
        write(tmp_path, DOCUMENTS)
    assert (tmp_path / "data" / "index.json").read_text() == '{"pages": 7}'


def test_foreign_work_directory_is_rejected_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "data" / "work").mkdir(parents=True)
    (tmp_path / "data" / "work" / "thesis.tex").write_text("all of it")
    with pytest.raises(InputError, match="this directory holds other files"):
        write(tmp_path, DOCUMENTS)
    assert (tmp_path / "data" / "work" / "thesis.tex").read_text() == "all of it"


def test_tokenizer_does_not_overwrite_another_file_beside_shards(tmp_path: Path) -> None:
    write(tmp_path, DOCUMENTS)
    (tmp_path / "data" / "my.json").write_text("mine")
    (tmp_path / "my.json").write_text("{}")
    with pytest.raises(InputError, match=r"other files.*my\.json"):
        write_shards(DOCUMENTS, ByteTokenizer(), tmp_path / "data", tokenizer_file=tmp_path / "my.json", **OPTIONS)
    assert (tmp_path / "data" / "my.json").read_text() == "mine"
    write(tmp_path, DOCUMENTS[:50])  # a file that is not in the way remains
    assert (tmp_path / "data" / "my.json").read_text() == "mine"


def test_file_in_place_of_the_directory_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(InputError, match="data: not a directory"):
        write(tmp_path, DOCUMENTS)


def test_second_writer_is_rejected_and_the_first_continues(tmp_path: Path) -> None:
    refused: list[str] = []

    def second(_: object) -> None:
        with pytest.raises(InputError) as error:
            write(tmp_path, DOCUMENTS)
        refused.append(str(error.value))

    shards = write(tmp_path, DOCUMENTS, batch_bytes=1000, progress=second)
    message = f"{tmp_path / 'data'}: another process is writing shards here; wait for it, or name another directory"
    assert set(refused) == {message}
    (tmp_path / "whole").mkdir()
    assert files_of(shards) == files_of(write(tmp_path / "whole", DOCUMENTS))


def test_failed_writer_releases_the_lock(tmp_path: Path) -> None:
    begin(tmp_path)
    assert not (tmp_path / "data" / ".lock").exists()
    assert files_of(write(tmp_path, DOCUMENTS))


def test_no_directory_is_left_if_nothing_was_written(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    for documents in ([], ShardSources(tmp_path / "missing")):
        with pytest.raises(InputError):
            write_shards(documents, ByteTokenizer(), tmp_path / "some" / "where",
                         tokenizer_file=tmp_path / "tokenizer.json")  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_lock_that_its_owner_removes_in_the_meantime_is_taken_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    take, paths = locking._lock, [tmp_path / ".lock"] * 2

    def remove_first(descriptor: int) -> None:
        if paths:
            paths.pop().unlink()
        take(descriptor)

    monkeypatch.setattr(locking, "_lock", remove_first)
    with locking.locked(tmp_path):
        assert not paths
        monkeypatch.undo()
        with pytest.raises(InputError, match="another process"), locking.locked(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_file_system_without_locks_can_be_written_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_locks(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locking, "_lock", no_locks)
    assert files_of(write(tmp_path, DOCUMENTS))


PATHS = [str(Path(__file__).parent), str(Path(__file__).parents[2])]  # of this module, and of support

KILLED_WHILE_IT_WRITES = """
import sys
sys.path[:0] = {paths!r}
import test_resuming as tests
from pathlib import Path
from bpe.shards import builder
builder.SAVE_EVERY = 0

def progress(now):
    if now.documents > 50:
        print("writing", flush=True)
        sys.stdin.read()

tests.write(Path({directory!r}), tests.DOCUMENTS, batch_bytes=1, progress=progress)
"""


def test_writer_in_another_process_holds_the_lock_until_killed(tmp_path: Path) -> None:
    code = KILLED_WHILE_IT_WRITES.format(paths=PATHS, directory=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "writing\n"
        with pytest.raises(InputError, match="another process is writing shards here"):
            write(tmp_path, DOCUMENTS)
        other.kill()
        other.wait()
    assert (tmp_path / "data" / ".lock").exists()
    assert (tmp_path / "data" / "work" / "state.json").exists()
    resumed = files_of(write(tmp_path, DOCUMENTS))
    (tmp_path / "whole").mkdir()
    assert resumed == files_of(write(tmp_path / "whole", DOCUMENTS))


WITH_LITTLE_SPACE = """
import resource, sys
sys.path[:0] = {paths!r}
import test_resuming as tests
from pathlib import Path
from bpe.shards import builder
builder.SAVE_EVERY = 0
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))
try:
    tests.write(Path({directory!r}), [b"x" * 200] * 100, shard_tokens=1 << 20, batch_bytes=1000)
except OSError as error:
    print(f"{{error.filename}}: {{error.strerror}}")
"""


def test_full_disk_raises_an_error_that_names_the_file_and_loses_nothing(tmp_path: Path) -> None:
    # A limit on the size of files stands in for a full disk.
    code = WITH_LITTLE_SPACE.format(paths=PATHS, directory=str(tmp_path), size=20_000)
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.stderr == ""
    assert finished.stdout.startswith(str(tmp_path / "data" / "work" / "train-00000.bin") + ": ")
    state = json.loads((tmp_path / "data" / "work" / "state.json").read_text())
    assert state["splits"]["train"]["last"]["tokens"] > 5000
    resumed = files_of(write(tmp_path, [b"x" * 200] * 100, shard_tokens=1 << 20))
    (tmp_path / "whole").mkdir()
    assert resumed == files_of(write(tmp_path / "whole", [b"x" * 200] * 100, shard_tokens=1 << 20))
