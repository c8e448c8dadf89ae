"""Sources of text -> documents."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import re
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpe import InputError
from bpe.corpus import Invalid, TextBatch, documents, read_corpus
from bpe.optional import first_module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files on several levels, some of which are not texts."""
    files = {
        "b.txt": b"b",
        "a.txt": b"a",
        "z/deep/er/c.txt": b"c",
        "m/d.py": b"d",
        "m/empty.txt": b"",
        ".hidden": b"hidden",
        ".git/config": b"hidden",
        "binary.bin": b"bin\0ary",
        "broken.txt": b"\xff\xfe",
    }
    for name, content in files.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "tree"


# Directories and globs


def test_a_directory_gives_its_texts_in_sorted_order_down_to_the_last_level(tree: Path) -> None:
    assert list(documents(str(tree))) == [b"a", b"b", b"\xff\xfe", b"d", b"", b"c"]
    assert list(documents(tree)) == list(documents([str(tree)])) == list(documents(str(tree)))


def test_what_is_excluded_is_left_out_by_name_path_or_pattern(tree: Path) -> None:
    for exclude, expected in [
        (["*.txt"], [b"d"]),
        (["z"], [b"a", b"b", b"\xff\xfe", b"d", b""]),
        (["deep", "broken.*"], [b"a", b"b", b"d", b""]),
        ([str(tree / "m" / "*"), "broken.txt"], [b"a", b"b", b"c"]),
        ([str(tree / "m")], [b"a", b"b", b"\xff\xfe", b"c"]),
    ]:
        assert list(documents(str(tree), exclude=exclude)) == expected
    assert list(documents(str(tree / "**" / "*.txt"), exclude=["z", "m", "broken.txt"])) == [b"a", b"b"]


def test_a_directory_without_texts_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".hidden").touch()
    (tmp_path / "binary").write_bytes(b"\0")
    with pytest.raises(InputError, match="no text files"):
        list(documents(str(tmp_path)))


def test_a_glob_gives_its_files_in_sorted_order_and_two_stars_any_depth(tree: Path) -> None:
    assert list(documents(str(tree / "[ab].txt"))) == [b"a", b"b"]
    assert list(documents(str(tree / "**" / "*.txt"))) == [b"a", b"b", b"\xff\xfe", b"", b"c"]
    with pytest.raises(InputError, match="no file matches"):
        list(documents(str(tree / "*.nothing")))


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "[ab].txt").write_bytes(b"literally")
    (tmp_path / "a.txt").write_bytes(b"a")
    assert list(documents(str(tmp_path / "[ab].txt"))) == [b"literally"]


def test_a_file_that_is_named_is_read_whatever_is_in_it(tree: Path) -> None:
    assert list(documents([str(tree / "binary.bin"), str(tree / ".hidden")])) == [b"bin\0ary", b"hidden"]


def test_what_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.txt: no such file"):
        list(documents(str(tmp_path / "nothing.txt")))


def test_links_in_a_directory_that_lead_nowhere_or_in_a_circle_do_no_harm(tree: Path) -> None:
    (tree / "dangling.txt").symlink_to("nowhere")
    (tree / "m" / "circle").symlink_to(tree)
    os.mkfifo(tree / "pipe")
    assert list(documents(str(tree))) == [b"a", b"b", b"\xff\xfe", b"d", b"", b"c"]


# Iterables


def test_texts_and_bytes_are_documents_themselves(tree: Path) -> None:
    assert list(documents([["one", b"two \xff"], str(tree / "a.txt"), iter(["é"])])) == [
        b"one",
        b"two \xff",
        b"a",
        "é".encode(),
    ]
    assert list(documents([])) == list(documents([[]])) == []


def test_surrogates_are_joined_or_replaced() -> None:
    assert list(documents([["\ud83d\ude00 \ud83d"]])) == ["😀 \ufffd".encode()]


