"""Test that training on documents in memory or on counted pretokens equals training on the same text in files."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from bpe import InputError, Tokenizer, train, train_from_counts, train_from_iterator
from bpe.published_patterns import LLAMA3
from bpe.training.settings import Trained
from support.references import any_text

SPECIAL = ("<|x|>",)


def merges_of(tokenizer: Tokenizer) -> list[tuple[bytes, int]]:
    return list(tokenizer.mergeable_ranks.items())


def counted(texts: Iterable[str]) -> Counter[str]:
    """Count pretokens with the `regex` module, independently of the tested code."""
    return Counter(pretoken for text in texts for pretoken in regex.findall(LLAMA3, text))


@pytest.fixture(scope="module")
def texts(corpora: Path) -> list[str]:
    return [(corpora / name).read_text() for name in ("prose.txt", "tales-1.txt")]


@pytest.fixture(scope="module")
def expected(corpora: Path) -> Tokenizer:
    return train([str(corpora / name) for name in ("prose.txt", "tales-1.txt")], 1200, "llama3", SPECIAL)


def test_training_on_documents_in_memory_equals_training_on_files(texts: list[str], expected: Tokenizer) -> None:
    for documents in (texts, iter(texts), [text.encode() for text in texts]):
        trained = train_from_iterator(documents, 1200, "llama3", SPECIAL)
        assert merges_of(trained) == merges_of(expected)
        assert trained.special_tokens == expected.special_tokens


def test_training_on_counts_equals_training_on_the_text(texts: list[str], expected: Tokenizer) -> None:
    counts = counted(texts)
    pairs = [(word, 1) for word, times in counts.items() for _ in range(times)]  # repeated pairs add up
    encoded = {word.encode(): times for word, times in counts.items()}
    for given_counts in (counts, counts.items(), pairs, encoded):
        assert merges_of(train_from_counts(given_counts, 1200, "llama3", SPECIAL)) == merges_of(expected)


@given(st.lists(any_text, max_size=3))
def test_training_on_counts_of_any_text_equals_training_on_the_text(texts: list[str]) -> None:
    results: list[Trained] = []
    pattern = r"\S+|\s+"
    counts = Counter(word for text in texts for word in regex.findall(pattern, text) if "<|x|>" not in word)
    if not counts:
        with pytest.raises(InputError, match="no text"):
            train_from_counts(counts, 300, pattern, ())
        return
    ours = train_from_counts(counts, 1200, pattern, (), allow_smaller=True, trained=results.append)
    documents = [word for word, times in counts.items() for _ in range(times)]
    theirs = train_from_iterator(documents, 1200, pattern, (), allow_smaller=True, trained=results.append)
    assert merges_of(ours) == merges_of(theirs)
    assert results[0].counts.tolist() == results[1].counts.tolist()
    assert results[0].size == results[1].size


def test_counts_are_read_from_parquet_and_jsonl(texts: list[str], expected: Tokenizer, tmp_path: Path) -> None:
    counts = counted(texts)
    columns = {"pretoken": list(counts), "count": list(counts.values())}
    pq.write_table(pa.table(columns), tmp_path / "counts.parquet", row_group_size=1000)
    pq.write_table(
        pa.table(
            {"count": columns["count"], "pretoken": [word.encode() for word in counts], "other": columns["count"]}
        ),
        tmp_path / "bytes.parquet",
    )
    lines = "".join(json.dumps({"pretoken": word, "count": times}) + "\n" for word, times in counts.items())
    (tmp_path / "counts.jsonl").write_text(lines)
    (tmp_path / "counts.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    for name in ("counts.parquet", "bytes.parquet", "counts.jsonl", "counts.jsonl.gz"):
        trained = train_from_counts(tmp_path / name, 1200, "llama3", SPECIAL)
        assert merges_of(trained) == merges_of(expected), name
        assert merges_of(train_from_counts(str(tmp_path / name), 1200, "llama3", SPECIAL)) == merges_of(expected)


def test_training_on_counts_accepts_a_base_and_required_tokens(texts: list[str], expected: Tokenizer) -> None:
    half = train_from_iterator(texts, 700, "llama3", SPECIAL)
    counts = counted(texts)
    assert merges_of(train_from_counts(counts, 1200, base=half)) == merges_of(
        train_from_iterator(texts, 1200, base=half)
    )
    assert b" zyzzyva" in train_from_counts(counts, 1200, required_tokens=[" zyzzyva"]).mergeable_ranks


def test_counts_near_the_limit_are_exact() -> None:
    large = (1 << 61) // 2
    tokenizer = train_from_counts({"ab": large, "cd": large + 1}, 257, "gpt2", ())
    assert tokenizer.decode_bytes([256]) == b"cd"


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"two words": 1}, "pair 1: 'two words' is not one pretoken of the split pattern llama3"),
        ({"ok": 1, "": 1}, "pair 2: '' is not one pretoken"),
        ({"a<|x|>b": 1}, "contains the special token '<|x|>'"),
        ({"a": 0}, "pair 1: the count 0 is not a whole number from 1"),
        ({"a": -1}, "the count -1 is not"),
        ({"a": 1.5}, "the count 1.5 is not"),
        ({"a": True}, "the count True is not"),
        ({"a": None}, "the count None is not"),
        ({"a": 1 << 63}, "is not a whole number from 1 to"),
        ({"abc": 1 << 62}, "more than 2**63 bytes"),
        ({"ab": (1 << 60), "cd": (1 << 60), "ef": 1 << 61}, "pair 3: the counts describe more than"),
        ([("a", 1, 2)], "pair 1: expected (pretoken, count), not ('a', 1, 2)"),
        ([3], "pair 1: expected (pretoken, count), not 3"),
        ([(3, 1)], "pair 1: a pretoken is a str or bytes, not int"),
        ({}, "no text to train on"),
    ],
)
def test_unusable_counts_are_refused_with_their_place(counts: object, words: str) -> None:
    with pytest.raises(InputError) as raised:
        train_from_counts(counts, 300, "llama3", SPECIAL, allow_smaller=True)  # type: ignore[arg-type]
    assert words in str(raised.value)


def test_unusable_files_of_counts_are_refused_with_name_and_place(tmp_path: Path) -> None:
    def refused(path: Path, words: str) -> None:
        with pytest.raises(InputError) as raised:
            train_from_counts(path, 300, "llama3", ())
        assert str(raised.value).startswith(str(path))
        assert words in str(raised.value)

    lines = tmp_path / "counts.jsonl"
    for content, words in [
        ('{"pretoken": "a", "count": 1}\n{"pretoken": "b c", "count": 1}\n', "line 2: 'b c' is not one pretoken"),
        ('{"pretoken": "a", "count": "1"}\n', "line 1: the count '1' is not"),
        ('{"pretoken": "a"}\n', 'line 1: expected {"pretoken": TEXT, "count": NUMBER}, not the keys pretoken'),
        ('{"pretoken": "a", "count": 1, "weight": 2}\n', "not the keys pretoken, count, weight"),
        ('["a", 1]\n', "line 1"),
        ("no JSON\n", "line 1"),
    ]:
        lines.write_text(content)
        refused(lines, words)
    refused(tmp_path / "missing.jsonl", "no such file")
    refused(tmp_path / "missing.parquet", "no such file")
    table = tmp_path / "counts.parquet"
    pq.write_table(pa.table({"word": ["a"], "count": [1]}), table)
    refused(table, "there is no column 'pretoken'")
    pq.write_table(pa.table({"pretoken": ["a", "b c"], "count": [1, 1]}), table)
    refused(table, "row 2: 'b c' is not one pretoken")
    pq.write_table(pa.table({"pretoken": ["a", None], "count": [1, 1]}), table)
    refused(table, "row 2: a pretoken is a str or bytes, not NoneType")
    pq.write_table(pa.table({"pretoken": ["a"], "count": [1.0]}), table)
    refused(table, "row 1: the count 1.0 is not")
    table.write_bytes(table.read_bytes()[:-9])
    refused(table, "damaged")


@pytest.mark.parametrize("text", ["some text", "a line\n", "what? is [this]", "a tale of two tails " * 500, "nul\0"])
def test_train_refuses_a_text_and_names_the_function_for_texts(text: str) -> None:
    for paths in (text, [text], ["corpora", text]):
        with pytest.raises(InputError, match=r"looks like a text; .* use train_from_iterator\(texts\)"):
            train(paths, 300)


def test_paths_with_spaces_are_read(tmp_path: Path) -> None:
    (tmp_path / "my notes.txt").write_text("ab ab")
    (tmp_path / "my other notes.txt").write_text("ab ab")
    for path in (tmp_path / "my notes.txt", str(tmp_path / "my notes.txt"), str(tmp_path / "my * notes.txt")):
        assert b"ab" in train(path, 257, r"\S+|\s", ()).mergeable_ranks
    with pytest.raises(InputError, match="no such file"):
        train(tmp_path / "no notes.txt", 300, "gpt2")


def test_sources_of_the_wrong_kind_are_refused_with_the_right_function() -> None:
    for paths in ([["text"]], [b"text"], [3]):
        with pytest.raises(InputError, match=r"train\(\) takes paths, not .*; .* use train_from_iterator\(texts\)"):
            train(paths, 300)  # type: ignore[arg-type]
    for texts in ("text", b"text", Path("corpora")):
        with pytest.raises(InputError, match=r"texts is one .*; give an iterable of documents, or a path to train\(\)"):
            train_from_iterator(texts, 300)  # type: ignore[arg-type]


def test_an_unknown_option_raises_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"train\(\) got an unexpected keyword argument 'vocabulary'"):
        train("corpora", 300, vocabulary=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"train_from_iterator\(\) got an unexpected keyword argument 'weights'"):
        train_from_iterator(["a"], 300, weights=[1])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"train_from_counts\(\) got an unexpected keyword argument 'work'"):
        train_from_counts({"a": 1}, 300, work="here")  # type: ignore[call-arg]
