"""Test the automaton of split programs against the backtracker and the hand-written scanners, and where it cuts."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpe import _core
from bpe.patterns import PATTERNS, SCANNED
from bpe.splitting.compile import compile_pattern
from support.programs import ANY, Tree, chars, random_tree, split_step
from support.references import broken_bytes, peculiar_text

ALPHABET = "ab \né"


def random_text(rng: random.Random) -> str:
    """Return a random text, sometimes one of several windows."""
    size = rng.choice([3, 10, 30, 3000] if rng.random() < 0.9 else [40_000])
    run = rng.choice(ALPHABET + "x")
    return "".join(run if rng.random() < 0.5 else rng.choice(ALPHABET + "x") for _ in range(size))


@pytest.mark.parametrize("seed", range(20))
def test_random_programs_match_as_with_the_backtracker(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(25):
        steps = [split_step(random_tree(rng, ALPHABET, rng.randint(1, 5), bodies=False), invert=rng.random() < 0.2)]
        fast, plain = _core.Splitter.stepped(steps), _core.Splitter.stepped(steps, plain=True)
        for _ in range(4):
            text = random_text(rng)
            assert fast.ends(text).tolist() == plain.ends(text).tolist(), (steps, text[:100])


@pytest.mark.parametrize("seed", range(20))
def test_a_text_may_be_cut_where_the_splitter_says(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(25):
        behavior = rng.choice(["isolated", "removed"])
        tree = random_tree(rng, ALPHABET, rng.randint(1, 4), bodies=False)
        steps: list[tuple[object, ...]] = [split_step(tree, behavior, rng.random() < 0.5)]
        if rng.random() < 0.3:
            steps.insert(0, ("prefix_space",))
        if rng.random() < 0.3:
            steps.append(("metaspace", "▁", rng.choice(["first", "always"]), rng.random() < 0.5))
        ours = _core.Splitter.stepped(steps)
        text = "".join(rng.choice(ALPHABET) for _ in range(30))
        for cut in ours.cuts(text):
            left, right = text.encode()[:cut].decode(), text.encode()[cut:].decode()
            for start in ("text", "part", "inside"):
                whole = ours.split(left, start) + ours.split(right, "inside")
                assert ours.split(text, start) == whole, (steps, left, right)


def known_step(name: str) -> tuple[object, ...]:
    """Return the step of a known pattern."""
    program = compile_pattern(PATTERNS[name].text, "tiktoken")
    return "split", program.sets, program.instructions, "isolated", False


COMPILED = {
    name: [_core.Splitter.stepped([known_step(name)], plain=plain) for plain in (False, True)] for name in SCANNED
}


@pytest.mark.parametrize("name", SCANNED)
@given(text=peculiar_text, repeats=st.sampled_from([1, 1, 1, 1, 3000]))
def test_compiled_patterns_split_as_the_scanners_do(name: str, text: str, repeats: int) -> None:
    scanner = PATTERNS[name].scanner
    assert scanner is not None
    fast, plain = COMPILED[name]
    expected = _core.scan(scanner, text * repeats).tolist()
    assert fast.ends(text * repeats).tolist() == expected
    if repeats == 1:
        assert plain.ends(text).tolist() == expected


@given(content=broken_bytes())
def test_malformed_bytes_are_characters_of_no_class(content: bytes) -> None:
    scanner = PATTERNS["llama3"].scanner
    assert scanner is not None
    for ours in COMPILED["llama3"]:
        assert ours.ends(content).tolist() == _core.scan(scanner, content).tolist()


@pytest.mark.parametrize("name", ["llama3", "o200k"])
def test_every_character_has_its_class(name: str) -> None:
    fast, plain = COMPILED[name]
    characters = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000 and (i < 0x20000 or i % 16 == 0)]
    random.Random(0).shuffle(characters)
    text = "".join(characters[i] + " 1a\n"[i % 8 // 2] * (i % 2) for i in range(len(characters)))
    assert fast.ends(text).tolist() == plain.ends(text).tolist()


def test_sequences_that_end_early_or_have_another_form_are_malformed() -> None:
    fast, plain = COMPILED["o200k"]
    rng = random.Random(0)
    wrong = [
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
    ]
    right = [character.encode() for character in "aé߿ࠀ퟿\ue000一￿𐀀\U0010ffff"]
    for _ in range(2000):
        parts = [rng.choice(wrong + right) for _ in range(rng.randint(1, 6))]
        text = b"".join(part[: rng.choice([len(part), len(part), rng.randint(1, 4)])] for part in parts)
        assert fast.ends(text).tolist() == plain.ends(text).tolist(), text


@pytest.mark.parametrize("name", ["llama3", "o200k"])
def test_most_texts_can_be_cut_often(name: str) -> None:
    text = "In 1851, Moby-Dick's author wrote:\n\n  a whale of a tale...\n" * 20
    cuts = _core.Splitter.stepped([known_step(name)]).cuts(text)
    assert len(cuts) > 100


A, B = chars("a"), chars("b")
RUN: Tree = ("repeat", A, 0, None, False)
LINEAR: dict[str, tuple[Tree, str]] = {
    "a*b|a": (("either", ("sequence", RUN, B), A), "a"),
    "(ab)*c|a|b": (("either", ("sequence", ("repeat", ("sequence", A, B), 0, None, False), chars("c")), A, B), "ab"),
    "a*b|aa*c|a": (("either", ("sequence", RUN, B), ("sequence", A, RUN, chars("c")), A), "a"),
    r"\s+(?!\S)|\s": (
        ("either", ("sequence", ("repeat", chars(" "), 1, None, False), ("next", chars(" ")[1], True)), ANY),
        " ",
    ),
}


@pytest.mark.parametrize("name", LINEAR)
def test_walks_beyond_a_match_take_linear_time(name: str) -> None:
    tree, characters = LINEAR[name]
    ours = _core.Splitter.stepped([split_step(tree)])
    plain = _core.Splitter.stepped([split_step(tree)], plain=True)
    for end in ("", "b", "c"):
        texts = [characters * size + end for size in (20_000, 40_000, 80_000)]
        steps = [ours.steps_made(text) for text in texts]
        assert all(b <= 2.2 * a for a, b in pairwise(steps)), (end, steps)
        assert ours.ends(texts[0]).tolist() == plain.ends(texts[0]).tolist()


PEAK = """
import resource, sys
from bpe import Tokenizer
ranks = {bytes([byte]): byte for byte in range(256)}
tokenizer = Tokenizer("bytes", pat_str=sys.argv[1], mergeable_ranks=ranks, special_tokens={})
peaks = []
for size in (500, 20_000):
    assert tokenizer.count("a" * size) == 0
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[1] - peaks[0])
"""


@pytest.mark.parametrize("pattern", ["a{0,299}b", "a{0,299}b(?!cd)"], ids=["automaton", "backtracker"])
def test_memory_follows_how_far_a_pattern_looks_ahead_and_not_the_text(pattern: str) -> None:
    kilobytes = subprocess.run([sys.executable, "-c", PEAK, pattern], capture_output=True, text=True, check=True).stdout
    assert int(kilobytes) < 50_000