def test_documents_are_taken_one_at_a_time() -> None:
    """A stream without end is no harm."""
    stream = documents([("text" for _ in iter(int, 1))])
    assert [next(stream), next(stream)] == [b"text", b"text"]


@pytest.mark.parametrize("source", [5, None, 1.5])
def test_what_is_no_source_is_refused(source: object) -> None:
    with pytest.raises(InputError, match="a source must be a path or an iterable"):
        list(documents([source]))  # type: ignore[list-item]
    with pytest.raises(InputError, match="a document must be str or bytes"):
        list(documents([[source]]))  # type: ignore[list-item]
    with pytest.raises((InputError, TypeError)):
        list(documents(source))  # type: ignore[arg-type]


def test_bytes_in_the_place_of_a_source_are_refused() -> None:
    for sources in (b"text", [b"text"]):
        with pytest.raises(InputError, match="a (source|document) must be"):
            list(documents(sources))  # type: ignore[arg-type]


# Files of several documents


def test_a_separator_divides_a_file_and_space_around_it_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "tales.txt"
    path.write_bytes(b"one\n<|end|>\n\ntwo  three\n<|end|>\n\n<|end|>four <|end|>")
    assert list(documents(str(path), separator="<|end|>")) == [b"one", b"two  three", b"four"]
    assert len(list(documents(str(path)))) == 1
    with pytest.raises(InputError, match="separator"):
        list(documents(str(path), separator=""))


def test_the_sample_texts_hold_as_many_documents_as_their_readme_says(corpora: Path) -> None:
    rows = re.findall(r"^\| `(.+?)` .* (\d+) \|$", (corpora / "README.md").read_text(), re.MULTILINE)
    said = {name: int(count) for name, count in rows}
    found = {name: len(list(documents(str(corpora / name), separator="<|end_of_text|>"))) for name in said}
    assert len(said) == 7
    assert found == said


@given(texts=st.lists(st.text(max_size=10), max_size=5))
def test_a_jsonl_file_has_a_document_in_each_line(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "documents.jsonl"
    path.write_text("\n".join(json.dumps({"text": text, "id": 5}) for text in texts) + "\n \n", encoding="utf-8")
    assert list(documents(str(path))) == [text.encode() for text in texts]


def test_the_field_of_a_jsonl_file_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    path.write_bytes(b'{"content": "a\\ud83d\\ude00\\ud83d", "text": 5}\r\n')
    assert list(documents(str(path), field="content")) == ["a😀\ufffd".encode()]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 2 is not JSON"),
        (b"\xff", "line 2 is not JSON"),
        (b"[" * 100_000, "line 2 is not JSON"),
        (b'{"text": ' + b"9" * 5000 + b"}", "line 2"),
        (b"[]", "line 2 has no text under 'text'"),
        (b"5", "line 2 has no text"),
        (b"{}", "line 2 has no text"),
        (b'{"text": null}', "line 2 has no text"),
        (b'{"text": 5}', "line 2 has no text"),
        (b'{"text": ["a"]}', "line 2 has no text"),
    ],
)
def test_a_line_without_the_text_is_refused_by_its_number(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "documents.jsonl"
    path.write_bytes(b'{"text": "fine"}\n' + line + b"\n")
    stream = documents(str(path))
    assert next(stream) == b"fine"
    with pytest.raises(InputError, match=message) as caught:
        next(stream)
    assert str(caught.value).startswith(str(path))


# Archives


def zstd_compress(content: bytes) -> bytes:
    return bytes(first_module("compression.zstd", "backports.zstd").compress(content))


COMPRESSIONS = [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress), (".ZST", zstd_compress)]


