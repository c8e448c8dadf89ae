"""What a report says, and what it leaves in a directory."""

from __future__ import annotations

import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpe import InputError, Tokenizer, train
from bpe.analysis import plots as plots_module
from bpe.analysis.report import (
    check_directory,
    measures,
    renyi_efficiency,
    report_of,
    write_report,
    write_training_report,
)
from bpe.analysis.tables import Table, tables
from bpe.analysis.usage import Usage, Vocabulary, usage_of
from support.references import BYTE_RANKS, byte_tokenizer

PNG = b"\x89PNG\r\n\x1a\n"
FILES = {"report.json", "report.md", *(f"{name}.png" for name in plots_module.PLOTS)}


@pytest.fixture(scope="module")
def found(gpt2: Tokenizer, corpus_texts: dict[str, str]) -> dict[str, Any]:
    """A report on a training text and two others."""
    training = Usage("training", usage_of(gpt2, [text.encode() for text in corpus_texts.values()], "x").counts)
    names = ["prose.txt", "sentences/th.txt"]
    return report_of(gpt2, (usage_of(gpt2, [corpus_texts[name].encode()], name) for name in names), training)


def test_the_measures_of_a_small_text_are_those_counted_by_hand() -> None:
    tokenizer = byte_tokenizer(ab=256, zz=257)
    #           ab|c| |ab| |é = C3 A9, and the word é is two tokens
    usage = usage_of(tokenizer, ["abc ab é".encode()], "text")
    assert measures(Vocabulary(tokenizer), usage) == {
        "name": "text",
        "documents": 1,
        "bytes": 9,
        "characters": 8,
        "tokens": 7,
        "bytes_per_token": 9 / 7,
        "characters_per_token": 8 / 7,
        "words": 3,
        "tokens_per_word": 5 / 3,
        "continued_words": 2 / 3,
        "whole_word_tokens": 1 / 7,
        "never_used": 258 - 5,
        "never_used_share": pytest.approx(1 - 5 / 258),
        "renyi_efficiency": pytest.approx(
            math.log(2 * (2 / 7) ** 2.5 + 3 * (1 / 7) ** 2.5) / (1 - 2.5) / math.log(258)
        ),
    }


def test_renyi_efficiency_is_1_where_all_tokens_are_used_alike_and_0_where_one_is() -> None:
    assert renyi_efficiency(np.full(50, 3), 50) == pytest.approx(1)
    assert renyi_efficiency(np.array([0, 9, 0]), 3) == pytest.approx(0)
    assert renyi_efficiency(np.zeros(3, np.int64), 3) is None


def test_counts_of_another_vocabulary_are_refused() -> None:
    with pytest.raises(ValueError, match="3 entries for 256 ids"):
        measures(Vocabulary(byte_tokenizer()), Usage("text", np.ones(3, np.int64)))


def test_the_parts_of_a_report_add_up(found: dict[str, Any], gpt2: Tokenizer) -> None:
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    vocabulary = found["vocabulary"]
    assert sum(vocabulary["lengths"].values()) == sum(vocabulary["classes"].values()) == vocabulary["tokens"]
    assert vocabulary["tokens"] + found["tokenizer"]["special_tokens"] == gpt2.n_vocab
    for use in (found["training"], *found["texts"], found["all_texts"]):
        assert sum(use["lengths"].values()) == sum(use["classes"].values()) == use["tokens"]
        assert sum(int(size) * count for size, count in use["lengths"].items()) == use["bytes"]
        assert use["growth"]["vocabulary"][0] == 256
        assert use["growth"]["tokens"][0] == use["bytes"]
        assert use["growth"]["vocabulary"][-1] == vocabulary["tokens"]
        assert use["growth"]["tokens"][-1] == use["tokens"]
        assert use["frequencies"]["rank"][-1] == vocabulary["tokens"] - use["never_used"]
        assert use["frequencies"]["count"] == sorted(use["frequencies"]["count"], reverse=True)
        assert [token["bytes"] for token in use["longest_used"]][0] == max(map(int, use["lengths"]))
    parts = found["texts"]
    for key in ("bytes", "tokens", "words", "documents"):
        assert found["all_texts"][key] == sum(part[key] for part in parts)
    assert found["training"]["words"] is found["training"]["tokens_per_word"] is None
    assert parts[1]["words"] == 0
    assert parts[1]["tokens_per_word"] is None


def test_the_longest_and_the_first_unused_tokens_are_named(gpt2: Tokenizer) -> None:
    use = report_of(gpt2, [usage_of(gpt2, [b"Once upon a time"], "text")])["all_texts"]
    used = set(gpt2.encode("Once upon a time"))
    longest = sorted(used, key=lambda id: (-len(gpt2.decode_single_token_bytes(id)), id))
    assert [token["id"] for token in use["longest_used"]] == longest
    assert [token["text"] for token in use["longest_used"]] == [gpt2.decode([id]) for id in longest]
    unused = [id for id in range(256, 4000) if id not in used][:10]
    assert [token["id"] for token in use["first_never_used"]] == unused


