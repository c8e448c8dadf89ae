"""The files of a repository that a tokenizer or a model needs: from the hub's cache, or downloaded."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from bpe.errors import InputError
from bpe.formats import EXPECTED_FILES, TOKENIZER_FILES, tokenizer_files
from bpe.gguf_split import parts_of
from bpe.hub.download import download, quiet, within_deadline
from bpe.hub.names import FORM, INSTALL, HubName, is_installed
from bpe.hub.reasons import NotAvailableError, explained

Kind = Literal["tokenizer", "model", "any"]
"""What to look for in a repository; "any" is a model where there is one, or else a tokenizer."""

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_SETTINGS = "tokenizer_config.json"
_RECORDED = (TOKENIZER_FILES[0], _SETTINGS)
"""A tokenizer in the cache without one of these is complete only if the cache records that the hub does not have it."""
_COMPANIONS = (
    _SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "params.json",
)


def fetch_file(repository: str, file: str) -> Path:
    """Return the path of a file of a repository, and download it if it is not in the hub's cache.

    Raises:
        InputError: When the file cannot be downloaded; the message names the reason and its remedy.
    """
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else download(repository, file)


def fetch(name: HubName, kind: Kind) -> Path:
    """Return the path of a tokenizer or a model of the hub, and download what the hub's cache lacks of it.

    What is in the cache is used without a request.

    Args:
        name: The repository.
        kind: What is needed of it.

    Returns:
        The directory of the files in the cache, or the path of a .gguf file in it.

    Raises:
        InputError: When it cannot be downloaded, is none of these, or has several .gguf files; the message says what to
            do.
    """
    if not is_installed():
        raise InputError(f"{name}: downloads from the hub require huggingface_hub: {INSTALL}")
    found = at_hand(name, kind)
    if found is not None:
        return found
    try:
        return pull(name, kind)
    except NotAvailableError:
        incomplete = at_hand(name, "model" if kind == "model" else "tokenizer", with_settings=False)
        if incomplete is not None:
            return incomplete
        raise


def pull(name: HubName, kind: Kind, revision: str | None = None) -> Path:
    """Download what the hub's cache lacks of a revision of a tokenizer or a model; see `fetch`.

    Args:
        name: The repository.
        kind: What is needed of it.
        revision: A branch, tag or commit. Default: the main branch, which may be newer than the one in the cache.
            Where HF_HUB_OFFLINE forbids requests, what the cache has is returned.
    """
    if not is_installed():
        raise InputError(f"{name}: downloads from the hub require huggingface_hub: {INSTALL}")
    from huggingface_hub import constants, hf_hub_download

    if constants.HF_HUB_OFFLINE:
        cached = revision or "main"
        found = at_hand(name, kind, with_settings=False, revision=cached)
        if found is None and kind == "any":  # what lacks a model's configuration is a tokenizer
            tokenizer = at_hand(name, "tokenizer", with_settings=False, revision=cached)
            is_model = tokenizer is not None and any(
                (tokenizer / file).exists() for file in ("config.json", "params.json")
            )
            found = None if is_model else tokenizer
        if found is not None:
            return found
    with quiet(), explained(name.repository, None, revision):
        commit, files = files_of(name.repository, revision)
        needed = needed_files(name, kind, files, revision)
        paths = {file: download(name.repository, file, commit) for file in needed}
        if INDEX in paths:
            needed += shards_of(name, paths[INDEX], files)
            paths |= {file: download(name.repository, file, commit) for file in needed if file not in paths}
        for file in _RECORDED:
            if file not in files:
                with suppress(Exception):  # raises, and records in the cache that there is no such file
                    hf_hub_download(name.repository, file, revision=commit)
        hf_hub_download(name.repository, needed[0], revision=revision)  # records in the cache what the revision is
    path = paths[needed[0]]
    return path if needed[0].endswith(".gguf") else path.parents[len(PurePosixPath(needed[0]).parts) - 1]


def at_hand(name: HubName, kind: Kind, with_settings: bool = True, revision: str = "main") -> Path | None:
    """Return the path of a tokenizer or a model that is complete in the hub's cache, or None. Makes no request.

    Args:
        name: The repository.
        kind: What is needed of it.
        with_settings: Whether it is incomplete without a tokenizer.json or a tokenizer_config.json, if the hub may
            have one.
        revision: A branch, tag or commit.

    Raises:
        InputError: When the cache has several .gguf files, and the name does not choose one.
    """
    directory = snapshot(name.repository, revision)
    if directory is None:
        return None
    files = [path.relative_to(directory).as_posix() for path in sorted(directory.rglob("*")) if path.is_file()]
    ggufs = name.chosen(files)
    if name.choice is None:
        weights = has_weights(directory, files)
        has_tokenizer = bool(tokenizer_files(files))
        has_settings = not with_settings or all(
            file in files or _is_absent(name.repository, file, revision) for file in _RECORDED
        )
        is_adapter = weights and ADAPTER[0] in files  # whose base may have the tokenizer
        if is_adapter or (has_tokenizer and has_settings and (kind == "tokenizer" or weights)):
            return directory
        if has_tokenizer and kind == "tokenizer":
            return None
    if not ggufs:
        return None
    present = [file for file in ggufs if {*parts_of(file)} <= {*files}]
    if not present:
        return None
    sizes = {file: (directory / file).stat().st_size for first in present for file in parts_of(first)}
    return directory / _only(name, present, sizes)


def cached_repositories() -> dict[str, Path]:
    """Return the repositories of models in the hub's cache, with their directories."""
    from huggingface_hub import constants

    directories = sorted(Path(constants.HF_HUB_CACHE).glob("models--*"))
    return {path.name.removeprefix("models--").replace("--", "/"): path for path in directories}