@pytest.mark.parametrize(("suffix", "compress"), COMPRESSIONS)
def test_archives_are_read_as_what_they_hold(tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    content = b'{"text": "one"}\n{"text": "two"}\n'
    (tmp_path / f"a.jsonl{suffix}").write_bytes(compress(content))
    (tmp_path / f"b.txt{suffix}").write_bytes(compress(b"text"))
    assert list(documents(str(tmp_path))) == [b"one", b"two", b"text"]
    assert list(documents(str(tmp_path / f"b.txt{suffix}"), separator="x")) == [b"te", b"t"]
    path = tmp_path / f"twice{suffix}"
    path.write_bytes(compress(b"one") + compress(b"two"))
    assert list(documents(str(path))) == [b"onetwo"]


@pytest.mark.parametrize(("suffix", "compress"), COMPRESSIONS)
@pytest.mark.parametrize("damage", [lambda c: c[:-5], lambda c: c[:20], lambda c: b"no archive"])
def test_a_damaged_archive_is_refused_by_name(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes], damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(damage(compress(bytes(range(256)))))
    with pytest.raises(InputError, match="the archive is damaged") as caught:
        list(documents(str(path)))
    assert str(caught.value).startswith(str(path))


# Standard input


def test_a_dash_is_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one | two\xff")))
    assert list(documents("-", separator="|")) == [b"one", b"two\xff"]


# The reader: batches


def text_of(batches: Iterable[TextBatch]) -> bytes:
    return b"".join(bytes(text) for batch in batches for text in batch.texts)


def last_space(text: bytes | memoryview) -> int:
    """A cut: what is before the last space can be counted apart."""
    return max(0, bytes(text).rfind(b" "))


def goes_on(before: TextBatch, *arguments: Any, **options: Any) -> list[TextBatch]:
    """The rest, after a batch whose position was written down and read again."""
    return list(read_corpus(*arguments, **options, start=json.loads(json.dumps(before.position))))


PIECES = [b" ", b"\n", b"a", b"|", b"||", b"\xff", b"\xe2\x82", "é".encode(), "€".encode(), "😀".encode()]


@given(
    contents=st.lists(st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join), min_size=1, max_size=3),
    separator=st.sampled_from([None, "||"]),
    errors=st.sampled_from(["replace", "ignore"]),
    cut=st.sampled_from([None, last_space]),
    weights=st.booleans(),
    batch_bytes=st.integers(1, 30),
)
def test_batches_join_up_to_the_documents_and_each_is_a_place_to_go_on_from(
    tmp_path_factory: pytest.TempPathFactory,
    contents: list[bytes],
    separator: str | None,
    errors: str,
    cut: Callable[[bytes | memoryview], int] | None,
    weights: bool,
    batch_bytes: int,
) -> None:
    paths = []
    for number, content in enumerate(contents):
        paths.append(tmp_path_factory.getbasetemp() / f"{number}.txt")
        paths[-1].write_bytes(content)
    options: dict[str, Any] = {"separator": separator, "errors": errors, "cut": cut, "batch_bytes": batch_bytes}
    if weights:
        options["weights"] = [1, 1, 2][: len(paths)]
    reader = read_corpus(paths, **options)
    batches = list(reader)

    texts = [content.decode("utf-8", errors).encode() for content in contents]
    if separator is not None:
        texts = [part.strip() for text in texts for part in text.split(separator.encode()) if part.strip()]
    assert text_of(batches) == b"".join(texts)
    assert sum(batch.documents for batch in batches) == len(texts)
    assert all(batch.size == sum(map(len, batch.texts)) for batch in batches)
    if cut is None:
        assert [text for batch in batches for text in batch.texts] == texts
    malformed = [c.decode("utf-8", "replace").count("\ufffd") for c in contents]
    assert [found.sequences for found in reader.invalid] == [count for count in malformed if count]

    for number, batch in enumerate(batches):
        resumed = read_corpus(paths, **options, start=json.loads(json.dumps(batch.position)))
        rest = list(resumed)
        assert text_of(rest) == text_of(batches[number + 1 :])
        assert sum(b.documents for b in rest) == sum(b.documents for b in batches[number + 1 :])
        assert resumed.invalid == reader.invalid


