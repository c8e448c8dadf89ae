"""Text of a model on a terminal: broken between words, with nothing that the terminal obeys."""

from __future__ import annotations

import re
from collections.abc import Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import wcswidth

from bpe.commands.terminal import print_pieces
from bpe.commands.wrapping import Wrapper, harmless, terminal_width

CODER = "\U0001f469\u200d\U0001f4bb"  # a woman, a joiner, and a laptop: one picture


def wrapped(text: str, width: int, step: int = 1) -> str:
    """Return the text as it is printed when it arrives in pieces of this many characters."""
    wrapper = Wrapper(lambda: width)
    pieces = [text[start : start + step] for start in range(0, len(text), step)]
    return "".join(map(wrapper.feed, pieces)) + wrapper.flush()


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("The quick brown fox jumps over the dog.", 20, "The quick brown fox\njumps over the dog."),
        ("four four", 4, "four\nfour"),
        ("one  two", 5, "one\ntwo"),
        ("one \ntwo\n\nthree", 80, "one \ntwo\n\nthree"),
        ("  - a list with words", 14, "  - a list\nwith words"),
        ("a\tb c", 9, "a\tb\nc"),  # the tab ends at column 8
        ("中文中文中文", 8, "中文中文\n中文"),
        ("中文中，文", 6, "中文\n中，文"),  # no line begins with a comma
        ("中（文文", 4, "中\n（文\n文"),  # or ends with an opening bracket
        ("cafe\u0301 cafe\u0301", 5, "cafe\u0301\ncafe\u0301"),
        ("cafe\u0301 cafe\u0301", 9, "cafe\u0301 cafe\u0301"),  # 9 cells, 11 characters
        (CODER + CODER, 3, f"{CODER}\n{CODER}"),
        ("\U0001f44d\U0001f3fd\U0001f44d\U0001f3fd", 3, "\U0001f44d\U0001f3fd\n\U0001f44d\U0001f3fd"),
        ("\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7", 3, "\U0001f1e9\U0001f1ea\n\U0001f1eb\U0001f1f7"),
        ("a\xa0b c", 4, "a\xa0b\nc"),  # a space that holds its words together
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [1, 3, 100])
def test_lines_end_between_words_and_wide_characters(text: str, width: int, expected: str, step: int) -> None:
    assert wrapped(text, width, step) == expected


@pytest.mark.parametrize("step", [1, 100])
def test_code_blocks_and_tables_keep_their_lines(step: int) -> None:
    text = (
        "Some code for you:\n```python\nprint('much longer than a line')  # ```\n\n  x = 1\n```\n"
        "| a table | with long rows |\n"
        "  ~~~~\n~~~ still the code block of before\n~~~~\nSome code for you\n"
    )
    expected = text.replace("Some code for you", "Some code\nfor you")
    assert wrapped(text, 12, step) == expected


def test_a_word_longer_than_a_line_is_left_for_the_terminal_and_printed_before_it_ends() -> None:
    url = "https://example.com/a/long/path"
    assert wrapped(f"see {url} ok indeed", 20) == f"see\n{url} ok\nindeed"  # whose second line has 11 cells
    wrapper = Wrapper(lambda: 10)
    assert wrapper.feed("a" * 25) == "a" * 25


def test_a_word_is_printed_when_it_is_complete() -> None:
    wrapper = Wrapper(lambda: 80)
    assert wrapper.feed("Hel") == ""
    assert wrapper.feed("lo wor") == "Hello"
    assert wrapper.flush() == " wor"


def test_the_width_is_measured_anew() -> None:
    widths = [80] * 6 + [8] * 100
    wrapper = Wrapper(lambda: widths.pop(0))
    assert wrapper.feed("one two three four five ") + wrapper.flush() != "one two three four five "


def test_control_characters_are_shown_and_not_obeyed() -> None:
    text = "\x1b]0;title\x07 \x1b[2J\x9b1A\x7f\x08"
    assert harmless(text) == "<U+001B>]0;title<U+0007> <U+001B>[2J<U+009B>1A<U+007F><U+0008>"
    assert harmless("a\tb\r\nc\n") == "a\tb\nc\n"
    assert wrapped("a\r\nb\rc\r", 80) == "a\nb<U+000D>c<U+000D>"


ALPHABET = "ab \n中，👍\u0301\u200d|`\x1b\r"


@given(st.text(ALPHABET), st.integers(2, 12), st.integers(1, 4))
def test_how_a_text_is_split_into_pieces_does_not_matter(text: str, width: int, step: int) -> None:
    assert wrapped(text, width, step) == wrapped(text, width, 1000)


@given(st.text(ALPHABET), st.integers(2, 12))
def test_only_white_space_changes_and_nothing_is_left_to_obey(text: str, width: int) -> None:
    shown = wrapped(text, width)
    assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", harmless(text))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)


@given(st.text("abc 中\n"), st.integers(10, 20))
def test_no_line_is_wider_than_the_terminal_unless_a_word_is(text: str, width: int) -> None:
    text = re.sub("[abc]{6,}", "", text)
    assert all(wcswidth(line) <= width for line in wrapped(text, width).split("\n"))


def test_the_width_is_that_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "33")
    assert terminal_width() == 33


def test_a_pipe_gets_the_text_itself_and_a_terminal_what_is_safe_to_show(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pieces = ["one tw", "o \x1b[2Jthree"]
    print_pieces(piece for piece in pieces)
    assert capsys.readouterr().out == "one two \x1b[2Jthree\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "8")
    print_pieces(piece for piece in pieces)
    assert capsys.readouterr().out == "one two\n<U+001B>[2Jthree\n"


def test_what_is_held_back_is_printed_when_the_text_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> Generator[str, None, None]:
        yield "one tw"
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(KeyboardInterrupt):
        print_pieces(interrupted())
    assert capsys.readouterr().out == "one tw"
