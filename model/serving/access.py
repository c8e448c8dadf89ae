"""Who may use the server: API keys, and how much clients may send."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import os
import stat
from collections.abc import Collection
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import Request

from bpe.errors import InputError
from bpe.playground.http import discard
from model.serving.refusals import Refusal

BODY_LIMIT = 10_000_000
"""Bytes of the body of a request to the API."""
BODY_SECONDS = 60.0
"""Seconds in which the body of a request must arrive."""
_SHORTEST_KEY = 16  # characters; shorter ones can be guessed
_TOGETHER = 16 * BODY_LIMIT  # bytes of all bodies that are arriving


class Keys:
    """API keys, one of which a request must have.

    Args:
        keys: The keys; without any, every request is admitted.
    """

    def __init__(self, keys: Collection[str] = ()) -> None:
        self._digests = [_digest(key) for key in keys]

    def __repr__(self) -> str:
        return f"<Keys: {len(self._digests)}>"

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, request: Request) -> None:
        """Check that a request has a key.

        Raises:
            Refusal: When it has none, or a wrong one.
        """
        if not self._digests:
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Refusal("the request has no API key; send the header Authorization: Bearer KEY", None,
                          "missing_api_key", 401)  # fmt: skip
        digest = _digest(key.strip())
        matches = [hmac.compare_digest(digest, each) for each in self._digests]  # all, so that the time tells nothing
        if not any(matches):
            raise Refusal("the API key is wrong; ask whoever runs this server for one", None, "invalid_api_key", 401)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def read_keys(file: str) -> tuple[list[str], str | None]:
    """Read the API keys in a file: one a line; empty lines and lines that begin with # are skipped.

    Returns:
        The keys, and a warning if other users of the machine can read the file.

    Raises:
        InputError: When the file cannot be read, or has no keys or a key that is too short; keys are never in the
            message.
    """
    path = Path(file)
    try:
        text = path.read_text("utf-8")
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: not a text file; write one key a line") from None
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if len(key) < _SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
            raise InputError(
                f"{file}: line {number} is no key; a key has at least {_SHORTEST_KEY} ASCII characters and no space, "
                "such as the output of `openssl rand -hex 32`"
            )
        keys.append(key)
    if not keys:
        raise InputError(f"{file}: no keys; write one a line, such as the output of `openssl rand -hex 32`")
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        return keys, f"{file}: other users of this machine can read the keys; run chmod 600 {file}"
    return keys, None


def check_exposure(address: str, has_keys: bool, is_open: bool) -> None:
    """Refuse to listen without keys on an address that other machines reach.

    Args:
        address: The address of the socket, in digits.
        has_keys: Whether requests need a key.
        is_open: Whether --no-api-key is given.

    Raises:
        InputError: When everybody could use the server, and --no-api-key does not say so; or when it says so though
            there are keys.
    """
    if has_keys and is_open:
        raise InputError("--no-api-key and --api-key-file exclude each other; give only one of them")
    if not (has_keys or is_open or ipaddress.ip_address(address.partition("%")[0]).is_loopback):
        raise InputError(
            f"--host {address}: other machines can reach this address, and requests would need no key; give "
            "--api-key-file FILE, or --no-api-key to let everybody use the server"
        )


def checked_origins(origins: Collection[str]) -> frozenset[str]:
    """Return web sites as browsers name them in the header Origin.

    Raises:
        InputError: When one is no scheme and host.
    """
    checked = set()
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or origin.rstrip("/") != f"{parts.scheme}://{parts.netloc}":
            raise InputError(f"--allow-origin {origin}: write a scheme and a host, such as https://chat.example.com")
        checked.add(origin.rstrip("/").lower())
    return frozenset(checked)


async def drop_body(request: Request) -> None:
    """Read and drop the body of a request that is refused, so that the client reads the response."""
    if "expect" not in request.headers:  # then the client waits before it sends a body
        await discard(request.receive)


class Bodies:
    """Reads the bodies of requests, within limits of size and time."""

    def __init__(self, limit: int = BODY_LIMIT, seconds: float = BODY_SECONDS, together: int = _TOGETHER) -> None:
        self._limit, self._seconds, self._together = limit, seconds, together
        self._arriving = 0  # bytes

    async def read(self, request: Request) -> bytes:
        """Return the body of a request, which must be JSON by its Content-Type.

        Raises:
            Refusal: When it is too large, of another type, or takes too long; or when the bodies of all requests
                together are too large.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            await drop_body(request)
            raise Refusal("the Content-Type must be application/json; send this header", None, None, 415)
        length = request.headers.get("content-length", "")
        if length.isdecimal() and (len(length) > 12 or int(length) > self._limit):
            await drop_body(request)
            raise self._too_large()
        content = bytearray()
        try:
            await asyncio.wait_for(self._receive(request, content), self._seconds)
        except asyncio.TimeoutError:
            raise Refusal("the body did not arrive in time; send it at once", None, None, 408) from None
        finally:
            self._arriving -= len(content)
        return bytes(content)

    async def _receive(self, request: Request, content: bytearray) -> None:
        async for part in request.stream():
            if len(content) + len(part) > self._limit:
                await discard(request.receive)
                raise self._too_large()
            if self._arriving + len(part) > self._together:
                raise Refusal("the server is receiving too much at the same time; try again", None, "server_busy", 429,
                              1)  # fmt: skip
            content += part
            self._arriving += len(part)

    def _too_large(self) -> Refusal:
        return Refusal(f"the body of the request is larger than {self._limit:,} bytes; send less", None, None, 413)
