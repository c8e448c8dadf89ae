"""Training runs without their plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.training.plot import draw_loss


@pytest.fixture(autouse=True)
def plot(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace the plot by a text file: drawing takes longer than the runs here. Return the function that draws."""

    def write(records: Any, path: Path, name: str, about: Any, settings: Any) -> list[Path]:
        file = path.with_suffix(".png")
        file.write_text(f"{name} {about.title}")
        return [file]

    monkeypatch.setattr("model.training.loop.draw_loss", write)
    return draw_loss
