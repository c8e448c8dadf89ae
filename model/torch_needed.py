"""What to do where PyTorch is needed and not installed."""

from __future__ import annotations

from importlib.util import find_spec

from bpe.errors import InputError

INSTALL = "pip install 'bpe-llama[model]'"


def is_installed() -> bool:
    """Return whether PyTorch is installed, without importing it."""
    try:
        return find_spec("torch") is not None
    except (ValueError, ImportError):  # sys.modules has None for it, or a hook of the import refuses it
        return False


def needs_torch(what: str) -> str:
    """Return the message that something needs PyTorch, how to install it, and what works without it.

    Args:
        what: What needs it; the message begins with it.
    """
    return (
        f"{what} needs PyTorch: {INSTALL}; without it, GGUF and safetensors models generate and chat on the CPU"
        " (--backend native, or load(..., backend='native'))"
    )


def require_torch(what: str) -> None:
    """Do nothing if PyTorch is installed.

    Args:
        what: What needs it.

    Raises:
        InputError: When it is not installed; see `needs_torch`.
    """
    if not is_installed():
        raise InputError(needs_torch(what))
