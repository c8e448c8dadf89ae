"""Ctrl-C stops a long call while it runs, and the tokenizer can be used afterwards."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bpe import StreamEncoder, Tokenizer, train_from_iterator
from support.exits import exit_of
from support.references import byte_tokenizer

MEGABYTES = 128  # a quarter of a second or more, and so several times the time between two checks for signals


@pytest.fixture(scope="module")
def long_text(corpus_texts: dict[str, str]) -> str:
    text = "\n".join(corpus_texts.values()).replace("<|", "< |")  # no special tokens
    return text * ((MEGABYTES << 20) // len(text.encode()))


@contextmanager
def second_signal_interrupts() -> Iterator[None]:
    """Send SIGINT until a call raises KeyboardInterrupt, which the second signal does.

    Signals that arrive during one call that never looks at them count as one. So the second is handled only if the
    call handled the first while it ran. The other thread runs only when the call has released the interpreter's lock.
    """
    handled = threading.Event()
    started = threading.Event()
    numbers = []

    def handle(number: int, frame: object) -> None:
        numbers.append(number)
        handled.set()
        if len(numbers) == 2:
            raise KeyboardInterrupt

    def send() -> None:
        started.wait()
        while len(numbers) < 2:
            handled.clear()
            os.kill(os.getpid(), signal.SIGINT)
            handled.wait(timeout=5)

    before = signal.signal(signal.SIGINT, handle)
    interval = sys.getswitchinterval()
    thread = threading.Thread(target=send)
    thread.start()
    sys.setswitchinterval(1000)
    try:
        started.set()
        yield
    finally:
        sys.setswitchinterval(interval)
        numbers.extend([0, 0])
        handled.set()
        thread.join()
        signal.signal(signal.SIGINT, before)


CALLS: dict[str, Callable[[Tokenizer, str], object]] = {
    "encode": lambda tokenizer, text: tokenizer.encode(text),
    "encode with a special token": lambda tokenizer, text: tokenizer.encode(text, allowed_special="all"),
    "encode_ordinary": lambda tokenizer, text: tokenizer.encode_ordinary(text),
    "encode_to_numpy": lambda tokenizer, text: tokenizer.encode_to_numpy(text, disallowed_special=()),
    "count": lambda tokenizer, text: tokenizer.count(text),
    "encode_flat": lambda tokenizer, text: tokenizer.encode_flat([text]),
    "encode_flat on one thread": lambda tokenizer, text: tokenizer.encode_flat([text], num_threads=1),
    "encode_batch": lambda tokenizer, text: tokenizer.encode_batch([text, text]),
    "one pretoken": lambda tokenizer, text: tokenizer.encode_ordinary("x" * len(text)),
    "one pretoken on two threads": lambda tokenizer, text: tokenizer.encode_flat(["x" * len(text)] * 2, num_threads=2),
    "a single piece": lambda tokenizer, text: tokenizer._encode_single_piece(text),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_long_call_is_interrupted_and_the_tokenizer_works_on(llama3: Tokenizer, long_text: str, name: str) -> None:
    with pytest.raises(KeyboardInterrupt), second_signal_interrupts():
        CALLS[name](llama3, long_text)
        pytest.fail("the call was not interrupted")
    assert llama3.encode("Hello world") == [9906, 1917]
    assert llama3.encode_flat(["Hello world"], num_threads=2)[0].tolist() == [9906, 1917]


def test_encoding_files_is_interrupted(llama3: Tokenizer, long_text: str, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text(long_text)
    with pytest.raises(KeyboardInterrupt), second_signal_interrupts():
        llama3.encode_files(path)
        pytest.fail("the call was not interrupted")
    assert llama3.encode("Hello world") == [9906, 1917]


def test_a_piece_of_a_stream_that_was_interrupted_counts_as_not_fed(llama3: Tokenizer, long_text: str) -> None:
    encoder = StreamEncoder(llama3)
    ids = encoder.feed("Hello wor")
    with pytest.raises(KeyboardInterrupt), second_signal_interrupts():
        encoder.feed(long_text)
        pytest.fail("the call was not interrupted")
    assert ids + encoder.feed("ld") + encoder.flush() == [9906, 1917]


def test_training_on_one_long_text_is_interrupted(long_text: str) -> None:
    with pytest.raises(KeyboardInterrupt), second_signal_interrupts():
        train_from_iterator([long_text], vocab_size=1000)
        pytest.fail("the call was not interrupted")


def test_a_pattern_without_a_scanner_is_interrupted(long_text: str) -> None:
    tokenizer = byte_tokenizer(r"\w+|\W")
    with pytest.raises(KeyboardInterrupt), second_signal_interrupts():
        tokenizer.encode(long_text)
        pytest.fail("the call was not interrupted")
    assert tokenizer.encode("ab") == [97, 98]


EXITS = """
import sys
from bpe import train_from_iterator
from support.references import byte_tokenizer
calls = {
    "encode": lambda: tokenizer.encode_flat([text] * 4, num_threads=2),
    "train": lambda: train_from_iterator([text], vocab_size=270, special_tokens=(), progress=lambda *at: None),
}
tokenizer, text = byte_tokenizer("llama3"), "hello world the cat sat " * 20_000
call = calls[sys.argv[1]]
"""


@pytest.mark.parametrize("call", ["encode", "train"])
def test_the_interpreter_exits_while_a_thread_works(call: str) -> None:
    assert exit_of(EXITS, call) == (0, "")
