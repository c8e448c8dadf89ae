"""The plots of a report."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest

from bpe.analysis import plots as plots_module
from bpe.analysis.plots import MOST_BARS, fertility, fertility_rows, frequencies, growth, lengths, script_rows, scripts
from bpe.analysis.report import report_of, write_report
from bpe.analysis.usage import usage_of
from bpe.drawing import DARK, LIGHT, PictureSettings
from support.references import byte_tokenizer

FILES = {"report.json", "report.md", *(f"{name}.png" for name in plots_module.PLOTS)}


@pytest.fixture(scope="module")
def many(found: dict[str, Any]) -> dict[str, Any]:
    """The report with 60 texts, which have 1.01, 1.02, ... bytes per token at the end."""
    report = copy.deepcopy(found)
    text = report["texts"][0]
    report["texts"] = []
    for number in range(1, 61):
        use = copy.deepcopy(text) | {"name": f"/data/texts/{number:02}.txt", "bytes_per_token": 1 + number / 100}
        use["growth"]["bytes_per_token"] = [*use["growth"]["bytes_per_token"][:-1], 1 + number / 100]
        report["texts"].append(use)
    return report


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


def test_plots_of_formats_and_dark_are_drawn_from_the_same_numbers(found: dict[str, Any], tmp_path: Path) -> None:
    files = write_report(found, tmp_path, PictureSettings(("svg", "pdf"), dark=True))
    names = {path.name for path in files}
    assert names == {"report.json", "report.md"} | {
        f"{name}.{suffix}" for name in plots_module.PLOTS for suffix in ("svg", "pdf")
    }
    assert "](growth.svg)" in (tmp_path / "report.md").read_text("utf-8")
    assert DARK.background in (tmp_path / "growth.svg").read_text("utf-8")
    write_report(found, tmp_path / "pdf", PictureSettings(("pdf",)))
    assert "\n[growth](growth.pdf)\n" in (tmp_path / "pdf" / "report.md").read_text("utf-8")
    (light,) = growth(LIGHT, found).axes  # type: ignore[union-attr]
    (dark,) = growth(DARK, found).axes  # type: ignore[union-attr]
    for ours, theirs in zip(light.lines, dark.lines, strict=True):
        assert list(ours.get_ydata()) == list(theirs.get_ydata())


def test_growth_begins_at_one_byte_and_has_ticks_and_labels_to_the_end(found: dict[str, Any]) -> None:
    figure = growth(LIGHT, found)
    assert figure is not None
    assert [text.get_text() for text in figure.texts][0] == "Bytes per token as the vocabulary grows"
    (axes,) = figure.axes
    last = found["vocabulary"]["tokens"]
    assert axes.get_xlim() == (256, last)
    assert axes.get_xticks()[0] == 256 and axes.get_xticks()[-1] == last
    assert [label.get_text() for label in axes.get_xticklabels()][-1] == f"{last:,}"
    highest = max(use["growth"]["bytes_per_token"][-1] for use in (found["training"], *found["texts"]))
    assert axes.get_ylim() == (1, axes.get_yticks()[-1])
    assert highest <= axes.get_yticks()[-1]
    ends = [use["growth"]["bytes_per_token"][-1] for use in (*found["texts"], found["training"])]
    names = ["prose.txt", "sentences/th.txt", "training"]
    assert [text.get_text() for text in axes.texts] == [
        f"{name}  {end:.2f}" for name, end in zip(names, ends, strict=True)
    ]


def test_growth_names_the_extremes_of_many_texts(many: dict[str, Any]) -> None:
    (axes,) = growth(LIGHT, many).axes  # type: ignore[union-attr]
    labels = [text.get_text().split("  ")[0] for text in axes.texts]
    assert labels == ["01.txt", "02.txt", "59.txt", "60.txt", "held out (60)", "training"]
    assert len(axes.lines) == 62
    places = sorted(text.get_position()[1] for text in axes.texts)
    assert len({round(place, 6) for place in places}) == 6


def test_subtitles_name_the_tokenizer_and_the_texts(found: dict[str, Any], many: dict[str, Any]) -> None:
    def subtitle(report: dict[str, Any]) -> str:
        return " ".join(scripts(LIGHT, report).texts[1].get_text().split())

    size, name = found["tokenizer"]["vocabulary"], found["tokenizer"]["name"]
    assert subtitle(found).startswith(f"tokenizer {name}, {size:,} tokens; training text of ")
    assert "; held out: 2 texts, " in subtitle(found)
    assert "; held out: 60 texts in /data/texts/, " in subtitle(many)
    alone = found | {"training": None, "texts": found["texts"][:1]}
    assert "; text prose.txt, " in subtitle(alone)


def test_scripts_are_sorted_with_values_and_rows_near_zero_are_summed() -> None:
    rows = script_rows([{"Latin": 900, "Thai": 50, "Greek": 4, "Han": 6, "Lao": 40}, {"Latin": 5, "Thai": 95}])
    assert list(rows) == ["Thai", "Latin", "Lao", "other (2)"]
    assert rows["Thai"] == [5, 95]
    assert rows["other (2)"] == [1, 0]
    assert [sum(column) for column in zip(*rows.values(), strict=True)] == [100, 100]
    assert list(script_rows([{"Latin": 999, "Greek": 1}])) == ["Latin", "Greek"]  # one row is not folded


def test_the_plot_of_scripts_prints_the_values(found: dict[str, Any]) -> None:
    (axes,) = scripts(LIGHT, found).axes
    rows = script_rows([part["classes"] for part in (found["vocabulary"], found["training"], found["all_texts"])])
    assert [label.get_text() for label in axes.get_yticklabels()] == list(rows)
    printed = [text.get_text() for text in axes.texts]
    assert len(printed) == 3 * len(rows)
    assert printed[0] == f"{next(iter(rows.values()))[0]:.1f}"


def test_fertility_is_sorted_and_without_the_common_path(found: dict[str, Any], many: dict[str, Any]) -> None:
    rows = fertility_rows(found)
    by_size = sorted(found["texts"], key=lambda use: -use["bytes_per_token"])
    assert [row.use for row in rows] == [found["training"], found["all_texts"], *by_size]
    assert [row.label for row in rows[:2]] == ["training", "held out (2)"]
    left, right = fertility(LIGHT, found).axes  # type: ignore[union-attr]
    assert [label.get_text() for label in left.get_yticklabels()] == [row.label for row in rows]
    assert [text.get_text() for text in left.texts][0] == "not counted"
    assert [text.get_text() for text in right.texts] == [f"{row.use['bytes_per_token']:.2f}" for row in rows]


def test_many_rows_of_fertility_are_folded_in_the_middle(many: dict[str, Any]) -> None:
    rows = fertility_rows(many)
    assert len(rows) == MOST_BARS + 3
    labels = [row.label for row in rows[2:]]
    half = MOST_BARS // 2
    assert labels[:2] == ["60.txt", "59.txt"]
    assert labels[half] == "… 20 texts in between"
    assert labels[-1] == "01.txt"
    figure = fertility(LIGHT, many)
    assert figure is not None
    assert figure.get_size_inches()[1] < 12


def test_lengths_and_frequencies_show_every_use(found: dict[str, Any], many: dict[str, Any]) -> None:
    (axes,) = lengths(LIGHT, found).axes
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["in the vocabulary", "in use: training", "in use: held out (2)"]
    assert len(axes.patches) == 3 * 20
    assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(300)
    (axes,) = frequencies(LIGHT, many).axes  # type: ignore[union-attr]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "each of 60 texts", "held out (60)", "training"
    ]  # fmt: skip
