"""Downloading one file of a repository into the hub's cache.

The first request has to be answered within `FIRST_SECONDS`, so that a command without an answer from the hub fails
within two seconds, its start included.

The bytes are downloaded here rather than by `hf_hub_download`, which begins an interrupted file anew and compares only
its size: here, a download resumes where it was interrupted, and the content is compared with the hub's hash of it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from bpe.errors import InputError
from bpe.hub.reasons import explained, is_network_error
from bpe.progress import Phase, phase, shown

FIRST_SECONDS = 1.5
"""Seconds to wait for the answer to the first request; the environment variable HF_HUB_ETAG_TIMEOUT overrides it."""
_LATER_SECONDS = 10.0
_has_answered = threading.Event()
_CHUNK = 1 << 20
_ATTEMPTS = 5
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_Result = TypeVar("_Result")


def download(repository: str, file: str, revision: str | None = None) -> Path:
    """Download a file of a repository into the hub's cache, unless the cache has the revision's version of it.

    An interrupted download resumes. The content is compared with the hash that the hub gives for it.

    Args:
        repository: The name of the repository.
        file: The path of the file in the repository.
        revision: A branch, tag or commit. Default: the main branch.

    Raises:
        InputError: When the file cannot be downloaded; the message names the reason and its remedy.
        OSError: When the cache cannot be written.
    """
    from huggingface_hub import constants, hf_hub_download, hf_hub_url
    from huggingface_hub.file_download import get_hf_file_metadata, repo_folder_name
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    with quiet(), explained(repository, file, revision):
        url = hf_hub_url(repository, file, revision=revision)
        metadata = within_deadline(lambda seconds: get_hf_file_metadata(url, timeout=seconds))
        hash = metadata.etag or ""
        if not re.fullmatch(r"[\w.-]*", hash):  # it becomes the name of a file
            raise InputError(f"{repository}: the hub gives {file} the ETag {hash!r}, which cannot name a file")
        if _HASH.fullmatch(hash) and metadata.commit_hash:
            folder = repo_folder_name(repo_id=repository, repo_type="model")
            cache = Path(constants.HF_HUB_CACHE)
            blob, lock = cache / folder / "blobs" / hash, cache / ".locks" / folder / f"{hash}.lock"
            blob.parent.mkdir(parents=True, exist_ok=True)
            lock.parent.mkdir(parents=True, exist_ok=True)
            url = hf_hub_url(repository, file, revision=metadata.commit_hash)
            with WeakFileLock(lock):
                if not blob.exists():
                    _download_blob(url, build_hf_headers(), repository, file, metadata.size, blob)
        # The content is in the cache now, so this only gives it its name. A content without a hash is downloaded here.
        return Path(hf_hub_download(repository, file, revision=revision))


def _download_blob(url: str, headers: dict[str, str], repository: str, file: str, size: int | None, blob: Path) -> None:
    """Download content to the path that ends in its hash."""
    partial = blob.with_name(f"{blob.name}.incomplete")
    missing = (size or 0) - _size_of(partial)
    free = shutil.disk_usage(blob.parent).free
    if missing > free:
        raise InputError(
            f"{file}: needs {missing / 1e9:,.1f} GB, but {blob.parents[2]} has {free / 1e9:,.1f} GB left;"
            " free some space, or set HF_HOME to a directory on another disk"
        )
    with shown(True):
        with phase("downloading", size, "bytes", _size_of(partial)) as downloading:
            downloading.update(downloading.done, label=f"downloading {file}", file=file)
            for attempt in range(_ATTEMPTS):
                before = _size_of(partial)
                try:
                    _download_rest(url, headers, partial, size, downloading, file)
                    break
                except Exception as error:
                    stuck = _size_of(partial) <= before
                    if not is_network_error(error) or (stuck and attempt > 0) or attempt == _ATTEMPTS - 1:
                        raise
        is_right = _hash_of(partial, len(blob.name), file) == blob.name
    if not is_right:
        partial.unlink()
        raise InputError(
            f"{repository}: the downloaded content of {file} does not have the hash that the hub gives;"
            " download it again"
        )
    os.replace(partial, blob)


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _download_rest(
    url: str, headers: dict[str, str], partial: Path, size: int | None, downloading: Phase, file: str
) -> None:
    """Append to a file what it lacks of the content."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session, hf_raise_for_status

    with open(partial, "ab") as output:
        done = output.tell()
        if size is not None and done >= size:
            return
        headers = {**headers, "Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
        seconds = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=headers, timeout=seconds) as response:
            hf_raise_for_status(response)
            if done and response.status_code != 206:  # the server sends the file from its beginning
                output.truncate(0)
                done = 0
            for chunk in response.iter_bytes(_CHUNK):
                output.write(chunk)
                done += len(chunk)
                downloading.update(done, file=file)


def _hash_of(path: Path, digits: int, file: str) -> str:
    """Return the hash that the hub uses as the name of a content: SHA-256, or Git's SHA-1 for a file outside of LFS."""
    size = path.stat().st_size
    hash = hashlib.sha256() if digits == 64 else hashlib.sha1(b"blob %d\0" % size)
    done = 0
    with phase("verifying", size, "bytes") as verifying, open(path, "rb") as content:
        while chunk := content.read(_CHUNK):
            hash.update(chunk)
            done += len(chunk)
            verifying.update(done, label=f"verifying {file}", file=file)
    return hash.hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the messages and progress bars of ``huggingface_hub`` from the terminal."""
    from huggingface_hub import constants
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    bars = constants.HF_HUB_DISABLE_PROGRESS_BARS is None and not are_progress_bars_disabled()
    logger.setLevel(logging.CRITICAL + 1)
    if bars:
        disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            enable_progress_bars()


def within_deadline(request: Callable[[float], _Result]) -> _Result:
    """Return the result of a request, and raise TimeoutError if it does not come in time.

    The request runs in a thread, because an HTTP client's time-out does not cover the look-up of the host's name.

    Args:
        request: Makes the request, given the number of seconds that a part of it may take.
    """
    seconds = float(
        os.environ.get("HF_HUB_ETAG_TIMEOUT") or (_LATER_SECONDS if _has_answered.is_set() else FIRST_SECONDS)
    )
    results: list[_Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(request(seconds))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    _has_answered.set()
    return results[0]
