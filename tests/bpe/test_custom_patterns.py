"""Split patterns that people bring: the ids are those of tiktoken and of tokenizers, however the text is encoded."""

from __future__ import annotations

import copy
import pickle
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tokenizers
from tokenizers import models, pre_tokenizers

from bpe import StreamEncoder, Tokenizer, train_from_iterator
from bpe.commands.describe import tokenizer_rows
from bpe.errors import InputError
from bpe.formats.byte_level import token_text
from bpe.patterns import find_pattern, pattern_of_steps
from bpe.splitting.steps import Behavior, PrefixSpace, Split, Step
from bpe.vocabulary import Vocabulary
from support.command_line import bpe, fails_with
from support.plain_trainer import plain_training
from support.references import BYTE_RANKS, byte_tokenizer, encoding_of

PATTERNS = [
    r"[\p{L}&&[^a-z]]+|[a-z]+|\P{L}+",
    r"[[:alpha:]]+|.",
    r"\p{N}{1,3}",
    r"\p{N}{1,3}+",
    r"\w+",
    r"\b\w+\b|\W",
    r"\S+$|\s",
    r"(?i)k|ss|[^k]",
]
CHARACTERS = "abkKſK éß½²²९77  \n\r\n\t'.,日本ЖяΩ_\u0301\u00a0🙂"


@pytest.fixture(scope="module")
def ranks(gpt2: Tokenizer) -> dict[bytes, int]:
    return gpt2.mergeable_ranks


def random_texts(seed: str, count: int) -> list[str]:
    generator = random.Random(seed)
    return ["".join(generator.choices(CHARACTERS, k=generator.randint(0, 24))) for _ in range(count)]


def with_steps(ranks: dict[bytes, int], *steps: Step) -> Tokenizer:
    """Return a tokenizer with some ranks, in which a token is only made by merging."""
    plain = Vocabulary.from_ranks("steps", find_pattern("gpt2"), ranks, {})
    arrays = (plain.tokens, plain.offsets, plain.ids)
    return Tokenizer.from_vocabulary(Vocabulary("steps", pattern_of_steps(steps), *arrays, merges_only=True))


def as_tokenizers(ranks: dict[bytes, int], pre_tokenizer: Any) -> tokenizers.Tokenizer:
    """Return tokenizers' encoder with the same."""
    merges = []
    for token in ranks:
        if len(token) > 1:
            left, right = parts_of(token, ranks)
            merges.append((token_text(left), token_text(right)))
    model = models.BPE({token_text(token): id for token, id in ranks.items()}, merges)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    return tokenizer


