"""Signals that wait until a training step is whole and saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class SignalsBetweenSteps:
    """Holds SIGINT and SIGTERM back until `take_effect` is called; a second signal takes effect at once.

    Without it, an interrupt in the middle of an update would leave weights that are neither those before the step nor
    those after it. Only the main thread may handle signals. In another thread this class does nothing, and no signal
    arrives there.
    """

    _held = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, patient: bool = False) -> None:
        """Prepare the handlers, which the `with` block installs.

        Args:
            patient: Hold a second signal back, too. torchrun repeats a signal that the terminal has already sent to
                all processes.
        """
        self.patient = patient
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hold) for number in self._held}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _hold(self, number: int, _: FrameType | None) -> None:
        self.received = number
        if not self.patient:
            self.__exit__()

    def take_effect(self, number: int) -> None:
        """Raise a signal with its former handler: the signal that this process received, or another process."""
        self.__exit__()
        signal.raise_signal(number)
