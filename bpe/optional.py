"""Import of optional packages."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bpe.errors import InputError


def first_module(*names: str) -> Any:
    """Import and return the first of the modules that is installed.

    Raises:
        ImportError: When none is installed.
    """
    for name in names[:-1]:
        try:
            return import_module(name)
        except ImportError:
            pass
    return import_module(names[-1])


def require(what: str, extra: str, *names: str) -> Any:
    """Import and return the first of the modules that is installed, to read a file.

    Args:
        what: What to read; the message begins with it.
        extra: The extra of this distribution that installs the last of the modules.
        names: The modules.

    Raises:
        InputError: When none is installed.
    """
    try:
        return first_module(*names)
    except ImportError as error:
        raise InputError(f"{what}: reading it requires {names[-1]}: pip install 'bpe-llama[{extra}]'") from error
