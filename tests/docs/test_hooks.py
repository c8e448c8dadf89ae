"""What the site inserts into pages."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hooks() -> Any:
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "examples").glob("*.md")), ids=lambda path: path.stem)
def test_a_notebook_becomes_a_page_with_its_code_and_outputs(hooks: Any, page: Path) -> None:
    assert page.with_suffix(".ipynb").is_file()
    shown = hooks.on_page_markdown(page.read_text("utf-8"))
    assert shown.startswith("# ")
    assert "```python\nfrom bpe import " in shown or "import train\n" in shown
    assert '<div markdown="0"><div style="border:' in shown  # the card of a tokenizer
    assert "<!-- insert" not in shown
    assert shown.count(".ipynb") == 1  # the link to the notebook itself; those to others lead to their pages
