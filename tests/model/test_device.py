"""The choice of the device, with probes of this machine replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bpe import InputError
from model import device as device_module
from model import load
from model.device import Chosen, choose, cuda_devices, describe
from model.threads import available_cores

Probe = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Probe:
    """Replaces what the probes find: GPUs of the driver, GPUs of torch, Apple's GPU, whether torch is installed."""

    def have(driver: int = 0, gpus: int = 0, mac: bool = False, mps: bool = False, installed: bool = True) -> None:
        monkeypatch.setattr(device_module, "cuda_devices", lambda: driver)
        monkeypatch.setattr(device_module, "may_have_mps", lambda: mac)
        monkeypatch.setattr(device_module, "is_installed", lambda: installed)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.version, "cuda", "12.8" if gpus else None)

    return have


@pytest.mark.parametrize(
    ("probes", "expected"),
    [
        ({}, Chosen("cpu")),
        ({"driver": 2, "gpus": 2}, Chosen("cuda")),
        ({"driver": 1, "gpus": 1, "mac": True, "mps": True}, Chosen("cuda")),
        ({"mac": True, "mps": True}, Chosen("mps")),
        ({"mac": True}, Chosen("cpu", "this PyTorch cannot use Apple's GPU")),
        ({"driver": 1}, Chosen("cpu", "this PyTorch cannot use an NVIDIA GPU")),
        (
            {"driver": 1, "installed": False},
            Chosen("cpu", "an NVIDIA GPU needs PyTorch: pip install 'bpe-llama[model]'"),
        ),
        (
            {"mac": True, "installed": False},
            Chosen("cpu", "Apple's GPU needs PyTorch: pip install 'bpe-llama[model]'"),
        ),
    ],
)
def test_auto_chooses_cuda_then_mps_then_the_cpu(probes: dict[str, int], expected: Chosen, machine: Probe) -> None:
    machine(**probes)
    assert choose() == choose("auto") == choose(" AUTO") == expected


def test_a_device_that_is_there_is_taken(machine: Probe) -> None:
    machine(driver=2, gpus=2, mps=True)
    for name in ("cpu", "cuda", "cuda:0", "cuda:1", "mps"):
        assert choose(name) == choose(torch.device(name)) == Chosen(name)
    assert choose("CUDA:1") == Chosen("cuda:1")


@pytest.mark.parametrize(
    ("name", "probes", "words"),
    [
        ("cuda", {}, ["cuda", "built without CUDA", "use the device cpu"]),
        ("cuda:7", {"gpus": 1}, ["cuda:7", "1 GPU", "cuda:0, cpu"]),
        ("cuda:2", {"gpus": 2}, ["cuda:2", "2 GPUs", "cuda:0, cuda:1, cpu"]),
        ("mps", {}, ["mps", "Apple", "use the device cpu"]),
        ("gpu", {}, ["'gpu'", "choose one of auto, cpu, cuda"]),
        ("meta", {}, ["'meta'", "choose one of auto, cpu, cuda"]),
        ("", {}, ["''", "choose one of auto, cpu, cuda"]),
        ("cuda:", {"gpus": 1}, ["'cuda:'", "choose one of auto, cpu, cuda"]),
        ("cuda:x", {"gpus": 1}, ["'cuda:x'", "choose one of auto, cpu, cuda"]),
        ("cuda", {"installed": False}, ["PyTorch is not installed", "pip install 'bpe-llama[model]'"]),
        ("mps", {"installed": False}, ["PyTorch is not installed", "pip install 'bpe-llama[model]'"]),
    ],
)
def test_a_device_that_is_missing_is_named_with_the_remedy(
    name: str, probes: dict[str, int], words: list[str], machine: Probe
) -> None:
    machine(**probes)
    with pytest.raises(InputError) as caught:
        choose(name)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def test_cuda_without_a_working_driver_says_so(machine: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    machine()
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    with pytest.raises(InputError, match="cuda: no NVIDIA GPU, or its driver does not work"):
        choose("cuda")


def test_a_wrong_device_is_told_before_the_model_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'gpu' is not available"):
        load(tmp_path / "missing", device="gpu")


def test_the_driver_is_asked_without_torch() -> None:
    """The number of GPUs is torch's, and asking leaves torch unloaded."""
    code = "import sys; from model.device import cuda_devices; print(cuda_devices(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(cuda_devices()), "False"]
    if torch.version.cuda is not None:
        assert cuda_devices() == torch.cuda.device_count()


def test_a_library_that_is_no_driver_counts_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "_DRIVERS", {sys.platform: ("libmissing.so", None)})  # None: this process
    assert cuda_devices() == 0


def test_a_device_is_described_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda name: "NVIDIA H200")
    assert describe("cuda:0") == "NVIDIA H200 (cuda:0)"
    assert describe(torch.device("cpu")) == "the CPU"
    assert describe("mps") == "Apple's GPU (mps)"


THREADS = "from model.threads import default_threads; print(default_threads())"


@pytest.mark.parametrize("before", ["", "import torch; "])
def test_threads_are_those_that_torch_would_use(before: str) -> None:
    cores = available_cores()
    for wanted, expected in (("1", 1), ("2,1", min(2, cores)), ("9999", cores), ("", cores), ("none", cores)):
        if before and not wanted[:1].isdecimal():
            continue  # torch asks OpenMP or MKL, which count in their own ways
        environment = {**os.environ, "OMP_NUM_THREADS": wanted}
        done = subprocess.run(
            [sys.executable, "-c", before + THREADS], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == str(expected)
