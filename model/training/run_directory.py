"""The run directory: its files, and the record of what the run is.

    run.json            the settings of the run and, when it is finished, the result
    metrics.jsonl       one JSON object per line (see `model.training.metrics`)
    checkpoints/        numbered checkpoints (see `model.training.checkpoints`)
    loss.png            the plot of the loss, when the run is finished; loss.svg or loss.pdf on demand
    tensorboard/        curves for TensorBoard, when they are asked for

Beside them, a task saves what was trained.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bpe.drawing import FORMATS
from bpe.errors import InputError
from bpe.files import write_json
from model.training.settings import TrainResult


class RunDirectory:
    """The paths in a run directory, and `run.json`."""

    def __init__(self, path: Path) -> None:
        """Take the path of a run directory, which need not exist."""
        self.path = path
        self.record: Path = path / "run.json"
        self.metrics: Path = path / "metrics.jsonl"
        self.checkpoints: Path = path / "checkpoints"
        self.plot: Path = path / "loss"  # without its suffix
        self.tensorboard: Path = path / "tensorboard"

    def clear(self) -> None:
        """Delete what an earlier run left, apart from the files of its task."""
        for directory in (self.checkpoints, self.tensorboard):
            shutil.rmtree(directory, ignore_errors=True)
        plots = (self.plot.with_suffix(f".{name}") for name in FORMATS)
        for file in (self.record, self.metrics, *plots):
            file.unlink(missing_ok=True)

    def write_record(
        self, settings: Mapping[str, Any], notes: Mapping[str, Any] | None, result: TrainResult | None = None
    ) -> None:
        """Write run.json.

        Args:
            settings: The settings that must stay the same when the run is resumed.
            notes: Other fields of the record.
            result: The result of a finished run; None while the run is under way.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        record: dict[str, Any] = {"finished": result is not None}
        if result is not None:
            fields = asdict(result)
            record["result"] = {key: fields[key] for key in fields if key not in ("directory", "already_finished")}
        write_json(self.record, {**record, "settings": settings, **(notes or {})})

    def finished_result(self, settings: dict[str, Any]) -> TrainResult | None:
        """Return the result of an earlier call that finished the run; None for a new or an interrupted run.

        Raises:
            InputError: When the earlier run had other settings, or its record is missing or damaged.
        """
        path = self.record
        try:
            record = json.loads(path.read_bytes())
            result, before = record["result"] if record["finished"] else None, dict(record["settings"])
            finished = None if result is None else TrainResult(directory=self.path, already_finished=True, **result)
        except FileNotFoundError:
            if self.checkpoints.exists():
                raise InputError(
                    f"{path}: no such file, but the directory holds checkpoints; "
                    "restart the run, or use another directory"
                ) from None
            return None
        except NotADirectoryError:
            raise InputError(f"{self.path}: not a directory; use another name for the run") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: cannot be read ({error}); restart the run, or use another directory") from None
        if changes := _changes(before, settings):
            raise InputError(
                f"{path}: this run has other settings ({', '.join(changes)}); "
                "use its settings, use another directory, or restart the run"
            )
        return finished


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what differs between two settings, in words for a message."""
    changes = []
    for part in sorted(before.keys() | now.keys()):
        old, new = before.get(part), now.get(part)
        if isinstance(old, dict) and isinstance(new, dict):
            names = sorted(old.keys() | new.keys())
            changes += [
                f"{name} {old.get(name)} -> {new.get(name)}" for name in names if old.get(name) != new.get(name)
            ]
        elif old != new:
            changes.append(f"the {part}")
    return changes
