"""The encoder remembers pretokens in tables of fixed size; what it has forgotten or overwritten must never show."""

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
    """Words that nobody has seen, of all lengths and several scripts; about `size` characters."""
    words = []
    while size > 0:
        letters = generator.choice(LETTERS)
        word = "".join(generator.choices(letters, k=min(generator.randrange(1, 30), generator.randrange(1, 60))))
        words.append(word)
        size -= len(word) + 1
    return " ".join(words)


def test_ids_stay_right_when_the_tables_overflow(llama3: Tokenizer, llama3_reference: tiktoken.Encoding) -> None:
    """Some 16 MB of ever new words, through tables that hold less; every fortieth text is compared."""
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


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory as Linux gives it")
def test_memory_does_not_grow_with_the_words_that_were_seen(llama3: Tokenizer) -> None:
    """Once the tables are full, 10 MB of new words leave the peak where it was, but for the texts themselves."""
    generator = random.Random(2)
    for _ in range(200):
        llama3.count(made_up_text(generator, 30_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(200):
        llama3.count(made_up_text(generator, 30_000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10


def test_the_limit_of_what_is_remembered_can_be_changed_and_the_ids_stay(
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


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory as Linux gives it")
def test_what_is_remembered_stays_within_its_limit_with_eight_threads(llama3: Tokenizer) -> None:
    """64 MB, 2 MB more for each thread beyond the processors, and some 4 MB a thread for its work."""
    generator = random.Random(4)
    texts = [made_up_text(generator, 60_000).encode() for _ in range(120)]
    llama3.limit_cache(64)
    before = resident_megabytes()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(llama3.count, texts))
    assert resident_megabytes() - before < 64 + 8 * (2 + 4)


def resident_megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