def test_a_batch_has_texts_of_one_source_or_of_neighbours_with_one_weight(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    sources: list[Any] = [tmp_path, tmp_path / "a", tmp_path / "b", ["c", "d"]]
    batches = list(read_corpus(sources))
    assert [(b.texts, b.source, b.weight) for b in batches] == [
        ([b"a", b"b"], 0, 1),
        ([b"a"], 1, 1),
        ([b"b"], 2, 1),
        ([b"c", b"d"], 3, 1),
    ]
    batches = list(read_corpus(sources, weights=[5, 5, 1, 1]))  # the iterable is read in this thread
    assert [(b.texts, b.source, b.weight) for b in batches] == [
        ([b"a", b"b", b"a"], 0, 5),
        ([b"b"], 2, 1),
        ([b"c", b"d"], 3, 1),
    ]
    with pytest.raises(InputError, match="3 weights for 4 sources"):
        read_corpus(sources, weights=[1, 2, 3])


def test_what_is_read_is_told_in_bytes_on_disk(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"word " * 100_000))
    (tmp_path / "b.txt").write_bytes(b"word " * 1000)
    reader = read_corpus(tmp_path, cut=last_space, batch_bytes=1 << 16)
    read = [batch.read for batch in reader]
    assert reader.total == sum(path.stat().st_size for path in tmp_path.iterdir()) == read[-1]
    assert all(before <= after for before, after in pairwise(read))
    assert 0 < read[0] < read[-1]
    assert read_corpus([tmp_path, ["text"]]).total is None


# The reader: going on


def json_lines(texts: list[str]) -> bytes:
    return b"".join(json.dumps({"n": n, "text": text}).encode() + b"\n" for n, text in enumerate(texts))


def parquet(path: Path, texts: list[str | None], **options: Any) -> Path:
    table = pyarrow.table({"n": list(range(len(texts))), "text": pyarrow.array(texts, **options)})
    pyarrow.parquet.write_table(table, path, row_group_size=7)
    return path


def in_memory(name: str, content: bytes) -> str:
    fsspec.filesystem("memory").pipe(name, content)
    return f"memory:/{name}"


TEXTS = [f"document {n} é {'x' * (n % 13)}" for n in range(40)]
SOURCES: dict[str, Callable[[Path], Any]] = {
    "list": lambda _: [TEXTS],
    "bytes": lambda _: [[text.encode() for text in TEXTS]],
    "generator": lambda _: [(text for text in TEXTS)],
    "dataset": lambda _: datasets.Dataset.from_dict({"text": TEXTS, "n": range(40)}),
    "shuffled dataset": lambda _: datasets.Dataset.from_dict({"text": TEXTS[::-1]}).select(range(39, -1, -1)),
    "iterable dataset": lambda _: datasets.Dataset.from_dict({"text": TEXTS}).to_iterable_dataset(),
    "generated dataset": lambda _: datasets.IterableDataset.from_generator(lambda: ({"text": text} for text in TEXTS)),
    "parquet": lambda path: parquet(path / "a.parquet", list(TEXTS)),
    "jsonl": lambda path: written(path / "a.jsonl", json_lines(TEXTS)),
    "ndjson.zst": lambda path: written(path / "a.NDJSON.zst", zstd_compress(json_lines(TEXTS))),
    "jsonl.gz": lambda path: written(path / "a.jsonl.gz", gzip.compress(json_lines(TEXTS))),
    "remote jsonl": lambda _: in_memory("/resume/a.jsonl", json_lines(TEXTS)),
    "remote parquet": lambda path: in_memory(
        "/resume/a.parquet", parquet(path / "a.parquet", list(TEXTS)).read_bytes()
    ),
    "text": lambda path: written(path / "a.txt", "".join(TEXTS).encode()),
    "text.xz": lambda path: written(path / "a.txt.xz", lzma.compress("".join(TEXTS).encode())),
    "text.bz2": lambda path: written(path / "a.txt.bz2", bz2.compress("".join(TEXTS).encode())),
    "text.zst": lambda path: written(path / "a.txt.zst", zstd_compress("".join(TEXTS).encode())),
    "remote text": lambda _: in_memory("/resume/a.txt", "".join(TEXTS).encode()),
}


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_source_goes_on_after_any_batch(kind: str, tmp_path: Path) -> None:
    source = SOURCES[kind](tmp_path)

    def again() -> Any:  # files stay as they are, what can be read only once is made anew
        return source if isinstance(source, (str, Path)) else SOURCES[kind](tmp_path)

    options: dict[str, Any] = {"cut": last_space, "batch_bytes": 100}
    batches = list(read_corpus(source, **options))
    assert len(batches) > 3
    assert text_of(batches) == "".join(TEXTS).encode()
    assert sum(batch.documents for batch in batches) == (1 if "text" in kind else 40)
    for number, batch in enumerate(batches):
        assert text_of(goes_on(batch, again(), **options)) == text_of(batches[number + 1 :])


