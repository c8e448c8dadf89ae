"""The shell of the pages in a browser: tabs, colours, keyboard, and what a part is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bpe.playground.app import shell_routes
from bpe.playground.http import application, static_files
from support.browser import contrast, served, until, watched

PARTS = [
    {"name": "one", "title": "One", "module": "/parts/one.js", "style": "/parts/one.css"},
    {"name": "two", "title": "Two", "module": "/parts/two.js"},
    {"name": "broken", "title": "Broken", "module": "/parts/broken.js"},
]
ONE = """
import { h } from "/static/page.js";
export function mount(element, about, shell) {
  const shown = h("p", { id: "one" }, `${about.subject}: ${shell.state().get("text") ?? ""}`);
  const button = h("button.button", { id: "write", type: "button" }, "Write");
  button.onclick = () => { shell.setState(new URLSearchParams({ text: "written" })); shell.announce("done"); };
  shell.onState((state) => (shown.textContent = `now ${state.get("text")}`));
  element.append(shown, button);
}
"""
TWO = """
export async function mount(element) {
  window.mounted = (window.mounted ?? 0) + 1;
  element.textContent = "the second part";
}
"""
BROKEN = """
export function mount(element) {
  window.tries = (window.tries ?? 0) + 1;
  if (window.tries === 1) throw new Error("<b>it broke</b>");
  element.append("it works now");
}
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("parts")
    (folder / "one.js").write_text(ONE)
    (folder / "one.css").write_text("#one { color: rgb(1, 2, 3) }")
    (folder / "two.js").write_text(TWO)
    (folder / "broken.js").write_text(BROKEN)
    routes = [*shell_routes({"parts": PARTS, "subject": "the subject"}), static_files("/parts", folder)]
    with served(application(routes, body_limit=1000)) as address:
        yield address


def test_a_tab_opens_its_part_and_keeps_it(browser: Any, address: str) -> None:
    with watched(browser) as watching:
        page = watching.page
        page.goto(address)
        page.wait_for_selector("#one")
        assert page.locator("#one").text_content() == "the subject: "
        assert page.evaluate("getComputedStyle(document.getElementById('one')).color") == "rgb(1, 2, 3)"
        assert page.title() == "One · bpe"
        page.get_by_role("tab", name="Two").click()
        page.get_by_text("the second part").wait_for()
        assert not page.locator("#one").is_visible()
        assert (
            page.evaluate("getComputedStyle(document.getElementById('one')).color") != "rgb(1, 2, 3)"
        )  # not its style
        assert page.url.endswith("#two")
        page.get_by_role("tab", name="One").click()
        page.get_by_role("tab", name="Two").click()
        assert page.evaluate("window.mounted") == 1
        page.get_by_role("tab", name="One").click()
        assert page.evaluate("getComputedStyle(document.getElementById('one')).color") == "rgb(1, 2, 3)"
        assert page.get_by_role("tabpanel").count() == 1


def test_the_address_holds_the_part_and_its_state(browser: Any, address: str) -> None:
    with watched(browser) as watching:
        page = watching.page
        page.goto(f"{address}/#one?text=a+b")
        page.get_by_text("the subject: a b").wait_for()
        page.click("#write")
        assert page.url.endswith("#one?text=written")
        until(page, "document.getElementById('announcements').textContent === 'done'")
        page.evaluate("location.hash = '#one?text=other'")
        page.get_by_text("now other").wait_for()
        page.evaluate("location.hash = '#two'")
        page.get_by_text("the second part").wait_for()


def test_the_keyboard_reaches_everything(browser: Any, address: str) -> None:
    with watched(browser) as watching:
        page = watching.page
        page.goto(address)
        page.wait_for_selector("#one")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        assert page.locator(".skip").bounding_box()["x"] >= 0  # visible once it has the focus
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "tab-one"
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.id") == "tab-two"
        assert page.locator("#tab-two").get_attribute("aria-selected") == "true"
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "theme"
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "write"
        page.focus(".skip")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"


def test_colours_are_those_of_the_system_until_others_are_chosen(browser: Any, address: str) -> None:
    for dark in (False, True):
        with watched(browser, dark=dark) as watching:
            page = watching.page
            page.goto(address)
            page.wait_for_selector("#one")
            paper = "getComputedStyle(document.documentElement).backgroundColor"
            system = page.evaluate(paper)
            chosen = {}
            for theme in ("light", "dark", "system"):
                page.click("#theme")
                chosen[theme] = page.evaluate(paper)
                page.reload()
                page.wait_for_selector("#one")
                assert page.evaluate(paper) == chosen[theme]
                assert theme in page.locator("#theme").get_attribute("aria-label").lower()
            assert chosen["light"] != chosen["dark"]
            assert chosen["system"] == system == chosen["dark" if dark else "light"]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_text_is_legible_and_nothing_is_wider_than_the_window(
    browser: Any, address: str, dark: bool, width: int
) -> None:
    with watched(browser, dark=dark, width=width) as watching:
        page = watching.page
        page.goto(address)
        page.wait_for_selector("#one")
        for selector in ("#tab-one", "#tab-two", "#theme", "#write", ".brand"):
            assert contrast(page, selector) >= 4.5, selector
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_part_that_fails_says_so_as_text_and_is_tried_again(browser: Any, address: str) -> None:
    with watched(browser) as watching:
        page = watching.page
        page.goto(f"{address}/#broken")
        page.get_by_role("alert").wait_for()
        assert "<b>it broke</b>" in page.get_by_role("alert").text_content()
        page.get_by_role("tab", name="Two").click()
        page.get_by_text("the second part").wait_for()
        page.get_by_role("tab", name="Broken").click()
        page.get_by_text("it works now").wait_for()
        assert page.get_by_role("alert").count() == 0
        watching.problems = [problem for problem in watching.problems if "it broke" not in problem]
