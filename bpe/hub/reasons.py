"""What the errors of the hub and of the network mean, and what to do about them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from bpe.errors import InputError


class NotAvailableError(InputError):
    """The hub does not have a repository, or cannot be asked."""


@contextmanager
def explained(repository: str, file: str | None, revision: str | None) -> Iterator[None]:
    """Turn the errors of the hub and of the network into an InputError of one line, with the remedy."""
    from huggingface_hub import errors

    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = _reason(error, repository, file, revision)
        if reason is None:
            raise
        known = (errors.GatedRepoError, errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError)
        kind = InputError if isinstance(error, known) else NotAvailableError
        raise kind(f"{repository}: {reason}") from error


def _reason(error: Exception, repository: str, file: str | None, revision: str | None) -> str | None:
    """Return what an error means and what to do, in one line; None for an error of the file system."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repository}"
    log_in = "set HF_TOKEN, or run: hf auth login"
    has_token = _token() is not None
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.OfflineModeIsEnabled):
        name = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
        what = "not" if revision is None else f"revision {revision!r} is not"
        return f"{what} in the hub's cache, and {name} forbids downloads; unset it"
    if isinstance(error, errors.GatedRepoError):
        if has_token:
            return f"gated, and the access token has no access; request access at {page}"
        return f"gated, and there is no access token; request access at {page}, then {log_in}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"no revision {revision!r} on the hub; give a branch, a tag or a commit hash of 40 digits"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"no file {file} in this repository of the hub; see {page}/tree/{revision or 'main'}"
    if status == 401 and has_token:
        return "the hub rejects the access token; set HF_TOKEN to a valid one, or run: hf auth login"
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        private = "use a token that has access to it" if has_token else log_in
        return f"no such repository on the hub, or a private one; check the spelling, or {private}"
    if status is not None:
        later = "; try again later" if status == 429 or status >= 500 else ""
        return f"the hub answers with status {status}{later}"
    if isinstance(error, errors.HFValidationError):
        return "not a name of a repository; expected ORG/NAME"
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "the hub does not answer; check the network, or set HF_HUB_ETAG_TIMEOUT=10 if it is slow"
    if is_network_error(error) or isinstance(error, errors.LocalEntryNotFoundError):
        return f"the hub cannot be reached ({_first_line(error)}); check the network"
    return None if isinstance(error, OSError) else _first_line(error)


def is_network_error(error: BaseException) -> bool:
    """Return whether the error is of the HTTP client, whose package depends on the version of ``huggingface_hub``."""
    return type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "ssl")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _token() -> str | None:
    from huggingface_hub import get_token

    return get_token()
