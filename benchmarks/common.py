"""What all comparisons with peers share: processes of their own, memory, peers that are installed, how numbers look."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
THREADS = ("RAYON_NUM_THREADS", "FASTOKENS_BPE_THREADS", "OMP_NUM_THREADS")

# --- in the worker ---


def skip_rebuilding() -> None:
    """Keep a developer's installation from looking for changed sources of the core while an import is measured."""
    for finder in sys.meta_path:
        if hasattr(finder, "rebuilt"):
            finder.rebuilt = True


def memory(field: str) -> float:
    """VmRSS, the memory of this process, or VmHWM, the most it ever was, in MB; not a number where Linux is not."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan")
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024 / 1e6


def reset_peak_memory() -> None:
    """From now on VmHWM is the most that this process will have been."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


# --- in the run ---


def run_worker(script: str, job: Mapping[str, Any], threads: int, **environment: str) -> dict[str, Any]:
    """The last line that `script --worker JOB` prints, from a process of its own. An error is a key of the result."""
    variables = {
        **os.environ,
        **dict.fromkeys(THREADS, str(threads)),
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        **environment,
    }
    command = [sys.executable, script, "--worker", json.dumps(job)]
    finished = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    if finished.returncode:
        return {"error": (finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"])[-1]}
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


def show(text: str = "") -> None:
    """Say on stderr what is running, in place of what was said before; nothing where it is no terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def installed(distribution: str) -> str | None:
    """The version."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def introduce(distributions: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Print the machine, the peers that are installed and how to get the others; give the first two back."""
    found = {peer: installed(distribution) for peer, distribution in distributions.items()}
    versions = {peer: number for peer, number in found.items() if number}
    machine = f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} processors"
    print(f"{machine}; " + ", ".join(f"{peer} {number}" for peer, number in versions.items()))
    missing = [distribution for peer, distribution in distributions.items() if peer not in versions]
    if missing:
        print(f"not installed: pip install {' '.join(missing)}")
    return machine, versions


def choice(known: Sequence[str]) -> Callable[[str], list[str]]:
    """The type of an option with names separated by commas."""

    def parse(value: str) -> list[str]:
        names = list(known) if value == "all" else value.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}, all")
        return names

    return parse


def number(value: float) -> str:
    """Three digits, or all of a larger number's."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def named(sources: Sequence[str]) -> dict[str, str]:
    """Sources by their names without directory and suffixes, or as they are where that name is taken."""
    found: dict[str, str] = {}
    for source in sources:
        name = Path(source).name.partition(".")[0]
        found[source if name in found else name] = source
    return found
