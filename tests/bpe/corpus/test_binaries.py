"""Binary files in a folder are left out of a corpus and named, compressed or not; a file that is named is read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import pytest

from bpe import InputError, train
from bpe.corpus import documents, left_out_line, read_corpus, records
from bpe.corpus.binaries import HEAD, LeftOut, binary_kind
from bpe.training.settings import Trained
from support.corpus_files import resume

PDF = b"%PDF-1.7\n1 0 obj << /Type /Catalog >> endobj\n"  # no NUL


def archive(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as zipped:
            zipped.writestr("a.txt", "text")
    else:
        with tarfile.open(fileobj=file, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("a.txt"))
    return file.getvalue()


BINARIES = {
    "book.pdf": (PDF, "PDF document"),
    "book.gz": (gzip.compress(PDF), "PDF document"),
    "book.xz": (lzma.compress(PDF), "PDF document"),
    "book.bz2": (bz2.compress(PDF), "PDF document"),
    "program": (b"\x7fELF\x02\x01\x01" + bytes(9), "executable"),
    "program.exe": (b"MZ\x90\0\x03", "executable"),
    "picture.png": (b"\x89PNG\r\n\x1a\n" + bytes(8), "PNG image"),
    "photo": (b"\xff\xd8\xff\xe1" + b"x" * 99, "JPEG image"),
    "files.zip": (archive("zip"), "ZIP archive"),
    "files.tar.gz": (gzip.compress(archive("tar")), "tar archive"),
    "files.tgz": (gzip.compress(b"text"), "gzip archive"),
    "twice.gz": (gzip.compress(gzip.compress(b"text")), "gzip archive"),
    "lines.jsonl": (b'{"text": "\0"}', "binary data"),
    "wide.txt": ("wide".encode("utf-16"), "UTF-16 text"),
    "late": (b"a" * (HEAD - 1) + b"\0", "binary data"),
}
TEXTS = {
    "a.txt": b"text",
    "about.txt": b"A file that begins with %PDF- is a PDF document.",
    "b.txt.gz": gzip.compress(b"text"),
    "empty.gz": gzip.compress(b""),
    "empty.txt": b"",
    "gif.txt": b"GIF8 and MZ and RIFF",
    "later.txt": b"a" * HEAD + b"\0",  # git takes it for text, too
    "latin.txt": b"caf\xe9",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir()
    for name, content in {**TEXTS, **{name: content for name, (content, _) in BINARIES.items()}}.items():
        (path / name).write_bytes(content)
    return path


def test_a_folder_leaves_binaries_out_and_names_each_with_its_kind(folder: Path) -> None:
    reader = read_corpus(folder, errors="keep")
    kinds = {Path(file.name).name: file.kind for file in reader.left_out}
    assert kinds == {name: kind for name, (_, kind) in BINARIES.items()}
    read = {Path(each["path"]).name for each in reader.fingerprint["sources"]}
    assert read == TEXTS.keys()
    expected = [gzip.decompress(content) if name.endswith(".gz") else content for name, content in TEXTS.items()]
    assert [bytes(text) for batch in reader for text in batch.texts] == expected == list(documents(folder))


@pytest.mark.parametrize("name", ["book.pdf", "book.gz", "picture.png"])
def test_a_file_that_is_named_or_matches_a_glob_is_read(folder: Path, name: str) -> None:
    content = BINARIES[name][0]
    text = gzip.decompress(content) if name.endswith(".gz") else content
    assert list(documents(folder / name)) == list(documents(str(folder / name[:-1]) + "*")) == [text]


def test_a_folder_of_nothing_but_binaries_is_an_error_that_names_the_first(tmp_path: Path) -> None:
    (tmp_path / "b.pdf").write_bytes(PDF)
    (tmp_path / "a.png").write_bytes(BINARIES["picture.png"][0])
    message = r"no text files in this directory; left out 2 binary files; the first: .*a\.png \(PNG image\)"
    for read in (documents, read_corpus, lambda source: records(str(source))):
        with pytest.raises(InputError, match=message):
            list(read(tmp_path))


def test_a_damaged_archive_in_a_folder_is_still_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"a\.gz: the archive is damaged"):
        list(documents(tmp_path))


def test_the_line_says_how_many_and_what_to_do_about_utf_16() -> None:
    pdf, wide = LeftOut("a.pdf", "PDF document"), LeftOut("b.txt", "UTF-16 text")
    assert left_out_line([pdf]) == "left out 1 binary file: a.pdf (PDF document)"
    assert left_out_line([pdf] * 1200) == "left out 1,200 binary files; the first: a.pdf (PDF document)"
    assert left_out_line([pdf, wide]).endswith("; 1 of them UTF-16 text: convert to UTF-8 to use it")


def test_text_has_no_kind() -> None:
    assert binary_kind("Grüße, мир, 世界".encode()) is None
    assert binary_kind(b"") is None


def test_training_on_a_folder_equals_training_on_its_texts_and_lists_the_rest(folder: Path) -> None:
    results: list[Trained] = []
    tokenizer = train(folder, vocab_size=257, special_tokens=(), trained=results.append)
    texts = [folder / name for name in TEXTS]
    assert tokenizer.n_vocab == train(texts, vocab_size=257, special_tokens=(), trained=results.append).n_vocab
    assert results[0].pairs.tolist() == results[1].pairs.tolist()
    assert (len(results[0].left_out), len(results[1].left_out)) == (len(BINARIES), 0)


def test_a_resumed_reader_leaves_the_same_files_out(folder: Path) -> None:
    first = read_corpus(folder, errors="keep", batch_bytes=1)
    batches = list(first)
    rest = resume(batches[1], folder, errors="keep", batch_bytes=1)
    assert [batch.texts for batch in rest] == [batch.texts for batch in batches[2:]]
