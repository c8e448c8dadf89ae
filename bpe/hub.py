"""Files from the Hugging Face hub, through ``huggingface_hub``: its cache, its access token, its settings.

A file that is in the hub's cache is used without a request. Otherwise the first request has to be answered within two
seconds (`METADATA_SECONDS`), so that a command without a network fails at once. `huggingface_hub` is imported only when
it is used, because that takes a third of a second.

The bytes are downloaded here rather than by `hf_hub_download`, which begins an interrupted file anew and compares only
its size: here, a download resumes where it was interrupted, and the content is compared with the hub's hash of it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from bpe.errors import InputError

METADATA_SECONDS = 2.0
"""Seconds to wait for the answer to the first request; the environment variable HF_HUB_ETAG_TIMEOUT overrides it."""
INSTALL = "pip install 'bpe-llama[hub]'"
_CHUNK = 1 << 20
_ATTEMPTS = 5
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_Result = TypeVar("_Result")


def is_installed() -> bool:
    """Return whether ``huggingface_hub`` is installed."""
    return find_spec("huggingface_hub") is not None


def cached_file(repository: str, file: str, revision: str | None = None) -> Path | None:
    """Return the path of a file in the hub's cache, or None if it is not there. Makes no request."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


def fetch(repository: str, file: str, revision: str | None = None) -> Path:
    """Return the path of a file of a repository, and download the file if it is not in the hub's cache.

    Args:
        repository: The name of the repository, such as "org/name".
        file: The path of the file in the repository.
        revision: A branch, tag or commit. Default: the main branch.

    Raises:
        InputError: When the file cannot be downloaded; the message names the reason and its remedy.
    """
    with _quiet():
        return cached_file(repository, file, revision) or download(repository, file, revision)


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

    with _quiet(), _explained(repository, file, revision):
        url = hf_hub_url(repository, file, revision=revision)
        metadata = within_deadline(lambda seconds: get_hf_file_metadata(url, timeout=seconds))
        hash = metadata.etag or ""
        if _HASH.fullmatch(hash) and metadata.commit_hash:
            folder = repo_folder_name(repo_id=repository, repo_type="model")
            cache = Path(constants.HF_HUB_CACHE)
            blob, lock = cache / folder / "blobs" / hash, cache / ".locks" / folder / f"{hash}.lock"
            blob.parent.mkdir(parents=True, exist_ok=True)
            lock.parent.mkdir(parents=True, exist_ok=True)
            url = hf_hub_url(repository, file, revision=metadata.commit_hash)
            with WeakFileLock(lock):
                if not blob.exists():
                    _download_blob(url, build_hf_headers(), file, metadata.size, blob)
        # The content is in the cache now, so this only gives it its name. A content without a hash is downloaded here.
        return Path(hf_hub_download(repository, file, revision=revision))


def _download_blob(url: str, headers: dict[str, str], file: str, size: int | None, blob: Path) -> None:
    """Download content to the path that ends in its hash."""
    partial = blob.with_name(f"{blob.name}.incomplete")
    with Meter(file, size) as meter:
        for attempt in range(_ATTEMPTS):
            before = partial.stat().st_size if partial.exists() else 0
            try:
                _download_rest(url, headers, partial, size, meter)
                break
            except Exception as error:
                stuck = partial.stat().st_size <= before if partial.exists() else True
                if not _is_network_error(error) or (stuck and attempt > 0) or attempt == _ATTEMPTS - 1:
                    raise
    if size is not None and partial.stat().st_size != size or _hash_of(partial, len(blob.name)) != blob.name:
        partial.unlink()
        raise InputError(f"{file}: the downloaded content does not match the hub's hash of it; download it again")
    os.replace(partial, blob)


def _download_rest(url: str, headers: dict[str, str], partial: Path, size: int | None, meter: Meter) -> None:
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
            meter.begin(done)
            for chunk in response.iter_bytes(_CHUNK):
                output.write(chunk)
                meter.add(len(chunk))


