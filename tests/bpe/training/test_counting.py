"""Test that counts of pretokens are the same for any number of threads, any cuts of the text, in memory and on disk."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpe import InputError, _core, train, train_from_iterator
from bpe.formats.byte_level import byte_characters
from bpe.patterns import PATTERNS, Pattern
from bpe.training import counting, trainer
from bpe.training import work as training_work
from bpe.training.initial import token_arrays
from bpe.training.settings import Trained
from bpe.training.work import WorkDirectory
from support.reference_trainers import train_with_tokenizers
from support.references import BYTE_RANKS, any_text, broken_bytes, peculiar_text, without_surrogates
from support.training import train_on

each_pattern = pytest.mark.parametrize(
    "pattern", [PATTERNS[name] for name in ("gpt2", "cl100k", "llama3", "qwen2", "o200k", "smollm")]
)

SPECIAL_TOKENS = {"<|a|>": 0, "<|a|>b": 1, "|><": 2, " ": 3}


def counter_of(pattern: Pattern | None = None, *special_tokens: str) -> _core.Counter:
    scanner = 0 if pattern is None else pattern.scanner
    assert scanner is not None
    return _core.Counter(_core.Splitter.scanned(scanner), _core.SpecialTokens(dict.fromkeys(special_tokens, 0)))


def counts_of(counter: _core.Counter) -> dict[bytes, int]:
    words, offsets, counts = counter.counts()
    ends = offsets.tolist()
    assert len(counter) == len(counts)
    found = {words[a:b]: count for a, b, count in zip(ends, ends[1:], counts.tolist(), strict=False)}
    assert len(found) == len(counts)  # no word occurs twice
    return found


# Words

# A table entry holds words of up to 7 bytes; words of up to 15 bytes have a key of two machine words; lengths up to 255
# take one byte.
LENGTHS = [*range(1, 21), 31, 32, 33, 254, 255, 256, 257, 300, 70_000]
words = st.one_of(
    st.binary(min_size=1, max_size=20),
    st.lists(st.sampled_from(b"\0\xffab"), min_size=1, max_size=18).map(bytes),
    st.builds(lambda length, byte: bytes([byte]) * length, st.sampled_from(LENGTHS), st.sampled_from(b"\0a")),
)
word_counts = st.dictionaries(words, st.sampled_from([1, 2, 127, 128, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**60]))


def counter_with(counts: Mapping[bytes, int]) -> _core.Counter:
    counter = counter_of()
    for word, count in counts.items():
        counter.add_pretokens([word], count)
    return counter


@given(pretokens=st.lists(words | st.just(b""), max_size=40), weight=st.integers(1, 3))
def test_words_of_any_length_and_any_bytes_are_counted_separately(pretokens: list[bytes], weight: int) -> None:
    counter = counter_of()
    counter.add_pretokens(pretokens, weight)
    expected = Counter(pretokens)
    expected.pop(b"", None)
    assert counts_of(counter) == {word: count * weight for word, count in expected.items()}


def test_words_that_differ_in_length_or_one_byte_are_counted_separately() -> None:
    counter = counter_of()
    expected: Counter[bytes] = Counter()
    for length in LENGTHS:
        for word in [b"a" * length, b"\0" * length, b"a" * (length - 1) + b"\0", b"\0" + b"a" * (length - 1)]:
            expected[word] += length
            counter.add_pretokens([word], length)
    assert counts_of(counter) == expected


def test_a_hundred_thousand_words_are_counted_separately() -> None:
    generator = random.Random(0)
    expected = Counter(generator.randbytes(generator.choice([3, 5, 7, 8, 9, 15, 16, 17, 40])) for _ in range(100_000))
    counter = counter_of()
    for _ in range(2):
        counter.add_pretokens(list(expected), 1)
    assert counts_of(counter) == dict.fromkeys(expected, 2)


# Texts


@given(texts=st.lists(any_text, max_size=6), threads=st.integers(1, 8), weight=st.integers(1, 5))
def test_counts_are_the_same_on_any_number_of_threads(texts: list[str], threads: int, weight: int) -> None:
    expected: Counter[bytes] = Counter()
    for text in texts:
        content = without_surrogates(text).encode()
        begin = 0
        for end in _core.scan(2, content).tolist():
            expected[content[begin:end]] += weight
            begin = end
    counter = counter_of(PATTERNS["llama3"])
    counter.add(texts, weight, threads)
    assert counts_of(counter) == expected


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_counts_of_a_long_text_split_over_threads_are_correct(threads: int, corpus_texts: dict[str, str]) -> None:
    text = "".join(corpus_texts.values()) * 4
    content = text.encode()
    for pattern in ("gpt2", "llama3"):
        counter = counter_of(PATTERNS[pattern])
        counter.add([text], 1, threads)
        ends = _core.scan(PATTERNS[pattern].scanner or 0, content, "plain").tolist()
        expected = Counter(content[a:b] for a, b in zip([0, *ends], ends, strict=False))
        assert counts_of(counter) == expected
        assert counter.tables() == 1  # reading the counts merged the tables of the threads


@pytest.mark.slow
@each_pattern
def test_counts_are_the_same_when_a_text_is_cut_after_its_certain_part(pattern: Pattern) -> None:
    @given(
        pieces=st.lists(
            peculiar_text.map(str.encode)
            | broken_bytes()
            | st.sampled_from([*SPECIAL_TOKENS, "<|a", "<"]).map(str.encode),
            max_size=8,
        ),
        special_tokens=st.sets(st.sampled_from(list(SPECIAL_TOKENS))),
    )
    def check(pieces: list[bytes], special_tokens: set[str]) -> None:
        text = b"".join(pieces)
        whole = counter_of(pattern, *special_tokens)
        whole.add([text], 1, 1)
        expected = counts_of(whole)
        for end in range(len(text) + 1):
            counter = counter_of(pattern, *special_tokens)
            part = counter.certain_part(text[:end])
            assert 0 <= part <= end
            counter.add([text[:part], text[part:]], 1, 1)
            assert counts_of(counter) == expected
        # As when reading a file: count the certain part and put the rest before the next piece.
        counter, rest = counter_of(pattern, *special_tokens), b""
        for piece in pieces:
            rest += piece
            part = counter.certain_part(rest)
            counter.add([rest[:part]], 1, 1)
            rest = rest[part:]
        counter.add([rest], 1, 1)
        assert counts_of(counter) == expected

    check()


@each_pattern
def test_the_certain_part_of_a_long_text_ends_near_the_end_of_the_text(
    pattern: Pattern, corpus_texts: dict[str, str]
) -> None:
    counter = counter_of(pattern, "<|endoftext|>")
    for text in corpus_texts.values():
        content = text.encode() * 3
        assert counter.certain_part(content) > len(content) - 300


# Runs: files of sorted words with counts


def number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def read_run(path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield the words of a run and their counts, read by the description of the format."""
    data = path.read_bytes()
    assert data[:8] == b"bpe-run1"
    at = 8
    while size := int.from_bytes(data[at : at + 8], "little"):
        block, i = data[at + 16 : at + 16 + size], 0
        while i < size:
            length, i = number(block, i)
            count, i = number(block, i)
            yield block[i : i + length], count
            i += length
        assert i == size
        at += 16 + size
    assert at + 16 == len(data)


