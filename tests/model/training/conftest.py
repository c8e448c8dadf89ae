"""Training runs without their plots."""

from __future__ import annotations

from typing import Any

import pytest

from model.training.plot import plot_loss


@pytest.fixture(autouse=True)
def plot(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace the plot by a text file: drawing takes longer than the runs here. Return the function that draws."""
    monkeypatch.setattr("model.training.loop.plot_loss", lambda records, path, title: path.write_text(title))
    return plot_loss
