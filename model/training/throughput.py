"""The peak arithmetic speed of a device, which the MFU (model FLOPs utilization) compares training with."""

from __future__ import annotations

import functools
import time

import torch

from bpe.progress import phase

# Dense bfloat16 FLOP per second with tensor cores, from NVIDIA's data sheets. The first name that the device's name
# contains counts, so a longer name stands before a shorter one.
_BFLOAT16_PEAKS = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A40": 150e12,
    "A30": 165e12,
    "A10": 125e12,
    "RTX 6000 Ada": 364e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
_SIZE = 8192  # rows of the square matrices: enough for the best speed, few enough to be quick
_TRIES = 5


def peak_of(device: torch.device, dtype: torch.dtype, given: float | None = None) -> tuple[float | None, str]:
    """Return the FLOP per second that a device can do, and where the number comes from, in words.

    The peak of a CPU is not known: it depends on the clock under load and on what else the machine does, and a
    measurement on a busy machine gave an MFU of 247%.

    Args:
        device: The device.
        dtype: The dtype of the matrix products.
        given: The peak, if the settings give it.
    """
    if given is not None:
        return given, "as set"
    if device.type != "cuda":
        return None, ""
    name = torch.cuda.get_device_name(device)
    peak = known_peak(name) if dtype == torch.bfloat16 else None
    if peak is not None:
        return peak, f"the peak of {name} in {dtype}"
    with phase("measuring the peak of the device"):
        return measured_peak(device, dtype), f"measured with matrix products in {dtype}"


def known_peak(name: str) -> float | None:
    """Return the bfloat16 FLOP per second of a device by its name, or None."""
    return next((peak for known, peak in _BFLOAT16_PEAKS.items() if known in name), None)


@functools.lru_cache(maxsize=8)
def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the floating-point operations per second of the fastest of five matrix products.

    A multiply-add counts as two operations.
    """
    matrix = torch.ones(_SIZE, _SIZE, device=device, dtype=dtype)
    seconds = float("inf")
    for _ in range(_TRIES + 1):  # the first product finds kernels
        began = time.perf_counter()
        product = matrix @ matrix
        product[0, 0].item()  # waits for the product
        seconds = min(seconds, time.perf_counter() - began)
    return 2 * _SIZE**3 / seconds
