"""Interrupts that wait for a good moment."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class SignalsBetweenSteps:
    """Holds SIGINT and SIGTERM back until a step is whole and saved; a second one takes effect at once.

    patient: a second one waits, too, for torchrun sends again what the terminal has sent to all already.

    Without it, an interrupt in the middle of an update would leave weights that are neither before nor after the step.
    Only the main thread may handle signals; elsewhere this does nothing, and none arrive there.
    """

    _held = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, patient: bool = False) -> None:
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
        """Let a signal do what it would have done: the one received here, or by another process."""
        self.__exit__()
        signal.raise_signal(number)
