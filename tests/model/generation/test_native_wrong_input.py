"""Files that the native kernels do not support, which raise before anything runs; interrupts and exits of processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bpe import InputError, Tokenizer
from bpe.formats.gguf_container import Container, lay_out
from model import ModelConfig, NativeModel, Transformer, convert, load, quantize, save
from model.checkpoint.block_formats import QUANTIZED
from support.exits import exit_of
from support.references import BYTE_RANKS

CONFIG = ModelConfig(dim=64, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=96, vocab_size=300, max_seq_len=256)
WQ = "blk.0.attn_q.weight"


@pytest.fixture
def file(make_model: Callable[[ModelConfig], Transformer], tmp_path: Path) -> Path:
    """A model in Q8_0, including its output matrix."""
    Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens={"<s>": 256}).save(
        tmp_path / "tokenizer.json"
    )
    save(tmp_path / "model", make_model(CONFIG), tmp_path / "tokenizer.json")
    convert(tmp_path / "model", tmp_path / "model.gguf", quantize="q8_0")
    return tmp_path / "model.gguf"


def rewritten(file: Path, **changes: tuple[tuple[int, ...], str]) -> None:
    """Rewrite a file with another shape and type for some tensors, filled with zeros."""
    container = Container.open(file)
    tensors = {name: (info.shape, info.type) for name, info in container.tensors.items()} | changes
    header, places = lay_out(container.metadata, tensors)
    content = bytearray(max(info.offset + info.n_bytes for info in places.values()))
    content[: len(header)] = header
    for name, info in places.items():
        if name not in changes:
            content[info.offset : info.offset + info.n_bytes] = container.data(name)
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (((64, 64), "IQ4_NL"), r"there are no kernels for IQ4_NL"),
        (((64, 64), "Q8_1"), rf"{WQ} has the type Q8_1, which is not supported; supported are F32"),
        (((64, 64), "Q4_K"), rf"{WQ}' has rows of 64 numbers; Q4_K needs a multiple of 256"),
        (((32, 64), "Q8_0"), rf"{WQ} has the shape \[32, 64\], expected \[64, 64\]"),
        (((64, 32), "F32"), rf"{WQ} has the shape \[64, 32\], expected \[64, 64\]"),
        (((4096,), "F32"), rf"{WQ} has the shape \[4096\], expected \[64, 64\]"),
    ],
)
def test_unsupported_types_and_shapes_raise_with_the_tensor(
    change: tuple[tuple[int, ...], str], message: str, file: Path
) -> None:
    assert isinstance(load(file, backend="native")[0], NativeModel)
    rewritten(file, **{WQ: change})
    with pytest.raises(InputError, match=message) as caught:
        load(file, backend="native")
    assert file.name in str(caught.value)


def test_a_file_that_ends_within_a_tensor_raises(file: Path) -> None:
    content = file.read_bytes()
    for size in (len(content) - 33, len(content) // 2):
        file.write_bytes(content[:size])
        with pytest.raises(InputError, match=rf"{file.name}.*truncated|{file.name}.*beyond|{file.name}.*end"):
            load(file, backend="native")


@pytest.mark.parametrize("wrong", ["nan", "inf"])
def test_a_scale_that_is_nan_raises_with_its_tensor(wrong: str, file: Path) -> None:
    info = Container.open(file).tensors[WQ]
    block = QUANTIZED["Q8_0"][0]
    content = bytearray(file.read_bytes())
    blocks = np.frombuffer(content, block, info.n_bytes // block.itemsize, info.offset)
    blocks["scale"][-1] = np.float16(wrong)
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"{file.name}.*blk\.0\.attn_q\.weight contains numbers or scales"):
        load(file, backend="native")


# --- processes ---


@torch.inference_mode()
def test_ctrl_c_stops_reading_and_leaves_the_model_unchanged(
    make_model: Callable[[ModelConfig], Transformer],
) -> None:
    ours, ids = quantize(make_model(CONFIG), "q8_0"), torch.arange(256)[None] % 250
    expected = ours(ids)
    reading = threading.Event()

    def press() -> None:
        reading.wait()
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(1_000_000):
            ours(ids)
            reading.set()
    presser.join()
    assert torch.equal(ours(ids), expected)


EXITS = """
import sys
from model import generate_ids, load
model, _ = load(sys.argv[1], backend="native")
def call():
    list(generate_ids(model, range(100), 20, temperature=0))
"""


@pytest.mark.parametrize("moment", ["idle", "while reading"])
def test_the_interpreter_exits_with_threads_idle_and_while_they_read(moment: str, file: Path) -> None:
    assert exit_of(EXITS, str(file), is_idle=moment == "idle") == (0, "")
