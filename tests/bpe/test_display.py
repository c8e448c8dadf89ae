"""How tokenizers, texts and other objects look in the interpreter and in a notebook."""

from __future__ import annotations

import io
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bpe import StreamDecoder, StreamEncoder, Tokenizer, train_from_iterator
from bpe.display import ShownText
from bpe.shards import write_shards
from bpe.training.settings import Trained
from support.command_line import bpe

RANKS = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256, b"abc": 257}
HOSTILE = "<script>alert(1)</script>\x1b[2J\n&\udc80"


class Tags(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def tiny(name: str = "tiny", pattern: str = "gpt2", **special: int) -> Tokenizer:
    return Tokenizer(name, pat_str=pattern, mergeable_ranks=RANKS, special_tokens={**special, "<|end|>": 300})


def test_the_repr_tells_size_pattern_and_special_tokens_in_one_line() -> None:
    assert repr(tiny()) == "<Tokenizer 'tiny': 259 tokens, pattern gpt2, special <|end|>>"
    many = {f"<|{number}|>": 301 + number for number in range(1000)}
    assert repr(tiny(**many)) == "<Tokenizer 'tiny': 1,259 tokens, pattern gpt2, 1,001 special tokens>"
    plain = Tokenizer("a\nb", pat_str="\\w+\n|" + "." * 60, mergeable_ranks=RANKS, special_tokens={})
    shown = "\\w+⏎|" + "." * 32 + "..."
    assert repr(plain) == f"<Tokenizer 'a\\nb': 258 tokens, pattern {shown}, no special tokens>"


def test_the_length_is_the_number_of_rows_that_a_model_needs(llama3: Tokenizer) -> None:
    assert len(tiny()) == tiny().n_vocab == 301
    assert len(llama3) == 128_256


def test_the_card_has_the_same_facts_and_escapes_tokens() -> None:
    special = {HOSTILE.replace("\udc80", ""): 301}
    page = tiny("<i>name</i>", **special)._repr_html_()
    read = Tags(page)
    assert read.tags == {"div", "b", "table", "tr", "th", "td"}
    assert not read.open
    for fact in ("Tokenizer <i>name</i>", "260", "gpt2", "<script>alert(1)</script><U+001B>[2J⏎&", "<|end|>"):
        assert fact in read.text
    assert "\x1b" not in page
    assert "color:#000" not in page  # the text takes the color of the notebook, light or dark


def test_a_shown_text_is_plain_in_a_pipe_and_colored_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = tiny().show("xabc\n")
    assert isinstance(shown, ShownText)
    assert (shown.ids, shown.tokens) == ([120, 257, 10], [b"x", b"abc", b"\n"])
    assert repr(shown) == str(shown) == "x|abc|⏎\n"
    assert shown.summary == "3 tokens, 5 bytes, 1.67 bytes per token"
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert (
        repr(shown)
        == shown.colored()
        == "\x1b[30;48;5;152mx\x1b[0m\x1b[30;48;5;223mabc\x1b[0m\x1b[30;48;5;182m⏎\x1b[0m\n"
    )
    monkeypatch.setenv("NO_COLOR", "1")
    assert repr(shown) == shown.plain()


def test_a_shown_text_is_that_of_bpe_show(tmp_path: Path) -> None:
    tokenizer = train_from_iterator(["ab bc"], 258, "gpt2", ())
    tokenizer.save(tmp_path / "a.json")
    for color, text in (("always", "colored"), ("never", "plain")):
        printed = bpe("show", "-c", "ab bcd é", "-t", tmp_path / "a.json", "--color", color).stdout
        assert printed == getattr(tokenizer.show("ab bcd é"), text)() + "\n"


def test_a_shown_text_in_a_notebook_escapes_and_colors_each_token() -> None:
    page = tiny().show(HOSTILE)._repr_html_()
    read = Tags(page)
    assert read.tags == {"div", "span", "small"}
    assert not read.open
    assert read.text.startswith("<script>alert(1)</script><U+001B>[2J⏎\n&")
    assert "\x1b" not in page
    assert page.count("color:#000") == page.count("<span ") == len(tiny().encode(HOSTILE))
    assert "and 5 more tokens" in Tags(ShownText([97] * 10_005, [b"a"] * 10_005)._repr_html_()).text


def test_special_tokens_of_a_shown_text_are_text_unless_allowed() -> None:
    assert tiny().show("<|end|>").plain() != "<|end|>"
    assert tiny().show("<|end|>", allowed_special="all").plain() == "<|end|>"


def test_other_objects_have_short_telling_reprs(tmp_path: Path) -> None:
    assert repr(StreamEncoder(tiny())) == "<StreamEncoder of 'tiny'>"
    assert repr(StreamDecoder(tiny())) == "<StreamDecoder of 'tiny'>"
    trained: list[Trained] = []
    tokenizer = train_from_iterator(["ab bc", "bc"], 257, "gpt2", (), trained=trained.append)
    assert repr(trained[0]) == f"<Trained: 1 merges from 2 documents, 7 bytes; {tokenizer!r}>"
    tokenizer.save(tmp_path / "a.json")
    shards = write_shards(["ab bc", "bc"], tokenizer, tmp_path / "data", tokenizer_file=tmp_path / "a.json", held_out=0)
    assert repr(shards) == f"<Shards '{tmp_path / 'data'}': 5 tokens to train on, 0 held out, 257 ids>"
