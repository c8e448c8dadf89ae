"""How commands fail: an error is one line, and some errors come with a remedy."""

from __future__ import annotations

import errno
import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import jinja2
import pytest

from bpe.cli import cli
from bpe.commands.failures import in_one_line
from bpe.optional import PACKAGES, missing

ROOT = Path(__file__).parents[3]


def raised_by(call: Callable[[], object]) -> Exception:
    """Return the exception that a call raises."""
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "a.txt"), "a.txt: No such file"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out.bin"),
            "out.bin: No space left on device; free some space and run the command again",
        ),
        (MemoryError(), "not enough memory; use shorter or fewer texts at once, or weights of a smaller dtype"),
        (ModuleNotFoundError(name="torch"), "this computation needs the package torch: pip install 'bpe-llama[model]'"),
        (
            ModuleNotFoundError(name="tiktoken"),
            "a comparison with tiktoken needs the package tiktoken: pip install 'bpe-llama[verify]'",
        ),
        (
            ModuleNotFoundError(name="torch.nn.utils"),
            "this computation needs the package torch: pip install 'bpe-llama[model]'",
        ),
        (
            ModuleNotFoundError(name="PIL.Image"),
            "an image needs the package Pillow: pip install 'bpe-llama[vision]'",
        ),
        (ModuleNotFoundError(name="jinja2"), "a chat template needs the package jinja2: pip install jinja2"),
        (
            ModuleNotFoundError("No module named 'other'", name="other"),
            "ModuleNotFoundError: No module named 'other' (run bpe --debug ... for the traceback)",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "a.txt"),
            "a.txt: Permission denied; change the permissions, or use another path",
        ),
        (OSError(errno.EROFS, "Read-only file system", "a"), "a: Read-only file system; use a path on another disk"),
        (
            RuntimeError("Error while serializing: IoError(Os { code: 28, message: No space left on device })"),
            "Error while serializing: IoError(Os { code: 28, message: No space left on device });"
            " free some space and run the command again",
        ),
        (
            AssertionError("Torch not compiled with CUDA enabled"),
            "Torch not compiled with CUDA enabled; use --device cpu, or install PyTorch with CUDA (https://pytorch.org)",
        ),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            "not enough memory on the device; use shorter or fewer texts at once,"
            " weights of a smaller dtype, or --device cpu",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            "not enough memory; use shorter or fewer texts at once, or weights of a smaller dtype",
        ),
        (
            UnicodeDecodeError("utf-8", b"ab\xff", 2, 3, "invalid start byte"),
            "not UTF-8: byte 0xff at 2; convert the file to UTF-8 (run bpe --debug ... for the traceback)",
        ),
        (
            UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range"),
            "cannot be written as ascii; set PYTHONUTF8=1, or write to a file",
        ),
        (
            RecursionError("maximum recursion depth exceeded"),
            "a file, a pattern or a template is nested too deeply to be read; is it damaged?"
            " (run bpe --debug ... for the traceback)",
        ),
        (
            raised_by(lambda: json.loads("{")),
            "a file is damaged (JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2"
            " (char 1)); restore it, or download or write it again (run bpe --debug ... for the traceback)",
        ),
        (
            raised_by(lambda: struct.unpack("I", b"")),
            "a file is damaged (error: unpack requires a buffer of 4 bytes); restore it, or download or write it again"
            " (run bpe --debug ... for the traceback)",
        ),
        (
            raised_by(lambda: zlib.decompress(b"no")),
            "a file is damaged (error: Error -3 while decompressing data: incorrect header check); restore it, or"
            " download or write it again (run bpe --debug ... for the traceback)",
        ),
        (
            raised_by(lambda: jinja2.Template("{{ a.b.c }}").render()),
            "the chat template fails: 'a' is undefined; correct it, or choose another with --template",
        ),
        (RuntimeError("two\nlines"), "RuntimeError: two lines (run bpe --debug ... for the traceback)"),
    ],
)
def test_an_error_is_described_in_one_line(error: Exception, message: str) -> None:
    assert in_one_line(error) == message


@pytest.mark.parametrize(("rank", "said"), [(None, "\nbpe: interrupted\n"), ("0", "\nbpe: interrupted\n"), ("1", "\n")])
def test_of_several_interrupted_processes_only_the_first_reports_it(
    rank: str | None, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bpe.locate.locate", interrupted)
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    with pytest.raises(SystemExit) as raised:
        cli(["info", "nowhere"])
    assert (raised.value.code, capsys.readouterr().err) == (130, said)


def test_each_optional_package_is_named_with_its_purpose_and_its_extra_exists() -> None:
    metadata = (ROOT / "pyproject.toml").read_text()
    for name, package in PACKAGES.items():
        match = re.fullmatch(r"'bpe-llama\[(\w+)\]'", package.install)
        if match:
            wanted = (package.distribution.lower() or name).replace("_", "-").partition(".zstd")[0]
            assert re.search(rf'^{match[1]} = .*"{wanted}', metadata.replace("_", "-"), re.MULTILINE)
        shown = package.distribution or name
        assert missing(f"{name}.part") == f"{package.purpose} needs the package {shown}: pip install {package.install}"
    assert missing("other") is missing(None) is None
