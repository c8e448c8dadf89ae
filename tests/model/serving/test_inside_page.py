"""The page Inside in a browser: its numbers are those of `explain`, and a click goes a layer deeper."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from model import Transformer
from model.explain.steps import attention_maps, explain
from model.serving.inside import DEFAULT_TEXT, Inside
from support.browser import contrast, until, watched
from support.chat_page import page_served, small_transformer
from support.native_models import native
from support.serving import Served, byte_tokenizer

TEXT = "a fox"


@pytest.fixture(scope="module")
def model() -> Transformer:
    return small_transformer()


@pytest.fixture(scope="module")
def served(model: Transformer) -> Iterator[Served]:
    with page_served(Inside(model, byte_tokenizer())) as served:
        yield served


def look(page: Any, served: Served, text: str = TEXT, more: str = "", ready: str = ".lens") -> None:
    """Open the page with a text."""
    page.goto(f"{served.address}/#inside?text={quote(text)}{more}")
    until(page, f"!!document.querySelector('{ready}')")


def test_the_default_text_is_read_at_once(browser: Any, served: Served) -> None:
    with watched(browser) as watching:
        page = watching.page
        page.goto(f"{served.address}/#inside")
        until(page, "!!document.querySelector('.maps canvas')")
        assert page.input_value(".inside-text") == DEFAULT_TEXT
        count = len(byte_tokenizer().encode(DEFAULT_TEXT))
        assert page.inner_text(".tokens-part h2") == f"{count} tokens"
        assert page.locator(".tokens-part .chip").count() == count
        assert "3 layers · 2 heads each · 16 dimensions" in page.inner_text(".tokens-part")
        watching.picture("inside-tiny")


def test_tokens_show_their_ids_and_the_likeliest_next_tokens_their_shares(
    browser: Any, served: Served, model: Transformer
) -> None:
    tokenizer = byte_tokenizer()
    (step,) = (s for s in explain(model, [*TEXT.encode()], n_vocab=tokenizer.n_vocab) if s.picture == "next")
    values, ids = step.tensor[0].topk(12)
    with watched(browser) as watching:
        page = watching.page
        look(page, served)
        chips = page.evaluate("[...document.querySelectorAll('.chip')].map((each) => each.innerText.split('\\n'))")
        assert chips == [[character.replace(" ", "·"), str(ord(character))] for character in TEXT]
        assert page.get_attribute(".chip >> nth=1", "title") == "token 1 · id 32 · bytes 20"
        rows = page.evaluate(
            "[...document.querySelectorAll('.next-part li')].map((each) => [each.querySelector('.id').textContent,"
            " each.querySelector('.share').textContent])"
        )
        assert [int(id) for id, _ in rows] == ids.tolist()
        assert [share for _, share in rows] == [f"{100 * value:.{1 if value >= 0.00995 else 2}f}%" for value in values]


def test_pointing_at_a_cell_shows_what_the_layer_would_say(browser: Any, served: Served, model: Transformer) -> None:
    tokenizer = byte_tokenizer()
    (step,) = (s for s in explain(model, [*TEXT.encode()], n_vocab=tokenizer.n_vocab) if s.picture == "layers")
    assert step.guesses is not None
    with watched(browser) as watching:
        page = watching.page
        look(page, served)
        assert "After layer 2, after x" in page.inner_text(".lens-detail h3")
        for row in reversed(range(4)):
            page.hover(f".lens tbody tr >> nth={3 - row} >> .cell >> nth=4")
            found = page.evaluate("[...document.querySelectorAll('.lens-detail .id')].map((each) => each.textContent)")
            assert [int(id) for id in found] == step.guesses[row].topk(5).indices.tolist()
        assert page.inner_text(".lens-detail h3").startswith("Before the first layer")
        page.focus(".lens .cell[tabindex='0']")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowLeft")
        assert "After layer 1, after o" in page.inner_text(".lens-detail h3")
        page.keyboard.press("Enter")
        until(page, "!!document.querySelector('.heads')")
        assert page.inner_text(".title-row h2") == "Layer 1 of 3"


def cell(page: Any, canvas: str, row: float, column: float) -> dict[str, float]:
    """Return the place of a cell in a canvas, whose last cell ends in its corner."""
    place: dict[str, float] = page.evaluate(
        """([canvas, row, column]) => {
          const { width, height } = document.querySelector(canvas).getBoundingClientRect();
          return { x: width * column, y: height * row };
        }""",
        [canvas, row, column],
    )
    return place


def test_clicks_lead_from_the_model_to_a_layer_a_head_a_step_and_its_numbers(
    browser: Any, served: Served, model: Transformer
) -> None:
    tokenizer, ids = byte_tokenizer(), [*TEXT.encode()]
    with watched(browser) as watching:
        page = watching.page
        look(page, served)
        page.click(".lens .layer >> nth=1")
        until(page, "!!document.querySelector('.heads')")
        assert page.inner_text(".trail").split("\n")[-1] == "Layer 1"
        assert page.locator(".head").count() == 2
        assert page.evaluate("document.activeElement.tagName") == "H2"
        page.click(".head >> nth=1")
        until(page, "!!document.querySelector('.map-part canvas')")
        assert page.inner_text(".title-row h2") == "Layer 1, head 1"
        assert page.url.endswith("layer=1&head=1")
        shares = attention_maps(model, ids, layers=[1], heads=[1])[0, 0]
        page.focus(".map-part canvas")
        page.keyboard.press("ArrowDown")
        for _ in range(4):
            page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
        words = page.inner_text(".map-part .readout")
        assert words.startswith("“x” (4) attends to “·” (1): ")
        assert f"({shares[4, 1].item():.3g})" in words or f"{100 * shares[4, 1].item():.1f}%" in words
        steps = list(explain(model, ids, layer=1, head=1, n_vocab=tokenizer.n_vocab))
        titles = page.evaluate("[...document.querySelectorAll('.step-title')].map((each) => each.textContent)")
        assert titles == [step.title for step in steps]
        place = titles.index("queries of head 1")
        page.click(f".step >> nth={place} >> summary")
        page.wait_for_selector(".step[open] canvas")
        page.focus(".step[open] canvas")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        number = steps[place].tensor[0, 1].item()
        assert page.inner_text(".step[open] .readout").startswith("“a” (0), number 1: ")
        shown = float(page.inner_text(".step[open] .readout").split(": ")[1].replace("−", "-"))
        assert shown == pytest.approx(number, rel=0.01)
        page.keyboard.press("Enter")
        page.wait_for_selector(".row-numbers canvas")
        assert page.inner_text(".row-numbers h4") == "“a” (0): all 8 numbers"
        page.hover(".row-numbers canvas", position={"x": 1, "y": 1})
        first = float(page.inner_text(".row-numbers .readout").split(": ")[1].replace("−", "-"))
        assert first == pytest.approx(steps[place].tensor[0, 0].item(), rel=0.01)
        page.click(".trail >> text=Layer 1")
        until(page, "document.querySelector('.title-row h2')?.textContent === 'Layer 1 of 3'")
        page.click("text=Layer 2")
        until(page, "document.querySelector('.title-row h2')?.textContent === 'Layer 2 of 3'")
        page.click("text=Whole model")
        until(page, "!!document.querySelector('.lens')")


def test_the_picture_of_all_heads_opens_a_head(browser: Any, served: Served) -> None:
    with watched(browser) as watching:
        page = watching.page
        look(page, served, ready=".maps canvas")
        until(page, "document.querySelector('.maps canvas').width > 100")
        page.hover(".maps canvas", position=cell(page, ".maps canvas", 0.9, 0.75))
        assert page.inner_text(".maps .readout").startswith("Layer 2, head 1: token ")
        page.click(".maps canvas", position=cell(page, ".maps canvas", 0.9, 0.75))
        until(page, "!!document.querySelector('.map-part')")
        assert page.inner_text(".title-row h2") == "Layer 2, head 1"


def test_every_step_opens_and_shows_a_picture(browser: Any, served: Served) -> None:
    with watched(browser) as watching:
        page = watching.page
        look(page, served, more="&layer=2&head=0", ready=".steps")
        page.evaluate("for (const each of document.querySelectorAll('.step')) each.open = true")
        until(
            page, "document.querySelectorAll('.step canvas').length === document.querySelectorAll('.step').length - 1"
        )
        until(page, "[...document.querySelectorAll('.step canvas')].every((each) => each.width > 50)")
        painted = page.evaluate(
            """[...document.querySelectorAll(".step canvas")].map((canvas) => {
              const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
              return data.some((value) => value > 0);
            })"""
        )
        assert all(painted)


def test_the_address_keeps_text_and_depth(browser: Any, served: Served) -> None:
    with watched(browser) as watching:
        page = watching.page
        look(page, served, "xyz", "&layer=1&head=0", ".map-part")
        assert page.input_value(".inside-text") == "xyz"
        page.fill(".inside-text", "other")
        page.press(".inside-text", "Enter")
        until(page, "document.querySelectorAll('.tokens-part .chip').length === 5")
        assert "text=other" in page.url
        assert "layer" not in page.url
        page.reload()
        until(page, "document.querySelectorAll('.tokens-part .chip').length === 5")


@pytest.mark.parametrize(
    ("text", "words"),
    [("x" * 129, "129 tokens; this page shows at most 128"), ("", "it is empty")],
)
def test_a_text_that_cannot_be_read_is_refused_in_words(browser: Any, served: Served, text: str, words: str) -> None:
    with watched(browser) as watching:
        page = watching.page
        look(page, served)
        page.fill(".inside-text", text)
        page.click(".inside-form button")
        until(page, "!!document.querySelector('.inside-state .notice')")
        assert words in page.inner_text(".inside-state")
        page.fill(".inside-text", "fine")
        page.click(".inside-form button")
        until(page, "document.querySelectorAll('.tokens-part .chip').length === 4")
        assert page.locator(".inside-state .notice").count() == 0
        assert all("400" in line for line in watching.problems)  # the browser itself notes the refused request
        watching.problems.clear()


@pytest.mark.parametrize(
    "text",
    [
        "<script>window.hacked = 1</script><img src=x>",
        "\u202eabc עברית \u2066x",
        "e" + "\u0301" * 50,
        "\x1b[31m\x07\u2028",
    ],
    ids=["markup", "right to left", "combining marks", "control characters"],
)
def test_hostile_text_is_shown_as_text(browser: Any, served: Served, text: str) -> None:
    with watched(browser) as watching:
        page = watching.page
        look(page, served, text)
        assert page.locator(".tokens-part .chip").count() == len(text.encode())
        page.click(".lens .layer >> nth=0")
        until(page, "!!document.querySelector('.heads')")
        assert page.evaluate("window.hacked") is None
        assert page.locator("main script, main img").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") == 1280


def test_the_page_says_that_it_loads_the_weights_and_how_much_memory_they_take(
    browser: Any, model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = Inside(native(model), byte_tokenizer())
    monkeypatch.setattr(inside, "_reason", lambda: "")
    monkeypatch.setattr(inside, "_needed_bytes", lambda: 2_500_000_000)
    monkeypatch.setattr(inside, "_loaded", lambda: model)
    with page_served(inside) as served, watched(browser) as watching:
        page = watching.page
        page.goto(f"{served.address}/#inside")
        until(page, "!!document.querySelector('.inside-state .notice')")
        assert "in PyTorch's form: 2.5 GB of memory" in page.inner_text(".inside-state")
        assert page.is_disabled(".inside-form button")
        page.click(".inside-state button")
        until(page, "!!document.querySelector('.lens')")


def test_a_model_that_takes_little_memory_is_loaded_with_a_word(
    browser: Any, model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    inside = Inside(native(model), byte_tokenizer())
    monkeypatch.setattr(inside, "_reason", lambda: "")
    monkeypatch.setattr(inside, "_needed_bytes", lambda: 270_000_000)
    monkeypatch.setattr(inside, "_loaded", lambda: release.wait(20) and model)
    with page_served(inside) as served, watched(browser) as watching:
        page = watching.page
        page.goto(f"{served.address}/#inside")
        until(page, "!!document.querySelector('.spinner')")
        until(
            page, "document.querySelector('.inside-state').innerText.includes('0.3 GB of memory. This happens once.')"
        )
        watching.picture("inside-loading")
        release.set()
        until(page, "!!document.querySelector('.lens')")


def test_the_page_says_why_it_cannot_look_inside(browser: Any, model: Transformer) -> None:
    with page_served(Inside(native(model), byte_tokenizer())) as served, watched(browser) as watching:
        page = watching.page
        page.goto(f"{served.address}/#inside")
        until(page, "!!document.querySelector('.inside-state .notice')")
        assert page.text_content(".inside-state .notice").startswith(
            "This page cannot look inside. The server has no checkpoint"
        )
        assert page.is_disabled(".inside-text")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_fits_and_is_legible(browser: Any, served: Served, width: int, dark: bool) -> None:
    with watched(browser, width=width, dark=dark) as watching:
        page = watching.page
        name = f"{'dark' if dark else 'light'}-{width}"
        look(page, served, ready=".maps canvas")
        page.wait_for_timeout(100)
        watching.picture(f"inside-{name}")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for selector in (".chip bdi", ".chip .muted", ".lens .cell.chosen", ".bars .id", ".readout"):
            assert contrast(page, selector) >= 4.5, selector
        page.click(".lens .layer >> nth=0")
        until(page, "!!document.querySelector('.heads canvas')")
        page.click(".head >> nth=0")
        until(page, "!!document.querySelector('.map-part canvas')")
        page.wait_for_timeout(100)
        watching.picture(f"inside-head-{name}")
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_pictures_are_drawn_again_in_the_colours_of_another_theme(browser: Any, served: Served) -> None:
    with watched(browser) as watching:
        page = watching.page
        look(page, served, more="&layer=0&head=0", ready=".map-part canvas")
        until(page, "document.querySelector('.map-part canvas').width > 100")
        picture = "document.querySelector('.map-part canvas').toDataURL()"
        before = page.evaluate(picture)
        page.emulate_media(color_scheme="dark")
        until(page, f"{picture} !== '{before}'")
