"""`bpe serve`, as a process: what it prints, answers to curl and to the `openai` package, and its end."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
import torch

from model import ModelConfig, Transformer, save
from support.command_line import BPE, bpe, fails_with
from support.serving import TEMPLATE, byte_tokenizer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights with a chat template, whose answers hardly ever end."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    directory.mkdir()
    torch.manual_seed(1)
    tokenizer = byte_tokenizer()
    tokenizer.save(directory / "tokenizer.json")
    config = ModelConfig(
        dim=16, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=24, vocab_size=tokenizer.n_vocab, max_seq_len=100_000
    )
    made = Transformer(config)
    with torch.no_grad():
        made.output.weight[256:] = 0
    save(directory, made, directory / "tokenizer.json")
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    return directory


class Process:
    """`bpe serve` in a process of its own."""

    def __init__(self, model: Path, *options: str) -> None:
        command = [*BPE, "serve", str(model), "--port", "0", "--threads", "1", *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip().rstrip("/")
        assert self.address.startswith("http://127.0.0.1:"), self._process.communicate()

    def post(self, path: str, **body: object) -> httpx.Response:
        return httpx.post(f"{self.address}{path}", json={"model": "tiny", **body}, timeout=30)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Wait for the end, and return the exit status and what was printed to stderr."""
        _, printed = self._process.communicate(timeout=30)
        return self._process.returncode, printed


@contextlib.contextmanager
def process(model: Path, *options: str) -> Iterator[Process]:
    started = Process(model, *options)
    try:
        yield started
    finally:
        if started._process.poll() is None:
            started._process.kill()
            started._process.wait()


ENDLESS = {"257": -100, "260": -100}
"""A bias against the tokens that end a text."""
MESSAGES = [{"role": "user", "content": "Say hello."}]


def test_it_answers_curl_and_the_openai_package_and_ends_with_status_0(model: Path) -> None:
    with process(model, "--context", "4096", "--parallel", "3") as server:
        client = openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0)
        found = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=8, temperature=0)  # type: ignore[arg-type]
        text = found.choices[0].message.content
        assert found.choices[0].finish_reason == "length" and text
        if shutil.which("curl"):
            body = json.dumps({"model": "tiny", "messages": MESSAGES, "max_tokens": 8, "temperature": 0})
            command = ["curl", "-s", f"{server.address}/v1/chat/completions", "-H", "content-type: application/json"]
            printed = subprocess.run([*command, "-d", body], capture_output=True, check=True).stdout
            assert json.loads(printed)["choices"][0]["message"]["content"] == text
            streamed = body[:-1] + ', "stream": true}'
            printed = subprocess.run([*command, "-N", "-d", streamed], capture_output=True, check=True).stdout
            assert printed.endswith(b"data: [DONE]\n\n")
        assert "<title>" in httpx.get(f"{server.address}/").text
        about = httpx.get(f"{server.address}/api/about").json()
        assert about["model"]["name"] == "tiny" and about["model"]["context"] == 4096
        for part in about["parts"]:
            assert httpx.get(f"{server.address}{part['module']}").status_code == 200, part
        server.send(signal.SIGTERM)
        status, printed = server.end()
    assert status == 0
    first, *lines = printed.splitlines()
    assert "tiny" in first and "native" in first and "parallel 3" in first and "context 4,096" in first
    assert "keys and values" in first
    assert all(line.split()[3].startswith("/") for line in lines), lines


def test_sigterm_lets_a_running_request_finish(model: Path) -> None:
    with process(model, "--no-log") as server, httpx.Client(timeout=30) as client:
        body = {"model": "tiny", "prompt": "a", "max_tokens": 2000, "stream": True, "logit_bias": ENDLESS}
        with client.stream("POST", f"{server.address}/v1/completions", json=body) as response:
            lines = response.iter_lines()
            next(lines)
            server.send(signal.SIGTERM)
            received = [*lines]
        status, printed = server.end()
    assert status == 0 and received[-2] == "data: [DONE]"
    _, *others = printed.splitlines()  # none if the text was complete before the signal came
    assert len(others) < 2 and all("stopping" in line for line in others)


