"""Sources of text -> documents."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpe import InputError
from bpe.corpus import documents


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
    with pytest.raises(InputError, match="a source is"):
        list(documents([source]))  # type: ignore[list-item]
    with pytest.raises(InputError, match="a document is"):
        list(documents([[source]]))  # type: ignore[list-item]
    with pytest.raises((InputError, TypeError)):
        list(documents(source))  # type: ignore[arg-type]


def test_bytes_in_the_place_of_a_source_are_refused() -> None:
    for sources in (b"text", [b"text"]):
        with pytest.raises(InputError, match="a (source|document) is"):
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


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_archives_are_read_as_what_they_hold(tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    content = b'{"text": "one"}\n{"text": "two"}\n'
    (tmp_path / f"a.jsonl{suffix}").write_bytes(compress(content))
    (tmp_path / f"b.txt{suffix}").write_bytes(compress(b"text"))
    assert list(documents(str(tmp_path))) == [b"one", b"two", b"text"]
    assert list(documents(str(tmp_path / f"b.txt{suffix}"), separator="x")) == [b"te", b"t"]
    path = tmp_path / f"twice{suffix}"
    path.write_bytes(compress(b"one") + compress(b"two"))
    assert list(documents(str(path))) == [b"onetwo"]


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)])
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
