"""The look of pictures, and the files that they are saved to."""

from __future__ import annotations

import itertools
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bpe import InputError, drawing
from bpe.drawing import (
    DARK,
    FORMATS,
    LIGHT,
    Look,
    PictureSettings,
    common_directory,
    drawable,
    figure_of,
    is_available,
    require,
    save,
    spread,
    styled,
    text_width,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAGIC = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<?xml", "pdf": b"%PDF-"}


@styled
def sample(look: Look, title: str = "A title", subtitle: str = "") -> Figure:
    figure = figure_of(4, 2, title, subtitle)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=look.series[0], label="$x_{ & <é>")
    axes.set_xlabel("a label")
    axes.legend()
    return figure


def test_every_format_is_written_and_a_second_run_writes_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for attempt in ("first", "second"):
        (tmp_path / attempt).mkdir()
        files = save(sample(LIGHT), tmp_path / attempt / "v1.2", PictureSettings(FORMATS))
        assert [file.name for file in files] == ["v1.2.png", "v1.2.svg", "v1.2.pdf"]
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]
    for name, content in zip(FORMATS, contents[0], strict=True):
        assert content.startswith(MAGIC[name])


def test_text_stays_text_in_svg_and_fonts_are_embedded_in_pdf(tmp_path: Path) -> None:
    _, svg, pdf = (file.read_bytes() for file in save(sample(LIGHT), tmp_path / "p", PictureSettings(FORMATS)))
    assert b">a label</text>" in svg
    assert "$x_{ &amp; &lt;é&gt;".encode() in svg
    assert b"<dc:date>" not in svg
    assert b"/CIDFontType2" in pdf or b"/TrueType" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf


def test_a_png_has_300_dots_per_inch(tmp_path: Path) -> None:
    figure = sample(LIGHT)
    (file,) = save(figure, tmp_path / "p", PictureSettings())
    size = [int.from_bytes(file.read_bytes()[at : at + 4], "big") for at in (16, 20)]
    assert size == pytest.approx([300 * side for side in figure.get_size_inches()], abs=1)


def test_settings_of_the_user_have_no_effect(tmp_path: Path) -> None:
    import matplotlib

    expected = save(sample(LIGHT), tmp_path / "a", PictureSettings(("svg",)))[0].read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert save(sample(LIGHT), tmp_path / "b", PictureSettings(("svg",)))[0].read_bytes() == expected
        assert matplotlib.rcParams["font.size"] == 30


def luminance(color: str) -> float:
    """The relative luminance of WCAG 2."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("look", [LIGHT, DARK])
def test_all_colors_stand_out_from_the_background(look: Look) -> None:
    assert min(contrast(color, look.background) for color in look.series) >= 3
    assert contrast(look.ink, look.background) >= 7
    assert contrast(look.muted, look.background) >= 4.5
    steps = [luminance(color) for color in look.ramp]
    assert steps == sorted(steps) or steps == sorted(steps, reverse=True)
    assert contrast(look.ramp[0], look.background) < 1.5 < contrast(look.ramp[-1], look.background)


def test_light_and_dark_have_the_same_parts() -> None:
    light, dark = sample(LIGHT), sample(DARK)
    assert light.axes[0].get_facecolor() != dark.axes[0].get_facecolor()
    assert light.axes[0].lines[0].get_color() == LIGHT.series[0]
    assert dark.axes[0].lines[0].get_color() == DARK.series[0]
    assert [text.get_text() for text in light.texts] == [text.get_text() for text in dark.texts]
    assert list(light.get_size_inches()) == list(dark.get_size_inches())
    assert len(LIGHT.series) == len(DARK.series) == len({*LIGHT.series}) == len({*DARK.series})


def test_characters_that_no_font_has_are_escaped() -> None:
    assert drawable("naïve Ω $x$ _") == "naïve Ω $x$ _"
    assert drawable("a\tb\x00\ue000\ud800") == r"a\tb\x00\ue000\ud800"


def test_an_installed_fallback_font_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.font_manager import findfont, get_font

    ours = set(get_font(findfont("DejaVu Sans")).get_charmap())
    other = next(point for point in get_font(findfont("STIXGeneral")).get_charmap() if point not in ours)
    assert drawable(chr(other)) != chr(other) or not chr(other).isprintable()
    printable = [
        point
        for point in get_font(findfont("STIXGeneral")).get_charmap()
        if point not in ours and chr(point).isprintable()
    ]
    monkeypatch.setattr(drawing, "FALLBACK_FONTS", ("No Such Font", "STIXGeneral"))
    for function in (drawing._fonts, drawing._glyphs):
        function.cache_clear()
    try:
        assert drawing._fonts() == ("DejaVu Sans", "STIXGeneral")
        assert all(drawable(chr(point)) == chr(point) for point in printable)
    finally:
        monkeypatch.undo()
        for function in (drawing._fonts, drawing._glyphs):
            function.cache_clear()


@pytest.mark.parametrize("text", ["a $b$ _c_ \\d", "日本語 🦙", "word " * 200, "x" * 500, "\n\t ", "\udcff"])
def test_any_title_is_drawn_within_the_figure_without_a_warning(text: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = sample(LIGHT, text, text)
        save(figure, tmp_path / "p", PictureSettings(("png", "svg")))
        for each in figure.texts:
            assert each.get_window_extent().x1 <= figure.bbox.x1


def test_text_width_grows_with_text_and_size() -> None:
    assert 0 < text_width("i", 10) < text_width("m", 10) < text_width("m", 20)


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        ([], ""),
        (["a.txt"], ""),
        (["x/a.txt"], "x/"),
        (["x/y/a.txt", "x/yz/a.txt"], "x/"),
        (["/tmp/a", "/tmp/b"], "/tmp/"),
        (["x/a", "training"], ""),
        (["c:\\x\\a", "c:\\x\\b"], "c:\\x\\"),
    ],
)
def test_the_common_directory_of_names(names: list[str], prefix: str) -> None:
    assert common_directory(names) == prefix


@pytest.mark.parametrize("places", [[], [1.0], [1, 1, 1], [0, 0.1, 5, 5.1, 10], [9.9, 10, 10], [0, 0, 0, 10, 10, 10]])
def test_labels_are_spread_within_the_limits_and_keep_their_order(places: list[float]) -> None:
    moved = spread(places, 1, 0, 10)
    ordered = sorted(moved)
    assert all(after - before >= 1 - 1e-9 for before, after in itertools.pairwise(ordered))
    assert all(-1e-9 <= place <= 10 + 1e-9 for place in moved)
    for (a, b), (c, d) in itertools.combinations(zip(places, moved, strict=True), 2):
        assert a == c or (a < c) == (b < d)


def test_places_that_are_far_apart_do_not_move() -> None:
    assert spread([7, 1, 4], 1, 0, 10) == [7, 1, 4]


def test_unknown_formats_and_a_missing_matplotlib_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="'gif' is not a format of pictures; use png, svg, pdf"):
        PictureSettings(("gif",))
    with pytest.raises(InputError, match="no format"):
        PictureSettings(())
    require("map.png")
    assert is_available()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not is_available()
    with pytest.raises(InputError, match=r"^map.png: pictures are drawn with matplotlib.*'bpe-llama\[report\]'$"):
        require("map.png")
