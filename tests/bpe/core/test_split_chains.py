"""Test steps that are read together against the same steps one after the other."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from bpe import _core
from bpe.patterns import PATTERNS
from bpe.splitting.compile import compile_pattern
from bpe.splitting.steps import Split
from support.programs import chars, random_tree, split_step

ALPHABET = "ab \né"
STEPPED = [name for name, pattern in PATTERNS.items() if len(pattern.all_steps) > 1]


def both(steps: list[tuple[object, ...]]) -> tuple[_core.Splitter, _core.Splitter]:
    """Return the splitter of some steps, and the plain one."""
    return _core.Splitter.stepped(steps), _core.Splitter.stepped(steps, plain=True)


def random_text(rng: random.Random, characters: str) -> str:
    """Return a random text with runs, sometimes one of several windows."""
    size = rng.choice([3, 10, 30, 3000] if rng.random() < 0.9 else [40_000])
    run = rng.choice(characters)
    return "".join(run if rng.random() < 0.5 else rng.choice(characters) for _ in range(size))


@pytest.mark.parametrize("seed", range(10))
def test_random_steps_split_as_one_after_the_other(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(25):
        trees = [random_tree(rng, ALPHABET, rng.randint(0, 3), bodies=False) for _ in range(rng.randint(2, 4))]
        fast, plain = both([split_step(tree, invert=rng.random() < 0.2) for tree in trees])
        for _ in range(4):
            text = random_text(rng, ALPHABET + "x")
            assert fast.ends(text).tolist() == plain.ends(text).tolist(), (trees, text[:100])
            assert fast.places(text) == plain.places(text)


def published(name: str) -> list[tuple[object, ...]]:
    """Return the steps of a pattern known by name."""
    steps = []
    for step in PATTERNS[name].all_steps:
        assert isinstance(step, Split)
        program = compile_pattern(step.pattern, step.dialect)
        steps.append(("split", program.sets, program.instructions, step.behavior, step.invert))
    return steps


@pytest.mark.parametrize("name", STEPPED)
def test_published_steps_split_as_one_after_the_other(name: str) -> None:
    rng = random.Random(0)
    fast, plain = both(published(name))
    characters = "ab1½ \n\r\t'.,!$é一あ가。　😀\u0301"
    for _ in range(300):
        text = random_text(rng, characters)
        assert fast.ends(text).tolist() == plain.ends(text).tolist(), text[:100]
    wrong = [part.encode() for part in characters] + [b"\xff", b"\xe4\xb8", b"\xed\xa0\x80", b"\xf0\x9f"]
    for _ in range(300):
        content = b"".join(rng.choice(wrong) for _ in range(rng.randint(1, 40)))
        assert fast.ends(content).tolist() == plain.ends(content).tolist(), content


@pytest.mark.parametrize("tail", ["", "\n", "1,2\nb a"])
def test_a_text_without_a_place_to_cut_is_split_as_any_other(tail: str) -> None:
    fast, plain = both([split_step(chars("\n")), split_step(("sequence", chars("a"), chars("b")))])
    text = "a\n" * 10_000 + "aba " * 1_250_000 + tail
    assert fast.ends(text).tolist() == plain.ends(text).tolist()


@pytest.mark.parametrize("name", STEPPED)
@pytest.mark.parametrize("characters", ["a", " ", "1", "\n", "一", "a ", " 1", "'", " \n"])
def test_long_runs_take_linear_time(name: str, characters: str) -> None:
    ours = _core.Splitter.stepped(published(name))
    for end in ("", "a", "\n"):
        steps = [ours.steps_made(characters * size + end) for size in (40_000, 160_000, 640_000)]
        assert all(b <= 4.4 * a for a, b in pairwise(steps)), (end, steps)
