"""Test that pretokens of a million characters have tiktoken's ids and take memory in proportion to the text."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterable
from itertools import pairwise

import pytest
import tiktoken

from bpe import Tokenizer, _core

FAMILY = "👩\u200d👩\u200d👧\u200d👦"

RUNS = {
    "spaces": " " * 1_000_000,
    "newlines": "\n" * 1_000_000,
    "letters a": "a" * 1_000_000,
    "random letters": "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=1_000_000)),
    "digits": "7" * 1_000_000,
    "one Chinese character": "中" * 1_000_000,
    "random Chinese characters": "".join(random.Random(0).choices("日本語中文字", k=1_000_000)),
    "families": FAMILY * 150_000,
}


def is_encoding_of(core: _core.Encoder, ids: Iterable[int], piece: bytes) -> bool:
    """Return whether the ids encode a single pretoken.

    They do if each two neighbouring tokens, joined and encoded on their own, give the same two ids (see merge.cpp).
    """
    ids = list(ids)
    token = {id: core.token_bytes(id) for id in set(ids)}
    if b"".join(map(token.__getitem__, ids)) != piece:
        return False
    return all(core.merge_plain(token[left] + token[right]) == [left, right] for left, right in set(pairwise(ids)))


@pytest.mark.parametrize("text", RUNS.values(), ids=RUNS.keys())
def test_runs_of_a_million_characters_have_the_ids_of_tiktoken_with_every_kernel(
    llama3: Tokenizer, llama3_reference: tiktoken.Encoding, kernel_encoders: dict[str, _core.Encoder], text: str
) -> None:
    if text.isspace():  # a single pretoken, on which tiktoken's regex engine may overflow
        expected = llama3_reference._encode_single_piece(text.encode())
    else:
        expected = llama3_reference.encode_ordinary(text)
    for ours in kernel_encoders.values():
        assert ours.encode(text, None) == expected


@pytest.mark.parametrize("name", ["spaces", "letters a", "random letters", "random Chinese characters"])
def test_the_ids_of_a_long_pretoken_are_consistent_between_all_neighbours(
    llama3: Tokenizer, kernel_encoders: dict[str, _core.Encoder], name: str
) -> None:
    piece = RUNS[name].encode()[:200_001]  # may end within a character
    for ours in kernel_encoders.values():
        assert is_encoding_of(ours, ours.merge(piece), piece)
        single_bytes = [llama3.encode_single_token(bytes([byte])) for byte in piece]
        assert not is_encoding_of(ours, single_bytes, piece)


PEAK_OF_RUNS = """
import random, resource, sys
from bpe import Tokenizer

core = Tokenizer.from_name("llama3").vocabulary.encoder
run, megabytes = sys.argv[1].encode(), int(sys.argv[2])
letters = bytes(97 + byte % 26 for byte in range(256))
for size in (1_000_000, megabytes * 1_000_000):
    text = run * (size // len(run)) if run else random.randbytes(size).translate(letters)
    core.count(text, None)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is that of Linux")
@pytest.mark.parametrize(
    ("run", "megabytes"),
    [(" ", 5), ("a", 20), ("", 20), ("7", 20), ("中", 20), (FAMILY, 20)],
    ids=["spaces", "letters a", "random letters", "digits", "Chinese", "families"],
)
def test_a_long_run_takes_at_most_8_bytes_of_memory_per_byte(llama3: Tokenizer, run: str, megabytes: int) -> None:
    """Measured: 1 to 4 bytes, including the text itself."""
    command = [sys.executable, "-c", PEAK_OF_RUNS, run, str(megabytes)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    small, large = map(int, output.split())
    assert (large - small) / ((megabytes - 1) * 1_000_000) <= 8


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_a_long_run_is_released(llama3: Tokenizer) -> None:
    script = PEAK_OF_RUNS.replace("print(", "del text; print(open('/proc/self/statm').read().split()[1]) #")
    command = [sys.executable, "-c", script, " ", "5"]
    small, large = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert (large - small) * 4096 < 16 << 20
