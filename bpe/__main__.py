"""`python -m bpe`: the command `bpe`, for where the interpreter is known but its scripts are not on the path."""

from __future__ import annotations

from bpe.cli import main

if __name__ == "__main__":
    main()
