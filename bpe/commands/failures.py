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
from bpe.optional import missing

_TRACEBACK = "(run bpe --debug ... for the traceback)"

# What to do about an error of the operating system, by its number.
_OS_REMEDIES = {
    errno.ENOSPC: "free some space and run the command again",
    errno.EDQUOT: "free some of your space and run the command again",
    errno.EACCES: "change the permissions, or use another path",
    errno.EPERM: "change the permissions, or use another path",
    errno.EROFS: "use a path on another disk",
    errno.EMFILE: "raise the limit of open files (ulimit -n 65536)",
    errno.ENFILE: "close other programs, or raise the limit of open files of the system",
    errno.ENAMETOOLONG: "use a shorter path",
    errno.ELOOP: "a link leads back to itself; remove it",
    errno.EIO: "the disk or the network drive fails; copy the file elsewhere",
    errno.EADDRINUSE: "another program uses the port; choose another one",
    errno.ECONNREFUSED: "check the address and the network",
    errno.ENETUNREACH: "check the network",
    errno.ENOEXEC: "the program is not built for this machine",
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
        return _of_system(error)
    text = " ".join(str(error).split())
    if isinstance(error, ImportError) and (needed := missing(error.name)):
        return needed
    remedy = _remedy(error, text)
    if remedy is not None:
        return remedy
    return f"{type(error).__name__}: {text} {_TRACEBACK}"


def _of_system(error: OSError) -> str:
    """Return the message of an error of the operating system: the file, what is wrong, and what to do."""
    remedy = _OS_REMEDIES.get(error.errno) if error.errno is not None else None
    if isinstance(error, (BlockingIOError, BrokenPipeError, ConnectionError)) and remedy is None:
        remedy = "the other program has closed the connection; run the command again"
    text = error.strerror or " ".join(str(error).split())
    text = f"{text}; {remedy}" if remedy else text
    return f"{os.fsdecode(error.filename)}: {text}" if isinstance(error.filename, (str, bytes)) else text


def _remedy(error: Exception, text: str) -> str | None:
    """Return the message of an error of a library, recognised by its class and words; None if it is not known.

    Libraries are not imported for their exception classes: that would cost the start of each command, and those that
    wrap Rust or C++ raise errors of the system in classes of their own.
    """
    kind, module = type(error).__name__, type(error).__module__.split(".")[0]
    lower = text.lower()
    if "no space left on device" in lower or "disk quota exceeded" in lower:
        return f"{text}; {_OS_REMEDIES[errno.ENOSPC]}"
    if kind == "OutOfMemoryError" or (module == "builtins" and "out of memory" in lower):
        return (
            "not enough memory on the device; use shorter or fewer texts at once, weights of a smaller dtype, or"
            " --device cpu"
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in lower or "not enough memory" in lower:
        return "not enough memory; use shorter or fewer texts at once, or weights of a smaller dtype"
    if "not compiled with cuda" in lower or "no nvidia driver" in lower or "no cuda gpus are available" in lower:
        return f"{text.split('.')[0]}; use --device cpu, or install PyTorch with CUDA (https://pytorch.org)"
    if isinstance(error, RecursionError):
        return f"a file, a pattern or a template is nested too deeply to be read; is it damaged? {_TRACEBACK}"
    if isinstance(error, UnicodeDecodeError):
        byte = f"byte {error.object[error.start]:#04x} at {error.start:,}"
        return f"not UTF-8: {byte}; convert the file to UTF-8 {_TRACEBACK}"
    if isinstance(error, UnicodeEncodeError):
        return f"cannot be written as {error.encoding}; set PYTHONUTF8=1, or write to a file"
    if any(part in _DAMAGED for part in (f"{module}.{kind}", kind)):
        return f"a file is damaged ({kind}: {text}); restore it, or download or write it again {_TRACEBACK}"
    if module == "jinja2":
        return f"the chat template fails: {text}; correct it, or choose another with --template"
    if kind in ("ProcessRaisedException", "ProcessExitedException", "BrokenProcessPool", "DistBackendError"):
        return f"one of the processes failed ({text}); its own message stands above, run the command again to resume"
    return None


# Exceptions for files that cannot be read, where no reader has named the file.
_DAMAGED = {
    "JSONDecodeError", "SafetensorError", "struct.error", "ArrowInvalid", "zlib.error", "LZMAError", "ZstdError",
    "BadGzipFile", "EOFError", "BadZipFile", "UnpicklingError",
}  # fmt: skip


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
