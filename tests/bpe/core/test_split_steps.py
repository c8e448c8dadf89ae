"""Test splitting by steps: programs against the `regex` module, and what becomes of matches against `tokenizers`."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from tokenizers import Regex, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel, Metaspace, PreTokenizer, Sequence

from bpe import _core
from bpe.errors import InputError
from support.programs import ANY, Tree, chars, find_matches, pattern_text, random_tree, split_step, splitter

ALPHABET = "ab \né"
BEHAVIORS = ["isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"]


def random_text(rng: random.Random, characters: str = ALPHABET + "x▁") -> str:
    """Return a short random text."""
    return "".join(rng.choice(characters) for _ in range(rng.randint(0, 14)))


def pretokens(pre_tokenizer: PreTokenizer, text: str) -> list[tuple[str, tuple[int, int]]]:
    """Return the pretokens of tokenizers, with where they are in the text in bytes."""
    begins = [len(text[:i].encode()) for i in range(len(text) + 1)]
    return [(piece, (begins[a], begins[b])) for piece, (a, b) in pre_tokenizer.pre_tokenize_str(text)]


def pretokens_here(ours: _core.Splitter, text: str) -> list[tuple[str, tuple[int, int]]]:
    """Return the pretokens of a splitter in the same form."""
    return [(piece.decode(), place) for piece, place in zip(ours.split(text), ours.places(text), strict=True)]


def random_split(rng: random.Random, behavior: str, invert: bool) -> tuple[tuple[object, ...], PreTokenizer]:
    """Return a step that splits by a random pattern, for us and for tokenizers."""
    while True:
        tree = random_tree(rng, ALPHABET + "▁", rng.randint(0, 2), bodies=False)
        try:
            peer = pre_tokenizers.Split(Regex(pattern_text(tree)), behavior, invert)
        except Exception:  # Oniguruma repeats no look-around by itself
            continue
        return split_step(tree, behavior, invert), peer


@pytest.mark.parametrize("seed", range(20))
def test_random_programs_match_as_the_regex_module_does(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(25):
        tree = random_tree(rng, ALPHABET, rng.randint(1, 5))
        ours = splitter(tree)
        for _ in range(5):
            text = random_text(rng)
            expected = [text[begin:end].encode() for begin, end, _ in find_matches(tree, text) if begin < end]
            assert ours.split(text) == expected, (pattern_text(tree), text)


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_behaviors_are_those_of_tokenizers(behavior: str, invert: bool) -> None:
    rng = random.Random(behavior)
    for _ in range(60):
        step, peer = random_split(rng, behavior, invert)
        ours = _core.Splitter.stepped([step])
        for _ in range(5):
            text = random_text(rng)
            assert pretokens_here(ours, text) == pretokens(peer, text), (step, text)


def random_step(rng: random.Random) -> tuple[tuple[object, ...], PreTokenizer]:
    """Return a random step, for us and for tokenizers."""
    kind = rng.random()
    if kind < 0.2:
        return ("prefix_space",), ByteLevel(add_prefix_space=True, use_regex=False)
    if kind < 0.5:
        scheme, split = rng.choice(["first", "never", "always"]), rng.random() < 0.5
        return ("metaspace", "▁", scheme, split), Metaspace("▁", scheme, split)
    return random_split(rng, rng.choice(BEHAVIORS), rng.random() < 0.3)


def byte_level(text: str) -> str:
    """Return a text as ByteLevel writes it."""
    return ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)[0][0] if text else ""


@pytest.mark.parametrize("seed", range(10))
def test_sequences_of_steps_are_those_of_tokenizers(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(40):
        steps = [random_step(rng) for _ in range(rng.randint(1, 4))]
        # ByteLevel also replaces every byte by a character, so it comes last only.
        steps = [step for step in steps[:-1] if step[0][0] != "prefix_space"] + steps[-1:]
        ours = _core.Splitter.stepped([step for step, _ in steps])
        peer = Sequence([peer for _, peer in steps])
        is_bytes = steps[-1][0][0] == "prefix_space"
        for _ in range(5):
            text = random_text(rng)
            found = pretokens_here(ours, text)
            if is_bytes:
                found = [(byte_level(piece), place) for piece, place in found]
            assert found == pretokens(peer, text), ([step for step, _ in steps], text)


def test_a_prefix_space_goes_before_each_piece_that_does_not_begin_with_a_space() -> None:
    ours = _core.Splitter.stepped([split_step(chars(","), "isolated"), ("prefix_space",)])
    assert ours.split("a, b\tc") == [b" a", b" ,", b" b\tc"]
    assert ours.places("a, b") == [(0, 1), (1, 2), (2, 4)]
    assert _core.Splitter.stepped([("prefix_space",)]).split("\ta") == [b" \ta"]
    assert _core.Splitter.stepped([("prefix_space",)]).split("") == []


def test_what_stands_before_a_text_decides_about_what_is_put_before_it() -> None:
    metaspace = [_core.Splitter.stepped([("metaspace", "▁", scheme, True)]) for scheme in ("first", "always")]
    starts = ("text", "part", "inside")
    assert [metaspace[0].split("a b", start)[0].decode() for start in starts] == ["▁a", "a", "a"]
    assert [metaspace[1].split("a b", start)[0].decode() for start in starts] == ["▁a", "▁a", "a"]
    space = _core.Splitter.stepped([("prefix_space",)])
    assert [space.split("a", start) for start in starts] == [[b" a"], [b" a"], [b"a"]]


def test_a_long_text_is_given_in_batches() -> None:
    text = "ab " * 5000 + "b"
    removed = splitter(("repeat", chars(" b"), 1, None, False), "removed")
    assert removed.split(text) == [b"a"] * 5000
    spaced = _core.Splitter.stepped([split_step(ANY, "isolated"), ("prefix_space",)])
    assert spaced.split("a" * 5000) == [b" a"] * 5000
    assert _core.Splitter.stepped([("metaspace", "▁", "never", True)]).split(" " * 5000) == ["▁".encode()] * 5000


def test_malformed_bytes_are_surrogates() -> None:
    assert splitter(chars("\udc80")).split(b"\x80\xffa") == [b"\x80", b"\xffa"]
    assert splitter(("repeat", ANY, 2, 2, False)).split(b"\xe2\x82a\xe2\x82\xac\xff") == [
        b"\xe2\x82",
        b"a\xe2\x82\xac",
        b"\xff",
    ]


A, B = chars("a"), chars("b")
RUN: Tree = ("repeat", A, 0, None, False)
LINEAR: dict[str, tuple[Tree, str]] = {
    "a*b|a": (("either", ("sequence", RUN, B), A), "a"),
    "(?>a*)b|a": (("either", ("sequence", ("atomic", RUN), B), A), "a"),
    "a(?=a*b)|a": (("either", ("sequence", A, ("ahead", ("sequence", RUN, B), False)), A), "a"),
    "a(?!a*b)|a": (("either", ("sequence", A, ("ahead", ("sequence", RUN, B), True)), A), "a"),
    "(a|a)*b|.": (("either", ("sequence", ("repeat", ("either", A, A), 0, None, False), B), ANY), "a"),
    "(a|aa)*b|.": (
        ("either", ("sequence", ("repeat", ("either", A, ("sequence", A, A)), 0, None, False), B), ANY),
        "a",
    ),
    "a(?=(?>a*)b|a)": (("sequence", A, ("ahead", ("either", ("sequence", ("atomic", RUN), B), A), False)), "a"),
    "(a(?=a*b))*c|a": (
        (
            "either",
            (
                "sequence",
                ("repeat", ("sequence", A, ("ahead", ("sequence", RUN, B), False)), 0, None, False),
                chars("c"),
            ),
            A,
        ),
        "a",
    ),
    r"\s+(?!\S)|\s": (
        ("either", ("sequence", ("repeat", chars(" "), 1, None, False), ("next", chars(" ")[1], True)), ANY),
        " ",
    ),
}


@pytest.mark.parametrize("name", LINEAR)
def test_long_runs_take_linear_time(name: str) -> None:
    tree, character = LINEAR[name]
    ours = splitter(tree)
    for end in ("", "b", "x"):
        steps = [ours.steps_made(character * size + end) for size in (20_000, 40_000, 80_000)]
        assert all(b <= 2.2 * a for a, b in pairwise(steps)), (end, steps)
        assert steps[-1] < 80_000 * 100


def code_of(*instructions: tuple[int, int, int]) -> list[tuple[object, ...]]:
    """Return steps with a program that has one set."""
    return [("split", [[97, 97]], list(instructions), "isolated", False)]


CHAR, JUMP, SPLIT, MATCH, AHEAD, BEHIND, LOOK, BACK, ATOMIC = range(9)


def test_deep_nesting_needs_no_recursion() -> None:
    depth = 30_000
    begins = [(ATOMIC, 0, 2 * depth + 1 - i) for i in range(depth)]
    ours = _core.Splitter.stepped(code_of(*begins, (CHAR, 0, 0), *[(MATCH, 0, 0)] * (depth + 1)))
    assert ours.split("aab") == [b"a", b"a", b"b"]


WRONG: dict[str, tuple[list[tuple[object, ...]], str]] = {
    "no instructions": (code_of(), "no complete instructions"),
    "an unknown operation": (code_of((9, 0, 0)), "instruction 0 has an unknown operation"),
    "no match at the end": (code_of((CHAR, 0, 0)), "instruction 0 leads beyond the end"),
    "a jump beyond the end": (code_of((JUMP, 7, 0), (MATCH, 0, 0)), "instruction 0 leads beyond the end"),
    "a missing set": (code_of((CHAR, 1, 0), (MATCH, 0, 0)), "instruction 0 names a set that does not exist"),
    "a wrong edge": (code_of((AHEAD, 0, 2), (MATCH, 0, 0)), "instruction 0 has an edge"),
    "a wrong look-around": (code_of((LOOK, 2, 2), (MATCH, 0, 0), (MATCH, 0, 0)), "instruction 0 has a kind"),
    "a loop": (code_of((JUMP, 0, 0)), "instruction 0 is in a loop"),
    "a loop of two": (code_of((SPLIT, 1, 2), (AHEAD, 0, 0), (JUMP, 0, 0), (MATCH, 0, 0)), "in a loop that may consume"),
    "a loop of an empty body": (code_of((ATOMIC, 0, 2), (MATCH, 0, 0), (JUMP, 0, 0)), "in a loop that may consume"),
    "a body without end": (code_of((LOOK, 0, 9), (MATCH, 0, 0), (MATCH, 0, 0)), "instruction 0 has a body"),
    "an empty body": (code_of((LOOK, 0, 1), (MATCH, 0, 0)), "instruction 0 has a body"),
    "a body that is left": (code_of((LOOK, 0, 2), (JUMP, 2, 0), (MATCH, 0, 0)), "instruction 1 leads out of its body"),
    "a body that is entered": (
        code_of((JUMP, 2, 0), (LOOK, 0, 3), (MATCH, 0, 0), (MATCH, 0, 0)),
        "instruction 0 leads",
    ),
    "a step back in the pattern": (code_of((BACK, 1, 0), (MATCH, 0, 0)), "instruction 0 steps back outside"),
    "a step back in a loop": (
        code_of((LOOK, 0, 5), (BACK, 1, 0), (CHAR, 0, 0), (SPLIT, 1, 4), (MATCH, 0, 0), (MATCH, 0, 0)),
        "steps back in a loop",
    ),
    "a set out of order": ([("split", [[98, 98, 97, 97]], [(MATCH, 0, 0)], "isolated", False)], "not sorted"),
    "a set beyond Unicode": (
        [("split", [[97, 0x110000]], [(MATCH, 0, 0)], "isolated", False)],
        "not sorted code points",
    ),
    "half a range": ([("split", [[97]], [(MATCH, 0, 0)], "isolated", False)], "no end"),
    "an unknown behavior": ([("split", [], [(MATCH, 0, 0)], "odd", False)], "no setting named odd"),
    "an unknown step": ([("odd",)], "no step named odd"),
    "a long replacement": ([("metaspace", "ab", "first", True)], "must be one character"),
    "no replacement": ([("metaspace", "", "first", True)], "must be one character"),
    "too many spaces": ([("prefix_space",)] * 9, r"2\^9 pieces of one byte, .* at most 2\^8"),
    "too many characters": ([("to_byte_characters",)] * 9, r"2\^9 pieces of one byte, .* at most 2\^8"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_program_is_refused(name: str) -> None:
    steps, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        _core.Splitter.stepped(steps)


def test_a_random_program_is_refused_or_runs() -> None:
    rng = random.Random(0)
    accepted = 0
    for _ in range(3000):
        size = rng.randint(1, 8)
        code = [(rng.randrange(9), rng.randrange(size), rng.randrange(size)) for _ in range(size)] + [(MATCH, 0, 0)]
        try:
            ours = _core.Splitter.stepped([("split", [[97, 97], [98, 99]], code, "isolated", False)])
        except InputError:
            continue
        accepted += 1
        assert b"".join(ours.split("abcaab")) == b"abcaab"
    assert accepted > 100
