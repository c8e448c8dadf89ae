"""Grammars in llama.cpp's GBNF: their texts are those that a plain derivation finds, and errors name the line."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bpe.errors import InputError
from model import GrammarCompiler
from support.references import byte_tokenizer

END = 300


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    return GrammarCompiler(byte_tokenizer(special_tokens={"<|end|>": END}, ab=256, aab=257), END + 1, [END])


def accepts(compiler: GrammarCompiler, grammar: str, text: str) -> bool:
    matcher = compiler.grammar(grammar).start()
    for byte in text.encode():
        if matcher.finished or not matcher.allowed()[byte]:
            return False
        matcher.accept(byte)
    return matcher.finished or bool(matcher.allowed()[END])


JSON = r"""
# Any JSON value.
root   ::= value
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [1-9] [0-9]{0,3})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""

TEXTS: list[tuple[str, str, list[str], list[str]]] = [
    ("a terminal is not greedy", 'root ::= [a-z]* "b"', ["aab", "b", "bb"], ["a", ""]),
    ("words that begin alike", 'root ::= "tru" "e" | "true" "x" | "tr" "u" [a-z] "z"', ["true", "truex", "trubz"],
     ["tru"]),
    ("recursion", 'root ::= x\nx ::= "a" x "b" | [a-z] "c" | ""', ["", "aabb", "ab", "bc", "abcb"],
     ["aab", "acb", "ba"]),
    ("left recursion", 'root ::= e\ne ::= e "+" t | t\nt ::= [0-9]+ | "(" e ")"', ["1+2", "(1+23)+4"], ["1+", "()"]),
    ("escapes", r'root ::= "\u00e9\x41\U0001F600\n\t\"\\" [\]\-^a-c] [^\x00-\x1F]', ['éA😀\n\t"\\]é', 'éA😀\n\t"\\b!'],
     ["é"]),
    ("a set with a hyphen", "root ::= [a-] [-a] [+-]", ["-a+", "a--"], ["b-+", "a-,"]),
    ("any character", "root ::= .{2,3}", ["a\n", "é😀b"], ["a", "abcd"]),
    ("times", 'root ::= "a"{2} "b"{1,} "c" {0,2} ("d" | "e")* "f"? "g"+', ["aabg", "aabbccdedfgg"], ["abg", "aacg"]),
    ("names", 'root ::= a-b A_1\na-b ::= "x"\nA_1 ::= "y" # end', ["xy"], ["x"]),
    ("lines", 'root ::= "a" |\n  "b" ( # comment\n "c"\n | "d" )\n\n\nx ::= "e"', ["a", "bc", "bd"], ["b", "e"]),
    ("nothing", 'root ::= "" | "a"', ["", "a"], ["b"]),
    ("a slash", 'root ::= "/" [/]', ["//"], ["/"]),
    ("JSON", JSON,
     ['{"a": [1, -2.5e3, true, null, "x\\n\\u00e9"]}', "{}", "[ ]", '{"a": {"b": []}} '], ['{"a":}', "[1,]"]),
]  # fmt: skip


@pytest.mark.parametrize(("grammar", "right", "wrong"), [text[1:] for text in TEXTS], ids=[text[0] for text in TEXTS])
def test_texts_follow_the_grammar(compiler: GrammarCompiler, grammar: str, right: list[str], wrong: list[str]) -> None:
    assert [text for text in right if not accepts(compiler, grammar, text)] == []
    assert [text for text in wrong if accepts(compiler, grammar, text)] == []


def test_all_short_texts_of_an_ambiguous_grammar_are_allowed(compiler: GrammarCompiler) -> None:
    grammar = compiler.grammar('root ::= s\ns ::= "a" s "b" | "ab" | [ab] "a" | "aab" s?')
    texts = {"ab", "aa", "ba", "aab"}
    for _ in range(4):  # derivations of growing depth
        texts |= {f"a{text}b" for text in texts} | {f"aab{text}" for text in texts}
    for text in map("".join, itertools.chain(*(itertools.product("ab", repeat=count) for count in range(8)))):
        matcher, allowed = grammar.start(), True
        for byte in text.encode():
            allowed = allowed and not matcher.finished and bool(matcher.allowed()[byte])
            if allowed:
                matcher.accept(byte)
        assert (allowed and bool(matcher.finished or matcher.allowed()[END])) == (text in texts), text


def test_tokens_of_several_characters_are_allowed(compiler: GrammarCompiler) -> None:
    matcher = compiler.grammar('root ::= x\nx ::= "a" x "b" | ""').start()
    assert {*np.flatnonzero(matcher.allowed()).tolist()} == {ord("a"), 256, 257, END}


WRONG = [
    ("root ::= a", "line 1: there is no rule a"),
    ('x ::= "a"', "it has no rule root"),
    ('root ::= "a', "line 1: a string is not closed"),
    ("root ::=\n [a", "line 2: a set is not closed"),
    ('root ::= ("a"', "line 1: a closing parenthesis is missing"),
    ('root ::= "a"\nx ::= "b" ) "c"', "line 2: ')' is not expected"),
    ("root ::= <[1]>", "line 1: <...> names a token"),
    ("root ::= !<think>", "line 1: <...> names a token"),
    ("root ::= [z-a]", "line 1: the range z-a is empty"),
    ("root ::= []", "line 1: a set [] has no characters"),
    (r'root ::= "\q"', r"line 1: the escape \q is not known"),
    (r'root ::= "\ud800"', r"line 1: \ud800 is not a character"),
    ('root ::= "a"\nroot ::= "b"', "line 2: the rule root is defined twice"),
    ('root ::= "a"{2,1}', "line 1: {2,1} is not a number of times"),
    ('root ::= "a"{x}', "line 1: { is not followed by a number of times"),
    ('root "a"\nx ::= "b"', "line 1: ::= is missing"),
    ("root ::= root", "it allows no text"),
    ("root ::= " + "(" * 500 + '"a"' + ")" * 500, "nested too deeply"),
    ("\n".join(f"r{n} ::= r{n + 1} r{n + 1}" for n in range(40)) + '\nr40 ::= "a"\nroot ::= r0', "too large"),
]  # fmt: skip


@pytest.mark.parametrize(("grammar", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_grammar_is_refused_with_its_line(compiler: GrammarCompiler, grammar: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        compiler.grammar(grammar)
    assert message in str(error.value) and "\n" not in str(error.value)
