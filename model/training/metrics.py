"""The metrics of a run: `metrics.jsonl`, one JSON object per line, and TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from bpe.errors import InputError
from bpe.files import write_bytes


class HowFar(Protocol):
    """How far a run has come."""

    step: int
    """Number of steps made."""

    tokens: int
    """Number of tokens read."""

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning of the run."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the records of a metrics.jsonl; return no records when there is no such file.

    A line that an interrupted write left incomplete is skipped.
    """
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
    """Writer of metrics.jsonl, which is flushed after each line, and of curves for TensorBoard.

    Records that an interrupted run wrote after its last checkpoint are dropped.
    """

    def __init__(self, path: Path, step: int | None, tensorboard: Path | None = None) -> None:
        """Open the files.

        Args:
            path: Path of metrics.jsonl.
            step: Keep the records up to this step; None for a new run.
            tensorboard: Directory for TensorBoard; None for no curves.

        Raises:
            InputError: When curves are wanted and tensorboard is not installed.
        """
        self._path, self._directory = path, tensorboard
        self._open(-1 if step is None else step)

    def rewind(self, step: int) -> None:
        """Drop the records after a step."""
        self.close()
        self._open(step)

    def _open(self, step: int) -> None:
        kept = [record for record in read_metrics(self._path) if record["step"] <= step]
        write_bytes(self._path, "".join(json.dumps(record) + "\n" for record in kept).encode())
        self._file = self._path.open("a", encoding="utf-8")
        self._board = None if self._directory is None else _tensorboard_writer(self._directory, step + 1)

    def close(self) -> None:
        """Write out what is buffered, and close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, kind: str, progress: HowFar, **values: float | str | None) -> None:
        """Append a record.

        Args:
            kind: "step", "evaluation", "sample" or "rollback".
            progress: How far the run has come.
            values: The other fields of the record.
        """
        place = {"kind": kind, "step": progress.step, "tokens": progress.tokens, "seconds": round(progress.elapsed, 3)}
        self._file.write(json.dumps(place | values) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, str):
                    self._board.add_text(f"{kind}/{name}", value, progress.step)
                elif value is not None:
                    self._board.add_scalar(f"{kind}/{name}", value, progress.step)


def _tensorboard_writer(directory: Path, first_step: int) -> Any:
    """Open a TensorBoard writer that hides what earlier writers wrote from `first_step` on."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "curves for TensorBoard need the tensorboard package; "
            "install it (pip install 'bpe-llama[tensorboard]') or turn the setting tensorboard off"
        ) from None
    return SummaryWriter(str(directory), purge_step=first_step)