def snapshot(repository: str, revision: str = "main") -> Path | None:
    """Return the directory of a revision's files in the hub's cache, or None."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")
    try:
        commit = (folder / "refs" / revision).read_text().strip()
    except (OSError, UnicodeDecodeError):
        if not re.fullmatch("[0-9a-f]{40}", revision):
            return None
        commit = revision
    directory = folder / "snapshots" / commit
    return directory if commit and directory.is_dir() else None


def _is_absent(repository: str, file: str, revision: str) -> bool:
    """Return whether the cache records that the repository does not have a file."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file, revision=revision)
    return found is not None and not isinstance(found, str)


def has_weights(directory: Path, files: Collection[str]) -> bool:
    """Return whether a directory has all weights of a model in safetensors, or of an adapter."""
    if all(file in files for file in ADAPTER):
        return True
    if not {"config.json", "params.json"} & {*files}:
        return False
    if INDEX not in files:
        return WEIGHTS in files
    with suppress(ValueError, AttributeError, TypeError):
        return {*json.loads((directory / INDEX).read_bytes())["weight_map"].values()} <= {*files}
    return False


def files_of(repository: str, revision: str | None) -> tuple[str, list[str]]:
    """Return the commit that a revision is now, and the files in it."""
    from huggingface_hub import HfApi

    info: Any = within_deadline(lambda seconds: HfApi().model_info(repository, revision=revision, timeout=seconds))
    files = [sibling.rfilename for sibling in info.siblings or []]
    if not re.fullmatch("[0-9a-f]{40}", str(info.sha)):
        raise InputError(f"{repository}: the answer of the hub names no commit; check HF_ENDPOINT")
    return info.sha, [file for file in files if not {"", ".", ".."} & {*file.split("/")} and "\\" not in file]


def _sizes_of(repository: str, revision: str | None) -> dict[str, int]:
    from huggingface_hub import HfApi

    def request(seconds: float) -> Any:
        return HfApi().model_info(repository, revision=revision, timeout=seconds, files_metadata=True)

    return {sibling.rfilename: sibling.size or 0 for sibling in within_deadline(request).siblings or []}


def needed_files(name: HubName, kind: Kind, files: list[str], revision: str | None) -> list[str]:
    """Return the files of a repository to download, except the shards that an index names."""
    companions = [file for file in files if file in _COMPANIONS or re.fullmatch(r"additional_chat_templates/.+", file)]
    tokenizers = tokenizer_files(files)
    weights = [file for file in (INDEX, WEIGHTS) if file in files][:1]
    if name.choice is None:
        if kind != "tokenizer" and ADAPTER[0] in files and ADAPTER[1] in files:
            return [*ADAPTER, *tokenizers, *companions]
        if kind != "tokenizer" and weights and {"config.json", "params.json"} & {*files}:
            return [*tokenizers, *companions, *weights]
        if tokenizers and (kind == "tokenizer" or (kind == "any" and not name.chosen(files))):
            return [*tokenizers, *companions]
    ggufs = name.chosen(files)
    if ggufs:
        return _parts(name, _only(name, ggufs, _sizes_of(name.repository, revision) if len(ggufs) > 1 else {}), files)
    raise InputError(f"{name}: {_lack(name, kind, files)}")


def _only(name: HubName, ggufs: list[str], sizes: dict[str, int]) -> str:
    """Return the only .gguf file, and raise InputError with all of them if there are several."""
    if len(ggufs) == 1:
        return ggufs[0]
    whole = {file: sum(sizes.get(part, 0) for part in parts_of(file)) for file in sorted(ggufs)}
    listed = ", ".join(f"{file} ({_size(size)})" for file, size in whole.items())
    raise InputError(f"{name}: choose one of {len(ggufs)} files as {name.repository}:FILE.gguf: {listed}")


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"


def _parts(name: HubName, first: str, files: list[str]) -> list[str]:
    """Return all files of a GGUF; raise InputError if the repository lacks one of a split GGUF."""
    parts = parts_of(first)
    lacking = [part for part in parts if part not in files]
    if lacking:
        raise InputError(f"{name}: the repository lacks {lacking[0]}, one of {len(parts)} files of a split model")
    return parts


def _lack(name: HubName, kind: Kind, files: list[str]) -> str:
    """Return what a repository lacks, and what to do."""
    if name.choice is not None:
        ggufs = [file for file in files if file.endswith(".gguf")]
        has = f"has {', '.join(ggufs)}" if ggufs else "has no .gguf file"
        return f"no file of {name.repository} is meant by {name.choice!r}; it {has}"
    if kind == "tokenizer":
        return f"the repository has none of {EXPECTED_FILES}, and no .gguf file; write {FORM}"
    pickles = [file for file in files if file.endswith((".bin", ".pth", ".pt", ".ckpt"))]
    if pickles:
        return f"the repository has only pickled weights ({pickles[0]}), which are never loaded; use another copy of it"
    return f"the repository has no weights ({WEIGHTS} with config.json, an adapter, or a .gguf file)"


def shards_of(name: HubName, index: Path, files: list[str]) -> list[str]:
    """Return the files of weights that an index names."""
    try:
        shards = sorted({*json.loads(index.read_bytes())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index}: not an index of weights ({error})") from error
    lacking = [str(shard) for shard in shards if shard not in files or not str(shard).endswith(".safetensors")]
    if lacking:
        raise InputError(f"{name}: {INDEX} names {lacking[0]!r}, which is no .safetensors file of {name.repository}")
    return shards
