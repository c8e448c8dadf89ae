"""Optional packages: what each is for, how it is installed, and its import."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

from bpe.errors import InputError


class Package(NamedTuple):
    """An optional package."""

    purpose: str
    """What needs it; a message begins with it."""
    install: str
    """What to install: an extra of this distribution, or the package itself."""
    distribution: str = ""
    """The name of the package, where it differs from the name of its module."""


def _extra(name: str) -> str:
    return f"'bpe-llama[{name}]'"


PACKAGES = {
    "torch": Package("this computation", _extra("model")),
    "safetensors": Package("this kind of model files", _extra("model")),
    "matplotlib": Package("a picture", _extra("report")),
    "sentencepiece": Package("a SentencePiece model that is not BPE", _extra("subwords")),
    "PIL": Package("an image", _extra("vision"), "Pillow"),
    "tiktoken": Package("a comparison with tiktoken", _extra("verify")),
    "tokenizers": Package("a comparison with tokenizers", _extra("verify")),
    "llguidance": Package("structured output", _extra("serve")),
    "huggingface_hub": Package("a download from the hub", _extra("hub")),
    "starlette": Package("a page in the browser", _extra("serve")),
    "uvicorn": Package("a page in the browser", _extra("serve")),
    "lm_eval": Package("the evaluation harness", _extra("eval")),
    "tensorboard": Package("writing curves for TensorBoard", _extra("tensorboard")),
    "pyarrow": Package("a Parquet file", _extra("parquet")),
    "backports.zstd": Package("a .zst file", _extra("zstd")),
    "fsspec": Package("an address such as s3://", _extra("remote")),
    "s3fs": Package("reading from s3://", "s3fs"),
    "gcsfs": Package("reading from gs://", "gcsfs"),
    "adlfs": Package("reading from az://", "adlfs"),
    "aiohttp": Package("reading from https://", "aiohttp"),
    "paramiko": Package("reading from sftp://", "paramiko"),
    "smbprotocol": Package("reading from smb://", "smbprotocol"),
    "ray": Package("a Ray cluster", "ray"),
    # Requirements of the package itself; they are missing only where it was installed without them.
    "jinja2": Package("a chat template", "jinja2"),
    "prompt_toolkit": Package("chat in a terminal", "prompt_toolkit"),
    "tqdm": Package("a progress bar", "tqdm"),
    "regex": Package("a split pattern", "regex"),
    "numpy": Package("this", "numpy"),
}


def missing(name: str | None) -> str | None:
    """Return the message that a package is needed and how to install it, or None if the module is not in the table.

    Args:
        name: The module that could not be imported, such as "torch.nn".
    """
    while name and name not in PACKAGES:
        name = name.rpartition(".")[0]
    if not name:
        return None
    package = PACKAGES[name]
    return f"{package.purpose} needs the package {package.distribution or name}: pip install {package.install}"


def first_module(*names: str) -> Any:
    """Import and return the first of the modules that is installed.

    Raises:
        ImportError: When none is installed.
    """
    for name in names[:-1]:
        try:
            return import_module(name)
        except ImportError:
            pass
    return import_module(names[-1])


def require(what: str, *names: str) -> Any:
    """Import and return the first of the modules that is installed, to read a file.

    Args:
        what: What to read; the message begins with it.
        names: The modules; the last is in the table.

    Raises:
        InputError: When none is installed.
    """
    try:
        return first_module(*names)
    except ImportError as error:
        raise InputError(f"{what}: {missing(names[-1]) or error}") from error
