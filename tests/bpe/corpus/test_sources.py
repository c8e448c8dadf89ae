"""Sources resolve to feeds: directories, globs, iterables, stdin, pipes."""

from __future__ import annotations

import glob
import io
import os
import sys
import threading
from pathlib import Path
from typing import Any

import datasets
import pytest

from bpe import InputError
from bpe.corpus import documents, read_corpus
from support.corpus_files import last_space, resume, text_of, write_file


def test_directory_yields_its_text_files_in_sorted_order_at_every_depth(tree: Path) -> None:
    assert list(documents(str(tree))) == [b"a", b"b", b"\xff\xfe", b"d", b"", b"c"]
    assert list(documents(tree)) == list(documents([str(tree)])) == list(documents(str(tree)))


def test_excluded_files_are_skipped_by_name_path_or_pattern(tree: Path) -> None:
    for exclude, expected in [
        (["*.txt"], [b"d"]),
        (["z"], [b"a", b"b", b"\xff\xfe", b"d", b""]),
        (["deep", "broken.*"], [b"a", b"b", b"d", b""]),
        ([str(tree / "m" / "*"), "broken.txt"], [b"a", b"b", b"c"]),
        ([str(tree / "m")], [b"a", b"b", b"\xff\xfe", b"c"]),
    ]:
        assert list(documents(str(tree), exclude=exclude)) == expected
    assert list(documents(str(tree / "**" / "*.txt"), exclude=["z", "m", "broken.txt"])) == [b"a", b"b"]


def test_directory_without_text_files_is_rejected(tmp_path: Path) -> None:
    (tmp_path / ".hidden").touch()
    (tmp_path / "binary").write_bytes(b"\0")
    with pytest.raises(InputError, match="no text files"):
        list(documents(str(tmp_path)))


def test_glob_yields_its_files_in_sorted_order_and_two_stars_match_any_depth(tree: Path) -> None:
    assert list(documents(str(tree / "[ab].txt"))) == [b"a", b"b"]
    assert list(documents(str(tree / "**" / "*.txt"))) == [b"a", b"b", b"\xff\xfe", b"", b"c"]
    with pytest.raises(InputError, match="no file matches"):
        list(documents(str(tree / "*.nothing")))


def test_two_stars_enter_each_directory_once_though_links_form_circles(tree: Path) -> None:
    """With two links to itself in a directory, following links as deep as possible would take 2 ** 40 steps."""
    for name in ("circle", "again"):
        (tree / "m" / name).symlink_to(tree)
    (tree / "itself").symlink_to(".")
    expected = [b"a", b"b", b"\xff\xfe", b"", b"c"]
    assert list(documents(str(tree / "**" / "*.txt"))) == expected
    assert list(documents(str(tree / "**" / "**" / "*.txt"))) == expected
    assert sorted(documents(str(tree / "m" / "**" / "*.txt"))) == sorted(expected)


