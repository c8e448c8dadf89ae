"""Links of the Markdown files outside the site lead to files; `mkdocs build --strict` checks those within."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ["README.md", "CONTRIBUTING.md", "benchmarks/README.md", "corpora/README.md"]


@pytest.mark.parametrize("name", FILES)
def test_each_relative_link_leads_to_a_file(name: str) -> None:
    path = ROOT / name
    text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = [target for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in target]
    missing = [target for target in targets if not (path.parent / target).exists()]
    assert not missing
