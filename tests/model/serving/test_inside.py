"""The API of the page Inside: its answers are those of `explain`, bounded, and its refusals say why."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from bpe import Tokenizer
from bpe.playground.http import application
from model import ModelConfig, NativeModel, Transformer, load, save
from model.cpu import pack
from model.explain.steps import attention_maps, explain
from model.serving import inside as inside_module
from model.serving.inside import DEFAULT_TEXT, MOST_TOKENS, Inside, inside_routes
from support.native_models import native

TOKENIZER = Tokenizer(
    "bytes",
    pat_str="gpt2",
    mergeable_ranks={bytes([byte]): byte for byte in range(256)},
    special_tokens={"<|end|>": 256},
)
TEXT = "a fox "


@pytest.fixture
def config() -> ModelConfig:
    return ModelConfig(
        dim=32,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        hidden_dim=48,
        vocab_size=259,
        max_seq_len=512,
        tied_embeddings=True,
    )


def ask(inside: Inside, path: str, body: Any = None) -> httpx.Response:
    async def asked() -> httpx.Response:
        app = application(inside_routes(inside), body_limit=1 << 20)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            content = None if body is None else json.dumps(body)
            return await client.request("GET" if body is None else "POST", f"/api/inside{path}", content=content)

    return asyncio.run(asked())


def message(response: httpx.Response) -> str:
    found: str = response.json()["error"]["message"]
    return found


def test_a_text_has_its_tokens_and_what_each_layer_would_say(model: Transformer) -> None:
    found = ask(Inside(model, TOKENIZER), "/text", {"text": TEXT}).json()
    ids = [*TEXT.encode()]
    assert [token["id"] for token in found["tokens"]] == ids
    assert [token["label"] for token in found["tokens"]] == ["a", "·", "f", "o", "x", "·"]
    assert [token["bytes"] for token in found["tokens"]] == [f"{byte:02x}" for byte in ids]
    assert found["first"] == 0
    assert (len(found["lens"]), len(found["lens"][0]), len(found["lens"][0][0])) == (3, 6, 5)
    steps = list(explain(model, ids, n_vocab=TOKENIZER.n_vocab))
    (layers,) = (step for step in steps if step.picture == "layers")
    assert layers.guesses is not None
    for row, guesses in enumerate(layers.guesses):
        values, likeliest = guesses.topk(5)
        cell = found["lens"][row][-1]
        assert [found["vocabulary"][place]["id"] for place, _ in cell] == likeliest.tolist()
        assert [probability for _, probability in cell] == pytest.approx(values.tolist(), rel=1e-3)
    assert found["next"][-1][:5] == found["lens"][-1][-1]
    assert len(found["next"]) == 6
    assert len(found["sizes"][2]) == 6


def test_special_tokens_are_marked_and_rows_without_a_token_are_numbered(model: Transformer) -> None:
    from model.explain.summaries import shown_tokens

    assert shown_tokens(TOKENIZER, [256, 258]) == [
        {"id": 256, "label": "<|end|>", "bytes": b"<|end|>".hex(), "special": True},
        {"id": 258, "label": "<258>", "bytes": "", "special": False},
    ]
    found = ask(Inside(model, TOKENIZER), "/text", {"text": "<|end|>"}).json()
    assert all(not token["special"] for token in found["tokens"])  # text is text


def test_maps_of_all_heads_and_of_a_layer_are_those_of_explain(model: Transformer) -> None:
    inside = Inside(model, TOKENIZER)
    shares = attention_maps(model, [*TEXT.encode()], layers=[0, 1], heads=range(4))
    content = ask(inside, "/maps", {"text": TEXT}).content
    assert struct.unpack_from("<5I", content) == (2, 4, 6, 0, 1)
    coarse = np.frombuffer(content, np.uint8, offset=20).reshape(2, 4, 6, 6)
    assert np.abs((coarse / 255.0) ** 2 - shares.numpy()).max() < 1 / 255
    content = ask(inside, "/layer", {"text": TEXT, "layer": 1}).content
    assert struct.unpack_from("<2I", content) == (4, 6)
    assert np.array_equal(np.frombuffer(content, "<f4", offset=8).reshape(4, 6, 6), shares[1].numpy())


def test_steps_are_those_of_explain_and_each_row_has_its_numbers(model: Transformer) -> None:
    inside = Inside(model, TOKENIZER)
    steps = list(explain(model, [*TEXT.encode()], layer=1, head=3, n_vocab=TOKENIZER.n_vocab))
    found = ask(inside, "/steps", {"text": TEXT, "layer": 1, "head": 3}).json()["steps"]
    assert [step["title"] for step in found] == [step.title for step in steps]
    for number, (shown, step) in enumerate(zip(found, steps, strict=True)):
        assert shown["shape"] == list(step.tensor.shape)
        if step.picture == "ids":
            assert "rows" not in shown
            continue
        assert len(shown["rows"]) == len(step.tensor)
        assert all(len(row) <= 64 for row in shown["rows"])
        body = {"text": TEXT, "layer": 1, "head": 3, "step": number, "row": len(step.tensor) - 1}
        numbers = np.frombuffer(ask(inside, "/numbers", body).content, "<f4")
        assert np.array_equal(numbers, step.tensor[-1].float().numpy())
        finite = numbers[np.isfinite(numbers)]
        largest = max(abs(number) for number in shown["rows"][-1] if number is not None)
        assert largest == pytest.approx(np.abs(finite).max(), rel=1e-3)
    masked = next(step for step in found if step["title"] == "scores, masked")
    assert masked["rows"][0][1:] == [None] * 5


def test_a_row_of_many_numbers_shows_the_farthest_from_zero_in_each_part() -> None:
    from model.explain.summaries import binned

    numbers = torch.zeros(1, 130)
    numbers[0, [0, 3, 4, 129]] = torch.tensor([1.0, 2.0, -3.0, -0.5])
    shown = binned(numbers)
    assert shown.shape == (1, 64)
    assert shown[0, [0, 1, -1]].tolist() == [1.0, -3.0, -0.5]
    assert shown.count_nonzero() == 3


def test_a_model_that_serves_is_not_touched(model: Transformer) -> None:
    inside = Inside(model, TOKENIZER)
    assert inside.status()["bytes"] == 0
    before = [layer.attention.attend for layer in model.layers]
    assert ask(inside, "/load", {}).json()["state"] == "ready"
    twin = inside._model
    assert twin is not None and twin is not model
    shared = dict(twin.named_parameters())
    assert all(shared[name] is weight for name, weight in model.named_parameters())
    assert twin.layers[0] is not model.layers[0]
    ask(inside, "/layer", {"text": TEXT, "layer": 0})
    assert [layer.attention.attend for layer in model.layers] == before


@pytest.fixture
def saved(model: Transformer, tmp_path: Path) -> Path:
    TOKENIZER.save(tmp_path / "tokenizer.json")
    save(tmp_path / "saved", model, tmp_path / "tokenizer.json")
    return tmp_path / "saved"


@pytest.mark.parametrize("kind", ["native", "packed"])
def test_a_model_that_cannot_be_looked_at_is_loaded_again_when_needed(
    saved: Path, model: Transformer, kind: str
) -> None:
    served: Transformer | NativeModel = native(model)
    if kind == "packed":
        served = load(saved)[0]
        pack(served)
        if hasattr(served.layers[0].attention, "wq"):
            pytest.skip("torch does not pack weights here")
    inside = Inside(served, TOKENIZER, saved)
    status = ask(inside, "").json()
    assert status["state"] == "unloaded"
    assert status["bytes"] == 4 * model.config.n_parameters
    assert status["text"] == DEFAULT_TEXT
    assert [status[name] for name in ("layers", "heads", "dim", "most_tokens")] == [2, 4, 32, MOST_TOKENS]
    expected = ask(Inside(model, TOKENIZER), "/steps", {"text": TEXT, "layer": 0, "head": 0}).json()
    assert ask(inside, "/steps", {"text": TEXT, "layer": 0, "head": 0}).json() == expected
    assert ask(inside, "").json()["state"] == "ready"


def test_the_page_says_why_it_cannot_compute(saved: Path, model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    served = native(model)
    without_path = ask(Inside(served, TOKENIZER), "/text", {"text": TEXT})
    assert without_path.status_code == 503
    assert "no checkpoint" in message(without_path)
    with monkeypatch.context() as patch:
        patch.setattr(inside_module, "is_installed", lambda: False)
        status = ask(Inside(served, TOKENIZER, saved), "").json()
        assert status["state"] == "impossible"
        assert "PyTorch, which is not installed on the server; run: pip install" in status["why"]
    with monkeypatch.context() as patch:
        patch.setattr(inside_module, "available_memory", lambda: 1000)
        answer = ask(Inside(served, TOKENIZER, saved), "/load", {})
        assert answer.status_code == 503
        assert "1 MB, but the server has 1 MB of memory left" in message(answer)
    (saved / "model.safetensors").write_bytes(b"damaged")
    broken = Inside(served, TOKENIZER, saved)
    assert "cannot be loaded for this page" in message(ask(broken, "/load", {}))
    assert ask(broken, "").json()["state"] == "impossible"


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/text", {}, "text: missing"),
        ("/text", {"text": 3}, "text: missing, or not a string"),
        ("/text", {"text": "x", "layer": 0}, "layer: not a field of this request; its fields: text"),
        ("/text", {"text": ""}, "text: it is empty"),
        ("/text", {"text": "x" * 129}, "text: it has 129 tokens; this page shows at most 128"),
        ("/text", {"text": "x" * 10_000}, "text: it has 10,000 characters; this page shows at most 8,192"),
        ("/layer", {"text": "x", "layer": 2}, "layer 2: the model has 2"),
        ("/layer", {"text": "x", "layer": True}, "layer: missing, or not a whole number"),
        ("/steps", {"text": "x", "layer": 0, "head": -1}, "head: missing, or not a whole number"),
        ("/steps", {"text": "x", "layer": 0, "head": 4}, "head 4: the model has 4"),
        ("/numbers", {"text": "x", "layer": 0, "head": 0, "step": 99, "row": 0}, "step: there are 2"),
        ("/numbers", {"text": "x", "layer": 0, "head": 0, "step": 1, "row": 1}, "row: embeddings has no row 1"),
        ("/numbers", {"text": "x", "layer": 0, "head": 0, "step": 0, "row": 0}, "row: tokens has no row 0 of numbers"),
        ("/load", [], "not a JSON object"),
    ],
)
def test_wrong_requests_are_refused(model: Transformer, path: str, body: Any, words: str) -> None:
    answer = ask(Inside(model, TOKENIZER), path, body)
    assert answer.status_code == 400
    assert words in message(answer)


def test_maps_that_do_not_fit_are_refused(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.explain.summaries.MOST_MAP_NUMBERS", 8 * 25)
    answer = ask(Inside(model, TOKENIZER), "/maps", {"text": TEXT})
    assert answer.status_code == 400
    assert "6 tokens; the maps of all 8 heads fit up to 5" in message(answer)


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "\u202eabc", "e" + "\u0301" * 40, "\x00\x1b[31m", "\ud800"]
)
def test_any_text_is_read(model: Transformer, text: str) -> None:
    answer = ask(Inside(model, TOKENIZER), "/text", {"text": text})
    assert answer.status_code == 200
    labels = "".join(token["label"] for token in answer.json()["tokens"])
    assert all(character.isprintable() for character in labels)


def test_results_are_kept_and_their_number_is_bounded(model: Transformer) -> None:
    inside = Inside(model, TOKENIZER)
    calls = []

    def compute(value: int) -> Callable[[Transformer], int]:
        return lambda model: calls.append(value) or value

    async def run() -> None:
        assert await inside.run((0,), compute(0)) == 0
        assert await inside.run((0,), compute(0)) == 0
        for value in range(1, 60):
            assert await inside.run((value,), compute(value)) == value
        assert await inside.run((0,), compute(0)) == 0

    asyncio.run(run())
    assert calls == [*range(60), 0]
    assert len(inside._kept) < 60


def test_others_are_answered_while_the_page_computes_and_too_many_requests_are_refused(model: Transformer) -> None:
    inside = Inside(model, TOKENIZER)
    going, release = threading.Event(), threading.Event()

    def slow(model: Transformer) -> str:
        going.set()
        assert release.wait(20)
        return "done"

    async def run() -> tuple[list[Any], Any]:
        waiting = [asyncio.create_task(inside.run((number,), slow)) for number in range(16)]
        while not going.is_set():
            await asyncio.sleep(0.001)
        try:
            await inside.run(("more",), slow)
        except Exception as error:
            refused: Any = error
        release.set()
        return await asyncio.gather(*waiting), refused

    answers, refused = asyncio.run(run())
    assert answers == ["done"] * 16
    assert refused.status_code == 429
    assert refused.headers == {"retry-after": "1"}
