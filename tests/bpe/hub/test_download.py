"""Downloading a file of the hub: resumed, verified, quiet, and with a reason where it fails."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants

from bpe import InputError
from bpe.hub import download as downloads
from bpe.hub.download import download
from bpe.hub.repository import fetch_file
from bpe.progress import Phase
from support.command_line import BPE
from support.loopback_hub import Hub, Repository
from support.terminal import Screen

CONTENT = os.urandom(5 << 20)


@pytest.fixture
def model(hub: Hub) -> Repository:
    """A repository "org/name" with a large and a small file."""
    hub.repositories["org/name"] = Repository({"model.gguf": CONTENT, "tokenizer.json": b"{}"})
    return hub.repositories["org/name"]


def blobs() -> list[Path]:
    return sorted(Path(constants.HF_HUB_CACHE, "models--org--name", "blobs").glob("*"))


def test_a_download_is_where_the_hub_s_own_tools_look_for_it(hub: Hub, model: Repository) -> None:
    for file in model.files:
        path = download("org/name", file)
        assert path.read_bytes() == model.files[file]
        assert str(path) == huggingface_hub.try_to_load_from_cache("org/name", file)
    assert hub.downloads() == [*model.files]
    assert [path.suffix for path in blobs()] == ["", ""]


def test_what_the_hub_s_own_tools_have_downloaded_is_used_without_a_request(hub: Hub, model: Repository) -> None:
    path = huggingface_hub.hf_hub_download("org/name", "model.gguf")
    hub.requests.clear()
    assert fetch_file("org/name", "model.gguf") == Path(path)
    assert hub.requests == []


def test_a_connection_that_breaks_is_resumed(hub: Hub, model: Repository) -> None:
    hub.cut_after = 3 << 20
    assert download("org/name", "model.gguf").read_bytes() == CONTENT
    assert [range for method, _, range in hub.requests if method == "GET"] == [None, f"bytes={3 << 20}-"]


def test_a_download_that_was_interrupted_is_resumed_by_the_next_one(
    hub: Hub, model: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.cut_after = (3 << 20) + 7
    monkeypatch.setattr(downloads, "_ATTEMPTS", 1)
    with pytest.raises(InputError, match=r"^org/name: the hub cannot be reached \(.*\); check the network$"):
        download("org/name", "model.gguf")
    (partial,) = blobs()
    assert (partial.suffix, partial.stat().st_size) == (".incomplete", 3 << 20)
    hub.requests.clear()
    assert download("org/name", "model.gguf").read_bytes() == CONTENT
    assert [range for method, _, range in hub.requests if method == "GET"] == [f"bytes={3 << 20}-"]


def test_a_redirect_to_a_server_of_contents_takes_the_range_along_but_not_the_token(
    hub: Hub, model: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    hub.tokens = {"hf_mine"}
    hub.other_host = hub.url.replace("127.0.0.1", "localhost")
    hub.cut_after = 3 << 20
    assert download("org/name", "model.gguf").read_bytes() == CONTENT
    requests = zip(hub.requests, hub.authorizations, strict=True)
    contents = [request for request, (host, _) in requests if "localhost" in host]
    assert [range for _, _, range in contents] == [None, f"bytes={3 << 20}-"]
    tokens = {(host.split(":")[0], token) for host, token in hub.authorizations}
    assert tokens == {("127.0.0.1", "Bearer hf_mine"), ("localhost", None)}


@pytest.mark.parametrize("variable", ["HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"])
def test_a_time_out_that_is_no_number_is_named(tmp_path: Path, variable: str) -> None:
    for value in ("soon", "0.5", "-1", "0"):
        command = [*BPE, "encode", "-t", "org/name", "-c", "hi"]
        environment = {**os.environ, variable: value}
        finished = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
        expected = f"bpe: {variable} is '{value}'; set it to a whole number of seconds, or unset it\n"
        assert (finished.returncode, finished.stderr) == (1, expected)


def test_a_hub_that_cannot_resume_sends_the_file_anew(
    hub: Hub, model: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.cut_after = 3 << 20
    hub.has_ranges = False
    assert download("org/name", "model.gguf").read_bytes() == CONTENT


@pytest.mark.parametrize("file", ["model.gguf", "tokenizer.json"])
def test_content_with_another_hash_is_refused_and_removed(hub: Hub, model: Repository, file: str) -> None:
    model.etags[file] = "0" * len(model.etag(file))
    with pytest.raises(InputError, match=f"^org/name: the downloaded content of {file} does not have the hash"):
        download("org/name", file)
    assert blobs() == []
    del model.etags[file]
    assert download("org/name", file).read_bytes() == model.files[file]


def test_nothing_is_written_outside_of_the_cache(hub: Hub, model: Repository, tmp_path: Path) -> None:
    model.etags["tokenizer.json"] = "../../../../escaped"
    with pytest.raises(Exception):  # noqa: B017, which one is up to huggingface_hub
        download("org/name", "tokenizer.json")
    with pytest.raises(InputError):
        download("org/name", "../../../../escaped")
    assert not [*tmp_path.rglob("*escaped*")]
    assert {path.name for path in tmp_path.iterdir()} <= {"hf"}


def test_an_answer_without_a_hash_is_downloaded_by_the_hub_s_library(hub: Hub, model: Repository) -> None:
    model.etags["tokenizer.json"] = "revision-7"
    assert download("org/name", "tokenizer.json").read_bytes() == b"{}"


def reason_of(file: str = "model.gguf", revision: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        download("org/name", file, revision)
    message = str(caught.value)
    assert message.startswith("org/name: ")
    assert "\n" not in message
    return message.removeprefix("org/name: ")


def test_a_gated_repository_names_the_page_and_the_token(
    hub: Hub, model: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.gated = True
    hub.tokens, hub.granted = {"hf_other"}, {"hf_granted"}
    page = f"request access at {hub.url}/org/name"
    assert reason_of() == f"gated, and there is no access token; {page}, then set HF_TOKEN, or run: hf auth login"
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert reason_of() == f"gated, and the access token has no access; {page}"
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert reason_of().startswith("the hub rejects the access token; set HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "hf_granted")
    assert download("org/name", "model.gguf").read_bytes() == CONTENT


def test_what_is_missing_is_named(hub: Hub, model: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reason_of("x.gguf") == f"no file x.gguf in this repository of the hub; see {hub.url}/org/name/tree/main"
    assert reason_of(revision="v9").startswith("no revision 'v9' on the hub; give a branch")
    hub.repositories.clear()
    assert reason_of() == (
        "no such repository on the hub, or a private one; check the spelling, or set HF_TOKEN, or run: hf auth login"
    )
    hub.tokens = {"hf_other"}
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert reason_of().endswith("check the spelling, or use a token that has access to it")


@pytest.mark.parametrize(("status", "later"), [(500, True), (503, True), (429, True), (418, False)])
def test_a_hub_that_fails_is_asked_once(hub: Hub, model: Repository, status: int, later: bool) -> None:
    hub.status = status
    assert reason_of() == f"the hub answers with status {status}{'; try again later' if later else ''}"
    assert len(hub.requests) == 1


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_only_the_cache_is_used(
    hub: Hub, model: Repository, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    path = download("org/name", "tokenizer.json")
    hub.requests.clear()
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_file("org/name", "tokenizer.json") == path
    assert reason_of() == f"not in the hub's cache, and {variable} forbids downloads; unset it"
    assert hub.requests == []


def test_a_file_that_does_not_fit_the_disk_is_not_begun(
    hub: Hub, model: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: SimpleNamespace(free=1))
    with pytest.raises(
        InputError, match=r"^model\.gguf: needs 0\.0 GB, but .*hub has 0\.0 GB left; free some .*HF_HOME"
    ):
        download("org/name", "model.gguf")
    assert hub.downloads() == []


def test_a_full_disk_is_reported_as_such(hub: Hub, model: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Phase, "update", full)
    with pytest.raises(OSError, match="No space left"):
        download("org/name", "model.gguf")


def test_the_library_stays_quiet_and_keeps_its_settings(
    hub: Hub, model: Repository, capfd: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled, logging

    level, disabled = logging.get_verbosity(), are_progress_bars_disabled()
    hub.cut_after = 1 << 20
    download("org/name", "model.gguf")
    hub.status = 503
    reason_of()
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), are_progress_bars_disabled()) == (level, disabled)


@pytest.mark.parametrize("accepts", [True, False])
def test_a_command_gives_up_when_the_hub_does_not_answer(hub: Hub, tmp_path: Path, accepts: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts a connection and never answers
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        if not accepts:
            server.close()
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_ETAG_TIMEOUT": "1"}
        command = [*BPE, "encode", "-t", "org/name", "-c", "hi"]
        finished = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60)
    assert finished.returncode == 1
    (line,) = finished.stderr.splitlines()
    assert line.startswith(f"bpe: org/name: the hub {'does not answer' if accepts else 'cannot be reached'}")


def test_the_first_request_is_given_less_time_than_later_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_ETAG_TIMEOUT", raising=False)
    downloads._has_answered.clear()
    assert downloads.within_deadline(lambda seconds: seconds) == 1.5
    assert downloads.within_deadline(lambda seconds: seconds) > 1.5
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "0.01")
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        downloads.within_deadline(lambda seconds: time.sleep(1))


def test_the_progress_of_a_download_fits_the_terminal(
    hub: Hub, model: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "26")
    download("org/name", "model.gguf")
    screen = Screen(terminal.getvalue(), 26)
    assert any(line.startswith("downloading model.gguf") for line in screen.drawn)
    assert any(line.startswith("verifying model.gguf") for line in screen.drawn)
    assert (screen.lines, screen.last, screen.wrapped) == ([], "", [])
