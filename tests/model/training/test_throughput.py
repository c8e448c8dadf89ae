"""The peak that the MFU is relative to."""

from __future__ import annotations

import pytest
import torch

from model.training import throughput
from model.training.throughput import known_peak, peak_of


def test_the_peak_of_a_cpu_is_not_known_unless_given() -> None:
    assert peak_of(torch.device("cpu"), torch.float32) == (None, "")
    assert peak_of(torch.device("cpu"), torch.float32, 1e12) == (1e12, "as set")


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("Tesla T4", None),
    ],
)
def test_known_devices(name: str, peak: float | None) -> None:
    assert known_peak(name) == peak


def test_a_known_device_is_not_measured_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(throughput, "measured_peak", lambda device, dtype: 5e12)
    device = torch.device("cuda")
    assert peak_of(device, torch.bfloat16) == (989e12, "the peak of NVIDIA H200 in torch.bfloat16")
    assert peak_of(device, torch.float32) == (5e12, "measured with matrix products in torch.float32")
