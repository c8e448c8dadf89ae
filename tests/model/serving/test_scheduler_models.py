"""The scheduler with models: a text is the same alone and among others, also where prefixes are shared."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from model import ModelConfig, Sampling, Transformer, load
from model.serving.scheduler import Scheduler
from model.serving.texts import Chosen, TextRequest
from support.native_models import native, quantized

MakeModel = Callable[[ModelConfig], Transformer]
TINY = ModelConfig(dim=64, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=96, vocab_size=200, max_seq_len=480)
KINDS: dict[str, Callable[[Transformer], Any]] = {
    "native in float32": native,
    "quantized": lambda model: quantized(model, "Q8_0"),
    "torch in float32": lambda model: model,
    "torch in bfloat16": lambda model: model.to(torch.bfloat16),
}
Answer = dict[int, list[Chosen]]


def answers(scheduler: Scheduler, requests: Sequence[TextRequest], at_once: bool) -> list[Answer]:
    """Return the tokens of the texts of each request; all requests are submitted before any is read, or one by one."""
    found: list[Answer] = [{} for _ in requests]

    def submit(request: TextRequest, answer: Answer) -> threading.Event:
        done, left = threading.Event(), [request.n]

        def deliver(chosen: list[Chosen]) -> None:
            for token in chosen:
                answer.setdefault(token.index, []).append(token)
                left[0] -= token.finish is not None
            if not left[0]:
                done.set()

        scheduler.submit(request, deliver)
        if not at_once:
            assert done.wait(300)
        return done

    if not at_once:
        scheduler.start()
    waits = [submit(request, answer) for request, answer in zip(requests, found, strict=True)]
    if at_once:
        scheduler.start()
    assert all(done.wait(300) for done in waits)
    scheduler.stop()
    return found


def mixed_requests(choose: random.Random, vocabulary: int, count: int, longest: int) -> list[TextRequest]:
    shared = [choose.choices(range(vocabulary), k=size) for size in (0, 20, longest // 2, longest)]
    requests = []
    for number in range(count):
        ids = choose.choice(shared) + choose.choices(range(vocabulary), k=choose.choice([1, 3, 40]))
        temperature = 0.0 if number % 3 else 0.9
        requests.append(
            TextRequest(
                ids,
                choose.randint(4, 12),
                Sampling(temperature=temperature, seed=number),
                logprobs=2,
                n=2 if number % 5 == 3 else 1,
            )
        )
    return requests


def ids_of(found: list[Answer]) -> list[dict[int, list[int | None]]]:
    return [{index: [token.id for token in tokens] for index, tokens in answer.items()} for answer in found]


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_is_the_same_alone_and_among_others(kind: str, make_model: MakeModel) -> None:
    model = KINDS[kind](make_model(TINY))
    requests = mixed_requests(random.Random(2), TINY.vocab_size, 18, 300)
    alone = [answers(Scheduler(model, parallel=16), [request], at_once=False)[0] for request in requests]
    together = Scheduler(model, parallel=16)
    found = answers(together, requests, at_once=True)
    assert together.statistics().reused_tokens > 300
    # Once more, one after the other, with what the texts before have left in little memory.
    again = Scheduler(model, parallel=16, memory=together.memory // 8)
    found_again = answers(again, requests, at_once=False)
    statistics = again.statistics()
    assert statistics.reused_tokens > 300
    assert 0 < statistics.kv_bytes <= statistics.kv_limit == together.memory // 8
    assert statistics.kv_bytes == again._sequences.bytes
    if kind == "native in float32":  # whose logits are the same up to rounding
        assert ids_of(found) == ids_of(alone) == ids_of(found_again)
    else:
        assert found == alone == found_again


@pytest.mark.parametrize("kind", ["quantized", "torch in bfloat16"])
def test_the_answer_in_a_conversation_is_that_of_a_new_text(kind: str, make_model: MakeModel) -> None:
    model = KINDS[kind](make_model(TINY))
    choose = random.Random(3)
    dialog, requests = choose.choices(range(200), k=270), []
    scheduler = Scheduler(model, parallel=2)
    scheduler.start()
    found = []
    for _ in range(3):
        requests.append(TextRequest([*dialog], 10, Sampling(temperature=0), logprobs=0))
        done = threading.Event()
        tokens: list[Chosen] = []

        def deliver(chosen: list[Chosen], tokens: list[Chosen] = tokens, done: threading.Event = done) -> None:
            tokens += chosen
            if chosen[-1].finish:
                done.set()

        scheduler.submit(requests[-1], deliver)
        assert done.wait(60)
        found.append({0: tokens})
        dialog += [token.id for token in tokens if token.id is not None] + choose.choices(range(200), k=30)
    assert scheduler.statistics().reused_tokens >= 2 * 256
    scheduler.stop()
    for request, answer in zip(requests, found, strict=True):
        assert answers(Scheduler(model, parallel=2), [request], at_once=True) == [answer]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_texts_of_smollm2_are_the_same_alone_and_among_others(backend: str) -> None:
    if backend == "native":
        model, tokenizer = load("smollm2", backend="native", quantize="q4_1")
    else:
        model, tokenizer = load("smollm2", dtype=torch.bfloat16)
    requests = mixed_requests(random.Random(4), tokenizer.n_vocab, 16 if backend == "native" else 6, 140)
    alone = [answers(Scheduler(model, parallel=16, context=512), [request], at_once=False)[0] for request in requests]
    assert answers(Scheduler(model, parallel=16, context=512), requests, at_once=True) == alone
