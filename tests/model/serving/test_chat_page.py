"""The page Chat in a browser, in front of the server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.browser import contrast, until, watched
from support.chat_page import ChatPage, page_served
from support.serving import Served

ANSWER = "Light is *scattered* by **air**."
LONG = "\n\n".join(f"Paragraph {number} of a long answer, with some words in it." for number in range(30))

# Whether the browser keeps this text.
STORED = """
import("/static/model/chat/storage.js").then(({{ openStorage }}) => openStorage())
  .then((storage) => storage.all()).then((kept) => kept.some((each) => each.text === {text!r}))
"""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with page_served() as served:
        yield served


@pytest.fixture(autouse=True)
def fresh(served: Served) -> Iterator[None]:
    yield
    gate, served.writer.gate = served.writer.gate, None
    if gate is not None:
        gate.release(100_000)


def requests_of(page: Any, path: str = "/v1/chat/completions") -> list[dict[str, Any]]:
    """Return a list that fills with the bodies of requests."""
    bodies: list[dict[str, Any]] = []
    page.on("request", lambda request: request.url.endswith(path) and bodies.append(request.post_data_json))
    return bodies


def test_an_answer_is_shown_as_markdown_with_its_numbers(browser: Any, served: Served) -> None:
    with watched(browser) as watching:
        chat = ChatPage(watching.page, served)
        assert watching.page.inner_text(".welcome h3") == "Talk to tiny"
        assert "135 million parameters · a context of 2,048 tokens · on the CPU" in watching.page.inner_text(".welcome")
        assert watching.page.is_disabled(".send")
        chat.ask("Why is the sky blue?", ANSWER)
        assert chat.turns() == ["Why is the sky blue?", "Light is scattered by air."]
        assert watching.page.inner_html(".markdown p") == "Light is <em>scattered</em> by <strong>air</strong>."
        words = watching.page.inner_text(".turn.assistant .meta").split(" · ")
        assert words[0] == f"{len(ANSWER) + 1} tokens"
        assert words[1].endswith(" tokens/s")
        assert words[2].startswith("first after 0.")
        total = len(ANSWER) + 1 + watching.page.evaluate("document.querySelector('.below meter').value * 0")
        used = watching.page.inner_text(".below .used")
        assert used.endswith("of 2,048 tokens")
        assert int(used.split()[0]) > total
        assert watching.page.inner_text(".title") == "Why is the sky blue?"
        assert watching.page.evaluate("document.activeElement.className") == "input"


def test_turns_follow_each_other_and_a_suggestion_is_asked_by_a_click(browser: Any, served: Served) -> None:
    with watched(browser) as watching:
        bodies = requests_of(watching.page)
        chat = ChatPage(watching.page, served)
        served.writer.answer = "One."
        watching.page.click(".suggestion >> nth=0")
        chat.wait()
        chat.ask("And then?", "Two.")
        assert chat.turns() == ["Why is the sky blue?", "One.", "And then?", "Two."]
        assert bodies[1]["messages"] == [
            {"role": "user", "content": "Why is the sky blue?"},
            {"role": "assistant", "content": "One."},
            {"role": "user", "content": "And then?"},
        ]
        assert bodies[1]["stream"] is True


@pytest.mark.parametrize("how", ["button", "escape"])
def test_an_answer_is_stopped_and_what_has_arrived_is_kept(browser: Any, served: Served, how: str) -> None:
    with watched(browser) as watching:
        page = watching.page
        chat = ChatPage(page, served)
        served.writer.answer = "abcdefghijklmnopqrstuvwxyz"
        served.writer.gate = threading.Semaphore(8)
        chat.send("Letters?")
        until(page, "document.querySelector('.running .markdown')?.innerText.startsWith('abc')")
        assert page.get_attribute(".send", "aria-label") == "Stop"
        assert page.get_attribute(".running .markdown", "aria-busy") == "true"
        if how == "button":
            page.click(".send")
        else:
            page.press(".input", "Escape")
        chat.wait()
        served.writer.gate.release(100_000)
        assert chat.turns()[1].startswith("abc")
        assert chat.turns()[1] != "abcdefghijklmnopqrstuvwxyz"
        assert "stopped" in page.inner_text(".turn.assistant .meta")
        for _ in range(200):
            if served.scheduler.statistics().running == 0:
                break
            page.wait_for_timeout(10)
        assert served.scheduler.statistics().running == 0
        page.reload()
        until(page, "document.querySelectorAll('.turn').length === 2")
        assert chat.turns()[1].startswith("abc")


def test_another_answer_and_an_edited_question_become_versions(browser: Any, served: Served) -> None:
    with watched(browser) as watching:
        page = watching.page
        bodies = requests_of(page)
        chat = ChatPage(page, served)
        chat.ask("Who?", "I.")
        served.writer.answer = "You."
        page.click("[aria-label='Another answer']")
        chat.wait()
        assert chat.turns() == ["Who?", "You."]
        assert page.inner_text(".versions") == "2 / 2"
        assert bodies[1]["messages"] == bodies[0]["messages"]
        page.click("[aria-label='Previous version']")
        assert chat.turns() == ["Who?", "I."]
        chat.ask("Sure?", "Yes.")
        page.press(".input", "ArrowUp")  # edits the last question
        assert page.input_value(".edit textarea") == "Sure?"
        page.fill(".edit textarea", "Really?")
        served.writer.answer = "No."
        page.press(".edit textarea", "Enter")
        chat.wait()
        assert chat.turns() == ["Who?", "I.", "Really?", "No."]
        assert [message["content"] for message in bodies[-1]["messages"]] == ["Who?", "I.", "Really?"]
        page.reload()
        until(page, "document.querySelectorAll('.turn').length === 4")
        page.click(".turn.user [aria-label='Previous version'] >> nth=0")
        assert chat.turns() == ["Who?", "I.", "Sure?", "Yes."]


def test_an_edited_answer_is_kept_beside_the_one_of_the_model_and_sent_further(browser: Any, served: Served) -> None:
    with watched(browser) as watching:
        page = watching.page
        bodies = requests_of(page)
        chat = ChatPage(page, served)
        chat.ask("Colour?", "Blue.")
        page.click(".turn.assistant [aria-label=Edit]")
        page.press(".edit textarea", "Escape")
        assert chat.turns() == ["Colour?", "Blue."]
        page.click(".turn.assistant [aria-label=Edit]")
        page.fill(".edit textarea", "**Green.**")
        page.click(".edit button[type=submit]")
        assert chat.turns() == ["Colour?", "Green."]
        assert page.inner_text(".turn.assistant .versions") == "2 / 2"
        chat.ask("Why?", "Grass.")
        assert bodies[-1]["messages"][1] == {"role": "assistant", "content": "**Green.**"}


def test_settings_and_the_system_prompt_are_sent_and_kept(browser: Any, served: Served) -> None:
    with watched(browser) as watching:
        page = watching.page
        bodies = requests_of(page)
        chat = ChatPage(page, served)
        chat.open_settings()
        assert page.get_attribute("[name=temperature]", "placeholder") == "1"
        page.fill(".setting.system textarea", "Be brief.")
        values = {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "frequency_penalty": 0.1,
                  "presence_penalty": -0.2, "repetition_penalty": 1.1, "max_tokens": 5, "seed": 7}  # fmt: skip
        for name, value in values.items():
            page.fill(f"[name={name}]", str(value))
        page.fill(".settings .setting.tall:not(.system) textarea", "END\n\nSTOP")
        chat.ask("Hello?", "abcdefgh")
        assert chat.turns()[1] == "abcde"
        assert "the limit of tokens is reached" in page.inner_text(".turn.assistant .meta")
        (body,) = bodies
        assert {name: body[name] for name in values} == values
        assert body["stop"] == ["END", "STOP"]
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
        page.reload()
        until(page, "document.querySelectorAll('.turn').length === 2")
        chat.open_settings()
        assert page.input_value(".setting.system textarea") == "Be brief."
        assert page.input_value("[name=seed]") == "7"
        page.click("text=Back to the server's settings")
        chat.ask("Again?", "abcdefgh")
        assert set(bodies[1]) == {"model", "messages", "stream", "stream_options"}


def test_a_setting_out_of_range_is_not_sent(browser: Any, served: Served) -> None:
    with watched(browser) as watching:
        page = watching.page
        bodies = requests_of(page)
        chat = ChatPage(page, served)
        chat.open_settings()
        page.fill("[name=top_p]", "3")
        chat.send("Hello?")
        assert "Top p" in page.inner_text(".problems .notice")
        assert page.input_value(".input") == "Hello?"
        assert bodies == []
        page.fill("[name=top_p]", "1")
        chat.ask("Hello?", "Hi.")
        assert chat.turns() == ["Hello?", "Hi."]


def test_conversations_are_listed_renamed_and_deleted(browser: Any, served: Served) -> None:
    with watched(browser) as watching:
        page = watching.page
        chat = ChatPage(page, served)
        chat.ask("First question", "One.")
        page.click("text=New chat >> nth=0")
        assert page.inner_text(".title") == "New chat"
        chat.ask("Second question", "Two.")
        assert chat.titles() == ["Second question", "First question"]
        page.click(".sidebar .name >> text=First question")
        until(page, "document.querySelector('.turn .said').textContent === 'First question'")
        assert page.get_attribute(".sidebar .name >> nth=1", "aria-current") == "true"
        page.hover(".sidebar li >> nth=1")
        page.click("[aria-label='Rename First question']")
        page.fill(".sidebar li input", "A better name")
        page.press(".sidebar li input", "Enter")
        until(page, "document.querySelector('.title').textContent === 'A better name'")
        page.reload()
        until(page, "document.querySelectorAll('.sidebar .name').length === 2")
        assert sorted(chat.titles()) == ["A better name", "Second question"]
        page.hover(".sidebar li:has-text('Second question')")
        page.click("[aria-label='Delete Second question']")
        page.click(".sidebar li >> text=Keep")
        until(page, "document.querySelectorAll('.sidebar .name').length === 2")
        page.hover(".sidebar li:has-text('Second question')")
        page.click("[aria-label='Delete Second question']")
        page.click(".sidebar li .danger")
        until(page, "document.querySelectorAll('.sidebar .name').length === 1")
        page.reload()
        until(page, "document.querySelectorAll('.sidebar .name').length === 1")
        assert chat.titles() == ["A better name"]


def test_conversations_are_exported_and_imported(browser: Any, served: Served, tmp_path: Path) -> None:
    with watched(browser) as watching:
        chat = ChatPage(watching.page, served)
        chat.ask("Keep this", "Kept.")
        served.writer.answer = "Kept again."
        watching.page.click("[aria-label='Another answer']")
        chat.wait()
        with watching.page.expect_download() as download:
            watching.page.click("text=Export all")
        download.value.save_as(tmp_path / "saved.json")
    found = json.loads((tmp_path / "saved.json").read_text())
    assert [node["content"] for node in found["conversations"][0]["nodes"]] == ["Keep this", "Kept.", "Kept again."]
    with watched(browser) as watching:
        page = watching.page
        chat = ChatPage(page, served)
        assert chat.titles() == []
        page.set_input_files(".sidebar input[type=file]", tmp_path / "saved.json")
        until(page, "document.querySelectorAll('.turn').length === 2")
        assert chat.turns() == ["Keep this", "Kept again."]
        assert page.inner_text(".versions") == "2 / 2"
        assert chat.titles() == ["Keep this"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no JSON", "the file is not JSON"),
        ('{"a": 1}', "the file has no conversations of this page"),
        ('{"format": "bpe conversations", "version": 1, "conversations": [{"kind": "x"}]}', "conversation 1: its kind"),
        (
            '{"format": "bpe conversations", "version": 1, "conversations": [{"kind": "chat", "title": "",'
            ' "system": "", "text": "", "nodes": [{"role": "user", "content": "a", "parent": 0}], "leaf": 0}]}',
            "conversation 1: turn 1 follows no turn before it",
        ),
    ],
)
def test_a_file_that_is_no_export_is_refused(
    browser: Any, served: Served, tmp_path: Path, content: str, words: str
) -> None:
    (tmp_path / "wrong.json").write_text(content)
    with watched(browser) as watching:
        chat = ChatPage(watching.page, served)
        watching.page.set_input_files(".sidebar input[type=file]", tmp_path / "wrong.json")
        until(watching.page, "!document.querySelector('.sidebar .notice').hidden")
        assert f"wrong.json: {words}" in watching.page.inner_text(".sidebar .notice")
        assert chat.titles() == []


def test_the_keyboard_is_enough(browser: Any, served: Served) -> None:
    with watched(browser) as watching:
        page = watching.page
        chat = ChatPage(page, served)
        served.writer.answer = "Done."
        page.keyboard.type("one")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("two")
        page.keyboard.press("Enter")
        chat.wait()
        assert chat.turns() == ["one\ntwo", "Done."]
        page.keyboard.press("ArrowUp")
        assert page.evaluate("document.activeElement.closest('.edit') !== null")
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.className") == "input"
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Shift+Tab")
        assert page.evaluate("document.activeElement.closest('.thread') !== null")


def test_a_long_answer_is_followed_until_the_reader_scrolls_up(browser: Any, served: Served) -> None:
    with watched(browser) as watching:
        page = watching.page
        chat = ChatPage(page, served)
        served.writer.answer = LONG
        served.writer.gate = threading.Semaphore(1400)
        chat.send("Much?")
        until(page, "document.querySelector('.thread').scrollHeight > 850")
        until(page, "(({scrollTop, clientHeight, scrollHeight}) => scrollTop + clientHeight > scrollHeight - 60)"
                    "(document.querySelector('.thread'))")  # fmt: skip
        page.evaluate("document.querySelector('.thread').scrollTop = 0")
        until(page, "!document.querySelector('.jump').hidden")
        served.writer.gate.release(100_000)
        chat.wait()
        assert page.evaluate("document.querySelector('.thread').scrollTop") == 0
        assert page.locator(".markdown p").count() == 30
        page.click(".jump")
        until(page, "document.querySelector('.jump').hidden")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_fits_and_is_legible(browser: Any, served: Served, width: int, dark: bool) -> None:
    with watched(browser, width=width, dark=dark) as watching:
        page = watching.page
        name = f"{'dark' if dark else 'light'}-{width}"
        chat = ChatPage(page, served)
        watching.picture(f"chat-empty-{name}")
        code = "```python\n" + "x = " + "1 + " * 100 + "1\n```"
        chat.ask(
            "x" * 300, f"# Title\n\n{'y' * 400}\n\n{code}\n\n| a | b |\n|---|---|\n| {'z' * 200} | 2 |\n\n> quoted"
        )
        watching.picture(f"chat-{name}")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("document.documentElement.scrollHeight") == 800
        thread = "document.querySelector('.thread')"
        assert page.evaluate(f"{thread}.scrollWidth <= {thread}.clientWidth")
        for selector in (".said", ".markdown p", ".turn.assistant .meta", ".code-head span", ".markdown blockquote p"):
            assert contrast(page, selector) >= 4.5
        chat.open_settings()
        page.wait_for_timeout(50)
        watching.picture(f"chat-settings-{name}")
        assert contrast(page, ".setting small") >= 4.5
        if width == 390:
            page.keyboard.press("Escape")
            assert not page.is_visible(".settings")
            page.click(".talk-bar [aria-label=Conversations]")
            assert page.is_visible(".drawer .sidebar")
            watching.picture(f"chat-list-{name}")
            page.click(".drawer .name >> nth=0")
            assert not page.is_visible(".sidebar")


def test_another_tab_shows_what_was_said(browser: Any, served: Served) -> None:
    with watched(browser) as watching:
        chat = ChatPage(watching.page, served)
        other = watching.context.new_page()
        ChatPage(other, served)
        chat.ask("Seen elsewhere?", "Yes.")
        until(other, "document.querySelectorAll('.sidebar .name').length === 1")
        other.click(".sidebar .name")
        until(other, "document.querySelectorAll('.turn').length === 2")


def test_a_model_without_a_chat_format_continues_texts(browser: Any) -> None:
    with page_served(format=None) as served, watched(browser) as watching:
        page = watching.page
        bodies = requests_of(page, "/v1/completions")
        page.goto(f"{served.address}/#chat")
        page.wait_for_selector(".text")
        assert page.locator("text=New chat").count() == 0
        assert not page.is_visible(".composer")
        page.fill(".text", "Once upon")
        page.click(".talk-bar [aria-label=Settings]")
        assert not page.is_visible(".setting.system")
        page.fill("[name=max_tokens]", "20")
        page.fill("[name=seed]", "1")
        page.press(".text", "Control+Enter")
        until(page, "document.querySelector('.text-view [role=status]').textContent.includes('20 tokens')")
        assert page.input_value(".text").startswith("Once upon")
        assert len(page.input_value(".text")) > len("Once upon")
        assert bodies[0]["prompt"] == "Once upon"
        page.click("text=Undo")
        assert page.input_value(".text") == "Once upon"
        until(page, STORED.format(text="Once upon"))
        page.reload()
        page.wait_for_selector(".text")
        assert page.input_value(".text") == "Once upon"
        assert page.inner_text(".title") == "Once upon"