def test_a_second_ctrl_c_ends_it_at_once(model: Path) -> None:
    with process(model, "--no-log", "--context", "100000") as server, httpx.Client(timeout=30) as client:
        body = {"model": "tiny", "prompt": "a", "max_tokens": 90_000, "stream": True, "logit_bias": ENDLESS}
        with (
            contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError),
            client.stream("POST", f"{server.address}/v1/completions", json=body) as response,
        ):
            lines = response.iter_lines()
            next(lines)
            server.send(signal.SIGINT)
            while httpx.get(f"{server.address}/health").status_code == 200:
                next(lines)
            server.send(signal.SIGINT)
            for _ in lines:
                pass
        status, printed = server.end()
    assert status == 130 and "Traceback" not in printed


def test_the_deadline_cuts_what_runs(model: Path) -> None:
    with (
        process(model, "--no-log", "--deadline", "0", "--context", "100000") as server,
        httpx.Client(timeout=30) as client,
    ):
        body = {"model": "tiny", "prompt": "a", "max_tokens": 90_000, "stream": True, "logit_bias": ENDLESS}
        with client.stream("POST", f"{server.address}/v1/completions", json=body) as response:
            lines = response.iter_lines()
            next(lines)
            server.send(signal.SIGTERM)
            received = [line for line in lines if line]
        status, _ = server.end()
    assert status == 0 and received[-1] == "data: [DONE]" and '"finish_reason":"length"' in received[-2]


def test_wrong_settings_are_one_line(model: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        fails_with(bpe("serve", model, "--port", port), 1, f"--port {port}", "another program")
    fails_with(bpe("serve", model, "--host", "no such host", "--port", 0), 1, "--host no such host")
    fails_with(bpe("serve", model, "--host", "0.0.0.0", "--port", 0), 1, "0.0.0.0", "--api-key-file", "--no-api-key")
    fails_with(bpe("serve", model, "--api-key-file", keys), 1, str(keys), "cannot be read")
    keys.write_text("# no key\n\n")
    fails_with(bpe("serve", model, "--api-key-file", keys), 1, str(keys), "openssl rand")
    keys.write_text("secret\n")
    failed = bpe("serve", model, "--api-key-file", keys)
    assert failed.exit_code == 1 and "line 1" in failed.stderr and "secret" not in failed.stderr
    keys.write_text("a-key-of-enough-characters\n")
    keys.chmod(0o600)
    fails_with(bpe("serve", model, "--api-key-file", keys, "--no-api-key", "--port", 0), 1, "exclude each other")
    fails_with(bpe("serve", model, "--allow-origin", "chat.example.com"), 1, "--allow-origin chat.example.com")
    fails_with(bpe("serve", model, "--port", 0, "--context", 10**6), 1, "context is 1,000,000")
    fails_with(bpe("serve", tmp_path / "none", "--port", 0), 1, "none")


def test_a_file_of_keys_that_others_can_read_is_named(model: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("a-key-of-enough-characters\n")
    keys.chmod(0o644)
    failed = bpe("serve", model, "--api-key-file", keys, "--no-api-key", "--port", 0)
    assert "chmod 600" in failed.stderr and "a-key" not in failed.stderr


def test_a_model_without_a_chat_template_completes_texts(model: Path, tmp_path: Path) -> None:
    base = tmp_path / "tiny"
    shutil.copytree(model, base)
    (base / "chat_template.jinja").unlink()
    with process(base, "--no-log", "-q") as server:
        refused = server.post("/v1/chat/completions", messages=MESSAGES)
        assert refused.status_code == 400 and "/v1/completions" in refused.json()["error"]["message"]
        assert server.post("/v1/completions", prompt="a", max_tokens=2).status_code == 200
        server.send(signal.SIGINT)
        assert server.end() == (0, "")
