"""Packages that are not always installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bpe.errors import InputError


def first_module(*names: str) -> Any:
    """The first of the modules that is there.

    Raises:
        ImportError: none is.
    """
    for name in names[:-1]:
        try:
            return import_module(name)
        except ImportError:
            pass
    return import_module(names[-1])


def require(what: str, extra: str, *names: str) -> Any:
    """The same for what cannot be read without one of them, which the extra brings.

    Raises:
        InputError: none is there.
    """
    try:
        return first_module(*names)
    except ImportError as error:
        raise InputError(f"{what}: reading it takes {names[-1]}: pip install 'bpe-llama[{extra}]'") from error