def test_stdin_goes_on_if_it_begins_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    content = b"word \xff \xe2\x82\xac " * 50
    options: dict[str, Any] = {"cut": last_space, "batch_bytes": 64}
    give(content)
    batches = list(read_corpus("-", **options))
    for number, batch in enumerate(batches):
        give(content)
        assert text_of(goes_on(batch, "-", **options)) == text_of(batches[number + 1 :])
    for other in (b"W" + content[1:], content[:200]):
        give(other)
        with pytest.raises(InputError, match="stdin: .* not the text that was begun with"):
            goes_on(batches[10], "-", **options)


def test_a_pipe_is_read_once_and_its_size_is_not_known(tmp_path: Path) -> None:
    def give(content: bytes) -> threading.Thread:
        writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
        writer.start()
        return writer

    os.mkfifo(tmp_path / "pipe")
    options: dict[str, Any] = {"cut": last_space, "batch_bytes": 1000}
    content = b"".join(b"%d " % n for n in range(50_000))
    writer = give(content)
    reader = read_corpus(tmp_path / "pipe", **options)
    batches = list(reader)
    writer.join()
    assert reader.total is None
    assert text_of(batches) == content
    writer = give(content)
    assert text_of(goes_on(batches[5], tmp_path / "pipe", **options)) == text_of(batches[6:])
    writer.join()


