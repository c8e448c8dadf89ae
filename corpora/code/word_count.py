#!/usr/bin/env python3
"""Count the words of one or more text files.

Usage: word_count.py [-n N] [-m LENGTH] [FILE ...]

Without a file, or if a file is "-", standard input is read.
"""

import argparse
import re
import sys
import unicodedata
from collections import Counter
from pathlib import Path

# A word is a run of letters; apostrophes and hyphens may join its parts.
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def words(text: str) -> list[str]:
    """Return the words of a text, folded so that case does not matter."""
    text = unicodedata.normalize("NFC", text).replace("’", "'")
    return [word.casefold() for word in WORD.findall(text)]


def read(name: str) -> str:
    if name == "-":
        return sys.stdin.read()
    return Path(name).read_text(encoding="utf-8", errors="replace")


def bar(count: int, largest: int, width: int = 30) -> str:
    """Draw a bar whose length is in proportion to the count."""
    return "#" * max(1, round(width * count / largest))


def main() -> int:
    parser = argparse.ArgumentParser(description="Count the words of text files.")
    parser.add_argument("files", nargs="*", default=["-"], metavar="FILE")
    parser.add_argument("-n", type=int, default=20, help="show the N most common words")
    parser.add_argument("-m", "--min-length", type=int, default=1, metavar="LENGTH",
                        help="leave out shorter words")
    args = parser.parse_args()

    counts: Counter[str] = Counter()
    status = 0
    for name in args.files:
        try:
            counts.update(w for w in words(read(name)) if len(w) >= args.min_length)
        except OSError as error:
            print(f"word_count: {name}: {error.strerror}", file=sys.stderr)
            status = 1

    if not counts:
        print("no words found")
        return status

    # Equal counts are sorted by the alphabet, so that the output is stable.
    ranking = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    largest = ranking[0][1]
    for word, count in ranking[: args.n]:
        print(f"{count:8,}  {word:<20} {bar(count, largest)}")
    print(f"{counts.total():8,}  words, {len(counts):,} of them different")
    return status


if __name__ == "__main__":
    sys.exit(main())
