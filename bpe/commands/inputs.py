"""What commands read: tokenizers, files, stdin, and documents."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bpe.commands.terminal import shortened
from bpe.progress import phase
from bpe.quoting import quoted
from bpe.text import counted

LARGE = 10_000_000  # bytes; the work on an input of this size is shown
_PIECE = 1 << 20  # bytes

if TYPE_CHECKING:
    from bpe import Tokenizer
    from bpe.corpus import CorpusSource


def open_tokenizer(name: str, pattern: str | None = None) -> Tokenizer:
    """Open the tokenizer with this name or path.

    Args:
        name: A known name, a tokenizer file, or a model directory.
        pattern: Split pattern that replaces the file's own.
    """
    from bpe import Tokenizer
    from bpe.locate import locate

    return Tokenizer.from_file(locate(name), pattern)


def open_tokenizer_or_ranks(name: str, pattern: str | None) -> Tokenizer:
    """Open the tokenizer with its own split pattern, or with `pattern` if the file stores none."""
    from bpe import InputError

    try:
        return open_tokenizer(name)
    except InputError:
        if pattern is None:
            raise
        return open_tokenizer(name, pattern)


class Input:
    """A text in pieces: `for piece in input`, each of at most 1 MiB.

    Attributes:
        name: The name of the file, "stdin" or "text".
        total: The size of the file in bytes; None where it is not known.
        read: The number of bytes read so far.
    """

    def __init__(self, name: str, content: bytes | None = None) -> None:
        """
        Args:
            name: The path of a file, where "-" is stdin; or the name of the content.
            content: The content, if it is not in a file.
        """
        self._is_stdin = content is None and name == "-"
        self.name = "stdin" if self._is_stdin else name
        self.total: int | None = None if content is None else len(content)
        self.read = 0
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        if self._content is not None:
            yield from self._counted(iter([self._content]))
        elif self._is_stdin:
            yield from self._counted(_blocks(sys.stdin.buffer))
        else:
            with open(self.name, "rb", buffering=0) as file:
                self.total = os.fstat(file.fileno()).st_size or None  # pipes and devices have no size
                yield from self._counted(_blocks(file))

    def content(self) -> bytes:
        """Read the whole text at once."""
        if self._content is not None:
            return self._content
        return sys.stdin.buffer.read() if self._is_stdin else Path(self.name).read_bytes()

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.read += len(piece)
            yield piece


def _blocks(file: Any) -> Iterator[bytes]:
    """Read a file in blocks. A pipe gives what it has, so that a slow writer does not hold text back."""
    read = getattr(file, "read1", file.read)
    while block := read(_PIECE):
        yield block


def stream_inputs(files: Sequence[str], texts: Sequence[str] = (), awaited: str = "text") -> Iterator[Input]:
    """Return an iterator over inputs. Wrong arguments raise here, not in the iterator.

    Args:
        files: Paths, where "-" is stdin. Without files and texts, stdin is read.
        texts: Texts of the command line to read instead of files.
        awaited: What the person types if stdin is a terminal.

    Raises:
        click.UsageError: When both files and texts are given, or stdin twice.
        InputError: When a file does not exist.
    """
    if texts and files:
        raise click.UsageError(
            f"-c / --text and the argument {files[0]} exclude each other; give files or texts, not both"
        )
    if files.count("-") > 1:
        raise click.UsageError("stdin (-) can be read only once")
    check_files(files)
    return _inputs(files, texts, awaited)


def _inputs(files: Sequence[str], texts: Sequence[str], awaited: str) -> Iterator[Input]:
    if texts:
        yield from (Input("text", os.fsencode(text)) for text in texts)
        return
    for file in files or ["-"]:
        if file == "-":
            announce_keyboard(awaited)
        yield Input(file)


def read_inputs(files: Sequence[str], texts: Sequence[str] = (), awaited: str = "text") -> Iterator[tuple[str, bytes]]:
    """Return an iterator over the name and the content of each input. Wrong arguments raise here, not in the iterator.

    Args:
        files: Paths, where "-" is stdin. Without files and texts, stdin is read.
        texts: Texts of the command line to read instead of files.
        awaited: What the person types if stdin is a terminal.

    Raises:
        click.UsageError: When both files and texts are given, or stdin twice.
        InputError: When a file does not exist.
    """
    return ((text.name, text.content()) for text in stream_inputs(files, texts, awaited))


def read_prompts(files: Sequence[str], texts: Sequence[str]) -> Iterator[str]:
    """Return an iterator over prompts: the texts as they are, or the contents of files or stdin; see `read_inputs`.

    Of a file, a byte order mark and the line breaks at the end are left out. Invalid UTF-8 is replaced.
    """
    inputs = read_inputs(files, texts, "the prompt")
    if texts:
        return (content.decode(errors="replace") for _, content in inputs)
    return (_text_of(content).rstrip("\n") for _, content in inputs)


def read_prompt_lines(file: str) -> Iterator[str]:
    """Return an iterator over the lines of a file or stdin that are not empty, each of which is a prompt."""
    inputs = read_inputs([file], awaited="prompts, one on each line,")

    def lines() -> Iterator[str]:
        for _, content in inputs:
            found = [line for line in _text_of(content).split("\n") if line]
            if not found:
                from bpe import InputError

                raise InputError(f"{file}: no prompts; write one prompt per line")
            yield from found

    return lines()


def _text_of(content: bytes) -> str:
    return content.removeprefix(codecs.BOM_UTF8).decode(errors="replace").replace("\r\n", "\n")


def announce_keyboard(awaited: str, sources: Sequence[str] = ("-",)) -> None:
    """Print what is read from the keyboard and how to end it, if stdin is a terminal and among the sources."""
    if "-" in sources and sys.stdin.isatty():
        end = "Ctrl-Z and Enter" if os.name == "nt" else "Ctrl-D"
        click.echo(f"bpe: reading {awaited} from the keyboard; {end} on an empty line ends it", err=True)


def refuse_text(model: str) -> None:
    """Refuse a text that stands where the name of a model belongs.

    Raises:
        InputError: When it has white space and is no path.
    """
    from bpe import InputError

    if any(map(str.isspace, model)) and not exists(model):
        command = f"bpe {click.get_current_context().info_name} MODEL -p {quoted(_brief(model))}"
        raise InputError(f"{_brief(model)}: not a model; name the model before the text: {command}")


def check_files(files: Sequence[str], option: str = "-c") -> None:
    """Refuse arguments that are not files, and ask whether they are texts or misspelt names.

    Args:
        files: The arguments, where "-" is stdin.
        option: The option of the command that takes text.

    Raises:
        InputError: When a file does not exist, or is a directory.
    """
    from bpe import InputError

    _refuse_missing([file for file in files if file != "-" and not exists(file)], "file", True, option)
    for file in files:
        if file != "-" and os.path.isdir(file):
            raise InputError(f"{file}: a directory; give its files, such as {os.path.join(file, '*')}")


def check_sources(sources: Sequence[str], is_text: bool = False, awaited: str = "text") -> None:
    """Refuse sources of a corpus that do not exist, and announce the reading from the keyboard.

    Args:
        sources: Files, directories, globs, addresses, or "-" for stdin.
        is_text: Whether the command takes text as -c TEXT, too.
        awaited: What the person types if stdin is a terminal.

    Raises:
        InputError: When a source does not exist.
    """
    missing = [source for source in sources if not _is_source(source, is_text)]
    _refuse_missing(missing, "file or directory", is_text)
    announce_keyboard(awaited, sources)


def _is_source(source: str, is_text: bool) -> bool:
    """Return whether a source exists, or is of a kind for which reading it tells whether it exists."""
    if source == "-" or "://" in source or exists(source):
        return True
    is_sentence = is_text and " " in source  # such as "What is this?", in which ? is no wildcard
    return has_magic(source) and (not is_sentence or bool(glob(source, recursive=True)))


def _refuse_missing(missing: Sequence[str], kind: str, is_text: bool, option: str = "-c") -> None:
    """Raise an error that asks whether arguments that are no files are a text or misspelt names, if there are any."""
    from bpe import InputError

    if not missing:
        return
    similar = _similar(missing[0]) if len(missing) == 1 else None
    meant = [quoted(similar)] if similar else []
    may_be_text = is_text and not all(map(os.path.isabs, missing))
    meant += [f"{option} {quoted(_brief(' '.join(missing)))}"] if may_be_text else []
    question = f"; did you mean {', or '.join(meant)}?" if meant else ""
    names = ", ".join(map(_brief, missing))
    raise InputError(f"{names}: no such {kind}{question}")


def exists(file: str) -> bool:
    """Return whether an argument is the path of a file or a directory."""
    try:
        return file != "" and Path(file).exists()
    except OSError:  # the "file" is a text that is too long for a name
        return False


def _similar(file: str) -> str | None:
    """Return the path next to a missing file whose name is similar, or None."""
    from difflib import get_close_matches

    folder, name = os.path.split(file)
    try:
        found = get_close_matches(name, os.listdir(folder or "."), 1, 0.7)
    except OSError:
        return None
    return os.path.join(folder, found[0]) if found else None


def _brief(text: str) -> str:
    """Return a text or the path of a file in one line; a text is cut, a path is not."""
    line = " ".join(text.split())
    return shortened(line, 60 if " " in line else 400)


def working_on(verb: str, name: str, content: bytes) -> AbstractContextManager[object]:
    """Show what is done with an input while the block runs, if it is so large that this takes more than a moment."""
    return phase(f"{verb} {name}") if len(content) >= LARGE else nullcontext()


def read_lines(file: str) -> list[str]:
    """Return the lines of a UTF-8 file that are not empty, without their line ends and without a byte order mark."""
    from bpe import InputError

    try:
        lines = Path(file).read_bytes().removeprefix(codecs.BOM_UTF8).decode().split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: byte {error.start} is not valid UTF-8") from error
    return [line.removesuffix("\r") for line in lines if line.removesuffix("\r")]


def named_sources(files: Sequence[str], texts: Sequence[str]) -> list[tuple[str, CorpusSource]]:
    """Return names and sources of documents: files, directories, globs or "-", and texts of the command line.

    Raises:
        InputError: When a file does not exist.
    """
    check_sources(files, is_text=True)
    return [*((file, file) for file in files), *((f"text {shortened(text)!r}", [os.fsencode(text)]) for text in texts)]


def read_documents(
    sources: Sequence[CorpusSource],
    separator: str | None,
    exclude: Sequence[str],
    field: str = "text",
    doing: str = "encoding",
) -> Iterator[bytes]:
    """Yield the documents of the sources, and show how many have been encoded, or read for what `doing` names."""
    from bpe.corpus import documents

    size = 0
    with phase(doing, None, "bytes") as encoding:
        for number, document in enumerate(documents(sources, separator=separator, field=field, exclude=exclude), 1):
            size += len(document)
            encoding.update(size, counted(number, "document"))
            yield document