def change(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize(
    ("disturb", "message"),
    [
        (lambda tree: change(tree / "m" / "d.py"), "m/d.py has changed"),
        (lambda tree: (tree / "m" / "d.py").unlink(), "m/d.py is no longer there"),
        (lambda tree: (tree / "c.txt").write_text("new"), "c.txt is new"),
    ],
)
def test_another_corpus_is_refused_naming_what_is_different(
    tree: Path, disturb: Callable[[Path], None], message: str
) -> None:
    batch = next(iter(read_corpus(tree, batch_bytes=1)))
    assert text_of(goes_on(batch, tree)) == "b\ufffd\ufffddc".encode()
    disturb(tree)
    with pytest.raises(InputError, match=message):
        goes_on(batch, tree)


def test_a_source_that_is_gone_is_refused_by_name(tree: Path) -> None:
    sources = [tree / "a.txt", tree / "b.txt"]
    batch = next(iter(read_corpus(sources)))
    with pytest.raises(InputError, match="another order"):
        goes_on(batch, sources[::-1])
    with pytest.raises(InputError, match="a.txt is no longer there"):
        goes_on(batch, sources[1:])
    (tree / "a.txt").unlink()
    with pytest.raises(InputError, match="a.txt: no such file"):
        goes_on(batch, sources)


def test_other_documents_are_refused(tmp_path: Path) -> None:
    batches = list(read_corpus([TEXTS], batch_bytes=200))
    for other in (["other", *TEXTS[1:]], TEXTS[:3], []):
        with pytest.raises(InputError, match="not the documents that were begun with"):
            goes_on(batches[3], [other])
    with pytest.raises(InputError, match="begun with field 'text'"):
        goes_on(batches[3], [TEXTS], field="content")


def test_the_fingerprint_tells_a_corpus_from_another(tree: Path) -> None:
    before = read_corpus(tree).fingerprint
    assert json.loads(json.dumps(before)) == before == read_corpus(tree).fingerprint
    assert read_corpus(tree, separator="x").fingerprint != before
    change(tree / "a.txt")
    assert read_corpus(tree).fingerprint != before


# The reader: what is not UTF-8


def test_what_is_not_utf8_is_replaced_dropped_or_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", b"fine \xff\xe2\x82 fine")
    reader = read_corpus(path)
    assert text_of(reader) == "fine \ufffd\ufffd fine".encode()
    assert reader.invalid == [Invalid(str(path), 2, "byte 5")]
    assert text_of(read_corpus(path, errors="ignore")) == b"fine  fine"
    with pytest.raises(InputError, match="a.txt: byte 5 is not UTF-8"):
        list(read_corpus(path, errors="strict"))
    with pytest.raises(InputError, match="errors is 'surrogateescape'"):
        read_corpus(path, errors="surrogateescape")


def test_documents_rows_and_lines_are_held_to_the_same(tmp_path: Path) -> None:
    lines = written(tmp_path / "a.jsonl", b'{"text": "fine"}\n{"text": "a\xffb"}\n')
    rows = tmp_path / "a.parquet"
    column = pyarrow.array([b"fine", b"a\xffb", b"\xe2\x82", b"\xac"])
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), rows)
    for source, name, place, expected in [
        ([[b"fine", b"a\xffb"]], "list", "document 2", "finea\ufffdb"),
        (lines, str(lines), "line 2", "finea\ufffdb"),
        (rows, str(rows), "row 2", "finea\ufffdb\ufffd\ufffd"),
    ]:
        reader = read_corpus(source)
        assert text_of(reader) == expected.encode()
        assert [(found.name, found.first) for found in reader.invalid] == [(name, place)]
        with pytest.raises(InputError, match=f"{place} is not UTF-8"):
            list(read_corpus(source, errors="strict"))
    assert text_of(read_corpus([["a\ud83d\ude00\ud83d"]], errors="strict")) == "a😀\ufffd".encode()


# The reader: its thread and its memory


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "bpe.corpus"]


def open_files(directory: Path) -> list[str]:
    links = [f"/proc/self/fd/{descriptor}" for descriptor in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if os.path.lexists(link) and str(directory) in os.readlink(link)]


def test_files_are_read_in_another_thread_and_iterables_in_this_one(tmp_path: Path) -> None:
    def texts() -> Iterator[str]:
        assert threading.current_thread() is threading.main_thread()
        assert not readers()
        yield "text"

    written(tmp_path / "a.txt", b"word " * 1000)
    batches = iter(read_corpus([tmp_path, texts()], cut=last_space, batch_bytes=100))
    next(batches)
    assert len(readers()) == 1
    assert text_of(batches).endswith(b"text")
    assert not readers()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are looked up in /proc")
def test_dropping_the_batches_ends_the_thread_and_closes_the_file(tmp_path: Path) -> None:
    written(tmp_path / "a.txt", b"word " * 100_000)
    reader = read_corpus(tmp_path, cut=last_space, batch_bytes=100)
    for leave in ("close", "raise", "break"):
        batches = iter(reader)
        next(batches)
        assert open_files(tmp_path)
        if leave == "close":
            batches.close()  # type: ignore[attr-defined]
        elif leave == "break":
            for _ in batches:
                break
            del batches
        else:
            with pytest.raises(KeyboardInterrupt):
                for _ in batches:
                    raise KeyboardInterrupt
            del batches
        assert not readers()
        assert not open_files(tmp_path)


