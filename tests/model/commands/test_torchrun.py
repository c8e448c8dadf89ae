"""Several processes under torchrun: a failure or Ctrl-C is reported by one of them, and ends all.

Relatives of Llama train on two processes as on one, and resume.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bpe import Tokenizer
from bpe.shards import write_shards
from model.training.metrics import MetricsLog, read_metrics
from support.command_line import bpe
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


def write_data(directory: Path) -> Path:
    """Write token shards of a few texts and return their directory."""
    tokenizer = Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens={})
    tokenizer.save(directory / "tokenizer.json")
    texts = [f"To and fro, and on, {number} times. " * 50 for number in range(9)]
    write_shards(texts, tokenizer, directory / "data", tokenizer_file=directory / "tokenizer.json", held_out=0.2)
    return directory / "data"


def losses(run: Path) -> list[tuple[int, float]]:
    """Return the numbers and losses of the steps of a run."""
    return [(each["step"], each["loss"]) for each in read_metrics(run / "metrics.jsonl") if each["kind"] == "step"]


def test_a_run_that_is_interrupted_and_then_loses_a_process_resumes_to_identical_weights(tmp_path: Path) -> None:
    data = write_data(tmp_path)
    (tmp_path / "disturbed.py").write_text(DISTURBED)

    def pretrain(run: str, *options: str, **variables: str) -> tuple[int, list[str]]:
        return torchrun(
            *(tmp_path / "disturbed.py", "pretrain", "--data", data, "-o", tmp_path / run, "--steps", "9"),
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
    straight, disturbed = (losses(tmp_path / run) for run in ("straight", "disturbed"))
    assert len(straight) == 9
    assert disturbed == straight
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("straight", "disturbed")]
    assert weights[0] == weights[1]


RELATIVES = {
    "gemma2": {"sliding_window": 10, "query_pre_attn_scalar": 24, "head_dim": 16},
    "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.0},
    "qwen3_moe": {
        "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True,
        "mlp_only_layers": [1], "head_dim": 16, "router_aux_loss_coef": 0.0,
    },
}  # fmt: skip
"""The keys of config.json of models whose head or layers are called outside of the usual way."""


def pretraining_of(family: str, directory: Path) -> list[str | Path]:
    """Write the data and the shape of a tiny model, and return the arguments of `bpe pretrain` but its directory."""
    shape = {
        "model_type": family, "vocab_size": 256, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, **RELATIVES[family],
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(shape))
    return [
        *("pretrain", "--data", write_data(directory), "--config", directory / "config.json", "--steps", "6"),
        *("--batch-tokens", "128", "--sequence-length", "32", "--sample-tokens", "0", "--eval-tokens", "64"),
        *("--dtype", "float32"),
    ]


@pytest.mark.parametrize(("family", "kind"), [("gemma2", "fsdp"), ("mixtral", "ddp")])
def test_two_processes_have_the_losses_of_one_for_relatives_of_llama(family: str, kind: str, tmp_path: Path) -> None:
    arguments = pretraining_of(family, tmp_path)
    alone = bpe(*arguments, "-o", tmp_path / "alone")
    assert alone.exit_code == 0, alone.output
    status, said = torchrun("-m", "bpe.cli", *arguments, "-o", tmp_path / "both", "--parallel", kind)
    assert status == 0, said
    expected, found = losses(tmp_path / "alone"), losses(tmp_path / "both")
    assert len(expected) == 6
    assert expected[-1][1] < expected[0][1]
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in expected], rel=1e-4)


@pytest.mark.parametrize("family", ["gemma2", "qwen3_moe"])
def test_pretraining_of_relatives_of_llama_resumes_to_identical_weights(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = pretraining_of(family, tmp_path)
    assert bpe(*arguments, "-o", tmp_path / "straight").exit_code == 0
    write = MetricsLog.write

    def interrupting(self: MetricsLog, kind: str, training: Any, **values: Any) -> None:
        write(self, kind, training, **values)
        if kind == "step" and training.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "write", interrupting)
        stopped = bpe(*arguments, "-o", tmp_path / "stopped")
    assert stopped.exit_code != 0
    assert "interrupted and saved after step 3" in stopped.output
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    assert bpe(*arguments, "-o", tmp_path / "stopped").exit_code == 0
    assert losses(tmp_path / "stopped") == losses(tmp_path / "straight")
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("straight", "stopped")]
    assert weights[0] == weights[1]
