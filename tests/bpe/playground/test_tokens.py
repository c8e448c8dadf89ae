"""The API of the page of tokens: which tokenizers there are, encoding with places, describing and decoding."""

from __future__ import annotations

import asyncio
import importlib
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpe import Tokenizer
from bpe.errors import InputError
from bpe.playground.app import playground
from bpe.playground.tokenizers import Shelf
from bpe.playground.tokens import decoded, described, description, encoded
from bpe.vocabulary import AddedToken
from support.pieces import trained
from support.references import any_text, without_surrogates

RANKS = {bytes([byte]): byte for byte in range(256)} | {b"he": 256, b"ll": 257, b"hell": 258, b" h": 259}
TINY = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=RANKS, special_tokens={"<|end|>": 300, "<|e": 301})
ADDED = Tokenizer.from_vocabulary(
    TINY.vocabulary.with_added_tokens(
        [AddedToken("<|end|>", 300, lstrip=True), AddedToken("lé", 302, special=False, rstrip=True)]
    )
)
SHARED = Tokenizer.from_vocabulary(
    TINY.vocabulary.with_added_tokens([AddedToken("<|e", 258), AddedToken("🙂", 300), AddedToken("<|end|>", 300)])
)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A SentencePiece model of Llama's kind, with byte fallback."""
    path = tmp_path_factory.mktemp("pieces") / "llama.model"
    path.write_bytes(trained("llama"))
    return Tokenizer.from_file(path)


def tokens_of(answer: bytes) -> tuple[list[int], list[tuple[int, int]], list[bool]]:
    """Return the ids, the spans and which are special, of the answer of /api/tokens/encode, read as the page does."""
    (count,) = struct.unpack_from("<I", answer)
    ids, begins, ends = np.frombuffer(answer, "<u4", 3 * count, 4).reshape(3, count).tolist()
    specials = np.frombuffer(answer, np.uint8, count, 4 + 12 * count)
    assert len(answer) == 4 + 13 * count
    return ids, list(zip(ids and begins, ends, strict=True)), specials.astype(bool).tolist()


def ask(method: str, path: str, shelf: Shelf | None = None, **settings: Any) -> httpx.Response:
    app = playground(shelf or Shelf(loaded={"tiny": TINY}, folder=Path(__file__).parent), chosen=["tiny"])

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, **settings)

    return asyncio.run(asked())


@pytest.mark.parametrize("kind", ["byte-level", "added", "shared", "pieces"])
def test_tokens_are_those_of_the_tokenizer_with_their_places(kind: str, pieces: Tokenizer) -> None:
    tokenizer = {"byte-level": TINY, "added": ADDED, "shared": SHARED, "pieces": pieces}[kind]
    by_id = {id: token for token, id in tokenizer.special_tokens.items()}

    @given(any_text | st.text("hel <|end>é🙂\u0301", max_size=30))
    @settings(max_examples=200, deadline=None)
    def compare(text: str) -> None:
        content = without_surrogates(text).encode()
        ids, spans, specials = tokens_of(encoded(tokenizer, content, special=False))
        assert (ids, spans) == tokenizer.encode_with_offsets(text, unit="bytes")
        assert specials == [id in by_id for id in ids]
        ids, spans, specials = tokens_of(encoded(tokenizer, content, special=True))
        added = tokenizer.special_matchers.allowed("all")
        assert (ids, spans) == tokenizer.vocabulary.encoder.encode_with_places(content, added, False)
        assert ids == tokenizer.encode(text, allowed_special="all")
        assert specials == [id in by_id for id in ids]

    compare()


def test_the_spans_of_a_byte_level_tokenizer_are_the_text() -> None:
    content = "hello 🙂 <|end|> \0 مرحبا".encode() + b"\xff\xfe"
    ids, spans, specials = tokens_of(encoded(TINY, content, special=True))
    assert b"".join(content[begin:end] for begin, end in spans) == content
    assert [content[begin:end] for begin, end in spans] == TINY.decode_tokens_bytes(ids)
    assert [ids[place] for place, special in enumerate(specials) if special] == [300]


@pytest.mark.parametrize(("text", "ids"), [("", []), ("<|end|>", [300]), ("<|e<|end|>", [301, 300])])
def test_special_tokens_are_recognised_only_if_asked_for(text: str, ids: list[int]) -> None:
    assert tokens_of(encoded(TINY, text.encode(), special=True))[0] == ids
    assert tokens_of(encoded(TINY, text.encode(), special=False))[0] == TINY.encode_ordinary(text)


def test_a_million_bytes_are_encoded() -> None:
    content = ("hello naïve 🙂\n" * 60_000).encode()
    answer = ask("POST", "/api/tokens/encode?tokenizer=tiny", content=content)
    ids, spans, _ = tokens_of(answer.content)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert ids == TINY.encode_ordinary(content) and spans[-1][1] == len(content)


def test_each_token_is_described(pieces: Tokenizer) -> None:
    assert described(TINY, [258, 0xE2, 300]) == [
        {"id": 258, "bytes": "68656c6c", "text": "hell", "special": False},
        {"id": 0xE2, "bytes": "e2", "text": "\ufffd", "special": False},
        {"id": 300, "bytes": "3c7c656e647c3e", "text": "<|end|>", "special": True},
    ]
    for id in range(0, pieces.n_vocab, 7):
        (token,) = described(pieces, [id])
        assert bytes.fromhex(token["bytes"]) == pieces.shown_tokens([id])[0]


