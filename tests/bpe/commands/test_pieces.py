"""Inputs in pieces: the same ids as in one call, memory that does not grow, and errors of the threads."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bpe import StreamEncoder, Tokenizer, _core
from bpe.commands.inputs import Input
from bpe.commands.pieces import ahead, encoded
from support.command_line import ROOT


@pytest.mark.parametrize("special", [False, True])
def test_a_file_of_many_pieces_gets_the_ids_of_one_call(my_json: Path, tmp_path: Path, special: bool) -> None:
    path = tmp_path / "text"
    path.write_bytes(((ROOT / "corpora" / "unicode.txt").read_bytes() + b"<|end_of_text|>\xff\0") * 400)
    tokenizer = Tokenizer.from_file(my_json)
    allowed = "all" if special else set[str]()
    text = Input(str(path))
    ids = np.frombuffer(b"".join(encoded(tokenizer, text, "encoding", special)), "<u4")
    whole = tokenizer.encode(path.read_bytes(), allowed_special=allowed, disallowed_special=())  # type: ignore[arg-type]
    assert path.stat().st_size > 2 << 20
    assert ids.tolist() == whole
    assert text.read == text.total == path.stat().st_size


def test_the_memory_of_encode_and_count_does_not_grow_with_the_text(my_json: Path, tmp_path: Path) -> None:
    peak = "import resource,subprocess,sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True);"
    peak += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"

    def memory(command: str, megabytes: int) -> int:
        path = tmp_path / f"{megabytes}"
        path.write_bytes(b"The quick brown fox jumps over the lazy dog.\n" * (megabytes * 22_222))
        arguments = [sys.executable, "-m", "bpe", command, "-t", str(my_json), str(path)]
        finished = subprocess.run([sys.executable, "-c", peak, *arguments], capture_output=True, check=True)
        return int(finished.stdout)

    if sys.platform != "linux":
        pytest.skip("the unit of ru_maxrss differs")
    for command in ("encode", "count"):
        assert memory(command, 60) - memory(command, 8) < 25_000  # kB; the whole text and its ids would take 150 MB


def test_a_pipe_is_read_as_it_comes(my_json: Path) -> None:
    command = [sys.executable, "-m", "bpe", "encode", "-t", str(my_json), "--format", "u32"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"one two three ")
        process.stdin.flush()
        time.sleep(0.1)
        process.stdin.write(b"four")
        process.stdin.close()
        ids = np.frombuffer(process.stdout.read(), "<u4").tolist()
    assert ids == Tokenizer.from_file(my_json).encode("one two three four")


def test_items_come_in_order_and_errors_come_after_the_items_before_them() -> None:
    def items() -> Iterator[int]:
        yield from range(100)
        raise KeyError("damaged")

    seen = []
    with pytest.raises(KeyError, match="damaged"):
        for item in ahead(items()):
            seen.append(item)
    assert seen == list(range(100))
    assert list(ahead(iter(()))) == []


def test_a_thread_that_nobody_reads_from_any_more_ends() -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(1000):
            made.append(number)
            yield number

    reader = ahead(items())
    assert next(reader) == 0
    reader.close()  # type: ignore[attr-defined]
    time.sleep(0.5)
    count = len(made)
    time.sleep(0.3)
    assert len(made) == count < 20


@pytest.mark.parametrize("separator", [b" ", b", ", b""])
def test_decimals_are_those_of_python(separator: bytes) -> None:
    ids = np.array([0, 7, 10, 99, 4294967295, 128_000, 1], "<u4")
    assert _core.decimals(ids.tobytes(), separator) == separator.join(b"%d" % id for id in ids.tolist())
    assert _core.decimals(b"", separator) == b""


def test_packed_ids_are_those_of_lists(llama3: Tokenizer) -> None:
    lists, packed = StreamEncoder(llama3), StreamEncoder(llama3)
    for piece in ("Hello wor", "ld \ud83d", "\ude00 caf", "é", " \ud83d", b"x", "", b""):
        assert np.frombuffer(packed.feed_to_bytes(piece), "<u4").tolist() == lists.feed(piece)
    assert np.frombuffer(packed.flush_to_bytes(), "<u4").tolist() == lists.flush()
    with pytest.raises(ValueError, match="<|end_of_text|>"):
        packed.feed_to_bytes("<|end_of_text|>")
