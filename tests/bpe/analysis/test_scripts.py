"""The classes of tokens."""

from __future__ import annotations

import regex

from bpe import Tokenizer
from bpe.analysis.scripts import CLASSES, SCRIPTS
from bpe.analysis.token_arrays import TokenArrays
from support.references import BYTE_RANKS


def test_token_has_the_class_of_its_characters() -> None:
    expected = {
        " word": "Latin",
        "(ſ²": "Latin",
        "Ж1": "Cyrillic",
        "日本": "Han",
        "。": "punctuation, symbols",
        "のテ": "several scripts",
        " \u0394E": "several scripts",
        "हि": "Devanagari",
        "٣٤": "Arabic",
        " 12": "numbers",
        "1\ufe0f\u20e3": "punctuation, symbols",
        " \u0301": "punctuation, symbols",
        "½": "numbers",
        "1.": "punctuation, symbols",
        "👩\u200d💻": "punctuation, symbols",
        "\u0301": "punctuation, symbols",
        " \u3000\n": "white space",
        "ᚠ": "other scripts",
        "한": "Hangul",
        "ー": "punctuation, symbols",
        "ܐ": "other scripts",
    }  # fmt: skip
    tokens = {token.encode(): 256 + number for number, token in enumerate(expected)}
    tokens |= {b"\xe6\x97": 400, b" \xff": 401, b"a\x80": 402}
    tokenizer = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=BYTE_RANKS | tokens, special_tokens={})
    vocabulary = TokenArrays(tokenizer)
    found = {token: CLASSES[vocabulary.classes[id]] for token, id in tokens.items()}
    assert found == {token.encode(): name for token, name in expected.items()} | dict.fromkeys(
        (b"\xe6\x97", b" \xff", b"a\x80"), "parts of characters"
    )
    assert [CLASSES[vocabulary.classes[byte]] for byte in b"a1.\n\x80"] == [
        *("Latin", "numbers", "punctuation, symbols", "white space", "parts of characters"),
    ]


def test_classes_of_llama_3_equal_those_found_one_token_at_a_time(llama3: Tokenizer) -> None:
    vocabulary = TokenArrays(llama3)
    for id in range(0, 128_000, 97):
        name = CLASSES[vocabulary.classes[id]]
        try:
            text = vocabulary.tokens[id].decode()
        except UnicodeDecodeError:
            assert name == "parts of characters"
            continue
        scripts = {script for script in SCRIPTS if regex.search(rf"\p{{Script={script}}}", text)}
        others = regex.search(r"(?V1)[^\p{Script=Common}\p{Script=Inherited}]", text)
        if scripts:
            assert name == (scripts.pop() if len(scripts) == 1 else "several scripts"), text
        elif others:
            assert name == "other scripts", text
        elif not text.strip():
            assert name == "white space", text
        else:
            assert name == ("numbers" if regex.fullmatch(r"[\p{N}\s]+", text) else "punctuation, symbols"), text
