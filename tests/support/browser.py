"""Headless Chromium for the tests of the pages, and servers for it."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SCREENSHOTS = os.environ.get("BPE_SCREENSHOTS")
"""The folder for the pictures that `Page.picture` takes; None for no pictures."""


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium and yield playwright's browser. The test is skipped where one of the two is not installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an ASGI application on a free port of the loopback and yield its address, without a slash at the end."""
    from bpe.playground.listening import address_of, listen, new_server

    listening = listen("127.0.0.1", 0)
    ready = threading.Event()
    server = new_server(app, started=ready.set)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield address_of(listening).rstrip("/")
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()


class Watched:
    """A page of the browser that notes what goes wrong in it.

    Args:
        browser: playwright's browser.
        dark: Whether the system prefers dark colours.
        width: The width of the window in pixels.
        height: Its height.
    """

    def __init__(self, browser: Any, *, dark: bool = False, width: int = 1280, height: int = 800) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            has_touch=width < 600,
            permissions=["clipboard-read", "clipboard-write"],
        )
        self.page = self.context.new_page()
        self.problems: list[str] = []
        """Messages of errors and warnings in the console, uncaught errors, and failed requests."""
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.problems.append(f"uncaught: {error}"))
        self.page.on("requestfailed", self._note_request)

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning"):  # a violation of the Content-Security-Policy is an error as well
            self.problems.append(f"{message.type}: {message.text} ({message.location})")

    def _note_request(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # the page cancels requests that it no longer needs
            self.problems.append(f"{request.url}: {request.failure}")

    def picture(self, name: str) -> None:
        """Save a screenshot, if $BPE_SCREENSHOTS names a folder."""
        if SCREENSHOTS:
            Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}.png"))


@contextlib.contextmanager
def watched(browser: Any, **settings: Any) -> Iterator[Watched]:
    """Open a page, yield it, and assert that nothing went wrong in it. The settings are those of `Watched`."""
    watching = Watched(browser, **settings)
    try:
        yield watching
        assert watching.problems == []
    finally:
        watching.context.close()


def until(page: Any, expression: str, seconds: float = 30) -> Any:
    """Wait until an expression of JavaScript is true, and return its value.

    playwright's `wait_for_function` calls eval in the page, which the Content-Security-Policy forbids.

    Raises:
        AssertionError: When it is not true after about as many seconds. Looks are counted, not seconds, because the
            server is in this process: time during which the process does not run must not count.
    """
    pause = 15  # ms
    for _ in range(int(seconds * 1000 / pause)):
        if value := page.evaluate(expression):
            return value
        page.wait_for_timeout(pause)
    raise AssertionError(f"not true after {seconds} s: {expression}")


def contrast(page: Any, selector: str) -> float:
    """Return the contrast between the colour of an element's text and what is behind it, as WCAG 2 defines it."""
    ratio: float = page.evaluate(_CONTRAST, selector)
    return ratio


_CONTRAST = """
(selector) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const luminance = (color) => {
    const [r, g, b] = [...rgba(color)].map((value) => value / 255)
      .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const element = document.querySelector(selector);
  let behind = element;
  while (behind && rgba(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  const paper = luminance(getComputedStyle(behind ?? document.documentElement).backgroundColor);
  const ink = luminance(getComputedStyle(element).color);
  return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
}
"""

Opener = Callable[..., contextlib.AbstractContextManager[Watched]]
