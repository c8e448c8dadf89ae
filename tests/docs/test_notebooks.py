"""The notebooks of docs/examples run from top to bottom and print what they show.

Outputs of cells with the tag "varies" depend on the weights of a model and are not compared; these cells only have to
run. `python tests/docs/test_notebooks.py --write` runs the notebooks and stores their outputs.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "examples").glob("*.ipynb"))


def run(notebook: Path, directory: Path) -> Any:
    """Run a notebook in a copy of the tree that has only corpora/, and return it with its outputs."""
    here = directory / "docs" / "examples"
    here.mkdir(parents=True)
    shutil.copytree(ROOT / "corpora", directory / "corpora")
    content = nbformat.read(notebook, as_version=4)
    NotebookClient(content, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(here)}}).execute()
    for cell in content.cells:
        cell.metadata.pop("execution", None)  # times
        if cell.cell_type == "code":
            cell.outputs = _joined([kept for output in cell.outputs if (kept := _stored(output)) is not None])
    return content


def _stored(output: Any) -> Any | None:
    """Return an output as the notebook stores it, or None for what only a live page can show, such as progress."""
    if output.output_type == "stream":
        return output if output.name == "stdout" else None
    if "data" in output and any("widget" in kind for kind in output.data):
        return None
    return output if output.output_type != "display_data" else None


def _joined(outputs: list[Any]) -> list[Any]:
    """Join the pieces of printed text, whose number depends on the time that printing takes."""
    printed = [output for output in outputs if output.output_type == "stream"]
    if printed:
        printed[0].text = "".join(output.text for output in printed)
    return [output for output in outputs if output not in printed[1:]]


def shown(cell: Any) -> list[Any]:
    """Return what a cell shows."""
    printed = "".join(output.text for output in cell.outputs if output.output_type == "stream")
    return [printed, *(output.data for output in cell.outputs if output.output_type != "stream")]


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_prints_what_it_shows(notebook: Path, tmp_path: Path) -> None:
    stored = nbformat.read(notebook, as_version=4)
    printed = run(notebook, tmp_path)
    for before, now in zip(stored.cells, printed.cells, strict=True):
        if before.cell_type == "code" and "varies" not in before.metadata.get("tags", []):
            assert shown(now) == shown(before), before.source


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_its_outputs_and_names_no_directory_of_a_machine(notebook: Path) -> None:
    content = nbformat.read(notebook, as_version=4)
    nbformat.validate(content)
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, 1 + len(code)))
    assert any(cell.outputs for cell in code)
    assert not re.search(r"/(tmp|home|root|Users)/", notebook.read_text("utf-8"))


def main() -> None:
    """Store the outputs of now in the notebooks."""
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/docs/test_notebooks.py --write")
    for notebook in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as directory:
            nbformat.write(run(notebook, Path(directory)), notebook)
        print(f"{notebook.relative_to(ROOT)}: written")


if __name__ == "__main__":
    main()
