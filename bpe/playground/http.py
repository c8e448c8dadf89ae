"""What `bpe playground` and `bpe serve` share: who may send requests, their size, errors, and static files.

Everything is plain ASGI, so a response can be streamed.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from bpe.errors import InputError

# Only files of this server are loaded, nothing inline runs, and no string becomes markup or a script.
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        " require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""The headers of each response, unless the response has a header of the same name."""

CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
"""The files that are served, by suffix. A browser runs a module only if its type is right."""

_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": "*, authorization",
    "access-control-max-age": "600",
}
_DISCARDED = 256 << 20  # bytes of a body that is too large are read and dropped, so that the client reads the response
_DISCARDING = 10.0  # seconds


def application(
    routes: Sequence[BaseRoute],
    *,
    hosts: Collection[str] = (),
    body_limit: int,
    origins: Collection[str] = (),
    handlers: Mapping[Any, Callable[..., Any]] | None = None,
    lifespan: Lifespan[Starlette] | None = None,
) -> ASGIApp:
    """Return an application whose requests are checked and whose errors are JSON.

    Args:
        routes: The routes.
        hosts: The names by which the server may be addressed, besides localhost and addresses in digits.
        body_limit: The largest body of a request, in bytes.
        origins: The sites whose pages may send requests, as in the header Origin.
        handlers: Handlers of exceptions, besides those of `error_handlers`.
        lifespan: What starts and stops with the server.
    """
    inner = Starlette(routes=routes, exception_handlers={**error_handlers(), **dict(handlers or {})}, lifespan=lifespan)
    return Guard(inner, hosts=hosts, body_limit=body_limit, origins=origins)


class Guard:
    """ASGI middleware that refuses requests of other sites and bodies that are too large, and adds headers.

    A web page elsewhere can make a browser send requests to this machine. Those are refused: by the Host header if the
    page's name has been made to lead here (DNS rebinding), and by Sec-Fetch-Site or Origin otherwise. Links from other
    sites are followed.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Collection[str] = (), body_limit: int, origins: Collection[str] = ()
    ) -> None:
        """Guard an application.

        Args:
            app: The application.
            hosts: The names by which the server may be addressed, besides localhost and addresses in digits.
            body_limit: The largest body of a request, in bytes.
            origins: The sites whose pages may send requests, as in the header Origin.
        """
        self._app = app
        self._origins = frozenset(origins)
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._body_limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a WebSocket, of which there is none here
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin", "").lower()
        origin = origin if origin in self._origins else ""
        with_headers = _adding_headers(send, origin)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, with_headers)
            return
        if origin and scope["method"] == "OPTIONS":
            await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, with_headers)
            return
        length = headers.get("content-length", "")
        if length.isdecimal() and (len(length) > 18 or int(length) > self._body_limit):
            if "expect" not in headers:
                await discard(receive)
            await self._too_large()(scope, receive, with_headers)
            return
        await self._app(scope, self._limited(receive), with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_known(hosts[0]):
            return error_response(
                421,
                "the server is not known by the name in the Host header; use localhost or the address in digits",
            )
        is_allowed = headers.get("origin", "").lower() in self._origins
        if not is_allowed and is_from_elsewhere(scope["method"], headers):
            return error_response(403, "the request is from a page of another site; open the page of this server")
        return None

    def _is_known(self, host: str) -> bool:
        name = host_name(host)
        return name is not None and (name in self._hosts or _is_address(name))

    def _too_large(self) -> Response:
        return error_response(413, f"the body of the request is larger than {self._body_limit:,} bytes; send less")

    def _limited(self, receive: Receive) -> Receive:
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._body_limit:
                    await discard(receive)
                    raise HTTPException(
                        413, f"the body of the request is larger than {self._body_limit:,} bytes; send less"
                    )
            return message

        return limited


async def discard(receive: Receive) -> None:
    """Read and drop the rest of a body, within limits: many clients read the response only after they have sent it.

    Args:
        receive: Receives from the client.
    """
    dropped = 0
    end = time.monotonic() + _DISCARDING
    while dropped < _DISCARDED and (left := end - time.monotonic()) > 0:
        try:
            message = await asyncio.wait_for(receive(), left)
        except asyncio.TimeoutError:
            return
        dropped += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


def _adding_headers(send: Send, origin: str = "") -> Send:
    """Return `send` with more headers.

    Args:
        send: Sends to the client.
        origin: The site whose page sent the request, if it may read the response.
    """

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            if origin:
                headers["access-control-allow-origin"] = origin
                headers["access-control-expose-headers"] = "retry-after"
                headers.add_vary_header("origin")
        await send(message)

    return sending


def host_name(host: str) -> str | None:
    """Return the name in a Host header, in lower case and without the port; None if the header is malformed.

    >>> host_name("Localhost:8000"), host_name("[::1]:80"), host_name("a b")
    ('localhost', '::1', None)
    """
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises if it is no number
        name = parts.hostname
    except ValueError:
        return None
    is_whole = parts.netloc == host and "@" not in host and not parts.path and host.isprintable() and " " not in host
    return name if is_whole else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_from_elsewhere(method: str, headers: Headers) -> bool:
    """Return whether a browser sends a request for a page of another site. A link that a person follows is not such.

    Args:
        method: The method of the request.
        headers: Its headers. Programs other than browsers send neither Sec-Fetch-Site nor Origin.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        is_link = method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
        return site not in ("same-origin", "none") and not is_link
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()


