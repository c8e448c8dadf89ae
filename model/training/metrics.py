"""TODO: metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from bpe.errors import InputError
from bpe.files import write_bytes


class HowFar(Protocol):
    """Where a run stands: steps made, tokens read, seconds taken."""

    step: int
    tokens: int

    @property
    def elapsed(self) -> float: ...


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; what an interrupted write left of a line is passed over."""
    records = []
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "step" in record:
                records.append(record)
    return records


class MetricsLog:
    """metrics.jsonl, flushed at each line; what an interrupted run wrote after its last checkpoint is dropped."""

    def __init__(self, path: Path, step: int | None, tensorboard: Path | None = None) -> None:
        """Go on after a step; None for a run that begins. Numbers also go to a directory for TensorBoard, if given."""
        self._path, self._directory = path, tensorboard
        self._open(-1 if step is None else step)

    def rewind(self, step: int) -> None:
        """Forget what was written of later steps."""
        self.close()
        self._open(step)

    def _open(self, step: int) -> None:
        kept = [record for record in read_metrics(self._path) if record["step"] <= step]
        write_bytes(self._path, "".join(json.dumps(record) + "\n" for record in kept).encode())
        self._file = self._path.open("a", encoding="utf-8")
        self._board = None if self._directory is None else _board(self._directory, step + 1)

    def close(self) -> None:
        """Write out what is left."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, kind: str, progress: HowFar, **values: float | str | None) -> None:
        """Add a record."""
        place = {"kind": kind, "step": progress.step, "tokens": progress.tokens, "seconds": round(progress.elapsed, 3)}
        self._file.write(json.dumps(place | values) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, str):
                    self._board.add_text(f"{kind}/{name}", value, progress.step)
                elif value is not None:
                    self._board.add_scalar(f"{kind}/{name}", value, progress.step)


def _board(directory: Path, first_step: int) -> Any:
    """A writer for TensorBoard, which hides what an earlier one wrote from a step on."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "the curves for TensorBoard need tensorboard: pip install 'bpe-llama[tensorboard]', or leave them out"
        ) from None
    return SummaryWriter(str(directory), purge_step=first_step)
