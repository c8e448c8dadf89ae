"""Who may send requests to a server of pages, how large they may be, and what is answered to errors."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from bpe.errors import InputError
from bpe.playground.app import PAGES
from bpe.playground.http import application, host_name, page, parse_json, read_object, static_files

LIMIT = 1000


async def echo(request: Request) -> JSONResponse:
    return JSONResponse(await read_object(request))


async def fails(request: Request) -> PlainTextResponse:
    raise InputError("key: this is wrong; write another")


async def breaks(request: Request) -> PlainTextResponse:
    raise RuntimeError("a secret detail")


async def streams(request: Request) -> StreamingResponse:
    async def parts() -> Any:
        for number in range(3):
            yield f"{number}\n"

    return StreamingResponse(parts(), headers={"content-security-policy": "default-src 'none'"})


APP = application(
    [
        page(PAGES / "index.html"),
        static_files("/static", PAGES),
        Route("/echo", echo, methods=["POST"]),
        Route("/fails", fails),
        Route("/breaks", breaks),
        Route("/streams", streams),
    ],
    hosts=["pages.example"],
    body_limit=LIMIT,
)


def ask(
    method: str, path: str, headers: dict[str, str] | None = None, content: Any = None, host: str = "127.0.0.1:8000"
) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=APP, raise_app_exceptions=False)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return await client.request(method, path, headers=headers, content=content)

    return asyncio.run(asked())


def message_of(response: httpx.Response) -> str:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    message: str = error["message"]
    assert "\n" not in message
    return message


def test_each_response_forbids_what_is_not_from_this_server() -> None:
    for path in ("/", "/static/shell.js", "/nothing", "/fails", "/breaks"):
        headers = ask("GET", path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert (
            policy["default-src"]
            == policy["base-uri"]
            == policy["form-action"]
            == policy["frame-ancestors"]
            == "'none'"
        )
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
    assert ask("GET", "/streams").headers["content-security-policy"] == "default-src 'none'"  # a route's own stays


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1:8000", "[::1]:8000", "10.1.2.3", "pages.example"]
)
def test_the_server_answers_to_its_own_names_and_to_addresses_in_digits(host: str) -> None:
    assert ask("GET", "/static/page.js", {"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "",
        "a b",
        "localhost@evil.example",
        "localhost/x",
        "localhost:x",
    ],
)
def test_a_name_that_has_been_made_to_lead_here_is_refused(host: str) -> None:
    response = ask("GET", "/static/page.js", {"host": host})
    assert response.status_code == 421
    assert "Host" in message_of(response) and "localhost" in message_of(response)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # a program
        ({"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:8000"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"origin": "http://127.0.0.1:8000"}, 200),
        ({"origin": "http://127.0.0.1:9000"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
    ],
)
def test_a_page_of_another_site_cannot_send_requests(headers: dict[str, str], status: int) -> None:
    assert ask("POST", "/echo", headers, b"{}").status_code == status


def test_a_link_from_another_site_opens_the_page() -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert ask("GET", "/", headers).status_code == 200
    assert ask("GET", "/static/page.js", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}).status_code == 403


def test_a_body_that_is_too_large_is_refused_whether_or_not_its_size_is_announced() -> None:
    async def pieces() -> Any:
        for _ in range(20):
            yield b" " * 100

    whole = b'"' + b"a" * (LIMIT - 2) + b'"'
    assert ask("POST", "/echo", content=whole).status_code == 400  # no object, but not too large
    for content in (whole + b" ", pieces()):
        response = ask("POST", "/echo", content=content)
        assert response.status_code == 413
        assert "1,000 bytes" in message_of(response)
    assert ask("POST", "/echo", {"content-length": "9" * 40}, content=b"").status_code == 413


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "line 1 column 2"),
        (b'{"a": 1}\n x', "line 2 column 2"),
        (b"[1]", "not a JSON object"),
        (b'{"a": "\xff"}', "not UTF-8: byte 0xff at 7"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes, words: str) -> None:
    response = ask("POST", "/echo", content=body)
    assert response.status_code == 400
    assert words in message_of(response)


def test_json_is_refused_that_would_exhaust_the_parser() -> None:
    with pytest.raises(InputError, match="nested too deeply"):
        parse_json(b"[" * 200_000)
    with pytest.raises(InputError, match="too many digits"):
        parse_json(b"1" * 100_000)
    assert parse_json(json.dumps({"a": "\ud800"}).encode()) == {"a": "\ud800"}


def test_errors_are_json_and_keep_the_details_of_a_bug_to_the_log() -> None:
    assert message_of(ask("GET", "/fails")) == "key: this is wrong; write another"
    response = ask("GET", "/breaks")
    assert response.status_code == 500
    assert "secret" not in response.text and "log" in message_of(response)
    assert ask("GET", "/nothing").status_code == 404
    assert "/nothing" in message_of(ask("GET", "/nothing"))
    assert ask("GET", "/echo").status_code == 405


def test_a_response_can_be_streamed() -> None:
    assert ask("GET", "/streams").text == "0\n1\n2\n"


def test_static_files_have_their_type_and_are_sent_again_only_when_they_changed() -> None:
    for name, kind in [("shell.js", "text/javascript"), ("shell.css", "text/css"), ("icon.svg", "image/svg+xml")]:
        response = ask("GET", f"/static/{name}")
        assert response.content == (PAGES / name).read_bytes()
        assert response.headers["content-type"].startswith(kind)
        assert response.headers["cache-control"] == "no-cache"
        again = ask("GET", f"/static/{name}", {"if-none-match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert ask("GET", f"/static/{name}", {"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/static/",
        "/static/a\0",
    ],
)
def test_only_the_pages_are_served(path: str) -> None:
    assert ask("GET", path.replace("\0", "%00")).status_code == 404


def test_no_page_loads_anything_from_elsewhere() -> None:
    for file in filter(Path.is_file, PAGES.rglob("*")):
        text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text, file
        assert "innerHTML" not in text.replace("no innerHTML", ""), file


def test_host_names_are_read_as_browsers_write_them() -> None:
    assert host_name("Example.ORG:80") == "example.org"
    assert host_name("[::1]") == "::1"
    assert host_name("[::1") is None
