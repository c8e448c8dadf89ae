"""How much of what a machine can compute is used."""

from __future__ import annotations

import functools
import time

import torch

_SIZE = {"cpu": 512, "cuda": 8192}  # of the square matrices: large enough for the best speed, small enough to be quick
_TRIES = 5


@functools.lru_cache(maxsize=8)
def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of the fastest of a few matrix products, which is what a model could reach.

    A multiply-add counts as two. On a CPU it takes a few hundredths of a second.
    """
    size = _SIZE.get(device.type, 2048)
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    seconds = float("inf")
    for _ in range(_TRIES + 1):  # the first wakes threads and finds kernels
        began = time.perf_counter()
        product = matrix @ matrix
        product[0, 0].item()  # waits for it
        seconds = min(seconds, time.perf_counter() - began)
    return 2 * size**3 / seconds
