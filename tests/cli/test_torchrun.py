"""What is left of several processes when something is wrong: one line, from one of them, and no process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def torchrun(*arguments: str | Path) -> tuple[int, list[str]]:
    """The exit status, and the lines on stderr."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert finished.stdout == ""
    return finished.returncode, finished.stderr.splitlines()


def test_wrong_settings_are_said_once(tmp_path: Path) -> None:
    status, said = torchrun("-m", "bpe.cli", "pretrain", "--data", tmp_path, "-o", tmp_path, "--tensor-parallel", "3")
    assert status == 1
    assert [line for line in said if line.startswith("bpe: ")] == [
        "bpe: 2 processes cannot stand in rows of 3 for tensor parallelism"
    ]
    assert not any("Error" in line for line in said if "ChildFailedError" not in line)


def test_a_process_that_fails_alone_tells_and_the_one_that_waits_for_it_ends_silently(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from bpe.errors import InputError\n"
        "from model.parallel import Parallel\n"
        "with Parallel(timeout=60) as parallel:\n"
        "    if parallel.rank == 1:\n"
        "        raise InputError('one of its files is damaged')\n"
        "    parallel.barrier()\n"
    )
    status, said = torchrun(script)
    assert status == 1
    errors = [line for line in said if "Error" in line and "ChildFailedError" not in line]
    assert len([line for line in errors if "InputError: one of its files is damaged" in line]) == 1
    assert not any("gloo" in line for line in said)