def test_tables_show_a_column_for_each_text_or_only_their_sum(found: dict[str, Any], gpt2: Tokenizer) -> None:
    titles = [table.title for table in tables(found)]
    assert titles[:4] == ["Texts", "Bytes per token as the vocabulary grows", "Token lengths", "Scripts"]
    growth = list(tables(found))[1]
    assert growth.header == ["vocabulary", "training", "prose.txt", "sentences/th.txt", "held out"]
    assert [row[0] for row in growth.rows] == ["256", "512", "1,024", "2,048", "3,999"]
    many = report_of(gpt2, [usage_of(gpt2, [b"a tale"], str(n)) for n in range(9)])
    assert len(next(tables(many)).rows) == 10
    assert list(tables(many))[1].header == ["vocabulary", "all texts"]
    assert [table.title for table in tables(report_of(gpt2, []))] == [
        *("Token lengths", "Scripts", "Longest tokens, in the vocabulary"),
    ]


def test_a_table_is_aligned_as_text_and_valid_as_markdown() -> None:
    table = Table("Title", ["name", "n"], [["a|b", "1,000"], ["c", "–"]])
    assert table.text() == "name      n\na|b   1,000\nc         –\n"
    assert table.markdown() == "## Title\n\n| name | n |\n| :-- | --: |\n| a\\|b | 1,000 |\n| c | – |\n"


def test_long_runs_and_broken_characters_are_shown_short() -> None:
    tokens = {"-" * 60: "'-{60}'", "\u3000" * 32: r"'\u3000{32}'", "\t" * 20 + "x": r"'\t{20}x'", "1" * 9: "'1{9}'"}
    ranks = BYTE_RANKS | {token.encode(): 256 + number for number, token in enumerate(tokens)} | {b"\xe6\x97": 300}
    tokenizer = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={})
    shown = list(tables(report_of(tokenizer, [])))[-1].rows
    assert {row[0] for row in shown} >= {*tokens.values(), r"'\xe6\x97'"}


def test_a_directory_gets_numbers_tables_and_plots(found: dict[str, Any], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = write_report(found, tmp_path / "new" / "report")
    assert {path.name for path in files} == {path.name for path in (tmp_path / "new" / "report").iterdir()} == FILES
    assert json.loads((tmp_path / "new" / "report" / "report.json").read_text()) == found
    page = (tmp_path / "new" / "report" / "report.md").read_text("utf-8")
    assert "fertility" in page
    for path in files:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(PNG)
            assert f"]({path.name})" in page


@pytest.mark.parametrize("texts", [0, 1, 8, 50])
def test_plots_are_drawn_for_any_number_of_texts_with_any_names(texts: int, tmp_path: Path) -> None:
    names = ["日本.txt", "$a$", "_hidden", "long " * 40, "\x00\udcff", "a|b", "", "\n"]
    tokenizer = byte_tokenizer(ab=256)
    usages = [usage_of(tokenizer, [b"ab" * (n + 1)], names[n % len(names)]) for n in range(texts)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = write_report(report_of(tokenizer, usages), tmp_path)
    assert {path.name for path in files} == (
        FILES if texts else FILES - {"growth.png", "frequencies.png", "fertility.png"}
    )


def test_a_plot_that_fails_leaves_the_last_report_as_it_was(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(found, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    class Broken:
        def savefig(self, path: Path, format: str) -> None:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    monkeypatch.setitem(plots_module.PLOTS, "growth", lambda report: Broken())
    with pytest.raises(OSError, match=r"growth\.png"):
        write_report(found, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        check_directory(tmp_path / "file")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError):
        check_directory(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_training_report_takes_counts_and_held_out_texts_cut_at_special_tokens(tmp_path: Path) -> None:
    corpus = [b"a tale of two tails<|end|>told in two towns"] * 3
    tokenizer = train([corpus], 270, "gpt2", special_tokens=["<|end|>"])
    counts = usage_of(tokenizer, [part for document in corpus for part in document.split(b"<|end|>")], "x").counts
    with_special = np.append(counts, 3).astype(np.uint64)
    assert len(with_special) == tokenizer.n_vocab
    held_out = [("one", [b"two<|end|>tales"]), ("two", [b"of", b"towns"])]
    found = write_training_report(tmp_path, tokenizer, with_special, held_out)
    assert found["training"]["tokens"] == counts.sum()
    assert found["training"]["bytes"] == sum(len(document) - len("<|end|>") for document in corpus)
    assert [use["bytes"] for use in found["texts"]] == [8, 7]
    assert found["all_texts"]["name"] == "held out"
    assert json.loads((tmp_path / "report.json").read_text()) == found
    with pytest.raises(InputError, match="three: no text"):
        write_training_report(tmp_path, tokenizer, counts, [("three", [b""])])