def parts_of(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two tokens that merge into a token."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        best = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], len(ranks)))
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


def split_by(pattern: str, behavior: str = "isolated", invert: bool = False) -> Any:
    split = pre_tokenizers.Split(tokenizers.Regex(pattern), behavior, invert)
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


# Ids


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_given_as_text_has_the_ids_of_tiktoken(ranks: dict[bytes, int], pattern: str) -> None:
    special = {"<|x|>": 5000}
    ours = Tokenizer("custom", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    theirs = tiktoken.Encoding("custom", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    for text in random_texts(pattern, 1000):
        expected = theirs.encode_ordinary(text)
        assert ours.encode_ordinary(text) == ours.encode(text) == expected, text
        assert (ours.count(text), ours.encode_to_numpy(text).tolist()) == (len(expected), expected)
        joined = f"{text}<|x|>{text}"
        assert ours.encode(joined, allowed_special="all") == theirs.encode(joined, allowed_special="all")


@pytest.mark.parametrize("behavior", ["isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"])
@pytest.mark.parametrize("invert", [False, True])
def test_a_step_has_the_ids_of_tokenizers(ranks: dict[bytes, int], behavior: Behavior, invert: bool) -> None:
    patterns = [r"\p{N}{1,3}", r"\p{N}{1,3}+", r"\w+", r"\b\w", r"(?<=\s)\S", r"[[:alpha:]]+|\p{N}", "$", r"\s+(?!\S)"]
    for pattern in patterns:
        theirs = as_tokenizers(ranks, split_by(pattern, behavior, invert))
        ours = with_steps(ranks, Split(pattern, "tokenizers", behavior, invert))
        for text in random_texts(pattern, 300):
            assert ours.encode(text) == theirs.encode(text).ids, (pattern, text)


def test_both_dialects_of_one_pattern_keep_or_drop_what_it_does_not_match() -> None:
    theirs = as_tokenizers(BYTE_RANKS, split_by(r"\p{N}{1,3}"))
    of_tokenizers = with_steps(BYTE_RANKS, Split(r"\p{N}{1,3}", "tokenizers"))
    of_tiktoken = byte_tokenizer(r"\p{N}{1,3}")
    assert of_tokenizers.encode("ab 1234567") == list(b"ab 1234567") == theirs.encode("ab 1234567").ids
    assert of_tiktoken.encode("ab 1234567") == list(b"1234567") == encoding_of(of_tiktoken).encode("ab 1234567")


@pytest.mark.parametrize("pattern", [r"\p{N}{1,3}|\P{N}+", r"[[:alpha:]]+", r"\w+|\W", r"(?s).*"])
def test_a_megabyte_on_two_threads_and_in_pieces_has_the_ids_of_one_thread(
    ranks: dict[bytes, int], pattern: str
) -> None:
    tokenizer = Tokenizer("custom", pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|x|>": 5000})
    generator = random.Random(pattern)
    pieces = [*CHARACTERS, "word", " text", "<|x|>", "1234", "\n\n"]
    text = "".join(generator.choices(pieces, k=500_000))
    expected = tokenizer.encode(text, allowed_special="all")
    ids, offsets = tokenizer.encode_flat([text], num_threads=2, allowed_special="all")
    assert (ids.tolist(), offsets.tolist()) == (expected, [0, len(expected)])
    stream, streamed = StreamEncoder(tokenizer, allowed_special="all"), []
    content = text.encode()
    for begin in range(0, len(content), 4093):
        streamed += stream.feed(content[begin : begin + 4093])
    assert streamed + stream.flush() == expected


# What else a tokenizer does


def test_the_spans_of_ids_are_in_the_text_where_the_pattern_leaves_text_out() -> None:
    tokenizer = byte_tokenizer("[a-z]+", ab=256)
    text = "ab 1é abz"
    assert tokenizer.encode_with_offsets(text) == ([256, 256, 122], [(0, 2), (6, 8), (8, 9)])
    assert tokenizer.encode_with_offsets(text, unit="bytes")[1] == [(0, 2), (7, 9), (9, 10)]
    assert tokenizer.decode(tokenizer.encode(text)) == "ababz"
    assert tokenizer.truncate("1 ab 2 ab 3", 1) == "1 ab"
    assert tokenizer.truncate("1 ab 2 ab 3", 1, side="left") == "ab 3"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_spans_hold_the_bytes_of_their_tokens(ranks: dict[bytes, int], pattern: str) -> None:
    tokenizer = Tokenizer("custom", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    for text in random_texts(pattern, 300):
        ids, spans = tokenizer.encode_with_offsets(text, unit="bytes")
        assert ids == tokenizer.encode(text)
        assert [text.encode()[begin:end] for begin, end in spans] == tokenizer.decode_tokens_bytes(ids)


def test_a_text_may_be_continued_as_tiktoken_says(ranks: dict[bytes, int]) -> None:
    for pattern in (r"\w+|\W", r"[a-z]+", r"[[:alpha:]]+|."):
        ours = Tokenizer("custom", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        theirs = tiktoken.Encoding("custom", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        for text in ("hello wor", "the ", "a 1", ""):
            stable, completions = ours.encode_with_unstable(text)
            expected = theirs.encode_with_unstable(text)
            assert (stable, {*map(tuple, completions)}) == (expected[0], {*map(tuple, expected[1])})


def test_a_tokenizer_with_steps_is_copied_printed_and_described(ranks: dict[bytes, int]) -> None:
    tokenizer = with_steps(ranks, Split(r"\p{N}", "tokenizers", "merged_with_next"), PrefixSpace())
    for twin in (copy.copy(tokenizer), copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert twin.pattern == tokenizer.pattern
        assert twin.encode("ab 12") == tokenizer.encode("ab 12") != []
    rows = dict(tokenizer_rows(tokenizer))
    for description in (repr(tokenizer), tokenizer._repr_html_(), rows["pattern"]):
        assert r"\p{N}" in description
    assert "merged_with_next" in rows["pattern"]
    assert "a space in front" in rows["pattern"]


def test_the_command_line_takes_any_pattern(tmp_path: Path) -> None:
    file = tmp_path / "bytes.tiktoken"
    byte_tokenizer().save(file)
    run = bpe("encode", "-t", file, "--pattern", r"\p{N}{1,3}", "-c", "ab 12")
    assert run.stdout.split() == ["49", "50"]
    assert bpe("count", "-t", file, "--pattern", "[[:alpha:]]+", "-c", "ab 12").stdout.split()[0] == "2"
    assert bpe("show", "-t", file, "--pattern", r"\d", "-c", "ab 12").stdout == "1|2\n"
    fails_with(bpe("encode", "-t", file, "--pattern", r"(a)\1", "-c", "aa"), 1, "back reference", "character 4")


# Training


@pytest.mark.parametrize("pattern", [r"[[:alpha:]]+|[^[:alpha:]]", r"[a-z]+", r"\w+|\W"])
@pytest.mark.parametrize("threads", [1, 2])
def test_training_with_a_custom_pattern_gives_the_merges_of_the_definition(pattern: str, threads: int) -> None:
    generator = random.Random(pattern)
    texts = ["".join(generator.choices("abcabc é1 日", k=3000)) for _ in range(3)]
    words = [word for text in texts for word in find_pattern(pattern).compiled().split(text)]
    expected = plain_training(words, 80).tokens
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # text is left out
        tokenizer = train_from_iterator(texts, 256 + 80, pattern, (), threads=threads)
    assert list(tokenizer.mergeable_ranks)[256:] == expected


@pytest.mark.filterwarnings("error")
def test_a_document_longer_than_a_block_is_counted_as_a_whole(tmp_path: Path) -> None:
    pattern = r"[a-c]+|[^a-c]"
    generator = random.Random(0)
    text = "".join(generator.choices(["abc", "a", "é", " "], k=400_000))
    whole = train_from_iterator([text], 400, pattern, ())
    file = tmp_path / "long.txt"
    file.write_text(text, "utf-8")
    assert bpe("train", file, "-o", tmp_path / "t.json", "--vocab-size", 400, "--pattern", pattern).exit_code == 0
    assert Tokenizer.from_file(tmp_path / "t.json").mergeable_ranks == whole.mergeable_ranks


# Wrong patterns


@pytest.mark.parametrize("pattern", ["(", "[a", r"\p{Nonsense}", "(?<!a+)b*)", r"(a)\1", r"(?(1)a|b)", r"\K"])
def test_a_pattern_that_cannot_be_compiled_is_refused(pattern: str) -> None:
    with pytest.raises(InputError, match="the split pattern"):
        byte_tokenizer(pattern)
