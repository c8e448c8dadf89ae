"""How a command fails: in one line on stderr, with an exit status."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click


def run(command: Callable[[], Any]) -> NoReturn:
    """Call the command and exit: with status 2 for wrong usage, 1 for another failure, 130 for an interruption."""
    try:
        result = command()
        sys.stdout.flush()
    except click.exceptions.Exit as exit:
        sys.exit(exit.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        if os.environ.get("RANK", "0") != "0":  # torchrun interrupts all of its processes, and one tells
            sys.exit(130)
        _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of a pipe went away, as `head` does
        _drop_unwritable_output()
        sys.exit(1)
    except Exception as error:
        if os.environ.get("BPE_DEBUG"):
            raise
        _drop_unwritable_output()
        _fail(in_one_line(error), 1)
    sys.exit(result if isinstance(result, int) else 0)


def _fail(message: str, status: int) -> NoReturn:
    click.echo(f"bpe: {message}", err=True)
    sys.exit(status)


def in_one_line(error: Exception) -> str:
    from bpe.errors import InputError

    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        remedy = "; free some space and run it again" if error.errno == errno.ENOSPC else ""
        return f"{error.filename}: {error.strerror}{remedy}" if error.filename else f"{error.strerror or error}{remedy}"
    if isinstance(error, MemoryError) or _is_torch_out_of_memory(error):
        return "not enough memory; take less at once (shorter texts, fewer of them), or a model with smaller numbers"
    if isinstance(error, ModuleNotFoundError) and error.name == "matplotlib":
        return "plots need matplotlib: pip install 'bpe-llama[report]'"
    if isinstance(error, ModuleNotFoundError) and error.name in ("torch", "safetensors", "jinja2"):
        return f"this command needs {error.name}: pip install 'bpe-llama[model]'"
    if isinstance(error, ModuleNotFoundError) and error.name in ("tiktoken", "tokenizers"):
        return f"this command needs {error.name}: pip install 'bpe-llama[verify]'"
    return f"{type(error).__name__}: {' '.join(str(error).split())} (run bpe --debug ... for the traceback)"


def _is_torch_out_of_memory(error: Exception) -> bool:
    """PyTorch has an exception for accelerators; on the CPU only the text tells."""
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "not enough memory" in str(error))
    )


def _drop_unwritable_output() -> None:
    """What stdout did not take is not tried again when the interpreter ends, which would say so in lines of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
