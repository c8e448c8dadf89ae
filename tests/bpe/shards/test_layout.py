"""The example of docs/reference/shards.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bpe.shards import TRAIN, Shards

Write = Callable[..., Shards]


LAYOUT = Path(__file__).parents[3] / "docs" / "reference" / "shards.md"


def test_the_example_of_the_layout_page_reads_shards(write_corpus: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", LAYOUT.read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 6
    shards = write_corpus()
    monkeypatch.chdir(shards.directory.parent)
    found: dict[str, Any] = {}
    exec(code, found)
    expected = [ids.tolist() for ids in shards.documents(TRAIN)]
    assert [ids.tolist() for ids in found["documents"]] == expected
