"""What describes a model of the hub, without its weights: small files, and the headers of the files of weights.

A file of weights is written with the size that it has on the hub, but only its header has content, so the programs that
read the description of a model on disk read this one, too. The rest is a hole that takes no space in the file system.
"""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bpe.errors import InputError
from bpe.formats.gguf_container import Container, TruncatedHeaderError
from bpe.hub.download import download, quiet
from bpe.hub.names import HubName
from bpe.hub.reasons import explained
from bpe.hub.repository import INDEX, files_of, needed_files, shards_of

_WEIGHTS = (".gguf", ".safetensors")
_FIRST = 1 << 20  # bytes of the first request, which hold most headers of safetensors
_LARGEST_HEADER = 1 << 28
_DESCRIBING = ("rope_freqs.weight",)  # tells how rotations are scaled
_SECONDS = 20.0
_AT_ONCE = 8


class Outline(NamedTuple):
    """The description of a model."""

    path: Path
    """The directory, or the .gguf file, that describes it."""
    n_bytes: int
    """The size of its weights on the hub."""
    n_files: int
    """The number of their files."""


def outline(name: HubName, folder: Path) -> Outline | None:
    """Write the description of a model of the hub into a folder.

    Small files come from the hub's cache or are downloaded to it; of the weights, only the headers are downloaded.

    Args:
        name: The repository.
        folder: An empty folder.

    Returns:
        The description; None if the repository has a tokenizer, but no model.

    Raises:
        InputError: As `bpe.hub.repository.pull` does, and when a header is damaged.
    """
    with quiet(), explained(name.repository, None, None):
        commit, files = files_of(name.repository, None)
        needed = needed_files(name, "any", files, None)
        if INDEX in needed:
            needed += shards_of(name, download(name.repository, INDEX, commit), files)
        weights = [file for file in needed if file.endswith(_WEIGHTS)]
        if not weights:
            return None
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            sizes = [*pool.map(lambda file: _write_header(name.repository, file, commit, folder), weights)]
        for file in needed:
            if file not in weights:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(download(name.repository, file, commit), folder / file)
    path = folder / weights[0] if weights[0].endswith(".gguf") else folder
    return Outline(path, sum(sizes), len(weights))


def _write_header(repository: str, file: str, commit: str, folder: Path) -> int:
    """Write a file of weights of which only the header has content, and return its size."""
    content, size = _range(repository, file, commit, 0, _FIRST)
    while (wanted := _length_of_header(file, content, size)) > len(content):
        if wanted > min(size, _LARGEST_HEADER):
            raise InputError(
                f"{repository}: {file}: its header would have {wanted:,} bytes or more; the file is damaged"
            )
        content += _range(repository, file, commit, len(content), wanted - len(content))[0]
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as output:
        output.write(content)
        output.truncate(size)
        for offset, count in _describing(file, content, size):
            output.seek(offset)
            output.write(_range(repository, file, commit, offset, count)[0])
    return size


def _length_of_header(file: str, content: bytes, size: int) -> int:
    """Return the length of the header of a file, or more than is there of `content` if that does not tell it."""
    if file.endswith(".safetensors"):
        return 8 + int.from_bytes(content[:8], "little")
    try:
        Container(content, size)
    except TruncatedHeaderError:
        return max(min(3 * len(content), size), len(content) + 1)
    except InputError:  # reported with the name of the file when it is opened
        pass
    return len(content)


def _describing(file: str, content: bytes, size: int) -> list[tuple[int, int]]:
    """Return the offset and the size of the small tensors of a GGUF that belong to the description of the model."""
    if not file.endswith(".gguf"):
        return []
    try:
        tensors = Container(content, size).tensors
    except InputError:
        return []
    return [(tensors[name].offset, min(tensors[name].n_bytes, _FIRST)) for name in _DESCRIBING if name in tensors]


def _range(repository: str, file: str, commit: str, begin: int, count: int) -> tuple[bytes, int]:
    """Return at most `count` bytes of a file on the hub from `begin` on, and the size of the file."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = hf_hub_url(repository, file, revision=commit)
    asked = {"Accept-Encoding": "identity", "Range": f"bytes={begin}-{begin + count - 1}"}
    with get_session().stream("GET", url, headers={**build_hf_headers(), **asked}, timeout=_SECONDS) as response:
        hf_raise_for_status(response)
        found = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
        size = int(found[1] if found else response.headers.get("Content-Length", 0))
        skipped = 0 if found else begin  # a server without ranges sends the whole file: read no more than needed
        content = b""
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) >= skipped + count:
                break
    return content[skipped : skipped + count], size