@pytest.mark.parametrize("id", [302, 2**40, -1, pytest.param(10**5000, id="huge")])
def test_an_id_of_no_token_is_refused_by_its_place(id: int) -> None:
    for function in (described, decoded):
        with pytest.raises(InputError, match=r"ids\[1\]: .* is the id of no token of tiny; its ids are below 302"):
            function(TINY, [97, id])


def test_ids_become_text_again() -> None:
    text = "hello 🙂 <|end|>\0"
    assert decoded(TINY, TINY.encode(text, allowed_special="all")) == {
        "text": text,
        "bytes": len(text.encode()),
        "is_text": True,
    }
    assert decoded(TINY, [0xF0, 0x9F]) == {"text": "\ufffd", "bytes": 2, "is_text": False}
    assert decoded(TINY, []) == {"text": "", "bytes": 0, "is_text": True}
    body = {"tokenizer": "tiny", "ids": [258, 111]}
    assert ask("POST", "/api/tokens/decode", json=body).json()["text"] == "hello"


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("encode", b"x", "tokenizer: missing"),
        ("encode?tokenizer=/etc/passwd", b"x", "not in the list"),
        ("encode?tokenizer=llama3%00", b"x", "not in the list"),
        ("encode?tokenizer=tiny&special=yes", b"x", "special: expected 1"),
        ("describe", b'{"tokenizer": "tiny"}', "ids: expected a list"),
        ("describe", b'{"tokenizer": "tiny", "ids": [1, "2"]}', "ids[1]: expected a whole number"),
        ("describe", b'{"tokenizer": "tiny", "ids": [1, true]}', "ids[1]: expected a whole number"),
        ("describe", b'{"tokenizer": "tiny", "ids": [1, 1.0]}', "ids[1]: expected a whole number"),
        ("describe", b'{"tokenizer": "tiny", "ids": [302]}', "ids[0]: 302"),
        ("describe", b'{"tokenizer": 1, "ids": []}', "tokenizer: missing"),
        ("describe", b'{"tokenizer": "\\ud800", "ids": [1]}', "not in the list"),
        ("describe", b'{"tokenizer": "tiny", "ids": [' + b"1," * 10_000 + b"1]}", "at most 10,000"),
        ("decode", b'{"tokenizer": "tiny", "ids": [], "more": 1}', "more: not a field"),
        ("decode", b"[]", "not a JSON object"),
    ],
)
def test_a_wrong_request_is_refused_and_named(path: str, body: bytes, words: str) -> None:
    answer = ask("POST", f"/api/tokens/{path}", content=body)
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert words in message and len(message) < 400


def test_a_request_can_only_name_tokenizers_of_the_list(tmp_path: Path, my_json: Path) -> None:
    (tmp_path / "mine.json").write_bytes(my_json.read_bytes())
    (tmp_path / "broken.json").write_bytes(my_json.read_bytes()[:3000])
    shelf = Shelf([str(my_json)], loaded={"tiny": TINY}, folder=tmp_path)
    with pytest.raises(InputError, match="not in the list"):
        shelf.load("mine.json")  # nobody has asked for the list
    choices = {choice.name: choice for choice in shelf.choices()}
    assert [*choices][:2] == ["tiny", str(my_json)]
    assert (choices["tiny"].group, choices["mine.json"].group) == ("given", "folder")
    assert shelf.load("mine.json") is shelf.load("mine.json")
    assert shelf.load("tiny") is TINY
    for name in (str(tmp_path / "mine.json"), "../mine.json", "mine.json/", ""):
        with pytest.raises(InputError, match="not in the list"):
            shelf.load(name)
    with pytest.raises(InputError, match="broken.json"):
        shelf.load("broken.json")
    answer = ask("GET", "/api/tokens/tokenizer?tokenizer=broken.json", shelf)
    assert answer.status_code == 400 and "broken.json" in answer.json()["error"]["message"]


def test_a_tokenizer_given_by_path_is_not_listed_twice(tmp_path: Path, my_json: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(my_json.read_bytes())
    shelf = Shelf([str(path)], folder=tmp_path)
    assert [choice.name for choice in shelf.choices() if "mine" in choice.name] == [str(path)]


def test_an_unknown_tokenizer_of_the_command_line_is_refused() -> None:
    with pytest.raises(InputError, match="nothing-here"):
        Shelf(["nothing-here"])


def test_a_tokenizer_is_summed_up(pieces: Tokenizer) -> None:
    summary = description(TINY)
    assert (summary["tokens"], summary["n_vocab"], summary["special"]) == (262, 302, ["<|end|>", "<|e"])
    assert summary["pattern"] == "gpt2" and not summary["changes_text"]
    assert description(pieces)["changes_text"]


def test_the_page_lists_what_there_is() -> None:
    about = ask("GET", "/api/about").json()
    assert [part["name"] for part in about["parts"]] == ["tokens"]
    assert about["tokenizers"] == ["tiny"]
    for part in about["parts"]:
        assert ask("GET", part["module"]).status_code == ask("GET", part["style"]).status_code == 200
    listed = ask("GET", "/api/tokens").json()
    assert listed["tokenizers"][0] == {"name": "tiny", "format": "tokenizer", "group": "given"}
    assert all("run: " in note or "put the file" in note for note in listed["missing"].values())


def test_the_page_needs_no_torch() -> None:
    script = "import sys, bpe.playground.app, bpe.playground.listening; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    assert importlib.import_module("bpe.playground.app").PAGES.is_dir()
