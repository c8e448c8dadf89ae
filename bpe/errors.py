"""The one exception that is meant for the person at the keyboard."""

from __future__ import annotations


class InputError(ValueError):
    """Something given to us cannot be used. The message names it, the place in it, and the remedy, in one line."""
