"""What is on this machine under which name: tokenizers and models of known names, of the hub, and of a folder.

Formats are told by the names of files, so nothing but the beginning of some .json files is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bpe.formats import tokenizer_files
from bpe.hub.names import is_installed
from bpe.hub.repository import ADAPTER, cached_repositories, has_weights
from bpe.locate import SOURCES, cache_directory, find, remedies


@dataclass(frozen=True)
class Entry:
    """A tokenizer or a model, or the known name of one that is not here."""

    source: str
    """"known", "hub" or "folder"."""
    name: str
    """The name that commands take."""
    format: str = ""
    """"tokenizer", or the format of the model; empty if it is not here."""
    path: Path | None = None
    """The file or directory; None if it is not here."""
    note: str = ""
    """Where it comes from, or how to get it."""

    @property
    def size(self) -> int:
        """The number of bytes of the file, or of the files that are directly in the directory."""
        if self.path is None:
            return 0
        files = [self.path] if self.path.is_file() else [file for file in self.path.iterdir() if file.is_file()]
        return sum(file.stat().st_size for file in files)


def known_entries() -> Iterator[Entry]:
    """Yield an entry for each known name."""
    for name, source in SOURCES.items():
        path = find(name)
        format = "gguf" if source.file.endswith(".gguf") else "tokenizer"
        if path is not None:
            is_packaged = not path.is_relative_to(cache_directory())
            note = f"package {source.package[0]}" if source.package and is_packaged else "cache"
            yield Entry("known", name, format, path, note)
            continue
        cached = _cached(*source.repository) if source.repository is not None else None
        if cached is not None:
            yield Entry("known", name, format, cached, "the hub's cache")
        else:
            is_pulled = source.package is None and is_installed()
            yield Entry("known", name, note=f"run: bpe pull {name}" if is_pulled else remedies(name, source)[0])


def _cached(repository: str, file: str) -> Path | None:
    if not is_installed():
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None


def hub_entries() -> Iterator[Entry]:
    """Yield an entry for each tokenizer or model in the hub's cache."""
    if not is_installed():
        return
    for repository, folder in cached_repositories().items():
        found = False
        for reference in sorted((folder / "refs").rglob("*")):
            directory = folder / "snapshots" / reference.read_text().strip() if reference.is_file() else None
            if directory is None or not directory.is_dir():
                continue
            revision = reference.relative_to(folder / "refs").as_posix()
            for name, format, path in _in_snapshot(repository, directory):
                found = True
                yield Entry("hub", name, format, path, "" if revision == "main" else f"revision {revision}: {path}")
        if not found and any((folder / "blobs").glob("*.incomplete")):
            yield Entry("hub", repository, note=f"incomplete; bpe pull {repository} resumes")


def _in_snapshot(repository: str, directory: Path) -> Iterator[tuple[str, str, Path]]:
    files = [path.relative_to(directory).as_posix() for path in sorted(directory.rglob("*")) if path.is_file()]
    if has_weights(directory, files):
        yield repository, _format_of(directory) or "huggingface", directory
    elif tokenizer_files(files):
        yield repository, "tokenizer", directory
    for file in files:
        if file.endswith(".gguf"):
            yield f"{repository}:{file}", "gguf", directory / file


def folder_entries(folder: Path) -> Iterator[Entry]:
    """Yield an entry for each tokenizer or model in a folder or in one of its folders. Hidden names are skipped."""
    for path in _visible(folder):
        yield from _entries_at(path, folder)
        if path.is_dir() and _format_of(path) is None:
            for inner in _visible(path):
                yield from _entries_at(inner, folder)


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__")))
    except OSError:  # no permission, for example
        return []


def _entries_at(path: Path, folder: Path) -> Iterator[Entry]:
    format = _format_of(path)
    if format is not None:
        yield Entry("folder", os.path.relpath(path, folder), format, path)


def _format_of(path: Path) -> str | None:
    """Return the format of a model, "tokenizer", or None, judging by the names of files."""
    if path.is_file():
        if path.suffix == ".gguf":
            return "gguf"
        is_tokenizer = path.suffix in (".model", ".tiktoken") or (path.suffix == ".json" and _is_tokenizer_json(path))
        return "tokenizer" if is_tokenizer else None
    names = {entry.name for entry in _visible(path)}
    if ADAPTER[0] in names:
        return "adapter"
    if "params.json" in names and any(name.endswith(".pth") for name in names):
        return "meta"
    if any(name.endswith(".safetensors") for name in names):
        return "bpe-llama" if "params.json" in names else "huggingface" if "config.json" in names else None
    return "tokenizer" if tokenizer_files(names) else None


def _is_tokenizer_json(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            begin = file.read(2048)
    except OSError:
        return False
    return all(key in begin for key in (b'"version"', b'"truncation"', b'"added_tokens"'))
