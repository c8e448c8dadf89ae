"""The scheduler with a toy model: each text is what it is alone, in whatever order requests come, end and fail."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bpe.errors import InputError
from model import Sampling
from model.generation.sampling import Penalties, log_softmax, sample, top
from model.generation.sequence_parts import Part
from model.serving.scheduler import CHUNK, Handle, Scheduler
from model.serving.texts import Busy, Chosen, TextRequest
from tests.support.toy_sequences import ToySequences, logits_of, toy_model

GREEDY = Sampling(temperature=0)


class Reader:
    """What a request was given."""

    def __init__(self) -> None:
        self.chosen: list[Chosen] = []
        self.deliveries = 0
        self.done = threading.Event()
        self.texts = 1

    def __call__(self, chosen: list[Chosen]) -> None:
        assert chosen
        self.deliveries += 1
        self.chosen += chosen
        if sum(token.finish is not None for token in self.chosen) == self.texts:
            self.done.set()

    def wait(self) -> list[Chosen]:
        assert self.done.wait(20), self.chosen
        return self.chosen

    def ids(self, index: int = 0) -> list[int | None]:
        return [token.id for token in self.chosen if token.index == index]


def submit(scheduler: Scheduler, request: TextRequest) -> tuple[Reader, Handle]:
    reader = Reader()
    reader.texts = request.n
    return reader, scheduler.submit(request, reader)


@contextmanager
def running(sequences: ToySequences, context: int = 64, start: bool = True, **settings: Any) -> Iterator[Scheduler]:
    scheduler = Scheduler(toy_model(context, sequences.vocabulary), sequences=sequences, **settings)
    if start:
        scheduler.start()
    try:
        yield scheduler
    finally:
        if sequences.gate is not None:
            sequences.gate.release(10_000)
        scheduler.stop()


def expected(request: TextRequest, index: int = 0, context: int = 64, vocabulary: int = 24) -> list[Chosen]:
    """Return a text by the definition: the logits of the whole text for each token."""
    seed = request.sampling.seed
    draws = random.Random() if seed is None else random.Random((seed + index) % 2**64)
    penalties = Penalties(request.sampling, [[*request.ids]], vocabulary)
    text, tokens = [*request.ids], []
    while True:
        logits = logits_of(text, vocabulary)
        (id,) = sample(penalties.apply(logits[None]), request.sampling, [draws.random()])
        penalties.update([id])
        text.append(id)
        full = len(tokens) + 1 == request.max_tokens or len(text) == context
        finish: Any = "end" if id in request.end_ids else "length" if full else None
        normalised = log_softmax(logits)
        likeliest = [] if request.logprobs is None else top(normalised, request.logprobs)
        logprob = None if request.logprobs is None else float(normalised[id])
        tokens.append(Chosen(index, id, logprob, likeliest, finish))
        if finish:
            return tokens


def random_request(choose: random.Random, context: int = 64) -> TextRequest:
    shared = [[1, 2, 3, 4] * 5, [5] * 30, [7], []]
    ids = choose.choice(shared) + choose.choices(range(24), k=choose.randint(1, 25))
    return TextRequest(
        ids[: context - 1],
        max_tokens=choose.choice([1, 2, 5, 12, 1000]),
        sampling=Sampling(
            temperature=choose.choice([0, 0, 0.7, 1.5]),
            top_p=choose.choice([None, 0.9]),
            repetition_penalty=choose.choice([1.0, 1.3]),
            frequency_penalty=choose.choice([0.0, 0.4]),
            presence_penalty=choose.choice([0.0, 0.5]),
            logit_bias=choose.choice([{}, {3: 2.0}]),
            seed=choose.randrange(100),
        ),
        end_ids=frozenset(choose.sample(range(24), choose.choice([0, 2]))),
        logprobs=choose.choice([None, 0, 3]),
        n=choose.choice([1, 1, 1, 3]),
    )


@pytest.mark.parametrize("parallel", [1, 3, 16])
def test_each_text_is_what_it_is_alone(parallel: int) -> None:
    choose = random.Random(parallel)
    sequences = ToySequences(2 * parallel)
    requests = [random_request(choose) for _ in range(60)]
    with running(sequences, parallel=parallel, waiting=1000) as scheduler:
        readers = [submit(scheduler, request)[0] for request in requests]
        for request, reader in zip(requests, readers, strict=True):
            reader.wait()
            for index in range(request.n):
                assert [token for token in reader.chosen if token.index == index] == expected(request, index)
        statistics = scheduler.statistics()
    texts = sum(request.n for request in requests)
    assert (statistics.running, statistics.waiting, statistics.requests) == (0, 0, 60)
    assert statistics.ended + statistics.cut == texts
    assert statistics.generated_tokens == sum(len(reader.chosen) for reader in readers)
    assert statistics.read_tokens + statistics.reused_tokens == statistics.prompt_tokens
    assert statistics.prompt_tokens == sum(request.n * len(request.ids) for request in requests)
    assert statistics.reused_tokens > 0


@pytest.mark.parametrize("memory", [640, 900, 2000])
def test_memory_stays_within_its_limit(memory: int) -> None:
    choose = random.Random(memory)
    sequences = ToySequences(8)
    requests = [random_request(choose) for _ in range(40)]
    with running(sequences, parallel=4, waiting=1000, memory=memory) as scheduler:
        readers = [submit(scheduler, request)[0] for request in requests]
        for request, reader in zip(requests, readers, strict=True):
            reader.wait()
            assert reader.ids() == [token.id for token in expected(request)]
    assert sequences.most_bytes <= memory


def test_texts_start_in_their_order_and_a_large_one_is_not_overtaken() -> None:
    sequences = ToySequences(8)
    large, small = TextRequest([1] * 10, 54, GREEDY), TextRequest([2] * 10, 5, GREEDY)
    with running(sequences, start=False, parallel=4, memory=700) as scheduler:
        readers = [submit(scheduler, request)[0] for request in (small, large, small, small)]
        scheduler.start()
        for reader in readers:
            reader.wait()
    # The second small text has to wait for the memory of the large one, and so does what comes after it.
    assert [part.ids[0] for call in sequences.calls for part in call if len(part.ids) > 1] == [2, 1, 2, 2]


# Prompts


def test_long_prompts_are_read_in_chunks_beside_running_texts() -> None:
    sequences = ToySequences(4)
    long = TextRequest([1, 2, 3] * 300, 2, GREEDY)
    with running(sequences, context=2000, start=False, parallel=2) as scheduler:
        short = submit(scheduler, TextRequest([5], 30, GREEDY))[0]
        reader = submit(scheduler, long)[0]
        scheduler.start()
        reader.wait(), short.wait()
    reading = [call for call in sequences.calls if any(len(part.ids) > 1 for part in call)]
    assert [sum(len(part.ids) for part in call if len(part.ids) > 1) for call in reading] == [255, 256, 256, 133]
    assert all(sum(len(part.ids) for part in call) <= CHUNK + 2 for call in reading)
    assert all(len(call) == 2 for call in reading)  # the running text gets a token in each
    assert reader.ids() == [token.id for token in expected(long, context=2000)]


@pytest.mark.parametrize("grain", [100, 1000])
def test_prompts_are_divided_where_the_model_allows_it(grain: int) -> None:
    sequences = ToySequences(4)
    sequences.grain = grain
    requests = [TextRequest([*range(24)] * size, 3, GREEDY) for size in (20, 21)]
    with running(sequences, context=2000, parallel=2) as scheduler:
        readers = [submit(scheduler, request)[0] for request in requests]
        for request, reader in zip(requests, readers, strict=True):
            reader.wait()
            assert reader.ids() == [token.id for token in expected(request, context=2000)]
        reused = scheduler.statistics().reused_tokens
    sizes = [len(part.ids) for call in sequences.calls for part in call if len(part.ids) > 1]
    assert (reused, sizes) == {100: (400, [200, 200, 80, 104]), 1000: (0, [480, 504])}[grain]


def test_the_texts_of_a_request_share_one_reading_of_the_prompt() -> None:
    sequences = ToySequences(8)
    request = TextRequest([1, 2, 3], 4, Sampling(seed=3), n=6)
    with running(sequences, parallel=4) as scheduler:
        reader = submit(scheduler, request)[0]
        reader.wait()
        statistics = scheduler.statistics()
    assert (statistics.read_tokens, statistics.reused_tokens) == (3, 15)
    assert [part.ids for call in sequences.calls for part in call].count([1, 2, 3]) == 1
    for index in range(6):
        assert reader.ids(index) == [token.id for token in expected(request, index)]


def test_a_conversation_reads_only_its_new_turn() -> None:
    sequences = ToySequences(2)
    with running(sequences, parallel=1) as scheduler:
        first = TextRequest([1, 2, 3], 5, GREEDY)
        reader = submit(scheduler, first)[0]
        answer = [token.id for token in reader.wait()]
        second = TextRequest([1, 2, 3, *(id for id in answer if id is not None), 9, 9], 3, GREEDY)
        again, handle = submit(scheduler, second)
        again.wait()
        statistics = scheduler.statistics()
    assert again.ids() == [token.id for token in expected(second)]
    assert statistics.reused_tokens == handle.reused_tokens == 3 + 4  # the last token of the answer was never read


def test_a_prompt_that_another_text_is_reading_is_read_once() -> None:
    sequences = ToySequences(8)
    system = [*range(24)] * 30
    requests = [TextRequest([*system, end], 3, GREEDY) for end in range(3)]
    with running(sequences, context=1000, start=False, parallel=4) as scheduler:
        readers = [submit(scheduler, request)[0] for request in requests]
        scheduler.start()
        for request, reader in zip(requests, readers, strict=True):
            reader.wait()
            assert reader.ids() == [token.id for token in expected(request, context=1000)]
        assert scheduler.statistics().read_tokens == len(system) + 3


# Ends


def test_a_cancelled_request_ends_within_a_step_and_its_memory_serves_others() -> None:
    sequences = ToySequences(2)
    sequences.gate = threading.Semaphore(3)
    with running(sequences, parallel=1) as scheduler:
        reader, handle = submit(scheduler, TextRequest([1], 60, GREEDY, n=2))
        other, _ = submit(scheduler, TextRequest([1, 2], 3, GREEDY))
        while len(reader.chosen) < 3:
            reader.done.wait(0.001)
        handle.cancel()
        sequences.gate.release(100)
        other.wait()
        assert len(reader.chosen) == 3
        assert scheduler.statistics().cancelled == 2
    assert len(sequences.calls) <= 3 + 1 + 3


def test_one_text_of_a_request_can_be_cancelled() -> None:
    sequences = ToySequences(8)
    request = TextRequest([1, 2], 30, Sampling(seed=1), n=3)
    with running(sequences, start=False, parallel=2) as scheduler:
        reader, handle = submit(scheduler, request)
        reader.texts = 1
        handle.cancel(0)
        handle.cancel(2)
        scheduler.start()
        reader.wait()
        assert scheduler.statistics().cancelled == 2
    assert reader.chosen == expected(request, 1)


def test_a_reader_that_raises_loses_only_its_own_request(caplog: pytest.LogCaptureFixture) -> None:
    def broken(chosen: list[Chosen]) -> None:
        raise ConnectionError("gone")

    with running(ToySequences(4), parallel=2) as scheduler:
        scheduler.submit(TextRequest([1], 60, GREEDY), broken)
        reader, _ = submit(scheduler, TextRequest([2], 20, GREEDY))
        assert len(reader.wait()) == 20
        assert scheduler.statistics().cancelled == 1
    assert "gone" in caplog.text


class Digits:
    """A grammar of three tokens 1 to 9, which then fails or ends."""

    def __init__(self, dead_end: bool = False) -> None:
        self.dead_end = dead_end

    def start(self) -> Digits:
        self.count = 0
        return self

    @property
    def finished(self) -> bool:
        return self.count == 3 and not self.dead_end

    def restrict(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        allowed = np.full_like(logits, -np.inf)
        if self.count < 3:
            allowed[1:10] = logits[1:10]
        return allowed

    def accept(self, id: int) -> None:
        self.count += 1


def test_a_grammar_restricts_and_ends_a_text() -> None:
    with running(ToySequences(4), parallel=2) as scheduler:
        reader, _ = submit(scheduler, TextRequest([1], 60, Sampling(seed=1), grammar=Digits(), logprobs=0))
        chosen = reader.wait()
    assert [token.finish for token in chosen] == [None, None, "end"]
    assert all(token.id is not None and 1 <= token.id <= 9 for token in chosen)
    assert chosen[0].logprob == pytest.approx(float(log_softmax(logits_of([1]))[chosen[0].id or 0]))


def test_an_error_of_one_text_ends_only_that_text() -> None:
    with running(ToySequences(4), parallel=2) as scheduler:
        dead, _ = submit(scheduler, TextRequest([1], 60, GREEDY, grammar=Digits(dead_end=True)))
        banned, _ = submit(scheduler, TextRequest([1], 60, Sampling(logit_bias=dict.fromkeys(range(24), -np.inf))))
        other, _ = submit(scheduler, TextRequest([2], 20, GREEDY))
        for reader, count in ((dead, 4), (banned, 1)):
            last = reader.wait()[-1]
            assert (len(reader.chosen), last.finish, last.id) == (count, "error", None)
            assert last.is_callers_fault and last.error and "logit" in last.error
        assert len(other.wait()) == 20


def test_a_failed_call_ends_the_texts_that_fail_alone(caplog: pytest.LogCaptureFixture) -> None:
    def fails(parts: Sequence[Part]) -> Exception | None:
        return MemoryError("no memory for 3") if any(3 in part.ids for part in parts) else None

    sequences = ToySequences(6)
    sequences.fails = fails
    ban = Sampling(temperature=0, logit_bias={3: -np.inf})
    with running(sequences, start=False, parallel=3) as scheduler:
        requests = [TextRequest(ids, 20, ban) for ids in ([1, 2], [2, 3], [4, 5])]
        readers = [submit(scheduler, request)[0] for request in requests]
        scheduler.start()
        for request, reader in zip(requests, readers, strict=True):
            chosen = reader.wait()
            if 3 in request.ids:
                assert [(token.finish, token.error) for token in chosen] == [("error", "no memory for 3")]
                assert not chosen[0].is_callers_fault
            else:
                assert chosen == expected(request)
        assert scheduler.statistics().failed == 1
    assert "no memory for 3" in caplog.text


def test_a_text_that_cannot_be_started_fails_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(source: int, target: int, length: int) -> None:
        raise MemoryError("no memory for a copy")

    sequences = ToySequences(6)
    monkeypatch.setattr(sequences, "copy", copy)
    with running(sequences, start=False, parallel=3) as scheduler:
        requests = [TextRequest([1, 2, 3, last], 5, GREEDY, n=n) for last, n in ((4, 2), (5, 1))]
        readers = [submit(scheduler, request)[0] for request in requests]
        scheduler.start()
        readers[0].wait()
        readers[1].wait()
    assert readers[0].ids(0) == [token.id for token in expected(requests[0])]
    assert [token.error for token in readers[0].chosen if token.index == 1] == ["no memory for a copy"]
    assert readers[1].ids() == [token.id for token in expected(requests[1])] or readers[1].chosen[0].error
    assert "could not be started" in caplog.text


def test_stop_finishes_what_was_accepted_and_refuses_more() -> None:
    with running(ToySequences(2), start=False, parallel=1) as scheduler:
        readers = [submit(scheduler, TextRequest([id], 5, GREEDY))[0] for id in (1, 2)]
        scheduler.start()
        scheduler.stop(20)
        assert [len(reader.chosen) for reader in readers] == [5, 5]
        with pytest.raises(Busy, match="shutting down") as caught:
            submit(scheduler, TextRequest([1], 5))
        assert caught.value.is_stopping


def test_stop_cuts_texts_at_the_deadline() -> None:
    sequences = ToySequences(2)
    sequences.gate = threading.Semaphore(3)
    with running(sequences, parallel=1) as scheduler:
        begun, waiting = (submit(scheduler, TextRequest([id], 50, GREEDY))[0] for id in (1, 2))
        while len(begun.chosen) < 3:
            begun.done.wait(0.001)
        threading.Timer(0.01, sequences.gate.release).start()
        scheduler.stop(0)
        assert begun.wait()[-1].finish == "length" and begun.chosen[-1].id is None
        assert waiting.wait()[0].finish == "error"


def test_freed_memory_is_returned_while_no_text_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    returned = threading.Event()
    monkeypatch.setattr("model.serving.scheduler._IDLE", 0)
    monkeypatch.setattr("model.serving.scheduler.return_freed_memory", returned.set)
    with running(ToySequences(2), parallel=1) as scheduler:
        submit(scheduler, TextRequest([1], 5, GREEDY))[0].wait()
        assert returned.wait(20)
        submit(scheduler, TextRequest([2], 5, GREEDY))[0].wait()


# Refusals


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (TextRequest([], 5), "prompt is empty"),
        (TextRequest([1, 24], 5), "ids from 1 to 24; ids must be 0 to 23"),
        (TextRequest([-1], 5), "ids from -1"),
        (TextRequest([1] * 64, 5), "64 tokens, but the context holds 64"),
        (TextRequest([1], 0), "max_tokens is 0"),
        (TextRequest([1], 5, n=0), "n is 0"),
        (TextRequest([1], 5, n=9), "n is 9, but at most 2 texts run and 3 wait"),
        (TextRequest([1], 5, logprobs=25), "logprobs is 25"),
        (TextRequest([1], 5, Sampling(logit_bias={24: 1.0})), "logit_bias has the id 24"),
        (TextRequest([1] * 30, 31), "need 610 bytes of keys and values, but the server has 600; lower max_tokens"),
    ],
)
def test_a_request_that_can_never_be_served_is_refused(request_: TextRequest, words: str) -> None:
    with running(ToySequences(4), parallel=2, waiting=3, memory=600) as scheduler:
        with pytest.raises(InputError, match=words):
            submit(scheduler, request_)
        assert len(submit(scheduler, TextRequest([1], 5))[0].wait()) == 5


def test_requests_beyond_the_queue_are_refused_with_an_estimate() -> None:
    sequences = ToySequences(4)
    sequences.gate = threading.Semaphore(0)
    with running(sequences, parallel=2, waiting=2) as scheduler:
        readers = [submit(scheduler, TextRequest([id], 5, GREEDY))[0] for id in range(4)]
        with pytest.raises(Busy, match="no more than 2 may") as caught:
            submit(scheduler, TextRequest([1], 5))
        assert caught.value.retry_after >= 1
        assert scheduler.statistics().refused == 1
        sequences.gate.release(1000)
        for reader in readers:
            reader.wait()
        submit(scheduler, TextRequest([1], 5))[0].wait()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"parallel": 0}, "parallel is 0"),
        ({"waiting": -1}, "waiting is -1"),
        ({"context": 65}, "context is 65; it must be 2 to 64"),
        ({"n_vocab": 25}, "n_vocab is 25"),
        ({"memory": 19}, "memory is 19 bytes, but keys and values of two tokens take 20"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Scheduler(toy_model(), sequences=ToySequences(4), **settings)


def test_requests_from_many_threads_at_once() -> None:
    choose = random.Random(1)
    requests = [random_request(choose) for _ in range(80)]
    readers: dict[int, Reader] = {}
    sequences = ToySequences(12)

    def client(scheduler: Scheduler, numbers: range) -> Callable[[], None]:
        def work() -> None:
            for number in numbers:
                readers[number], handle = submit(scheduler, requests[number])
                if number % 5 == 0:
                    handle.cancel()
                else:
                    readers[number].wait()

        return work

    with running(sequences, parallel=6, waiting=1000, memory=2500) as scheduler:
        threads = [threading.Thread(target=client(scheduler, range(k, 80, 8))) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        scheduler.stop(20)
    for number, reader in readers.items():
        if number % 5:
            assert reader.ids() == [token.id for token in expected(requests[number])]
    assert sequences.most_bytes <= 2500