def test_two_stars_follow_links_to_other_directories(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.txt").write_bytes(b"x")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    assert list(documents(str(tmp_path / "data" / "**" / "*.txt"))) == [b"x"]


@pytest.mark.parametrize(
    "pattern",
    [
        "**", "**/*.txt", "*/**/*.txt", "**/m/**/*.txt", "**/**/*", "./**/a.txt", "m/../**/*.txt", "**/.hidden",
        "{tree}/**/*.txt", "*/**", "nothing/**/x", "a.txt/**/x", "**x", ".*/**/*", "[[]z]/**/*.txt",
    ],
)  # fmt: skip
def test_two_stars_match_what_glob_matches(tree: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for directory in ("[z]/m", ".h/x"):
        (tree / directory).mkdir(parents=True)
        (tree / directory / "f.txt").write_bytes(directory.encode())
    monkeypatch.chdir(tree)
    pattern = pattern.format(tree=tree)
    paths = [path for path in sorted({*glob.glob(pattern, recursive=True)}) if os.path.isfile(path)]
    if not paths:
        with pytest.raises(InputError, match="no file"):
            list(documents(pattern))
        return
    assert list(documents(pattern)) == [document for path in paths for document in documents(path)]


def test_existing_file_whose_name_looks_like_a_glob_is_read_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "[ab].txt").write_bytes(b"literally")
    (tmp_path / "a.txt").write_bytes(b"a")
    assert list(documents(str(tmp_path / "[ab].txt"))) == [b"literally"]


def test_named_file_is_read_even_if_it_is_binary_or_hidden(tree: Path) -> None:
    assert list(documents([str(tree / "binary.bin"), str(tree / ".hidden")])) == [b"bin\0ary", b"hidden"]


def test_missing_path_is_rejected_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.txt: no such file"):
        list(documents(str(tmp_path / "nothing.txt")))


def test_dangling_links_circular_links_and_pipes_in_a_directory_are_skipped(tree: Path) -> None:
    (tree / "dangling.txt").symlink_to("nowhere")
    (tree / "m" / "circle").symlink_to(tree)
    os.mkfifo(tree / "pipe")
    assert list(documents(str(tree))) == [b"a", b"b", b"\xff\xfe", b"d", b"", b"c"]


def test_str_and_bytes_in_iterables_are_documents(tree: Path) -> None:
    assert list(documents([["one", b"two \xff"], str(tree / "a.txt"), iter(["é"])])) == [
        b"one",
        b"two \xff",
        b"a",
        "é".encode(),
    ]
    assert list(documents([])) == list(documents([[]])) == []


def test_surrogate_pairs_are_joined_and_lone_surrogates_replaced() -> None:
    assert list(documents([["\ud83d\ude00 \ud83d"]])) == ["😀 \ufffd".encode()]


def test_documents_of_an_endless_iterable_are_yielded_one_at_a_time() -> None:
    """Only the documents that are asked for are generated."""
    stream = documents([("text" for _ in iter(int, 1))])
    assert [next(stream), next(stream)] == [b"text", b"text"]


@pytest.mark.parametrize("source", [5, None, 1.5])
def test_object_that_is_not_a_source_is_rejected(source: object) -> None:
    with pytest.raises(InputError, match="a source must be a path or an iterable"):
        list(documents([source]))  # type: ignore[list-item]
    with pytest.raises(InputError, match="a document must be str or bytes"):
        list(documents([[source]]))  # type: ignore[list-item]
    with pytest.raises((InputError, TypeError)):
        list(documents(source))  # type: ignore[arg-type]


def test_bytes_passed_as_a_source_are_rejected() -> None:
    for sources in (b"text", [b"text"]):
        with pytest.raises(InputError, match="a (source|document) must be"):
            list(documents(sources))  # type: ignore[arg-type]


def test_dataset_with_several_splits_and_mappings_are_rejected() -> None:
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["a"]})})
    for source in (splits, [splits]):
        with pytest.raises(InputError, match="DatasetDict holds several datasets .'train'.; pass one"):
            read_corpus(source)  # type: ignore[arg-type]
    for mapping in ({"text": "a"}, [{"text": "a"}]):
        with pytest.raises(InputError, match="not a? ?dict"):
            read_corpus(mapping)  # type: ignore[arg-type]


def test_dash_reads_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one | two\xff")))
    assert list(documents("-", separator="|")) == [b"one", b"two\xff"]


def test_pipe_is_read_once_and_its_size_is_unknown(tmp_path: Path) -> None:
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
    assert text_of(resume(batches[5], tmp_path / "pipe", **options)) == text_of(batches[6:])
    writer.join()


@pytest.mark.parametrize(
    ("source", "modules", "extra"),
    [
        ("a.parquet", ["pyarrow", "pyarrow.parquet"], "parquet"),
        ("a.txt.zst", ["compression.zstd", "backports.zstd"], "zstd"),
        ("memory://a.txt", ["fsspec"], "remote"),
    ],
)
def test_error_for_a_missing_package_names_the_extra_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, modules: list[str], extra: str
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    if "://" not in source:
        source = str(write_file(tmp_path / source, b""))
    with pytest.raises(InputError, match=rf"{source}: .*bpe-llama\[{extra}\]"):
        list(read_corpus(source))
