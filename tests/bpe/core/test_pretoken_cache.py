"""Test the encoder's cache of pretokens: its size is limited, and evicted or overwritten entries never change ids."""

from __future__ import annotations

import random
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiktoken

from bpe import Tokenizer

LETTERS = ["etaoinshrdlu", "еаинтосрвл", "的一是不了人我在有他", "אבגדהוזח", "🙂🙃😀😁"]


def made_up_text(generator: random.Random, size: int) -> str:
    """Return about `size` characters of random words of all lengths in several scripts."""
    words = []
    while size > 0:
        letters = generator.choice(LETTERS)
        word = "".join(generator.choices(letters, k=min(generator.randrange(1, 30), generator.randrange(1, 60))))
        words.append(word)
        size -= len(word) + 1
    return " ".join(words)


def test_ids_stay_correct_when_the_cache_overflows(llama3: Tokenizer, llama3_reference: tiktoken.Encoding) -> None:
    """Encode about 16 MB of new words, more than the cache holds, and compare every fortieth text."""
    generator = random.Random(1)
    first = [made_up_text(generator, 2000) for _ in range(20)]
    expected = [llama3_reference.encode_ordinary(text) for text in first]
    assert [llama3.encode_ordinary(text) for text in first] == expected
    for number in range(240):
        text = made_up_text(generator, 30_000)
        ids = llama3.encode_ordinary(text)
        if number % 40 == 0:
            assert ids == llama3_reference.encode_ordinary(text)
    assert [llama3.encode_ordinary(text) for text in first] == expected


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is that of Linux")
def test_memory_stops_growing_when_the_cache_is_full(llama3: Tokenizer) -> None:
    """When the cache is full, 10 MB of new words leave the peak memory unchanged, except for the texts themselves."""
    generator = random.Random(2)
    for _ in range(200):
        llama3.count(made_up_text(generator, 30_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(200):
        llama3.count(made_up_text(generator, 30_000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10


def test_changing_the_limit_of_the_cache_never_changes_ids(
    llama3: Tokenizer, llama3_reference: tiktoken.Encoding
) -> None:
    generator = random.Random(3)
    texts = [made_up_text(generator, 20_000) for _ in range(30)]
    expected = [llama3_reference.encode_ordinary(text) for text in texts]
    try:
        for megabytes in (4, 5, 64):
            llama3.limit_cache(megabytes)
            for _ in range(3):
                assert [llama3.encode_ordinary(text) for text in texts] == expected
    finally:
        llama3.limit_cache(64)
    with pytest.raises(ValueError, match="at least 4"):
        llama3.limit_cache(3)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_cache_stays_within_its_limit_with_eight_threads(llama3: Tokenizer) -> None:
    """Allow 64 MB, 2 MB more for each thread beyond the processors, and about 4 MB per thread for its work."""
    generator = random.Random(4)
    texts = [made_up_text(generator, 60_000).encode() for _ in range(120)]
    llama3.limit_cache(64)
    before = resident_megabytes()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(llama3.count, texts))
    assert resident_megabytes() - before < 64 + 8 * (2 + 4)


def resident_megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