def error_response(
    status: int, message: str, *, param: str | None = None, code: str | None = None, headers: Any = None
) -> Response:
    """Return an error in the form of OpenAI's API, which the `openai` package understands.

    Args:
        status: The HTTP status.
        message: What is wrong and what to do, in one line.
        param: The field that is wrong.
        code: A short name of the error.
        headers: More headers.
    """
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status, headers)


def error_handlers() -> dict[Any, Callable[..., Any]]:
    """Return the handlers of exceptions for `Starlette`."""
    return {
        InputError: _input_error,
        HTTPException: _http_error,
        ClientDisconnect: _disconnected,
        Exception: _server_error,
    }


async def _input_error(request: Request, error: InputError) -> Response:
    return error_response(400, str(error))


async def _http_error(request: Request, error: HTTPException) -> Response:
    words = {404: f"{request.url.path[:200]}: no such path", 405: f"{request.method}: not allowed here"}
    return error_response(error.status_code, words.get(error.status_code, error.detail), headers=error.headers)


async def _disconnected(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _server_error(request: Request, error: Exception) -> Response:
    return error_response(500, "an error in the server; its log has the details")


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        InputError: When the text is not UTF-8 or not JSON, or is nested too deeply.
    """
    try:
        return json.loads(body.decode())
    except UnicodeDecodeError as error:
        raise InputError(f"the body is not UTF-8: byte {body[error.start]:#04x} at {error.start:,}") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno:,} column {error.colno:,}"
        raise InputError(f"the body is not JSON: {error.msg}, at {place}; send a JSON object") from None
    except RecursionError:
        raise InputError("the JSON of the body is nested too deeply; send less levels") from None
    except ValueError:  # a whole number of thousands of digits
        raise InputError("the body has a number with too many digits; send a smaller one") from None


async def read_object(request: Request) -> dict[str, Any]:
    """Return the JSON object in the body of a request.

    Raises:
        InputError: When the body is not a JSON object.
    """
    body = await request.body()
    value = parse_json(body)
    if not isinstance(value, dict):
        raise InputError("the body is not a JSON object; send one in braces")
    return value


def static_files(prefix: str, folder: Path) -> Route:
    """Return the route of the files of a folder and of its folders. A file that is added later is not served.

    Args:
        prefix: The path under which the files are served, such as "/static".
        folder: The folder. Only files with a suffix in `CONTENT_TYPES` are served.
    """
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.suffix in CONTENT_TYPES}

    async def static(request: Request) -> Response:
        path = files.get(request.path_params["name"])
        if path is None:
            raise HTTPException(404)
        return file_response(request, path)

    return Route(f"{prefix}/{{name:path}}", static)


def file_response(request: Request, path: Path) -> Response:
    """Return a file of the package, or 304 if the browser has it already."""
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"etag": etag, "cache-control": "no-cache"}
    if etag in (each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=CONTENT_TYPES[path.suffix], headers=headers)


def page(path: Path, at: str = "/") -> Route:
    """Return the route of a page of HTML.

    Args:
        path: The file.
        at: The path of the page.
    """

    async def html(request: Request) -> Response:
        return file_response(request, path)

    return Route(at, html)
