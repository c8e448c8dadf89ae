"""The page of tokens in a browser."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from bpe import Tokenizer
from bpe.playground.app import playground
from bpe.playground.tokenizers import Shelf
from support.browser import Watched, contrast, served, until, watched
from support.pieces import trained

RANKS = {bytes([byte]): byte for byte in range(256)}
BYTES = Tokenizer("bytes", pat_str="gpt2", mergeable_ranks=RANKS, special_tokens={"<|end|>": 256})
HOSTILE = {
    "markup": "<script>alert(1)</script><img src=x onerror=alert(1)>&lt;\"'</textarea>",
    "right to left": "English עברית العربية \u202ereversed\u202c \u2066isolated\u2069 end",
    "combining marks": "a" + "\u0301" * 10_000 + "b",
    "control characters": "a\0b\x07\x1b[31m\x7f\x85\u2028\ufeff\u200b\u00a0\U000e0001 \tend\r\nx\ry",
    "emoji": "👩‍👩‍👧‍👦 🇩🇪 ✂️ 1️⃣ 👍🏽",
    "one long word": "x" * 5000,
    "no text": "",
    "line breaks": "\n" * 3000,
}


@pytest.fixture(scope="module")
def mine(my_json: Path) -> Tokenizer:
    return Tokenizer.from_file(my_json)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("pieces") / "llama.model"
    path.write_bytes(trained("plain"))
    return Tokenizer.from_file(path)


@pytest.fixture(scope="module")
def address(mine: Tokenizer, pieces: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    shelf = Shelf(loaded={"mine": mine, "bytes": BYTES, "pieces": pieces}, folder=tmp_path_factory.mktemp("empty"))
    with served(playground(shelf, chosen=["mine", "bytes"])) as address:
        yield address


def open_page(watching: Watched, address: str, text: str | None = None, *, names: Any = (), more: str = "") -> Any:
    """Open the page, with a text and tokenizers, and wait for the tokens."""
    state = "".join(f"tokenizer={name}&" for name in names) + more
    watching.page.goto(f"{address}/#tokens?{state}" + ("" if text is None else f"&text={quote(text)}"))
    until(watching.page, _READY)
    return watching.page


_READY = """(() => {
  const columns = [...document.querySelectorAll(".column")];
  return columns.length > 0 && columns.every((column) => column.getAttribute("aria-busy") === "false");
})()"""


def write(page: Any, text: str) -> None:
    """Put a text into the box, as a paste does, and wait for the tokens of all columns."""
    page.evaluate(
        """(text) => {
          for (const column of document.querySelectorAll(".column")) column.setAttribute("aria-busy", "true");
          const area = document.getElementById("text");
          area.value = text;
          area.dispatchEvent(new Event("input"));
        }""",
        text,
    )
    until(page, _READY)


def counts(page: Any) -> list[int]:
    """Return the number of tokens that each column shows."""
    return [int(text.split()[0].replace(",", "")) for text in page.locator(".count").all_text_contents()]


def column(page: Any, name: str) -> Any:
    return page.locator(f'.column[aria-label="{name}"]')


def shown_tokens(page: Any, name: str) -> list[str]:
    return [text for text in column(page, name).locator(".token").all_text_contents()]


def fact(page: Any, name: str, kind: str) -> str:
    text: str = column(page, name).locator(kind).text_content()
    return text


def test_tokens_are_shown_with_their_counts(browser: Any, address: str, mine: Tokenizer) -> None:
    text = "Hello, it's naïve 🙂 12345\n"
    with watched(browser) as watching:
        page = open_page(watching, address, text)
        assert counts(page) == [len(mine.encode(text)), len(text.encode())]
        assert "26 characters · 30 bytes" in page.locator("#text-facts").text_content()
        ratio = f"{30 / len(mine.encode(text)):.2f} bytes per token"
        assert ratio in column(page, "mine").locator(".facts").text_content()
        assert "1.00 bytes per token" in column(page, "bytes").locator(".facts").text_content()
        colors = page.evaluate(
            "[...document.querySelectorAll('.token')].slice(0, 2).map((e) => getComputedStyle(e).backgroundColor)"
        )
        assert colors[0] != colors[1]
        watching.picture("tokens")


def test_pointing_at_a_token_shows_what_it_is_and_marks_its_text_everywhere(
    browser: Any, address: str, mine: Tokenizer
) -> None:
    text = "é🙂 and the rest"
    ids, spans = mine.encode_with_offsets(text, unit="bytes")
    place = next(place for place, (begin, _) in enumerate(spans) if begin >= 6)
    begin, end = spans[place]
    with watched(browser) as watching:
        page = open_page(watching, address, text)
        column(page, "mine").locator(".token").nth(place).hover()
        until(page, "document.querySelector('.token-bytes') !== null")
        assert fact(page, "mine", ".token-id") == str(ids[place])
        assert fact(page, "mine", ".token-span") == f"{begin}–{end}"
        characters = len(text.encode()[:begin].decode()), len(text.encode()[:end].decode())
        assert fact(page, "mine", ".token-characters") == f"{characters[0]}–{characters[1]}"
        assert fact(page, "mine", ".token-bytes") == text.encode()[begin:end].hex(" ")
        marked = column(page, "bytes").locator(".token.marked")
        assert marked.count() == end - begin
        assert "".join(marked.all_text_contents()) == text.encode()[begin:end].decode().replace(" ", "·")
        page.mouse.move(5, 5)
        until(page, "document.querySelectorAll('.token.marked').length === 0")
        watching.picture("hover")


def test_parts_of_a_character_are_shown_as_bytes(browser: Any, address: str) -> None:
    with watched(browser) as watching:
        page = open_page(watching, address, "é🙂", names=["bytes"])
        assert shown_tokens(page, "bytes") == ["c3", "a9", "f0", "9f", "99", "82"]
        column(page, "bytes").locator(".token").nth(3).hover()
        until(page, "document.querySelector('.detail-top .muted').textContent === 'byte 2 of 4 of 🙂 (U+1F642)'")
        assert fact(page, "bytes", ".token-span") == "3–4"
        assert fact(page, "bytes", ".token-characters") == "1–2"
        assert fact(page, "bytes", ".token-bytes") == "9f"


def test_special_tokens_are_recognised_unless_that_is_switched_off(browser: Any, address: str) -> None:
    with watched(browser) as watching:
        page = open_page(watching, address, "a<|end|>b", names=["bytes"])
        assert counts(page) == [3]
        special = page.locator(".token.special")
        assert special.all_text_contents() == ["<|end|>"]
        assert "special token" in special.get_attribute("aria-label")
        watching.picture("special")
        page.get_by_label("Recognise special tokens").uncheck()
        until(page, "document.querySelectorAll('.token').length === 9")
        assert page.locator(".token.special").count() == 0
        assert "special=0" in page.url


def test_white_space_is_visible_unless_that_is_switched_off(browser: Any, address: str) -> None:
    with watched(browser) as watching:
        page = open_page(watching, address, "a b\t\r\n\n", names=["bytes"])
        assert counts(page) == [7]  # the carriage return, which a text box drops, is there
        assert shown_tokens(page, "bytes") == ["a", "·", "b", "→\t", "CR", "⏎\n", "⏎\n"]
        page.get_by_label("Show white space").uncheck()
        assert shown_tokens(page, "bytes") == ["a", " ", "b", "\t", "CR", "\n", "\n"]
        page.get_by_label("Show ids").check()
        assert shown_tokens(page, "bytes")[:2] == ["a97", " 32"]


def test_tokenizers_are_added_changed_and_removed(browser: Any, address: str, pieces: Tokenizer) -> None:
    with watched(browser) as watching:
        page = open_page(watching, address, "the answer ", names=["bytes"])
        assert column(page, "bytes").locator(".remove").is_hidden()  # the only one stays
        page.get_by_role("button", name="Add a tokenizer").click()
        until(page, _READY)
        assert page.locator(".column").count() == 2
        page.locator(".chooser").nth(1).select_option("pieces")
        until(
            page,
            f"document.querySelectorAll('.count')[1].textContent.startsWith('{len(pieces.encode('the answer '))} ')",
        )
        assert "tokenizer=bytes&tokenizer=pieces" in page.url
        assert "−" in column(page, "pieces").locator(".facts").text_content()  # fewer than the first
        watching.picture("three")
        column(page, "bytes").locator(".remove").click()
        assert page.locator(".column").count() == 1
        assert "tokenizer=pieces" in page.url and "tokenizer=bytes" not in page.url


def test_typing_shows_the_tokens_of_the_last_text(browser: Any, address: str) -> None:
    with watched(browser) as watching:
        page = open_page(watching, address, "", names=["bytes"])
        assert counts(page) == [0]
        page.locator("#text").press_sequentially("hello, hello")
        until(page, "document.querySelectorAll('.token').length === 12")
        assert "text=hello%2C+hello" in page.url


def test_ids_are_copied_and_become_text_again(browser: Any, address: str, mine: Tokenizer) -> None:
    text = "Hello 🙂 there"
    with watched(browser) as watching:
        page = open_page(watching, address, text)
        page.get_by_role("button", name="Copy the ids of mine").click()
        until(page, "document.getElementById('announcements').textContent.startsWith('Copied')")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert json.loads(copied) == mine.encode(text)
        page.get_by_role("button", name="Ids", exact=True).click()
        page.locator("#ids").fill(f" {mine.encode('the end')} ")
        until(page, "document.getElementById('ids-text').textContent === 'the end'")
        until(page, f"document.querySelector('.count').textContent.startsWith('{len(mine.encode('the end'))} ')")
        letters = [mine.encode(letter)[0] for letter in "the"]
        page.locator("#ids").fill(", ".join(map(str, letters)))
        until(page, "document.getElementById('ids-text').textContent === 'the'")
        until(
            page, "document.getElementById('ids-problem').textContent.endsWith('mine encodes this text to other ids')"
        )
        page.locator("#ids").fill("12, x3")
        until(page, "document.getElementById('ids-problem').textContent.includes('Entry 2 is not an id: x3')")
        page.locator("#ids").fill("1 99999999")
        until(page, "document.getElementById('ids-problem').textContent.includes('ids[1]: 99999999 is the id of no')")
        watching.problems = [problem for problem in watching.problems if "status of 400" not in problem]
        page.locator("#ids").fill(str(mine.encode("🙂")[:1]))
        until(page, "document.getElementById('ids-problem').textContent.includes('not UTF-8')")
        watching.picture("ids")
        page.get_by_role("button", name="Text", exact=True).click()
        assert page.locator("#text").is_visible() and not page.locator("#ids").is_visible()


def test_a_link_opens_the_same_state(browser: Any, address: str) -> None:
    text = "tabs\tand\nlines & signs #?=+ 🙂"
    with watched(browser) as watching:
        page = open_page(watching, address, text, names=["pieces", "bytes"], more="special=0&space=0&ids=1")
        page.get_by_role("button", name="Copy link").click()
        until(page, "document.getElementById('announcements').textContent === 'Link copied'")
        link = page.evaluate("navigator.clipboard.readText()")
        page.goto("about:blank")
        page.goto(link)
        until(page, _READY)
        assert page.locator("#text").input_value() == text
        assert page.locator(".chooser").evaluate_all("(all) => all.map((each) => each.value)") == ["pieces", "bytes"]
        for label, is_checked in (("Recognise special tokens", False), ("Show white space", False), ("Show ids", True)):
            assert page.get_by_label(label).is_checked() == is_checked
        write(page, "long " * 1000)
        assert "long=1" in page.url and len(page.url) < 300


def test_a_link_says_what_of_it_is_not_on_this_machine(browser: Any, address: str) -> None:
    with watched(browser) as watching:
        page = open_page(watching, address, names=["bytes", "<b>other</b>"], more="long=1")
        notice = page.locator(".output > .notice").text_content()
        assert notice == "Not on this machine: <b>other</b>. The text was too long for the link."
        assert page.locator(".column").count() == 1 and counts(page) == [0]
        page.evaluate("location.hash = '#tokens?text=ab'")
        until(page, "document.querySelectorAll('.column').length === 2")
        until(page, _READY)
        assert page.locator(".output > .notice").is_hidden()


def test_more_tokenizers_than_fit_can_be_added_no_more(browser: Any, address: str) -> None:
    with watched(browser) as watching:
        page = open_page(watching, address, "ab", names=["bytes"] * 7)
        assert page.locator(".column").count() == 6
        assert "at most 6" in page.locator(".output > .notice").text_content()
        assert page.locator(".add").is_disabled()
        watching.picture("six")


def test_the_keyboard_walks_through_the_tokens(browser: Any, address: str, mine: Tokenizer) -> None:
    text = "one two\nthree four\n" * 40
    with watched(browser) as watching:
        page = open_page(watching, address, text)
        view = column(page, "mine").locator(".view")
        view.focus()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        active = page.evaluate(
            "document.getElementById(document.activeElement.getAttribute('aria-activedescendant')).dataset"
        )
        assert active["token"] == "2"
        assert fact(page, "mine", ".token-id") == str(mine.encode(text)[2])
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("End")
        last = len(mine.encode(text)) - 1
        selector = f'.column[aria-label="mine"] [data-token="{last}"]'
        assert page.locator(selector).get_attribute("aria-selected") == "true"
        assert page.evaluate(_VISIBLE, selector)
        # The other column has scrolled to the same text.
        assert page.evaluate(_VISIBLE, f'.column[aria-label="bytes"] [data-token="{len(text) - 1}"]')
        page.keyboard.press("Home")
        assert page.evaluate(_VISIBLE, '.column[aria-label="mine"] [data-token="0"]')


_VISIBLE = """(selector) => {
  const token = document.querySelector(selector);
  const box = token?.getBoundingClientRect();
  const view = token?.closest(".view").getBoundingClientRect();
  return Boolean(box) && box.top >= view.top - 1 && box.bottom <= view.bottom + 1;
}"""


def test_a_touch_pins_a_token(browser: Any, address: str) -> None:
    with watched(browser, width=390, height=844) as watching:
        page = open_page(watching, address, "hello", names=["bytes"])
        column(page, "bytes").locator(".token").nth(1).tap()
        until(page, "document.querySelector('.token-id')?.textContent === '101'")
        assert page.locator(".token.active").count() == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_shown_harmlessly_and_at_its_places(
    browser: Any, address: str, mine: Tokenizer, pieces: Tokenizer, name: str
) -> None:
    text = HOSTILE[name]
    with watched(browser) as watching:
        page = open_page(watching, address, "", names=["mine", "bytes", "pieces"])
        page.on("dialog", lambda dialog: pytest.fail("a script has run"))
        write(page, text)
        read = page.locator("#text").input_value()  # a text box turns all line breaks into \\n
        assert counts(page) == [len(each.encode(read, disallowed_special=())) for each in (mine, BYTES, pieces)]
        assert page.locator(".view script, .view img").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        # All that is drawn stays within the view.
        top = page.evaluate("document.elementFromPoint(500, 20).closest('.top') !== null")
        assert top
        begin, end = mine.encode_with_offsets(read, unit="bytes")[1][1] if len(read) > 1 else (0, 0)
        if end:
            column(page, "mine").locator(".token").nth(1).hover()
            assert fact(page, "mine", ".token-span") == f"{begin}–{end}"
        watching.picture(f"hostile-{name.replace(' ', '-')}")


def test_lone_surrogates_are_encoded_as_the_replacement_character(browser: Any, address: str, mine: Tokenizer) -> None:
    with watched(browser) as watching:
        page = open_page(watching, address, "")
        write(page, "a")
        page.evaluate(
            """() => {
              const area = document.getElementById("text");
              area.value = "x" + String.fromCharCode(0xd83d) + "y" + String.fromCharCode(0xde42, 0xd800);
              area.dispatchEvent(new Event("input"));
            }"""
        )
        text = "x\ufffdy\ufffd\ufffd"
        until(page, f"document.querySelectorAll('.count')[1].textContent.startsWith('{len(text.encode())} ')")
        assert counts(page) == [len(mine.encode(text)), len(text.encode())]


def test_a_text_of_a_megabyte_makes_few_elements(browser: Any, address: str, mine: Tokenizer) -> None:
    draw = random.Random(1)
    words = ["hello", "naïve", "line\n", "12345", "\n\n", "<|end|>", "world"]
    text = " ".join(draw.choices(words, k=170_000)) + " 🙂"
    assert len(text.encode()) > 1_000_000
    with watched(browser) as watching:
        page = open_page(watching, address, "", names=["mine"])
        write(page, text)
        ids = mine.encode(text, disallowed_special=())
        assert counts(page)[0] == len(ids)
        elements = "document.querySelectorAll('*').length"
        most = page.evaluate(elements)
        view = column(page, "mine").locator(".view")
        for share in (0.5, 1, 0.25, 0):
            view.evaluate("(view, share) => { view.scrollTop = share * view.scrollHeight; }", share)
            page.evaluate("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
            most = max(most, page.evaluate(elements))
            until(page, _FILLED)
        assert most < 12_000
        view.focus()
        page.keyboard.press("End")
        assert fact(page, "mine", ".token-id") == str(ids[-1])
        watching.picture("megabyte")
        write(page, "short")
        assert counts(page)[0] == len(mine.encode("short"))


_FILLED = """(() => {
  const box = document.querySelector(".view").getBoundingClientRect();
  return [9, box.height / 2, box.height - 9].every(
    (y) => document.elementFromPoint(box.left + 3, box.top + y)?.closest(".block"),
  );
})()"""


def test_a_file_is_opened_in_the_browser(browser: Any, address: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("from a file")
    with watched(browser) as watching:
        page = open_page(watching, address, "", names=["bytes"])
        page.locator("#file").set_input_files(str(tmp_path / "text.txt"))
        until(page, "document.querySelectorAll('.token').length === 11")
        assert page.locator("#text").input_value() == "from a file"
        page.locator(".samples").select_option("Code")
        until(page, "document.getElementById('text').value.startsWith('def ')")


def test_a_tokenizer_that_cannot_be_loaded_says_why(browser: Any, my_json: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_bytes(my_json.read_bytes()[:3000])
    shelf = Shelf(loaded={"bytes": BYTES}, folder=tmp_path)
    with served(playground(shelf, chosen=["bytes", "broken.json"])) as address, watched(browser) as watching:
        page = open_page(watching, address, "abc")
        assert "broken.json" in page.locator(".notice.error:visible").text_content()
        assert column(page, "bytes").locator(".count").text_content() == "3 tokens"
        assert column(page, "broken.json").locator(".count").text_content() == ""
        watching.problems = [problem for problem in watching.problems if "status of 400" not in problem]


def test_a_server_that_has_gone_is_said_to_be_gone(browser: Any) -> None:
    with watched(browser) as watching:
        with served(playground(Shelf(loaded={"bytes": BYTES}), chosen=["bytes"])) as address:
            page = open_page(watching, address, "abc")
        page.locator("#text").fill("more")
        until(page, "document.querySelector('.notice.error:not([hidden])') !== null")
        assert "still running" in page.locator(".notice.error:visible").text_content()
        watching.problems = [problem for problem in watching.problems if "ERR_CONNECTION" not in problem]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_legible_in_both_colours_and_fits_the_window(
    browser: Any, address: str, dark: bool, width: int
) -> None:
    with watched(browser, dark=dark, width=width, height=844) as watching:
        page = open_page(watching, address, "a b c d e <|end|> 🙂", names=["bytes", "pieces"])
        for selector in (".token.color-0", ".token.color-1", ".token.color-2", ".token.color-3", ".token.color-4"):
            assert contrast(page, selector) >= 4.5, selector
        page.locator(".token").nth(2).hover()
        checked = (".token.marked", ".token.special", "#text", ".facts", ".mode", ".hint, dt", ".check", ".add")
        for selector in checked:
            assert contrast(page, selector) >= 4.5, selector
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        watching.picture(f"tokens-{width}-{'dark' if dark else 'light'}")
