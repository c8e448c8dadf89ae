"""Calls of tools in an answer are recognised however the text is cut, and other text stays text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.serving.calls import BARE, LISTED, TAGGED, CallFormat, CallReader, Piece, format_in
from support.chat_families import FAMILIES

NAMES = ["weather", "now"]


def read(
    text: str, format: CallFormat, cuts: list[int] | None = None, *, is_single: bool = False, is_begun: bool = False
) -> tuple[str, list[tuple[str, str]]]:
    """Return the text and the calls of an answer that arrives in pieces."""
    reader = CallReader(format, NAMES, is_single=is_single, is_begun=is_begun)
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts or ())})
    pieces: list[Piece] = []
    for begin, end in zip(places, places[1:], strict=False):
        pieces += reader.feed(text[begin:end])
    pieces += reader.flush()
    said = "".join(piece.text for piece in pieces if piece.call is None)
    calls: list[tuple[str, str]] = []
    for piece in pieces:
        if piece.name is not None:
            assert piece.call == len(calls)
            calls.append((piece.name, ""))
        elif piece.call is not None:
            calls[piece.call] = (calls[piece.call][0], calls[piece.call][1] + piece.text)
    return said, calls


def call(name: str, arguments: str, key: str = "arguments") -> str:
    return f'{{"name": "{name}", "{key}": {arguments}}}'


OSLO = '{"city": "Oslo"}'
ODD = '{"city": "a } \\" {", "list": [{"x": []}]}'


@pytest.mark.parametrize(
    ("format", "text", "said", "calls"),
    [
        (TAGGED, "No call.", "No call.", []),
        (TAGGED, f"<tool_call>\n{call('weather', OSLO)}\n</tool_call>", "", [("weather", OSLO)]),
        (TAGGED, f"\n\n<tool_call>{call('weather', ODD)}</tool_call>", "", [("weather", ODD)]),
        (TAGGED, f"Well. <tool_call>{call('now', '{}')}</tool_call>\n<tool_call>{call('weather', OSLO)}</tool_call>",
         "Well. ", [("now", "{}"), ("weather", OSLO)]),
        (TAGGED, f"<tool_call>{call('now', '{}')}</tool_call> Done.", " Done.", [("now", "{}")]),
        (TAGGED, '<tool_call>{"arguments": {"a": 1}, "name": "now"}</tool_call>', "", [("now", '{"a": 1}')]),
        (TAGGED, f"<tool_call>{call('other', '{}')}</tool_call>", f"<tool_call>{call('other', '{}')}</tool_call>", []),
        (TAGGED, "<tool_call>no JSON</tool_call>", "<tool_call>no JSON</tool_call>", []),
        (TAGGED, "a <tool", "a <tool", []),
        (TAGGED, "<tool_call>", "<tool_call>", []),
        (TAGGED, f"<tool_call>{call('weather', OSLO)[:-4]}", "", [("weather", OSLO[:-3])]),
        (TAGGED, '<tool_call>{"name": "wea', '<tool_call>{"name": "wea', []),
        (BARE, "Hello.", "Hello.", []),
        (BARE, call("weather", OSLO, "parameters"), "", [("weather", OSLO)]),
        (BARE, f"<|python_tag|>{call('weather', OSLO, 'parameters')}", "", [("weather", OSLO)]),
        (BARE, f'{{"type": "function", {call("weather", OSLO)[1:]}', "", [("weather", OSLO)]),
        (BARE, f"{call('now', '{}')}; {call('weather', OSLO)}", "", [("now", "{}"), ("weather", OSLO)]),
        (BARE, '{"answer": 42}', '{"answer": 42}', []),
        (BARE, call("other", "{}"), call("other", "{}"), []),
        (LISTED, f"[TOOL_CALLS] [{call('now', '{}')}, {call('weather', OSLO)}]", "",
         [("now", "{}"), ("weather", OSLO)]),
        (LISTED, "[TOOL_CALLS] none", "[TOOL_CALLS] none", []),
        (LISTED, "[1, 2]", "[1, 2]", []),
    ],
)  # fmt: skip
def test_calls_and_text(format: CallFormat, text: str, said: str, calls: list[tuple[str, str]]) -> None:
    assert read(text, format) == (said, calls)
    assert read(text, format, [*range(len(text))]) == (said, calls)


@given(
    st.sampled_from([TAGGED, BARE, LISTED]),
    st.lists(
        st.sampled_from(
            ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[", "]", "{", "}", '"', "\\", "\n", " ", ", ", ";", "text",
             '{"name": "weather", "arguments": {"city": "Oslo"}}', '{"name": "now", "parameters": {}}', '"name": "now"',
             "<", "<|python_tag|>", '{"name": ']
        ),
        max_size=12,
    ).map("".join),
    st.lists(st.integers(0, 1000), max_size=8),
)  # fmt: skip
def test_how_an_answer_is_cut_changes_nothing(format: CallFormat, text: str, cuts: list[int]) -> None:
    assert read(text, format, cuts) == read(text, format)


@given(st.text(max_size=30), st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3))
def test_a_written_call_is_read_again(before: str, arguments: dict[str, str]) -> None:
    written = json.dumps(arguments)
    text = (
        f"{before.replace('<', '')}{TAGGED.begin}{TAGGED.opening}{call('weather', written)}{TAGGED.closing}{TAGGED.end}"
    )
    said, calls = read(text, TAGGED)
    assert calls == [("weather", written)] and said.strip() == before.replace("<", "").strip()


def test_an_answer_ends_with_its_first_call_where_only_one_is_wanted() -> None:
    text = f"<tool_call>{call('now', '{}')}</tool_call> and more"
    assert read(text, TAGGED, is_single=True) == ("", [("now", "{}")])


def test_a_call_whose_mark_is_in_the_prompt() -> None:
    assert read(call("now", "{}"), TAGGED, [5, 9], is_begun=True) == ("", [("now", "{}")])
    assert read("oh", TAGGED, is_begun=True) == ("oh", [])


def test_the_format_of_published_templates() -> None:
    expected = {
        "llama3.1": BARE, "qwen2.5": TAGGED, "qwen3": TAGGED, "hermes2-pro": TAGGED, "mistral-v3": LISTED,
        "mistral-nemo": LISTED, "qwen3-coder": None, "chatml": None, "glm4.5": None, "phi4-mini": None,
    }  # fmt: skip
    assert {name: format_in(FAMILIES[name]) for name in expected} == expected
