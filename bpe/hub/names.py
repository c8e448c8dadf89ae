"""Names of repositories on the hub: "org/name", or with the choice of a GGUF "org/name:x.gguf", "org/name:Q4_K_M"."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bpe.errors import InputError
from bpe.gguf_split import firsts, parts_of

INSTALL = "pip install 'bpe-llama[hub]'"
FORM = "ORG/NAME, ORG/NAME:FILE.gguf or ORG/NAME:QUANTIZATION"
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(rf"({_PART}/{_PART})(?::(.*))?", re.DOTALL)
# A name with one of these endings is a file that is missing here, not a repository.
_FILE_SUFFIXES = (".json", ".jsonl", ".model", ".tiktoken", ".gguf", ".safetensors", ".pth", ".bin", ".txt", ".gz")


@dataclass(frozen=True)
class HubName:
    """A repository on the hub, and the GGUF file to use of it."""

    repository: str
    """The repository, such as "org/name"."""
    choice: str | None = None
    """A file that ends in .gguf, or a part of the name of just one such file, such as "Q4_K_M"."""

    def __str__(self) -> str:
        return self.repository + ("" if self.choice is None else f":{self.choice}")

    def chosen(self, files: list[str]) -> list[str]:
        """Return the .gguf files among these that the name means: those of its choice, or all.

        A GGUF that is split into several files is listed by its first.
        """
        ggufs = firsts(file for file in files if file.endswith(".gguf"))
        if self.choice is None:
            return ggufs
        if self.choice.endswith(".gguf"):
            return [file for file in ggufs if self.choice in parts_of(file)]
        part = re.compile(rf"(?:^|[-._/]){re.escape(self.choice)}(?:[-./]|$)", re.IGNORECASE)
        return [file for file in ggufs if part.search(file)]


def is_installed() -> bool:
    """Return whether ``huggingface_hub`` is installed.

    Raises:
        InputError: When it could not be imported, because an environment variable has a value that it does not read.
    """
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        value = os.environ.get(name) or "1"
        if not value.isdecimal() or int(value) == 0:
            raise InputError(f"{name} is {value!r}; set it to a whole number of seconds, or unset it")
    return find_spec("huggingface_hub") is not None


def parse(name: str) -> HubName | None:
    """Return the repository that a name stands for, or None if it does not have the form of one.

    Raises:
        InputError: When the part behind the colon cannot be a .gguf file of a repository.

    >>> parse("org/name:Q4_K_M")
    HubName(repository='org/name', choice='Q4_K_M')
    >>> parse("../name"), parse("a/b/c"), parse("org/tokenizer.json")
    (None, None, None)
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    repository, choice = match[1], match[2]
    if "--" in repository or ".." in repository or repository.endswith((".git", *_FILE_SUFFIXES)):
        return None
    if choice is not None:
        is_file = choice.endswith(".gguf") and choice.isprintable() and "\\" not in choice
        is_file = is_file and not {"", ".", ".."} & {*choice.split("/")}
        if not is_file and not re.fullmatch(r"[A-Za-z0-9_]+", choice):
            raise InputError(f"{name}: {choice!r} names no .gguf file of a repository; write {FORM}")
    return HubName(repository, choice)


def without_address(name: str) -> str | None:
    """Return the name of a repository that is written with the hub's address in front; None if it is not.

    >>> without_address("https://huggingface.co/org/name/tree/main"), without_address("hf.co/org/name:Q4_K_M")
    ('org/name', 'org/name:Q4_K_M')
    >>> without_address("https://huggingface.co/org/name/blob/main/x.gguf"), without_address("org/name")
    ('org/name:x.gguf', None)
    """
    match = re.fullmatch(
        r"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://)(?:models/)?(.+?)/*(?:\?.*)?", name
    )
    if match is None:
        return None
    repository, *rest = re.split(r"/(?:tree|blob|resolve)/[^/]+", match[1], maxsplit=1)
    file = "".join(rest).strip("/")
    found = f"{repository}:{file}" if file.endswith(".gguf") else repository
    try:
        return found if parse(found) else None
    except InputError:
        return None


def is_in_folder(name: HubName) -> bool:
    """Return whether the name rather means a path: its first part is a folder in the working directory."""
    return Path(name.repository.split("/")[0]).is_dir()
