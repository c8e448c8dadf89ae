"""Several processes under torchrun: a failure or Ctrl-C is reported by one of them, and ends all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bpe import Tokenizer
from bpe.shards import write_shards
from model.training.metrics import read_metrics
from support.references import BYTE_RANKS

pytestmark = pytest.mark.slow  # processes are started for each test


def torchrun(*arguments: str | Path, **variables: str) -> tuple[int, list[str]]:
    """Run torchrun with two processes, in a process group of their own; return the exit status and stderr's lines."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    finished = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False, start_new_session=True
    )
    assert finished.returncode == 0 or finished.stdout == ""
    return finished.returncode, finished.stderr.splitlines()


def test_wrong_settings_are_reported_once(tmp_path: Path) -> None:
    status, said = torchrun("-m", "bpe.cli", "pretrain", "--data", tmp_path, "-o", tmp_path, "--tensor-parallel", "3")
    assert status == 1
    assert [line for line in said if line.startswith("bpe: ")] == [
        "bpe: 2 processes cannot be divided into groups of 3 for tensor parallelism"
    ]
    assert not any("Error" in line for line in said if "ChildFailedError" not in line)


def test_only_the_process_that_fails_reports_it_and_the_waiting_one_exits_silently(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from bpe.errors import InputError\n"
        "from model.training.parallel import Parallel\n"
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


DISTURBED = """
import os, signal
from bpe.cli import cli
from model.training.metrics import MetricsLog

write = MetricsLog.write

def written(self, kind, training, **values):
    write(self, kind, training, **values)
    if kind == "step" and f"{training.step} {os.environ['RANK']}" == os.environ.get("INTERRUPTED"):
        os.killpg(os.getpgid(os.getppid()), signal.SIGINT)
    if kind == "step" and f"{training.step} {os.environ['RANK']}" == os.environ.get("KILLED"):
        os.kill(os.getpid(), signal.SIGKILL)

MetricsLog.write = written
cli()
"""


def test_a_run_that_is_interrupted_and_then_loses_a_process_resumes_to_identical_weights(tmp_path: Path) -> None:
    tokenizer = Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens={})
    tokenizer.save(tmp_path / "tokenizer.json")
    texts = [f"To and fro, and on, {number} times. " * 50 for number in range(9)]
    write_shards(texts, tokenizer, tmp_path / "data", tokenizer_file=tmp_path / "tokenizer.json", held_out=0.2)
    (tmp_path / "disturbed.py").write_text(DISTURBED)

    def pretrain(run: str, *options: str, **variables: str) -> tuple[int, list[str]]:
        return torchrun(
            *(tmp_path / "disturbed.py", "pretrain", "--data", tmp_path / "data", "-o", tmp_path / run, "--steps", "9"),
            *("--config", "nano", "--batch-tokens", "128", "--sequence-length", "64", "--sample-tokens", "0"),
            *("--eval-tokens", "64", "--peak-flops", "1e9", *options),
            **variables,
        )

    def checkpoints() -> list[str]:
        return sorted(path.name for path in (tmp_path / "disturbed" / "checkpoints").iterdir())

    assert pretrain("straight")[0] == 0
    status, said = pretrain("disturbed", INTERRUPTED="3 1")
    assert status == 1
    step = int(checkpoints()[-1].removeprefix("step-"))
    assert step in (3, 4)  # both processes have finished step 3; the first may have started step 4
    assert [line for line in said if ": interrupted" in line] == [
        f"{tmp_path / 'disturbed'}: interrupted and saved after step {step}; run it again to resume",
        "bpe: interrupted",
    ]

    status, said = pretrain("disturbed", "--checkpoint-every", "1e-9", "--keep-checkpoints", "1", KILLED="6 1")
    assert status == 1
    assert {line for line in said if line.startswith("bpe: ")} <= {  # or none, if torchrun kills it first
        "bpe: another of the 2 processes ended or stopped responding; its own output may say why"
    }
    assert checkpoints() == ["step-000005"]

    assert pretrain("disturbed")[0] == 0
    records = [read_metrics(tmp_path / run / "metrics.jsonl") for run in ("straight", "disturbed")]
    straight, disturbed = ([(each["step"], each["loss"]) for each in of if each["kind"] == "step"] for of in records)
    assert len(straight) == 9
    assert disturbed == straight
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("straight", "disturbed")]
    assert weights[0] == weights[1]
