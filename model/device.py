"""Which device computes: CUDA, Apple's GPU (MPS) or the CPU.

torch is imported only where the machine may have an accelerator, because that takes over a second.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from bpe.errors import InputError
from model.torch_needed import INSTALL, is_installed

if TYPE_CHECKING:
    import torch

AUTO = "auto"
_DRIVERS = {"linux": ("libcuda.so.1", "libcuda.so"), "win32": ("nvcuda.dll",)}
_FORMS = "auto, cpu, cuda, cuda:0 or mps"


class Chosen(NamedTuple):
    """A device, and why it was chosen."""

    name: str
    """The name of torch's device: "cpu", "cuda", "cuda:1", "mps"."""
    reason: str = ""
    """Why an accelerator of this machine is not used; empty if there is none, or it is used."""


def choose(device: str | torch.device = AUTO) -> Chosen:
    """Return the device that a name stands for.

    Args:
        device: "auto", which chooses CUDA, MPS or the CPU, in this order; or a device, which is checked.

    Raises:
        InputError: When there is no such device; the message names those that this machine has.
    """
    name = str(device).strip().lower()
    if name == AUTO:
        return _best()
    kind, _, number = name.partition(":")
    if not kind.isalpha() or (number and not number.isdecimal()) or name.endswith(":"):
        raise InputError(f"device {str(device)!r} is not the name of a device; choose one of {_FORMS}")
    if kind == "cpu":
        return Chosen("cpu")
    if kind not in ("cuda", "mps"):
        return Chosen(_checked_by_torch(name))
    if not is_installed():
        raise InputError(f"device {name}: PyTorch is not installed, so only cpu is available; run: {INSTALL}")
    return Chosen(_checked_cuda(name, number) if kind == "cuda" else _checked_mps(name))


def _best() -> Chosen:
    count = cuda_devices()
    if not count and not may_have_mps():
        return Chosen("cpu")
    accelerator = "an NVIDIA GPU" if count else "Apple's GPU"
    if not is_installed():
        return Chosen("cpu", f"{accelerator} needs PyTorch: {INSTALL}")
    import torch

    if torch.cuda.is_available():
        return Chosen("cuda")
    if torch.backends.mps.is_available():
        return Chosen("mps")
    return Chosen("cpu", f"this PyTorch cannot use {accelerator}")


def cuda_devices() -> int:
    """Return the number of NVIDIA GPUs that this process may use, as the driver counts them. Does not import torch."""
    for library in _DRIVERS.get(sys.platform, ()):
        try:
            driver: Any = ctypes.CDLL(library)
            count = ctypes.c_int(0)
            if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
                return count.value
        except (OSError, AttributeError):
            continue
    return 0


def may_have_mps() -> bool:
    """Return whether this is a Mac with Apple's own processor."""
    return sys.platform == "darwin" and platform.machine() == "arm64"


def _checked_cuda(name: str, number: str) -> str:
    import torch

    if not torch.cuda.is_available():
        if torch.version.cuda is None and torch.version.hip is None:
            raise InputError(
                f"device {name}: this PyTorch is built without CUDA; install one with CUDA (https://pytorch.org), or"
                " use the device cpu"
            )
        raise InputError(f"device {name}: no NVIDIA GPU, or its driver does not work; use the device cpu")
    count = torch.cuda.device_count()
    if number and int(number) >= count:
        names = ", ".join(f"cuda:{each}" for each in range(count))
        raise InputError(f"device {name}: this machine has {count} GPU{'s' * (count != 1)}; choose one of {names}, cpu")
    return name


def _checked_mps(name: str) -> str:
    import torch

    if not torch.backends.mps.is_available():
        raise InputError(f"device {name}: MPS is on Apple's GPUs only, and not available here; use the device cpu")
    return name


def _checked_by_torch(name: str) -> str:
    """Return the name of a rarer device, if torch can make a tensor on it."""
    if is_installed():
        import torch

        try:
            torch.empty(1, device=name)
        except (RuntimeError, AssertionError, NotImplementedError, ImportError, AttributeError):
            pass
        else:
            if torch.device(name).type != "meta":
                return name
    raise InputError(f"device {name!r} is not available here; choose one of {_FORMS}")


def describe(device: str | torch.device) -> str:
    """Return the name of a device for a person, such as "NVIDIA H200 (cuda)"."""
    name = str(device)
    if name.startswith("cuda"):
        import torch

        return f"{torch.cuda.get_device_name(name)} ({name})"
    return {"cpu": "the CPU", "mps": "Apple's GPU (mps)"}.get(name, name)
