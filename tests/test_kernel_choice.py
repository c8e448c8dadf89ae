"""Test the choice of kernels by BPE_KERNEL and MODEL_KERNEL, and how `bpe info --kernels` describes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bpe import _core as tokenizers
from bpe.processor import processor_name
from model import _core as models

CORES = {"BPE_KERNEL": ("bpe", tokenizers.kernels()), "MODEL_KERNEL": ("model", models.kernels())}
CHOICES = [(variable, kernel) for variable, (_, kernels) in CORES.items() for kernel in kernels]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with only these of the variables that choose kernels."""
    others = {name: value for name, value in os.environ.items() if name not in CORES}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env={**others, **environment}, capture_output=True, text=True, check=False)


def info(**environment: str) -> dict[str, str]:
    """Return the lines of `bpe info --kernels` by label."""
    finished = run("-m", "bpe", "info", "--kernels", **environment)
    assert finished.returncode == 0, finished.stderr
    return dict(line.split(maxsplit=1) for line in finished.stdout.splitlines())


def test_without_a_choice_the_best_kernels_run() -> None:
    lines = info()
    assert lines["processor"] == processor_name()
    for label, kernels in (("tokenizers", tokenizers.kernels()), ("models", models.kernels())):
        assert lines[label].startswith(f"{kernels[0]}, the best for this processor")
        assert all(kernel in lines[label] for kernel in kernels)


@pytest.mark.parametrize(("variable", "kernel"), CHOICES)
def test_the_named_kernel_runs(variable: str, kernel: str) -> None:
    module = CORES[variable][0]
    finished = run("-c", f"from {module} import _core; print(_core.chosen_kernel())", **{variable: kernel})
    assert finished.stdout == f"{kernel}\n"


def test_the_reason_for_a_kernel_is_printed() -> None:
    lines = info(BPE_KERNEL="plain")
    assert lines["tokenizers"].startswith("plain, as BPE_KERNEL says")
    assert "the best for this processor" in lines["models"]


@pytest.mark.parametrize("variable", CORES)
def test_a_kernel_that_the_processor_lacks_is_refused(variable: str) -> None:
    finished = run("-m", "bpe", "info", "--kernels", **{variable: "sse9"})
    kernels = ", ".join(CORES[variable][1])
    assert finished.returncode == 1
    assert finished.stderr == (
        f"bpe: {variable} is 'sse9', a kernel that this processor does not run; set it to one of {kernels},"
        " or unset it\n"
    )


def test_encoding_with_a_kernel_that_the_processor_lacks_is_refused(tmp_path: Path) -> None:
    ranks = tmp_path / "bytes.tiktoken"
    ranks.write_text("".join(f"{text} {rank}\n" for rank, text in enumerate(_single_bytes())))
    finished = run("-m", "bpe", "encode", "-t", str(ranks), "--pattern", "gpt2", "-c", "a", BPE_KERNEL="sse9")
    assert finished.returncode == 1
    assert "BPE_KERNEL is 'sse9'" in finished.stderr
    assert finished.stdout == ""


def test_other_options_beside_kernels_are_refused() -> None:
    finished = run("-m", "bpe", "info", "--kernels", "--batch", "2")
    assert finished.returncode == 2
    assert "--batch has no effect with --kernels" in finished.stderr


def _single_bytes() -> list[str]:
    from base64 import b64encode

    return [b64encode(bytes([byte])).decode() for byte in range(256)]
