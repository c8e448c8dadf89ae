"""Clients that go away or dawdle, keys, the log, other sites, metrics, and the end of the server."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from bpe.errors import InputError
from support.serving import Served, serving

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Say hello."}], "temperature": 0}
KEY, OTHER = "a-key-of-enough-characters", "another-key-of-enough-characters"


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(parallel=2) as running:
        running.writer.gate = threading.Semaphore(0)
        yield running


def opened(served: Served, body: dict[str, Any], path: str = "/v1/chat/completions") -> socket.socket:
    """Send a request, and return the connection."""
    host, port = served.address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(content)}"
    )
    connection.sendall(f"{head}\r\n\r\n".encode() + content)
    return connection


def until(served: Served, condition: Callable[[], bool], step: bool = False) -> None:
    """Wait until a condition holds, which is looked at again and again by the event loop of the server."""
    holds = threading.Event()

    def look() -> None:
        if condition():
            holds.set()
            return
        if step and served.writer.gate is not None:
            served.writer.gate.release()
        served.loop.call_later(0.001, look)

    served.loop.call_soon_threadsafe(look)
    assert holds.wait(20)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_is_cancelled_within_a_step(served: Served, stream: bool) -> None:
    assert served.writer.gate is not None
    served.writer.answer = "x" * 1000
    connection = opened(served, {**CHAT, "stream": stream})
    served.writer.gate.release(5)
    if stream:
        received = b""
        while b'"content":"x"' not in received:
            received += connection.recv(65536)
    else:
        until(served, lambda: served.scheduler.statistics().generated_tokens > 0)
    connection.close()
    (run,) = [*served.api.runs] or [None]
    until(served, lambda: run is None or run.is_cancelled)
    made = served.scheduler.statistics().steps
    served.writer.gate.release(1000)
    until(served, lambda: served.scheduler.statistics().cancelled == 1)
    assert served.scheduler.statistics().steps <= made + 2  # the one that was being made, and the wait for the next
    assert served.scheduler.statistics().running == 0


def test_a_slow_reader_does_not_hold_others_up(served: Served) -> None:
    served.writer.gate = None
    served.writer.answer = "y" * 1500
    with opened(served, {**CHAT, "stream": True, "logprobs": True, "top_logprobs": 20}):  # never reads
        for _ in range(3):
            response = httpx.post(f"{served.base_url}/chat/completions", json={**CHAT, "max_tokens": 3}, timeout=20)
            assert response.json()["choices"][0]["message"]["content"] == "yyy"
        until(served, lambda: served.scheduler.statistics().running == 0)


def test_too_many_requests_get_429(served: Served) -> None:
    body = {"model": "tiny", "prompt": "a", "n": 10}
    with opened(served, body, "/v1/completions"):
        until(served, lambda: served.api.running == 1)
        until(served, lambda: served.scheduler.statistics().waiting >= 8)
        response = httpx.post(f"{served.base_url}/completions", json={"model": "tiny", "prompt": "a"}, timeout=20)
        assert response.status_code == 429 and int(response.headers["retry-after"]) >= 1
        assert response.json()["error"]["code"] == "server_busy"
    with openai.OpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client:
        until(served, lambda: served.scheduler.statistics().running == 0, step=True)
        served.writer.gate = None
        assert client.completions.create(model="tiny", prompt="a", max_tokens=2).usage


def test_requests_finish_while_the_server_stops_and_new_ones_are_refused() -> None:
    with serving(parallel=2) as served:
        served.writer.gate = gate = threading.Semaphore(0)
        connection = opened(served, {**CHAT, "stream": True})
        until(served, lambda: served.api.running == 1)
        served.loop.call_soon_threadsafe(served.server.stop)
        until(served, lambda: served.api.is_stopping)
        response = httpx.post(f"{served.base_url}/chat/completions", json=CHAT)
        assert response.status_code == 503 and response.json()["error"]["code"] == "server_stopping"
        assert httpx.get(f"{served.address}/health").status_code == 503
        gate.release(1000)
        received = b""
        while part := connection.recv(65536):
            received += part
        events = [line[6:] for line in received.decode().splitlines() if line.startswith("data: {")]
        text = "".join(json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events)
        assert text == "Hello, world!" and "[DONE]" in received.decode()
        served.loop.call_soon_threadsafe(lambda: None)
        connection.close()


@pytest.mark.parametrize("is_callers_fault", [False, True])
def test_a_failure_ends_the_request_and_not_the_server(is_callers_fault: bool) -> None:
    with serving() as served:
        url = f"{served.base_url}/chat/completions"
        secret = "/home/somebody/model"
        error: Exception = InputError("no token may follow") if is_callers_fault else RuntimeError(secret)
        served.writer.fails = lambda parts: error
        whole = httpx.post(url, json=CHAT)
        assert whole.status_code == (400 if is_callers_fault else 500) and secret not in whole.text
        streamed = httpx.post(url, json={**CHAT, "stream": True})
        event = json.loads(streamed.text.strip().splitlines()[-1].removeprefix("data: "))
        assert event["error"] == whole.json()["error"]
        with openai.OpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "x"}], stream=True
            )
            with pytest.raises(openai.APIError):
                list(stream)
        served.writer.fails = lambda parts: None
        assert httpx.post(url, json=CHAT).status_code == 200


def test_keys_are_needed_and_never_logged() -> None:
    lines: list[str] = []
    with serving(keys=[KEY, OTHER], lines=lines) as served:
        url = f"{served.base_url}/models"
        for key, status in ((None, 401), ("wrong", 401), (KEY, 200), (OTHER, 200), (KEY[:-1], 401), ("é", 401)):
            headers = {} if key is None else {"authorization": f"Bearer {key}".encode()}
            response = httpx.get(f"{url}?key={KEY}", headers=headers)
            assert response.status_code == status, key
            if status == 401:
                assert response.json()["error"]["type"] == "authentication_error"
                assert response.headers["www-authenticate"] == "Bearer"
        assert httpx.get(url, headers={"authorization": f"Basic {KEY}"}).status_code == 401
        assert httpx.get(f"{served.address}/health").status_code == 200
        assert httpx.get(f"{served.address}/metrics").status_code == 401
        large = httpx.post(f"{served.base_url}/completions", content=bytes(9_000_000))
        assert large.status_code == 401
        with pytest.raises(openai.AuthenticationError, match="wrong"):
            openai.OpenAI(base_url=served.base_url, api_key="sk-wrong", max_retries=0).models.list()
    assert len(lines) == 11 and not any(KEY in line or OTHER in line or "wrong" in line for line in lines)
    assert all("/v1/models 401 " in line for line in lines[:2])


def test_a_path_cannot_write_lines_into_the_log() -> None:
    lines: list[str] = []
    with serving(lines=lines) as served:
        httpx.get(f"{served.address}/a%0a2026-01-01 GET /forged 200")
    (line,) = lines
    assert "\n" not in line and "\\n" in line


def test_other_sites_are_allowed_by_name() -> None:
    site = "https://chat.example.com"
    with serving(origins=[site]) as served:
        url = f"{served.base_url}/models"
        headers = {"origin": site, "sec-fetch-site": "cross-site"}
        response = httpx.get(url, headers=headers)
        assert response.status_code == 200 and response.headers["access-control-allow-origin"] == site
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        before = httpx.options(f"{served.base_url}/chat/completions", headers=headers | asked)
        assert before.status_code == 204 and "authorization" in before.headers["access-control-allow-headers"]
        other = httpx.get(url, headers={"origin": "https://other.example"})
        assert other.status_code == 403 and "access-control-allow-origin" not in other.headers


def test_metrics_count_what_happened() -> None:
    with serving() as served:
        httpx.post(f"{served.base_url}/chat/completions", json=CHAT)
        httpx.post(f"{served.base_url}/chat/completions", json={})
        httpx.get(f"{served.address}/never/{'x' * 50}")
        text = httpx.get(f"{served.address}/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert text.endswith("\n") and all(float(value) >= 0 for value in values.values())
    assert values["bpe_tokens_generated_total"] == "14"
    assert values['bpe_responses_total{path="/v1/chat/completions",status="200"}'] == "1"
    assert values['bpe_responses_total{path="/v1/chat/completions",status="400"}'] == "1"
    assert values['bpe_responses_total{path="other",status="404"}'] == "1"
    assert values["bpe_first_token_seconds_count"] == values['bpe_request_seconds_bucket{le="+Inf"}'] == "1"
    typed = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    bases = {name.partition("{")[0] for name in values}
    assert all(any(name == base or name.startswith(f"{base}_") for base in typed) for name in bases)


def test_tokens_of_texts_and_dialogs() -> None:
    with serving() as served:

        def post(path: str, body: dict[str, Any]) -> Any:
            return httpx.post(f"{served.address}{path}", json=body).json()

        found = post("/tokenize", {"prompt": "é<|im_end|>", "return_token_strs": True})
        assert found["tokens"] == [*"é<|im_end|>".encode()] and found["count"] == 12 and found["max_model_len"] == 2048
        assert found["token_strs"][2] == "<"
        assert post("/detokenize", {"tokens": found["tokens"]}) == {"prompt": "é<|im_end|>"}
        dialog = post("/tokenize", {"messages": CHAT["messages"]})["tokens"]
        assert post("/detokenize", {"tokens": dialog})["prompt"].endswith("<|im_start|>assistant\n")
        assert post("/detokenize", {"tokens": [10**9]})["error"]["param"] == "tokens"
        assert post("/tokenize", {"text": "x"})["error"]["param"] == "prompt"


def test_tokens_of_the_prompt_that_were_in_memory_are_reported() -> None:
    with serving() as served, openai.OpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client:
        usages = [
            client.completions.create(model="tiny", prompt="a" * 50, max_tokens=1).usage.prompt_tokens_details
            for _ in range(2)
        ]
    assert [usage.cached_tokens for usage in usages if usage] == [0, 49]
