"""Text with origins: the same text as a plain string gives, and each character keeps its origin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpe.chat.tracing import DATA, TEMPLATE, UNKNOWN, Traced, joined, origin_of, without_surrogates_traced, written
from bpe.text import without_surrogates

OPERATIONS: list[Callable[[Any], Any]] = [
    lambda text: text.strip(),
    lambda text: text.lstrip("aA ") + text.rstrip("bB "),
    lambda text: text.split(),
    lambda text: text.split(None, 1),
    lambda text: text.rsplit(None, 1),
    lambda text: text.split("a"),
    lambda text: text.rsplit("ab", 1),
    lambda text: text.splitlines(),
    lambda text: text.splitlines(True),
    lambda text: text.partition("a"),
    lambda text: text.rpartition("a"),
    lambda text: text[1:-1] + text[::-1] + text[:1] * 2,
    lambda text: [*text],
    lambda text: text.removeprefix("a").removesuffix("b"),
    lambda text: text.join(["x", "y", "z"]),
]


def pieces_of(result: Any) -> list[str]:
    return [result] if isinstance(result, str) else list(result)


@given(text=st.text(st.sampled_from("aAbB \n\r\tßİ\u2028"), max_size=12))
def test_pieces_keep_their_text_and_origin(text: str) -> None:
    # Each character has an origin of its own, which tells where it was.
    origin = "".join(chr(0x100 + index) for index in range(len(text)))
    for number, operation in enumerate(OPERATIONS):
        expected, found = pieces_of(operation(text)), pieces_of(operation(Traced(text, origin)))
        assert found == expected, number
        for piece in found:
            for character, source in zip(piece, origin_of(piece), strict=True):
                assert source == UNKNOWN or text[ord(source) - 0x100] == character


@given(text=st.text(st.sampled_from("aAßİŉﬁ Σς"), max_size=12))
def test_case_changes_keep_the_origin(text: str) -> None:
    for name in ("upper", "lower", "casefold", "swapcase", "title", "capitalize"):
        found = getattr(Traced(text, DATA), name)()
        assert found == getattr(text, name)()
        assert set(origin_of(found)) <= {DATA, UNKNOWN}


@given(st.text(st.sampled_from("ab+"), max_size=8), st.integers(-1, 3))
def test_replaced_text_has_the_origin_of_the_new_text(text: str, count: int) -> None:
    found = Traced(text, DATA).replace("a", Traced("xy", TEMPLATE), count)
    assert found == text.replace("a", "xy", count)
    expected = "".join(TEMPLATE if character in "xy" else DATA for character in found)
    assert origin_of(found) == expected


def test_sums_and_formats_keep_origins_and_plain_text_is_unknown() -> None:
    template, data = Traced("<%s>%%", TEMPLATE), Traced("a", DATA)
    assert origin_of("x" + data + "y") == "udu"
    assert origin_of(template % data) == "tdtt"
    assert str(template % data) == "<a>%"
    assert origin_of(Traced("%5s", TEMPLATE) % data) == UNKNOWN * 5
    assert origin_of(Traced("{}{n}{{", TEMPLATE).filled("a1{", (data,), {"n": 1})) == "dut"
    assert origin_of(joined([template, data])) == "ttttttd"


@pytest.mark.parametrize(
    ("value", "origin"),
    [
        ([Traced("a", DATA), 1], DATA),
        ({Traced("role", TEMPLATE): Traced("a", DATA)}, DATA),
        ([Traced("<s>", TEMPLATE)], UNKNOWN),
        (["a", Traced("b", DATA)], UNKNOWN),
    ],
)
def test_json_is_the_dialogs_only_if_all_its_strings_are(value: Any, origin: str) -> None:
    assert origin_of(written("[]", value)) == origin * 2


@given(st.lists(st.sampled_from(["\ud83d", "\ude00", "a", "é"]), max_size=6))
def test_surrogates_are_joined_or_replaced(characters: list[str]) -> None:
    text = "".join(characters)
    found = without_surrogates_traced(Traced(text, DATA))
    assert found == without_surrogates(text)
    assert set(origin_of(found)) <= {DATA}
