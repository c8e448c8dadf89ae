"""`bpe count`."""

from __future__ import annotations

from pathlib import Path

from support.command_line import ROOT, bpe


def test_count_prints_the_total_of_several_files(my_json: Path) -> None:
    rows = bpe("count", "-t", my_json, ROOT / "LICENSE", ROOT / "README.md").stdout.splitlines()
    tokens = [int(row.split()[0]) for row in rows]
    assert len(rows) == 3
    assert tokens[0] + tokens[1] == tokens[2]