def test_an_error_comes_after_the_text_before_it(tmp_path: Path) -> None:
    written(tmp_path / "a.txt", b"fine")
    written(tmp_path / "b.jsonl", b'{"text": "fine"}\n{\n')
    batches = iter(read_corpus(tmp_path, batch_bytes=1))
    assert [next(batches).texts, next(batches).texts] == [[b"fine"], [b"fine"]]
    with pytest.raises(InputError, match="line 2 is not JSON"):
        next(batches)
    assert not readers()
    gone = read_corpus(written(tmp_path / "c.txt", b"c"))
    (tmp_path / "c.txt").unlink()
    with pytest.raises(FileNotFoundError, match="c.txt"):
        list(gone)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.xz", "a.jsonl.zst", "a.parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    document = "many words " * 1000
    count = 3000
    if name == "a.parquet":
        table = pyarrow.table({"text": [document] * count})
        pyarrow.parquet.write_table(table, tmp_path / name, use_dictionary=False, write_batch_size=64)
    else:
        content = json_lines([document] * count) if "jsonl" in name else document.encode() * count
        compress = dict(COMPRESSIONS).get(Path(name).suffix.replace("zst", "ZST"), bytes)
        written(tmp_path / name, compress(content))
        del content
    seen = 0
    tracemalloc.start()
    pyarrow_before = pyarrow.total_allocated_bytes()
    most = 0
    for batch in read_corpus(tmp_path, cut=last_space, batch_bytes=1 << 20):
        seen += batch.size
        most = max(most, pyarrow.total_allocated_bytes() - pyarrow_before)
    most += tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == len(document) * count > 2 * most
    assert most < 16 << 20


def test_a_document_that_cannot_be_cut_is_read_to_its_end(tmp_path: Path) -> None:
    asked = []

    def cut(text: bytes | memoryview) -> int:
        asked.append(len(text))
        return 0

    written(tmp_path / "a.txt", b"a" * 100_000)
    assert [len(batch.texts[0]) for batch in read_corpus(tmp_path, cut=cut, batch_bytes=200)] == [100_000]
    assert len(asked) < 12  # it reads twice as much each time


# The reader: what is wrong


def test_a_column_that_is_not_there_or_holds_no_text_is_refused(tmp_path: Path) -> None:
    rows = parquet(tmp_path / "a.parquet", ["text"])
    for source in (rows, datasets.Dataset.from_dict({"n": [1], "text": ["text"]})):
        with pytest.raises(InputError, match="no column 'content'; set field .* to one of 'n', 'text'"):
            list(read_corpus(source, field="content"))
        with pytest.raises(InputError, match="column 'n' holds int64, not text"):
            list(read_corpus(source, field="n"))


def test_columns_of_every_kind_of_text_are_read_and_nulls_are_no_documents(tmp_path: Path) -> None:
    texts = ["a", None, "é" * 20, "", "a", None]
    for kind in ("string", "large_string", "string_view", "dictionary"):
        column = pyarrow.array(texts, "string")
        column = column.dictionary_encode() if kind == "dictionary" else column.cast(kind)
        pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
        assert list(documents(tmp_path)) == [b"a", ("é" * 20).encode(), b"", b"a"]


@pytest.mark.parametrize("damage", [lambda c: c[:-5], lambda c: b"", lambda c: b"x" * 100, lambda c: c[:10] + c[60:]])
def test_a_damaged_parquet_file_is_refused_by_name(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = parquet(tmp_path / "a.parquet", list(TEXTS))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="a.parquet: the file is damaged"):
        list(read_corpus(path))
    with pytest.raises(InputError, match="a.parquet.gz: decompress it first"):
        list(read_corpus(written(tmp_path / "a.parquet.gz", b"")))


def test_several_splits_and_mappings_are_refused() -> None:
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["a"]})})
    for source in (splits, [splits]):
        with pytest.raises(InputError, match="DatasetDict holds several datasets .'train'.; pass one"):
            read_corpus(source)  # type: ignore[arg-type]
    for mapping in ({"text": "a"}, [{"text": "a"}]):
        with pytest.raises(InputError, match="not a? ?dict"):
            read_corpus(mapping)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "modules", "extra"),
    [
        ("a.parquet", ["pyarrow", "pyarrow.parquet"], "parquet"),
        ("a.txt.zst", ["compression.zstd", "backports.zstd"], "zstd"),
        ("memory://a.txt", ["fsspec"], "remote"),
    ],
)
def test_a_missing_package_is_told_by_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, modules: list[str], extra: str
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    if "://" not in source:
        source = str(written(tmp_path / source, b""))
    with pytest.raises(InputError, match=rf"{source}: .*bpe-llama\[{extra}\]"):
        list(read_corpus(source))


