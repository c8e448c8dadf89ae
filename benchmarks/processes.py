"""Whole processes that train a vocabulary: the command `bpe train` beside a script that calls gigabpe.

Used by ``train.py --mode processes``. Both write a tokenizer.json. The seconds run from the start of the process to its
end, interpreter and imports included; the memory is the peak of the whole process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from common import THREADS, number

PROCESSES = ("ours", "gigabpe")
SCRIPT = """
import json, sys
import gigabpe
paths, vocab_size, output, threads = json.loads(sys.argv[1])
gigabpe.train_tokenizer(
    paths, vocab_size=vocab_size, output=output, special_tokens=[], pretokenizer="bytelevel", threads=threads
)
"""
# The peak of a process includes that of the process that starts it, so this one is small.
LAUNCHER = """
import json, os, sys, time
begin = time.perf_counter()
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(process, 0)
seconds = time.perf_counter() - begin
print()
print(json.dumps([status, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""
HEADINGS = ("MB", "tokens", "seconds", "median", "CPU", "memory, MB", "seconds", "memory")


@dataclass
class Runs:
    """The measurements of all runs of one program on one corpus."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    merges: list[tuple[str, ...]] = field(default_factory=list)


@dataclass(frozen=True)
class Training:
    """What all programs train, with GPT-2's pattern and Hugging Face's order of ties."""

    paths: list[str]
    vocab_size: int
    """256 plus the number of merges."""
    alphabet: int
    """The number of distinct bytes in the text: gigabpe has tokens only for these."""
    threads: int

    def command(self, peer: str, output: str) -> list[str]:
        """Return the command line of a program that writes a tokenizer.json to `output`."""
        if peer == "gigabpe":
            job = [self.paths, self.vocab_size - 256 + self.alphabet, output, self.threads]
            return [sys.executable, "-c", SCRIPT, json.dumps(job)]
        options = ("--pattern", "gpt2", "--tie-break", "huggingface", "--no-special", "--allow-smaller", "--quiet")
        sizes = ("--vocab-size", str(self.vocab_size), "--threads", str(self.threads))
        return [sys.executable, "-m", "bpe", "train", *self.paths, "-o", output, *sizes, *options]


def run(command: Sequence[str], threads: int) -> tuple[float, float, float]:
    """Run a command and return its seconds, its CPU seconds and its peak memory in MB.

    Raises:
        RuntimeError: When the command fails.
    """
    variables = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
    launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, *command]
    finished = subprocess.run(launcher, capture_output=True, text=True, env=variables, check=False)
    if finished.returncode:
        raise RuntimeError((finished.stderr.strip().splitlines() or ["the command cannot be started"])[-1])
    status, seconds, cpu, peak = json.loads(finished.stdout.splitlines()[-1])
    if status:
        raise RuntimeError((finished.stderr.strip().splitlines() or [f"exit status {status}"])[-1])
    return seconds, cpu, peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def merges_of(file: Path) -> list[tuple[str, ...]]:
    """Return the pairs in a tokenizer.json that merge, in their order."""
    merges = json.loads(file.read_text("utf-8"))["model"]["merges"]
    return [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in merges]


def measure(training: Training, peers: Sequence[str], repeat: int, directory: Path) -> dict[str, Runs]:
    """Run the programs in turn, `repeat` times, and return the measurements of each.

    Args:
        training: What to train.
        peers: The programs, of `PROCESSES`.
        repeat: The number of runs of each.
        directory: Where the files are written.

    Raises:
        RuntimeError: When a program fails.
    """
    found = {peer: Runs() for peer in peers}
    for turn in range(repeat):
        for peer, runs in found.items():
            output = directory / f"{peer}.json"
            seconds, cpu, memory = run(training.command(peer, str(output)), training.threads)
            runs.seconds.append(seconds)
            runs.cpu.append(cpu)
            runs.memory.append(memory)
            if turn == 0:
                runs.merges = merges_of(output)
            output.unlink()
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table of the measurements; its last two numbers are multiples of ours."""
    text = [f"{'':<24}" + "".join(f"{heading:>13}" for heading in HEADINGS)]
    ours: dict[str, Any] = {}
    for row in rows:
        ours = row if row["peer"] == "ours" else ours
        best = [min(row["seconds"]), median(row["seconds"]), min(row["cpu"]), max(row["memory"])]
        values = [number(row["MB"]), f"{row['vocab_size']:,}", *map(number, best)]
        values += [number(best[0] / min(ours["seconds"])), number(best[3] / max(ours["memory"]))]
        name = f"{row['corpus']}, {row['peer']}"
        text.append(f"{name:<24}" + "".join(f"{value:>13}" for value in values) + f"  {row['difference']}")
    return "\n".join(line.rstrip() for line in text)
