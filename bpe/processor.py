"""The processor and the kernels, the implementations of inner loops for its instructions."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path


def processor_name() -> str:
    """Return the name of the processor and its architecture: "AMD EPYC 7763 64-Core Processor, x86_64"."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = [
        value.strip() for label, _, value in (line.partition(":") for line in lines) if label.strip() == "model name"
    ]
    return ", ".join(filter(None, [names[0] if names else platform.processor(), platform.machine()]))


def kernel_line(chosen: str, supported: Sequence[str], variable: str) -> str:
    """Describe which kernel runs, and why.

    Args:
        chosen: The kernel that runs.
        supported: The kernels that the processor supports, best first.
        variable: The environment variable that chooses a kernel.
    """
    why = f"as {variable} says" if os.environ.get(variable) else "the best for this processor"
    others = ", ".join(name for name in supported if name != chosen)
    return f"{chosen}, {why}" + (f"; also supported: {others}" if others else "")
