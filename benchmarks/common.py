"""Helpers shared by all benchmarks: worker processes, memory, installed peers and number formatting."""

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

# --- for workers ---


def skip_rebuilding() -> None:
    """Stop an editable installation from checking the C++ sources for changes while an import is timed."""
    for finder in sys.meta_path:
        if hasattr(finder, "rebuilt"):
            finder.rebuilt = True


def memory(field: str) -> float:
    """Return VmRSS (the memory of this process) or VmHWM (its peak) in MB, or NaN on systems other than Linux."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan")
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024 / 1e6


def reset_peak_memory() -> None:
    """Reset VmHWM to the current memory of this process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


# --- for the main process ---


def run_worker(
    script: str, job: Mapping[str, Any], threads: int, timeout: float | None = None, **environment: str
) -> dict[str, Any]:
    """Run `script --worker JOB` in a new process and return the JSON of the last line that it prints.

    Args:
        script: Path of the benchmark.
        job: What the worker measures; passed as JSON.
        threads: Value of the environment variables that limit the threads of peers.
        timeout: Seconds after which the process is stopped; None for no limit.
        environment: More environment variables.

    Returns:
        The worker's result, or `{"error": last line of its stderr}` when it fails or is stopped.
    """
    variables = {
        **os.environ,
        **dict.fromkeys(THREADS, str(threads)),
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        **environment,
    }
    command = [sys.executable, script, "--worker", json.dumps(job)]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, env=variables, check=False, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"error": f"stopped after {timeout:.0f} s"}
    if finished.returncode:
        return {"error": (finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"])[-1]}
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


def show(text: str = "") -> None:
    """Replace the status line on stderr. Print nothing when stderr is not a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def installed(distribution: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


class ChooseKernel(argparse.Action):
    """Set the environment variables that choose our kernels, for each of our two cores that has this kernel."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Choose the kernel, or stop with an error if neither core has it."""
        from bpe import _core as tokenizers
        from model import _core as models

        cores = {"BPE_KERNEL": tokenizers.kernels(), "MODEL_KERNEL": models.kernels()}
        chosen = [variable for variable, kernels in cores.items() if values in kernels]
        if not chosen:
            names = ", ".join(dict.fromkeys(name for kernels in reversed(cores.values()) for name in kernels))
            parser.error(f"this processor does not run the kernel {values}; choose one of {names}")
        os.environ.update(dict.fromkeys(chosen, str(values)))


def add_kernel_option(parser: argparse.ArgumentParser) -> None:
    """Add the option --kernel, which chooses our kernels in all worker processes."""
    parser.add_argument(
        "--kernel",
        action=ChooseKernel,
        metavar="NAME",
        help="our kernels: plain, avx2, avxvnni, avx512, amx or neon (default: the best for this processor)",
    )


def describe_machine() -> str:
    """Return the version of Python, the processor, and the kernels that run on it."""
    from bpe import _core as tokenizers
    from bpe.processor import processor_name
    from model import _core as models

    kernels = f"kernels {tokenizers.chosen_kernel()} (tokenizers), {models.chosen_kernel()} (models)"
    return f"Python {platform.python_version()}, {processor_name()}, {os.cpu_count()} processors, {kernels}"


def introduce(distributions: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Print the machine, the installed peers and how to install the others.

    Returns:
        The description of the machine and of our kernels, and the version of each installed peer.
    """
    machine = describe_machine()
    found = {peer: installed(distribution) for peer, distribution in distributions.items()}
    versions = {peer: number for peer, number in found.items() if number}
    print(f"{machine}; " + ", ".join(f"{peer} {number}" for peer, number in versions.items()))
    missing = [distribution for peer, distribution in distributions.items() if peer not in versions]
    if missing:
        print(f"not installed: pip install {' '.join(missing)}")
    return machine, versions


def choice(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Return an argparse type for names separated by commas; "all" selects every known name."""

    def parse(value: str) -> list[str]:
        names = list(known) if value == "all" else value.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown name {name!r}; choose from {', '.join(known)}, all")
        return names

    return parse


def number(value: float) -> str:
    """Format a number with three significant digits, or with all digits before the point from 1,000."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def named(sources: Sequence[str]) -> dict[str, str]:
    """Map short names to sources: the file name without suffixes, or the whole source when that name is taken."""
    found: dict[str, str] = {}
    for source in sources:
        name = Path(source).name.partition(".")[0]
        found[source if name in found else name] = source
    return found
