"""How a command fails: with one line on stderr and an exit status."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import click

from bpe.errors import InputError

# Optional package -> the extra of bpe-llama that installs it.
_EXTRAS = {
    "matplotlib": "report",
    "torch": "model",
    "safetensors": "model",
    "tiktoken": "verify",
    "tokenizers": "verify",
}


def run(command: Callable[[], Any]) -> NoReturn:
    """Call the command and exit with its status.

    The status is 0 for success, 2 for wrong usage, 130 after Ctrl-C, and 1 for any other failure.
    """
    try:
        result = command()
        sys.stdout.flush()
    except click.exceptions.Exit as exit:
        sys.exit(exit.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        if os.environ.get("RANK", "0") != "0":  # torchrun interrupts all of its processes; only the first reports it
            sys.exit(130)
        _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of a pipe has exited, as `head` does
        _drop_unwritable_output()
        sys.exit(1)
    except Exception as error:
        if os.environ.get("BPE_DEBUG"):
            raise
        _drop_unwritable_output()
        _fail(in_one_line(error), 1)
    sys.exit(result if isinstance(result, int) else 0)


def in_one_line(error: Exception) -> str:
    """Return the message of an error, for a person, in one line."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        remedy = "; free some space and run the command again" if error.errno == errno.ENOSPC else ""
        return f"{error.filename}: {error.strerror}{remedy}" if error.filename else f"{error.strerror or error}{remedy}"
    if isinstance(error, MemoryError) or _is_torch_out_of_memory(error):
        return "not enough memory; use shorter or fewer texts at once, or weights of a smaller dtype"
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
        return f"this needs the package {error.name}: pip install 'bpe-llama[{_EXTRAS[error.name]}]'"
    return f"{type(error).__name__}: {' '.join(str(error).split())} (run bpe --debug ... for the traceback)"


def _is_torch_out_of_memory(error: Exception) -> bool:
    """PyTorch has an exception class for accelerators only; on a CPU, the message is the only sign."""
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "not enough memory" in str(error))
    )


def _fail(message: str, status: int) -> NoReturn:
    click.echo(f"bpe: {message}", err=True)
    sys.exit(status)


def _drop_unwritable_output() -> None:
    """Discard buffered output that stdout rejects; otherwise the interpreter retries at exit and prints an error."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(io.UnsupportedOperation):  # a stream without a descriptor
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, it stays open
