"""A hub of our own on the loopback: repositories in memory, served as huggingface_hub expects them."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants


@dataclass
class Repository:
    """The files of one repository, and how the hub treats requests for them."""

    files: dict[str, bytes]
    lfs: tuple[str, ...] = (".gguf", ".safetensors", ".bin", ".model")
    """Endings of the files whose ETag is a SHA-256 rather than Git's SHA-1."""
    commit: str = "c" * 40
    gated: bool = False
    """Whether the files need a token in `Hub.granted`."""
    missing: set[str] = field(default_factory=set)
    """Files that are listed but not found."""
    etags: dict[str, str] = field(default_factory=dict)
    """ETags that replace the right ones."""

    def etag(self, file: str) -> str:
        content = self.files[file]
        if file in self.etags:
            return self.etags[file]
        if file.endswith(self.lfs):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Hub:
    """A running hub. Tests add repositories and read the requests."""

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    granted: set[str] = field(default_factory=set)
    """The tokens that may read gated repositories."""
    tokens: set[str] = field(default_factory=set)
    """The valid tokens without access to gated repositories."""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and Range of each request."""
    authorizations: list[tuple[str, str | None]] = field(default_factory=list)
    """Host and Authorization of each request."""
    cut_after: int | None = None
    """Bytes of a response after which the connection is closed, for the next GET of a file only."""
    is_silent: bool = False
    """Whether requests are accepted and never answered, until the hub ends."""
    other_host: str = ""
    """The address of a server of contents that downloads are redirected to, as for large files of the real hub."""
    has_ranges: bool = True
    """Whether requests for a part of a file get only this part."""
    status: int | None = None
    """The status of every answer, instead of the right one."""

    def downloads(self) -> list[str]:
        """Return the files that were downloaded, in order."""
        return [path.split("/", 5)[5] for method, path, _ in self.requests if method == "GET" and "/resolve/" in path]


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a hub in threads of this process."""
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append((self.command, path, self.headers.get("Range")))
            hub.authorizations.append((self.headers["Host"], self.headers.get("Authorization")))
            if hub.is_silent:
                closing.wait()
                self.close_connection = True
                return None
            if hub.status is not None:
                return self._send(hub.status, b"", with_body)
            api = re.fullmatch(r"/api/models/(.+?)(?:/revision/([^/]+))?", path)
            file = re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path)
            match = api or file
            repository = hub.repositories.get(match[1]) if match else None
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            if token and token not in hub.granted | hub.tokens:
                message = {"X-Error-Message": "Invalid credentials in Authorization header"}
                return self._send(401, b"", with_body, message)
            if match is None or repository is None:  # without a token, the hub does not tell missing from private
                status, code = (404, {"X-Error-Code": "RepoNotFound"}) if token else (401, {})
                return self._send(status, b"", with_body, code)
            if match[2] not in (None, "main", repository.commit):
                return self._send(404, b"", with_body, {"X-Error-Code": "RevisionNotFound"})
            if api:
                return self._send(200, json.dumps(_info(match[1], repository)).encode(), with_body)
            assert file is not None
            if repository.gated and token not in hub.granted:
                return self._send(403 if token else 401, b"", with_body, {"X-Error-Code": "GatedRepo"})
            commit = {"X-Repo-Commit": repository.commit}
            if file[3] not in repository.files or file[3] in repository.missing:
                return self._send(404, b"", with_body, {"X-Error-Code": "EntryNotFound", **commit})
            self._send_file(repository, file[3], with_body, commit)

        def _send_file(self, repository: Repository, name: str, with_body: bool, headers: dict[str, str]) -> None:
            content = repository.files[name]
            headers = {**headers, "ETag": f'"{repository.etag(name)}"', "Accept-Ranges": "bytes"}
            if hub.other_host and self.headers["Host"] not in hub.other_host:
                linked = {"X-Linked-Etag": headers.pop("ETag"), "X-Linked-Size": str(len(content))}
                headers |= {"Location": hub.other_host + self.path, **linked}
                return self._send(302, b"", with_body, headers)
            part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if part and with_body and hub.has_ranges:
                start, end = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
                headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
                return self._send(206, content[start : end + 1], with_body, headers)
            self._send(200, content, with_body, headers)

        def _send(self, status: int, body: bytes, with_body: bool, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if not with_body:
                return
            if hub.cut_after is not None and "/resolve/" in self.path and body:
                self.wfile.write(body[: hub.cut_after])
                hub.cut_after = None
                self.close_connection = True
                return
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *arguments: Any) -> None:
            """Say nothing about clients that have gone."""

    server = Server(("127.0.0.1", 0), Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _info(name: str, repository: Repository) -> dict[str, Any]:
    siblings = [{"rfilename": file, "size": len(content)} for file, content in repository.files.items()]
    return {"id": name, "modelId": name, "sha": repository.commit, "siblings": siblings, "tags": []}


def use(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make huggingface_hub use a hub, in this process and in those that it starts, with an empty cache in `home`."""
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")}
    for name, value in {**settings, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}.items():
        monkeypatch.setenv(name, value)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_ETAG_TIMEOUT", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    path = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
