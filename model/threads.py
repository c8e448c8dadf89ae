"""How many threads computations on the CPU use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bpe.errors import InputError

_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def default_threads() -> int:
    """Return the number of threads that torch has, if it is imported; otherwise the number that it would have.

    That is the number of physical cores that this process may use, or OMP_NUM_THREADS if it is less.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    cores = available_cores()
    return min(int(wanted), cores) if wanted.isdecimal() and int(wanted) > 0 else cores


def check_threads(threads: int) -> None:
    """Refuse a number of threads that this machine cannot run.

    Threads wait for each other after each matrix. With many more of them than processors, a token takes minutes.

    Raises:
        InputError: When there are none, or more than 8 for each processor.
    """
    if threads < 1:
        raise InputError(f"threads is {threads}; it must be at least 1")
    processors = os.cpu_count() or 1
    if threads > 8 * processors:
        raise InputError(
            f"threads is {threads:,}, but this machine has {processors:,} processors; give no more threads"
        )


def available_cores() -> int:
    """Return the number of physical cores that this process may use; two threads of one core count once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = set()
    for processor in os.sched_getaffinity(0):
        try:
            cores.add(Path(_TOPOLOGY.format(processor)).read_text())
        except OSError:
            cores.add(str(processor))
    return max(1, len(cores))
