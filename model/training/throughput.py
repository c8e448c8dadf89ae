"""The matrix product speed of a device, which the MFU (model FLOPs utilization) compares training with."""

from __future__ import annotations

import functools
import time

import torch

# Rows of the square matrices: enough for the best speed, few enough to be quick.
_SIZE = {"cpu": 512, "cuda": 8192}
_TRIES = 5


@functools.lru_cache(maxsize=8)
def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the floating-point operations per second of the fastest of five matrix products.

    A multiply-add counts as two operations. On a CPU the measurement takes a few hundredths of a second.
    """
    size = _SIZE.get(device.type, 2048)
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    seconds = float("inf")
    for _ in range(_TRIES + 1):  # the first product wakes threads and finds kernels
        began = time.perf_counter()
        product = matrix @ matrix
        product[0, 0].item()  # waits for the product
        seconds = min(seconds, time.perf_counter() - began)
    return 2 * size**3 / seconds
