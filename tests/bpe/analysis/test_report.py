"""The content of a report, and the files that it is written to."""

from __future__ import annotations

import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpe import InputError, Tokenizer, train_from_iterator
from bpe.analysis import plots as plots_module
from bpe.analysis.report import (
    check_directory,
    measures,
    renyi_efficiency,
    report_of,
    write_report,
    write_training_report,
)
from bpe.analysis.token_arrays import TokenArrays
from bpe.analysis.usage import Usage, usage_of
from support.references import byte_tokenizer

PNG = b"\x89PNG\r\n\x1a\n"


FILES = {"report.json", "report.md", *(f"{name}.png" for name in plots_module.PLOTS)}


def test_measures_of_a_small_text_equal_those_counted_by_hand() -> None:
    tokenizer = byte_tokenizer(ab=256, zz=257)
    #           ab|c| |ab| |é = C3 A9, and the word é is two tokens
    usage = usage_of(tokenizer, ["abc ab é".encode()], "text")
    assert measures(TokenArrays(tokenizer), usage) == {
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


def test_renyi_efficiency_is_1_for_uniform_use_and_0_for_a_single_token() -> None:
    assert renyi_efficiency(np.full(50, 3), 50) == pytest.approx(1)
    assert renyi_efficiency(np.array([0, 9, 0]), 3) == pytest.approx(0)
    assert renyi_efficiency(np.zeros(3, np.int64), 3) is None


def test_counts_of_another_vocabulary_are_rejected() -> None:
    with pytest.raises(ValueError, match="3 entries for 256 ids"):
        measures(TokenArrays(byte_tokenizer()), Usage("text", np.ones(3, np.int64)))


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


def test_report_names_the_longest_and_the_first_unused_tokens(gpt2: Tokenizer) -> None:
    use = report_of(gpt2, [usage_of(gpt2, [b"Once upon a time"], "text")])["all_texts"]
    used = set(gpt2.encode("Once upon a time"))
    longest = sorted(used, key=lambda id: (-len(gpt2.decode_single_token_bytes(id)), id))
    assert [token["id"] for token in use["longest_used"]] == longest
    assert [token["text"] for token in use["longest_used"]] == [gpt2.decode([id]) for id in longest]
    unused = [id for id in range(256, 4000) if id not in used][:10]
    assert [token["id"] for token in use["first_never_used"]] == unused


def test_report_directory_holds_numbers_tables_and_plots(found: dict[str, Any], tmp_path: Path) -> None:
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


def test_failing_plot_leaves_the_previous_report_unchanged(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(found, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    class Broken:
        def savefig(self, path: Path, **settings: Any) -> None:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    monkeypatch.setitem(plots_module.PLOTS, "growth", lambda look, report: Broken())
    with pytest.raises(OSError, match=r"growth\.png"):
        write_report(found, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_report_that_cannot_be_written_is_rejected_in_advance(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file is in the way"):
        check_directory(tmp_path / "file")
    check_directory(tmp_path / "new")
    assert (tmp_path / "new").is_dir()


def test_without_matplotlib_numbers_and_tables_are_written_and_a_warning_says_what_is_missing(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.warns(UserWarning, match=r"without matplotlib, no plots are drawn: pip install 'bpe-llama\[report\]'"):
        files = write_report(found, tmp_path)
    assert {path.name for path in files} == {"report.json", "report.md"}
    assert "Plots" not in (tmp_path / "report.md").read_text("utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(found, tmp_path, None)


def test_training_report_uses_counts_and_cuts_held_out_texts_at_special_tokens(tmp_path: Path) -> None:
    corpus = [b"a tale of two tails<|end|>told in two towns"] * 3
    tokenizer = train_from_iterator(corpus, 270, "gpt2", special_tokens=["<|end|>"])
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
