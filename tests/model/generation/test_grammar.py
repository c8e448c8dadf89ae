"""Grammars: which tokens they allow, checked by brute force, and that the model's probabilities decide among them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import regex
import torch

from bpe import Tokenizer
from bpe.errors import InputError
from bpe.formats import sentencepiece as sentencepiece_format
from model import GrammarCompiler, ModelConfig, Sampling, Transformer, complete, generate, grammar_compiler
from model.generation.sampling import candidates, log_softmax
from support.native_models import native
from support.pieces import MISTRAL, mistral, trained
from support.references import BYTE_RANKS

WORDS = [b"ab", b"abc", b"he", b"hello", b'{"', b'":', b'": ', b' "', b"}\n", "é".encode(), "é".encode()[1:] + b"a"]
WORDS += [b"tru", b"true", b"e}", b"  ", b"12", b".5", b"\xff\xfe"]
END, OTHER = 280, 281
ROWS = 290  # more than the tokenizer has tokens


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    ranks = BYTE_RANKS | {word: 256 + place for place, word in enumerate(WORDS)}
    special = {"<|end|>": END, "<|other|>": OTHER}
    return Tokenizer("words", pat_str="gpt2", mergeable_ranks=ranks, special_tokens=special)


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, ROWS, [END])


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(3)
    config = ModelConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=24, vocab_size=ROWS, max_seq_len=400)
    return Transformer(config)


def ids_of(allowed: np.ndarray) -> set[int]:
    return {*np.flatnonzero(allowed).tolist()}


PATTERNS = [
    "hello( abc)?",
    "[ab]{2,4}c",
    "(ab|abc)*d",
    "a|ab|abc",
    "(?:h|he|hello)+",
    "true|tru",
    r"[0-9]{1,3}(\.[0-9]+)?",
    "^abc$",
    r'\{"(he)*": true\}',
    "(?s:.){0,3}",
    "[é€a]+",
    "",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_token_is_allowed_if_and_only_if_a_text_that_matches_begins_with_it(
    compiler: GrammarCompiler, tokenizer: Tokenizer, pattern: str
) -> None:
    random = np.random.default_rng(len(pattern))
    whole = regex.compile(pattern)
    grammar = compiler.regex(pattern)
    tokens = {id: tokenizer.decode_single_token_bytes(id) for id in range(256 + len(WORDS))}
    for _ in range(6):
        matcher, text = grammar.start(), b""
        while len(text) < 12 and not matcher.finished:
            expected = {id for id, token in tokens.items() if begins_a_match(whole, text + token)}
            if matches(whole, text):
                expected.add(END)
            assert ids_of(matcher.allowed()) == expected, text
            id = int(random.choice([*expected]))
            matcher.accept(id)
            text += tokens.get(id, b"")
        if matcher.finished:
            assert matches(whole, text)
            assert not any(begins_a_match(whole, text + token) for token in tokens.values()) or id == END


def matches(whole: Any, text: bytes) -> bool:
    try:
        return whole.fullmatch(text.decode()) is not None
    except UnicodeDecodeError:
        return False


def begins_a_match(whole: Any, text: bytes) -> bool:
    """Return whether a text that matches begins with these bytes, which may end within a character."""
    try:
        return whole.fullmatch(text.decode(), partial=True) is not None
    except UnicodeDecodeError:
        pass
    endings = [bytes([byte]) for byte in range(0x80, 0xC0)] + [bytes([0x82, 0xAC]), b"\x9f\x98\x80", b"\xa0\x80"]
    endings += [b"\x90\x80\x80", b"\x80\x80\x80"]
    for ending in endings:
        try:
            if whole.fullmatch((text + ending).decode(), partial=True) is not None:
                return True
        except UnicodeDecodeError:
            pass
    return False


def test_tokens_with_the_same_bytes_are_all_allowed() -> None:
    class Doubled:
        n_vocab = 5
        special_tokens_set = frozenset({"<s>"})

        def encode_single_token(self, text: object) -> int:
            return 3

        def decode_single_token_bytes(self, id: int) -> bytes:
            return {0: b"a", 1: b"b", 2: b"a", 3: b"a"}[id]  # 4 is no token

    matcher = GrammarCompiler(Doubled(), 5).regex("ab*").start()
    assert ids_of(matcher.allowed()) == {0, 2}
    matcher.accept(2)
    assert ids_of(matcher.allowed()) == {1}


@pytest.mark.parametrize("name", ["tokenizer.model.v1", "plain"])
def test_sentencepiece_tokens_count_as_the_text_that_is_decoded(name: str) -> None:
    content = mistral(name) if name in MISTRAL else trained(name)
    tokenizer = Tokenizer.from_vocabulary(sentencepiece_format.read(content, "tokenizer.model", None, None))
    special = {*tokenizer.special_tokens_set}
    pieces = {id: tokenizer.decode_single_token_bytes(id).decode(errors="replace") for id in range(tokenizer.n_vocab)}
    for token in special:
        del pieces[tokenizer.encode_single_token(token)]
    matcher = GrammarCompiler(tokenizer, end_ids=tokenizer.eos_ids).regex(" ?the sea ?").start()
    text = ""
    while not matcher.finished:
        allowed = ids_of(matcher.allowed()) - {*tokenizer.eos_ids}
        assert allowed == {id for id, piece in pieces.items() if piece and begins(text + piece)}
        id = max(allowed, key=lambda id: (len(pieces[id]), id))  # the space in front is one of the text
        matcher.accept(id)
        text += pieces[id]
    assert text == " the sea "


def begins(text: str) -> bool:
    return " the sea ".startswith(text) or "the sea ".startswith(text)


def test_nothing_is_forced_where_only_one_text_can_follow(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    for grammar in (
        compiler.json_schema({"const": "hello"}),
        compiler.regex('"hello"'),
        compiler.grammar('start: "\\"hello\\""'),
        compiler.grammar('start: %json {"const": "hello"}'),
    ):
        matcher = grammar.start()
        matcher.accept(tokenizer.encode_single_token('"'))
        assert ids_of(matcher.allowed()) == {tokenizer.encode_single_token(text) for text in ("h", "he", "hello")}


def test_special_tokens_are_never_allowed(compiler: GrammarCompiler) -> None:
    matcher = compiler.regex("(?s:.)*").start()
    assert ids_of(matcher.allowed()) == {*range(256 + len(WORDS))} - not_utf8() | {END}
    matcher = compiler.regex(r"<\|other\|>").start()
    for byte in b"<|other|>":
        assert ids_of(matcher.allowed()) - {256 + WORDS.index(b"he")} == {byte}
        matcher.accept(byte)
    assert matcher.finished


def not_utf8() -> set[int]:
    """Return the tokens that no UTF-8 text begins with."""
    return {*range(0x80, 0xC2), *range(0xF5, 0x100), 256 + WORDS.index("é".encode()[1:] + b"a"), 256 + len(WORDS) - 1}


def test_without_an_end_token_a_text_ends_where_the_grammar_allows_no_more(tokenizer: Tokenizer) -> None:
    matcher = GrammarCompiler(tokenizer).regex("ab?").start()
    matcher.accept(97)
    assert ids_of(matcher.allowed()) == {98}
    matcher.accept(98)
    assert matcher.finished


def test_a_token_that_is_not_allowed_is_refused(compiler: GrammarCompiler) -> None:
    matcher = compiler.regex("ab").start()
    matcher.accept(97)
    with pytest.raises(InputError, match="does not allow the token 99 after 1 token"):
        matcher.accept(99)


def test_matchers_of_one_grammar_are_independent(compiler: GrammarCompiler) -> None:
    grammar = compiler.regex("a+|b+")
    first, second = grammar.start(), grammar.start()
    first.accept(97)
    second.accept(98)
    assert (ids_of(first.allowed()), ids_of(second.allowed())) == ({97, END}, {98, END})


def test_logits_of_allowed_tokens_are_unchanged(compiler: GrammarCompiler) -> None:
    logits = np.random.default_rng(1).normal(size=ROWS).astype(np.float32)
    before = logits.copy()
    matcher = compiler.regex("[ab]+").start()
    restricted = matcher.restrict(logits)
    allowed = matcher.allowed()
    assert (restricted[allowed] == logits[allowed]).all() and (restricted[~allowed] == -np.inf).all()
    assert (logits == before).all() and restricted.dtype == np.float32
    probabilities, ids = candidates(restricted, Sampling(temperature=1, top_p=None))
    assert {*ids[probabilities > 0].tolist()} == ids_of(allowed)
    exact = np.exp(logits[allowed].astype(np.float64))
    np.testing.assert_allclose(probabilities[probabilities > 0], exact / exact.sum(), rtol=1e-6)


def test_the_models_probabilities_decide_among_allowed_tokens(tokenizer: Tokenizer, model: Transformer) -> None:
    grammar = grammar_compiler(model, tokenizer, [END]).regex("[a-d]")
    logits = model(torch.tensor([[1, 2, 3]]))[0, -1].double().detach().numpy()
    expected = np.exp(logits[97:101])
    expected /= expected.sum()
    texts = complete(
        model, tokenizer, [[1, 2, 3]], samples=2000, end_ids=[END], grammar=grammar, temperature=1.0, top_p=None, seed=5
    )
    counts = np.array([sum(text.text == letter for text in texts) for letter in "abcd"])
    assert counts.sum() == 2000
    assert ((counts - 2000 * expected) ** 2 / (2000 * expected)).sum() < 16.3  # chi-square, p = 0.001


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_both_backends_generate_the_same_texts(tokenizer: Tokenizer, model: Transformer, temperature: float) -> None:
    both = []
    for each in (model, native(model)):
        grammar = grammar_compiler(each, tokenizer, [END]).regex("[a-z]{3,9}(ab|é)*")
        settings: Any = {"samples": 3, "end_ids": [END], "temperature": temperature, "seed": 1}
        both.append(complete(each, tokenizer, ["a", "bc"], 30, grammar=grammar, **settings))
    assert [text.ids for text in both[0]] == [text.ids for text in both[1]]
    for text in both[0]:
        assert regex.fullmatch("[a-z]{3,9}(ab|é)*", text.text, partial=text.finish == "length")


def test_a_text_ends_where_the_grammar_allows_no_more(tokenizer: Tokenizer, model: Transformer) -> None:
    compiler = grammar_compiler(model, tokenizer, [END])
    (text,) = complete(model, tokenizer, ["x"], end_ids=[END], grammar=compiler.regex("hello abc"))
    assert (text.text, text.finish) == ("hello abc", "end")
    assert END not in text.ids
    (text,) = complete(model, tokenizer, ["x"], 3, end_ids=[END], grammar=compiler.regex("h e l l o"))
    assert (text.text, text.finish) == ("h e", "length")
    bias = {END: 1000.0}
    (text,) = complete(model, tokenizer, ["x"], end_ids=[END], grammar=compiler.regex("[ab]{4}.*"), logit_bias=bias)
    assert text.ids[-1] == END and len(text.text) >= 4 and text.finish == "end"
    assert "".join(generate(model, tokenizer, "x", end_ids=[END], grammar=compiler.regex("hello"))) == "hello"


def test_log_probabilities_are_the_models_own(tokenizer: Tokenizer, model: Transformer) -> None:
    grammar = grammar_compiler(model, tokenizer, [END]).regex("[ab]")
    for each in (model, native(model)):
        (text,) = complete(each, tokenizer, [[1, 2]], end_ids=[END], grammar=grammar, logprobs=2)
        logits = model(torch.tensor([[1, 2]]))[0, -1, : tokenizer.n_vocab].detach().numpy()
        assert text.logprobs[0] == pytest.approx(log_softmax(logits)[text.ids[0]], abs=1e-4)
        assert text.top_logprobs[0][0][0] == logits.argmax()


def test_a_grammar_of_another_vocabulary_is_refused(tokenizer: Tokenizer, model: Transformer) -> None:
    for compiler in (GrammarCompiler(tokenizer, ROWS, [END]), grammar_compiler(model, tokenizer, [OTHER])):
        with pytest.raises(InputError, match="compiled for .* compile it with"):
            complete(model, tokenizer, ["x"], end_ids=[END], grammar=compiler.regex("a"))


def test_a_tool_is_called_with_arguments_of_its_schema(tokenizer: Tokenizer, model: Transformer) -> None:
    weather = {"type": "object", "properties": {"city": {"$ref": "#/$defs/city"}}, "required": ["city"]}
    weather |= {"additionalProperties": False, "$defs": {"city": {"enum": ["Oslo", "Rome"]}}}
    tools = [
        {"name": "weather", "parameters": weather},
        {"type": "function", "function": {"name": "now"}},
    ]
    compiler = grammar_compiler(model, tokenizer, [END])
    grammar = compiler.tools(tools, begin="<call>\n", end="\n</call>")
    for text in complete(model, tokenizer, ["x"], samples=20, end_ids=[END], grammar=grammar, temperature=1.0, seed=0):
        assert text.finish == "end"
        call = json.loads(text.text.removeprefix("<call>\n").removesuffix("\n</call>"))
        assert call in (
            {"name": "weather", "arguments": {"city": "Oslo"}},
            {"name": "weather", "arguments": {"city": "Rome"}},
            {"name": "now", "arguments": {}},
        )
    several = compiler.tools(tools[1:], arguments_key="parameters", separator="; ").start()
    for byte in b'{"name": "now", "parameters": {}}; {"name": "now", "parameters": {}}':
        several.accept(byte)
    assert ids_of(several.allowed()) == {ord(";"), END}


WRONG: list[tuple[Callable[[GrammarCompiler], object], str]] = [
    (lambda c: c.regex("a(b"), "regular expression: unclosed group at character 2"),
    (lambda c: c.regex("(?!a)b"), "regular expression: look-around.* at character 1"),
    (lambda c: c.regex(r"(a)\1"), "regular expression: backreferences are not supported"),
    (
        lambda c: c.regex(r"\bx"),
        r"regular expression: \\b, and \^ and \$ within a regular expression, are not supported",
    ),
    (lambda c: c.regex(r"[^\s\S]"), "regular expression: it allows no text"),
    (lambda c: c.regex("a\ud800"), "half a surrogate pair at character 1"),
    (lambda c: c.regex("a" * 1_000_001), "1,000,001 characters"),
    (lambda c: c.grammar("start: foo"), "grammar, line 1, column 8: unknown name"),
    (lambda c: c.grammar('start: "a"\nx y'), "grammar, line 2, column 3: Expected token"),
    (lambda c: c.grammar('x: "a"'), "no start rule"),
    (lambda c: c.grammar(""), "no start rule"),
    (lambda c: c.grammar('start: "a"\n  | <|other|>'), "line 2: <|other|> names a special token"),
    (lambda c: c.grammar('start: "a" <[281]>'), "line 1: <[281]> names a special token"),
    (lambda c: c.grammar('start: "<" a\na[temperature=0.1]: /b/'), "line 2: temperature is not supported"),
    (lambda c: c.grammar('start: "a"\n%llguidance {"lenient": true}'), "line 2: the option lenient is not supported"),
    (lambda c: c.grammar('start: %json {"not": {}}'), "line 1: JSON schema, at /not: the keyword not"),
    (lambda c: c.grammar("start: %json"), "line 1: %json needs a JSON object"),
    (lambda c: c.grammar("start: start"), "it allows no text"),
    (lambda c: c.tools([]), "tools is empty"),
    (lambda c: c.tools([{"parameters": {}}]), r"tools\[0\] has no name"),
    (lambda c: c.tools([{"name": "f", "parameters": {"not": {}}}]), r"tools\[0\] \(f\), parameters: .* /not: "),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG)
def test_a_wrong_grammar_is_refused_with_its_place(
    compiler: GrammarCompiler, wrong: Callable[[GrammarCompiler], object], message: str
) -> None:
    plain = message if "\\" in message or ".*" in message else regex.escape(message)
    with pytest.raises(InputError, match=plain) as error:
        wrong(compiler)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


HOSTILE: list[tuple[str, Callable[[GrammarCompiler], object]]] = [
    ("parentheses", lambda c: c.regex("(" * 100_000 + "a" + ")" * 100_000)),
    ("nested rules", lambda c: c.grammar("start: " + "(" * 100_000 + '"a"' + ")" * 100_000)),
]


@pytest.mark.parametrize(("name", "hostile"), HOSTILE)
def test_a_grammar_that_explodes_is_refused(
    compiler: GrammarCompiler, name: str, hostile: Callable[[GrammarCompiler], object]
) -> None:
    with pytest.raises(InputError):
        hostile(compiler)


def test_without_llguidance_the_message_names_the_extra(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(
        InputError, match=r"structured output needs the package llguidance: pip install 'bpe-llama\[serve\]'"
    ):
        GrammarCompiler(tokenizer)