def test_archives_are_read_alike_with_and_without_the_faster_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"".join(b"%d " % n for n in range(100_000))
    path = written(tmp_path / "a.txt.gz", gzip.compress(content[:300_000]) + gzip.compress(content[300_000:]))
    batches = list(read_corpus(path, cut=last_space, batch_bytes=1 << 16))
    assert text_of(batches) == content
    monkeypatch.setitem(sys.modules, "isal.igzip", None)
    again = list(read_corpus(path, cut=last_space, batch_bytes=1 << 16))
    assert [(batch.texts, batch.position) for batch in again] == [(batch.texts, batch.position) for batch in batches]
    for damage in (content[:1000], path.read_bytes()[:-5]):
        with pytest.raises(InputError, match="a.txt.gz: the archive is damaged"):
            list(documents(written(path, damage)))


def test_lines_that_only_a_full_parser_understands_are_read_as_well(tmp_path: Path) -> None:
    lines = [
        b'{"text": "a\\ud83d\\ude00 \\ud83d", "n": NaN}',
        b'{"text": "\xed\xa0\x80", "text": "last"}',
        b'{"text": "big", "n": 123456789012345678901234567890}',
        b'{"text": "x", "text": "two \\u0000 \xe2\x82\xac"}',
        b'\xef\xbb\xbf{"text": "mark"}',
    ]
    path = written(tmp_path / "a.jsonl", b"\n".join(lines))
    texts = ["a😀 \ufffd".encode(), b"last", b"big", "two \0 €".encode(), b"mark"]
    assert list(documents(path)) == list(read_corpus(path))[0].texts == texts


def test_the_field_can_be_a_path_through_nested_records(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", b'{"a": {"b": {"c": "deep"}}}\n{"a.b.c": "flat", "a": 5}\n')
    assert list(documents(tmp_path, field="a.b.c")) == [b"deep", b"flat"]
    with pytest.raises(InputError, match="no text under 'a.b'"):
        list(documents(tmp_path, field="a.b"))


# Addresses


def test_addresses_are_files_directories_and_globs() -> None:
    filesystem = fsspec.filesystem("memory")
    for name, content in {"b.txt": b"b", "a.txt": b"a", "z/c.txt.gz": gzip.compress(b"c"), "binary": b"\0"}.items():
        filesystem.pipe(f"/tree/{name}", content)
    filesystem.pipe("/tree/.hidden/d.txt", b"d")
    filesystem.pipe("/empty/binary", b"\0")
    for address, expected in [
        ("memory://tree", [b"a", b"b", b"c"]),
        ("memory://tree/a.txt", [b"a"]),
        ("memory://tree/[ab].txt", [b"a", b"b"]),
        ("memory://tree/**/*.gz", [b"c"]),
        ("memory://tree/binary", [b"\0"]),
    ]:
        assert list(documents(address)) == expected
    assert list(documents("memory://tree", exclude=["z", "b.*"])) == [b"a"]
    reader = read_corpus("memory://tree")
    batch = next(iter(reader))
    assert reader.total == batch.read
    filesystem.pipe("/tree/b.txt", b"longer")
    with pytest.raises(InputError, match="memory://.*tree/b.txt has changed"):
        goes_on(batch, "memory://tree")
    for address, message in [
        ("memory://nothing", "no such file"),
        ("memory://tree/*.c", "no text files"),
        ("memory://empty", "no text files"),
        ("nosuch://a.txt", "cannot be read .*nosuch"),
    ]:
        with pytest.raises(InputError, match=f"{re.escape(address)}: {message}"):
            list(documents(address))