def write_run(path: Path, counts: Mapping[bytes, int]) -> Path:
    counter_with(counts).write_runs([str(path)])
    return path


def uses_in_run(path: Path) -> list[int]:
    """Return how often each byte occurs in the words of a run, according to the core."""
    bytes_only = token_arrays(BYTE_RANKS)
    _, uses, _, _ = _core.train_merges(str(path), *bytes_only, 0, 1, 0, 1, lambda _: False, lambda _: None)
    return memoryview(uses).cast("Q").tolist()


@given(counts=word_counts)
def test_a_run_contains_all_words_in_order(counts: dict[bytes, int], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write_run(tmp_path_factory.getbasetemp() / "run", counts)
    found = list(read_run(path))
    assert found == sorted(counts.items())


@given(parts=st.lists(word_counts, max_size=5))
def test_merging_runs_adds_their_counts(
    parts: list[dict[bytes, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.getbasetemp()
    paths = [str(write_run(directory / f"run-{i}", counts)) for i, counts in enumerate(parts)]
    _core.merge_runs(paths, str(directory / "merged"))
    expected: Counter[bytes] = Counter()
    for counts in parts:
        expected.update(counts)
    assert list(read_run(directory / "merged")) == sorted(expected.items())


def test_runs_of_many_blocks_are_merged(tmp_path: Path) -> None:
    generator = random.Random(0)
    words = [generator.randbytes(generator.choice([1, 2, 8, 9, 300])) for _ in range(20_000)]
    parts = [Counter(generator.choices(words, k=10_000)) for _ in range(3)]
    paths = [str(write_run(tmp_path / f"run-{i}", counts)) for i, counts in enumerate(parts)]
    _core.merge_runs(paths, str(tmp_path / "merged"))
    assert list(read_run(tmp_path / "merged")) == sorted((parts[0] + parts[1] + parts[2]).items())
    assert sum(uses_in_run(tmp_path / "merged")) == sum(len(word) * n for part in parts for word, n in part.items())


def test_an_empty_table_is_written_as_an_empty_run(tmp_path: Path) -> None:
    assert list(read_run(write_run(tmp_path / "run", {}))) == []
    _core.merge_runs([], str(tmp_path / "merged"))
    assert list(read_run(tmp_path / "merged")) == []


def test_the_tables_of_all_threads_are_written_and_emptied(tmp_path: Path, corpus_texts: dict[str, str]) -> None:
    texts = [*corpus_texts.values()] * 8
    counter = counter_of(PATTERNS["gpt2"])
    counter.add(texts, 1, 3)
    paths = [tmp_path / f"run-{i}" for i in range(counter.tables())]
    counter.write_runs([str(path) for path in paths])
    assert (len(counter), counter.tables()) == (0, 1)
    found: Counter[bytes] = Counter()
    for path in paths:
        found.update(dict(read_run(path)))
    counter.add(texts, 1, 1)
    assert counts_of(counter) == found


def test_a_damaged_run_is_refused_with_its_name(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", {b"word %d" % i * (i % 5): i for i in range(1, 15)})
    content = path.read_bytes()
    for at in range(len(content)):
        for bits in (0x01, 0x80):
            path.write_bytes(content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :])
            with pytest.raises(InputError, match=f"^{path}: .*damaged"):
                _core.merge_runs([str(path)], str(tmp_path / "merged"))
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(InputError, match=f"^{path}: .*damaged"):
            uses_in_run(path)


def test_the_error_for_a_run_that_is_missing_or_unwritable_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        uses_in_run(tmp_path / "missing")
    assert missing.value.filename == str(tmp_path / "missing")
    counter = counter_with({b"ab": 1})
    with pytest.raises(FileNotFoundError) as unwritable:
        counter.write_runs([str(tmp_path / "nowhere" / "run")])
    assert unwritable.value.filename == str(tmp_path / "nowhere" / "run")
    assert counts_of(counter) == {b"ab": 1}  # nothing is lost
    with pytest.raises(OSError):
        uses_in_run(tmp_path)
    with pytest.raises(ValueError, match="needs a path for each table"):
        counter.write_runs([])


# Training on runs


def result_of(*sources: object, **options: object) -> tuple[object, ...]:
    """Return everything that training reports, except times."""
    results: list[Trained] = []
    train_on(list(sources), 700, "llama3", ("<|x|>",), trained=results.append, **options)  # type: ignore[arg-type]
    ranks = results[0].tokenizer.mergeable_ranks
    return (
        list(ranks.items()),
        results[0].pairs.tolist(),
        results[0].counts.tolist(),
        results[0].uses.tolist(),
        results[0].size,
    )


@pytest.fixture(scope="module")
def files(corpora: Path) -> list[str]:
    return [str(corpora / "sentences"), str(corpora / "code"), str(corpora / "tales-1.txt")]


@pytest.fixture(scope="module")
def expected(files: list[str]) -> tuple[object, ...]:
    return result_of(*files, threads=1)


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("batch_bytes", [1, 100, 5_000])
def test_the_result_does_not_depend_on_threads_or_batches(
    threads: int, batch_bytes: int, files: list[str], expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    if batch_bytes < 100:  # pieces of one or a few characters
        files = files[:1]
        expected = result_of(*files, threads=1)
    monkeypatch.setattr(trainer, "BATCH_BYTES", batch_bytes)
    assert result_of(*files, threads=threads) == expected


def test_the_result_does_not_depend_on_the_order_or_origin_of_texts(files: list[str], expected: object) -> None:
    paths = [path for file in files for path in ([file] if os.path.isfile(file) else map(str, Path(file).iterdir()))]
    random.Random(0).shuffle(paths)
    texts = [Path(path).read_bytes().decode() for path in paths]
    assert result_of(*reversed(files)) == expected
    assert result_of(*paths) == expected
    assert result_of(texts) == expected
    assert result_of(texts[:5], iter(text.encode() for text in texts[5:])) == expected


@pytest.mark.parametrize(("most_runs", "threads"), [(1, 1), (2, 3), (32, 2)])
def test_the_result_does_not_depend_on_the_memory_limit(
    most_runs: int,
    threads: int,
    files: list[str],
    expected: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved: list[int] = []
    save = WorkDirectory.save_counts

    def counted(self: WorkDirectory, *arguments: object, **options: object) -> None:
        save(self, *arguments, **options)  # type: ignore[arg-type]
        saved.append(len(self.runs))

    monkeypatch.setattr(WorkDirectory, "save_counts", counted)
    monkeypatch.setattr(training_work, "MOST_RUNS", most_runs)
    monkeypatch.setattr(counting, "_BESIDE_COUNTS", -(1 << 40))
    monkeypatch.setattr(counting, "_LEAST_FOR_COUNTS", 0)
    monkeypatch.setattr(trainer, "BATCH_BYTES", 5_000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    limit = -(1 << 40) + counting.resident_memory() + 1
    assert result_of(*files, threads=threads, max_memory=limit) == expected
    assert len(saved) > 10
    assert max(saved) <= most_runs
    assert list(tmp_path.iterdir()) == []  # the temporary directory was removed


def test_the_temporary_directory_is_removed_after_an_error(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "_BESIDE_COUNTS", -(1 << 40))
    monkeypatch.setattr(counting, "_LEAST_FOR_COUNTS", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(InputError, match="tokens, not 1000000"):
        train(files, 1_000_000, "llama3", (), max_memory=-(1 << 40) + counting.resident_memory() + 1)
    assert list(tmp_path.iterdir()) == []


def test_too_low_a_memory_limit_is_refused_with_the_lowest_possible_one() -> None:
    with pytest.raises(InputError, match=r"max_memory is 1 MB; it must be at least [\d,]+ MB"):
        train_from_iterator(["text"], 257, "gpt2", (), max_memory=1_000_000)


@pytest.mark.slow
def test_merging_on_several_threads_equals_hugging_face_s_trainer(tmp_path: Path) -> None:
    # Enough distinct words that each thread gets a part of them, and many pairs occur in several parts.
    generator = random.Random(1)
    syllables = ["".join(generator.choices("abcdefghij", k=generator.randint(1, 4))) for _ in range(400)]
    lines = (" ".join("".join(generator.choices(syllables, k=3)) for _ in range(8)) for _ in range(12_000))
    file = tmp_path / "text"
    file.write_text("\n".join(lines))
    theirs = train_with_tokenizers([str(file)], 2500, r"\S+|\s+")
    characters = byte_characters()
    results: list[Trained] = []
    for threads in (1, 2, 5):
        ours = train(
            [str(file)], 2500, r"\S+|\s+", (), tie_break="huggingface", threads=threads, trained=results.append
        )
        tokens = {token.decode("latin-1").translate(characters): rank for token, rank in ours.mergeable_ranks.items()}
        assert tokens == theirs.get_vocab()
    assert results[0].uses.tolist() == results[1].uses.tolist() == results[2].uses.tolist()
    assert results[0].counts.tolist() == results[1].counts.tolist() == results[2].counts.tolist()


@pytest.mark.parametrize("threads", [1, 2])
def test_merging_in_little_memory_gives_the_same_result(threads: int) -> None:
    # More places of pairs than fit at once into little memory, and pairs that occur in a large share of all cells.
    random = Random(1)
    words = {"".join(random.choices("aaab", k=14)) + f"{i:x}" for i in range(60_000)}

    def learn(memory: int) -> bytes:
        counter = _core.Counter(_core.Splitter.scanned(0), _core.SpecialTokens({}))
        counter.add_pretokens([word.encode() for word in sorted(words)], 1)
        start = token_arrays(BYTE_RANKS)
        never, nothing = (lambda _: False), (lambda _: None)
        found = _core.train_merges(counter, *start, 400, 1, 0, threads, never, nothing, memory=memory)
        return found[0]

    needed = (1 + sum(len(word) + 1 for word in words)) * 5
    assert learn(needed + 100_000) == learn(0)
    with pytest.raises(
        InputError, match=r"merging needs \d+ MB of memory, but only \d+ MB are allowed; raise .*--max-memory"
    ):
        learn(needed // 2)
