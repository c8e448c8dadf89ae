"""Compare how compiled patterns split random texts with tiktoken and tokenizers, and print a table.

    PYTHONPATH=.:tests python tests/support/compare_patterns.py --patterns 200 --texts 100000

The patterns are the published ones, in both dialects, and then random ones. The core splits the texts.
"""

from __future__ import annotations

import argparse
import random
import time

from bpe.errors import InputError
from bpe.splitting.compile import compile_pattern, compile_steps
from bpe.splitting.steps import Dialect, Split
from support.pattern_references import (
    differ_from_tiktoken,
    refused_by_tiktoken,
    refused_by_tokenizers,
    tokenizers_pieces,
)
from support.published_patterns import PUBLISHED
from support.random_patterns import PatternMaker, texts

_CHUNK = 20_000
_TOO_SLOW = ("BacktrackLimitExceeded", "retry-limit")
"""What the engines say when they give up; the texts of that chunk are not compared."""


def differ(pattern: str, dialect: Dialect, some: list[str]) -> int:
    """Return for how many texts the core and the engine split differently."""
    matches = compile_steps([Split(pattern, dialect, "removed", invert=True)])
    ours = [[piece.decode() for piece in matches.split(text)] for text in some]
    if dialect == "tiktoken":
        return len(differ_from_tiktoken(pattern, some, ours))
    isolated = compile_steps([Split(pattern, dialect)])
    return sum(
        tokenizers_pieces(pattern, text, invert=True) != pieces
        or tokenizers_pieces(pattern, text, invert=False) != [piece.decode() for piece in isolated.split(text)]
        for text, pieces in zip(some, ours, strict=True)
    )


def row(pattern: str, dialect: Dialect, count: int, rng: random.Random) -> tuple[int, int, str]:
    """Return how many texts were compared, how many differ, and a note."""
    theirs = refused_by_tiktoken(pattern) if dialect == "tiktoken" else refused_by_tokenizers(pattern)
    try:
        program = compile_pattern(pattern, dialect)
    except InputError as error:
        return 0, 0, f"refused by {'both' if theirs else 'us'}: {error}"
    if theirs:
        return 0, 0, f"refused by the engine only: {theirs}"
    compared = wrong = 0
    while compared < count:
        some = texts(rng, program, min(_CHUNK, count - compared))
        try:
            wrong += differ(pattern, dialect, some)
        except BaseException as error:  # a Rust panic is not an Exception
            if any(words in str(error) for words in _TOO_SLOW):
                return compared, wrong, "the engine gives up"
            raise
        compared += len(some)
    return compared, wrong, ""


def main() -> None:
    """Compare published and random patterns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patterns", type=int, default=200)
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    given = parser.parse_args()
    rng = random.Random(given.seed)
    dialects: tuple[Dialect, Dialect] = ("tiktoken", "tokenizers")
    patterns = [(text, dialect) for text in PUBLISHED.values() for dialect in dialects]
    while len(patterns) < given.patterns:
        dialect = rng.choice(dialects)
        patterns.append((PatternMaker(rng, dialect).pattern(), dialect))
    begin = time.monotonic()
    totals = [0, 0, 0, 0]
    for pattern, dialect in patterns[: given.patterns]:
        if time.monotonic() - begin > given.seconds:
            break
        compared, wrong, note = row(pattern, dialect, given.texts, rng)
        totals = [totals[0] + 1, totals[1] + (compared > 0), totals[2] + compared, totals[3] + wrong]
        print(f"{dialect:10} {compared:7} {wrong:7}  {pattern!r:.60}  {note}", flush=True)
    print(f"{totals[0]} patterns, {totals[1]} compared, {totals[2]} texts, {totals[3]} differ")


if __name__ == "__main__":
    main()