def _hash_of(path: Path, digits: int) -> str:
    """Return the hash that the hub uses as the name of a content: SHA-256, or Git's SHA-1 for a file outside of LFS."""
    hash = hashlib.sha256() if digits == 64 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            hash.update(chunk)
    return hash.hexdigest()


class Meter:
    """A line on stderr that shows how much of a file is downloaded. Nothing is drawn if stderr is not a terminal."""

    def __init__(self, file: str, size: int | None) -> None:
        self._file, self._size, self._done = file, size, 0
        self._is_drawn = sys.stderr is not None and sys.stderr.isatty()
        self._start, self._next, self._begin = time.monotonic(), 0.0, 0

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def begin(self, done: int) -> None:
        """Begin at a number of bytes that are there already."""
        self._done = self._begin = done
        self.add(0)

    def add(self, count: int) -> None:
        """Add downloaded bytes, and redraw the line at most ten times a second."""
        self._done += count
        now = time.monotonic()
        if not self._is_drawn or now < self._next:
            return
        self._next = now + 0.1
        rate = (self._done - self._begin) / max(now - self._start, 1e-3)
        share = f" ({self._done / self._size:.0%} of {self._size / 1e6:,.1f} MB)" if self._size else ""
        line = f"downloading {self._file}  {self._done / 1e6:,.1f} MB{share}, {rate / 1e6:,.1f} MB/s"
        width = os.get_terminal_size(sys.stderr.fileno()).columns or 80
        sys.stderr.write(f"\r\x1b[K{line[: width - 1]}")
        sys.stderr.flush()


@contextmanager
def _quiet() -> Iterator[None]:
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
    """Return the result of a request, and raise TimeoutError if it does not come within `METADATA_SECONDS`.

    The request runs in a thread, because an HTTP client's time-out does not cover the look-up of the host's name.
    """
    seconds = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or METADATA_SECONDS)
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
    return results[0]


@contextmanager
def _explained(repository: str, file: str | None, revision: str | None) -> Iterator[None]:
    """Turn the errors of the hub and of the network into an InputError of one line, with the remedy."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = _reason(error, repository, file, revision)
        if reason is None:
            raise
        raise InputError(reason) from error


def _reason(error: Exception, repository: str, file: str | None, revision: str | None) -> str | None:
    """Return what an error means and what to do, in one line; None for an error of the file system."""
    from huggingface_hub import constants, errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    page = f"{constants.ENDPOINT}/{repository}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        name = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
        return f"{repository} is not in the hub's cache, and {name} forbids downloads; unset it"
    if isinstance(error, errors.GatedRepoError):
        if _token() is None:
            return f"{repository} is gated: request access at {page}, then set HF_TOKEN or run hf auth login"
        return f"{repository} is gated, and the access token has no access to it: request access at {page}"
    if status == 401 and _token() is not None and not isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub rejects the access token: set HF_TOKEN to a valid one, or run hf auth login (for {repository})"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} has no revision {revision!r} on the hub; give a branch, a tag or a whole commit hash"
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        token = "set HF_TOKEN or run hf auth login" if _token() is None else "use a token that has access to it"
        return f"the hub has no repository {repository}; check its spelling, or, if it is private, {token}"
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return f"{repository} has no file {file} on the hub; see {page}/tree/{revision or 'main'}"
    if status is not None:
        later = "; try again later" if status == 429 or status >= 500 else ""
        return f"the hub answers {status} for {repository}{later}"
    if isinstance(error, errors.HFValidationError):
        return f"{repository} is not a name of a repository; expected ORG/NAME"
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return f"the hub does not answer; check the network, or set HF_HUB_ETAG_TIMEOUT=10 if it is slow ({repository})"
    if _is_network_error(error) or isinstance(error, errors.LocalEntryNotFoundError):
        return f"the hub cannot be reached; check the network ({repository}: {_first_line(error)})"
    return None if isinstance(error, OSError) else f"{repository}: {_first_line(error)}"


def _is_network_error(error: BaseException) -> bool:
    """Return whether the error is of the HTTP client, whose package depends on the version of ``huggingface_hub``."""
    return type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "ssl")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _token() -> Any:
    from huggingface_hub import get_token

    return get_token()
