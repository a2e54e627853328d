"""Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class StopRequest:
    """While it is open, the first SIGINT or SIGTERM is noted instead of raised.

    Signals can be caught in the main thread only; elsewhere (a notebook's worker) they stay as they
    are, and an interrupt ends the training like a kill does: the last checkpoint stands.
    """

    def __init__(self) -> None:
        """Nothing is caught before it is entered."""
        self.name: str | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        """Catch both signals."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the signals as they were."""
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.name = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._old.items():
            # What has been put in this one's place since, such as nothing at all, stays.
            if signal.getsignal(number) == self._note:
                signal.signal(number, handler)
        self._old = {}


def ignore_sigterm() -> None:
    """Ignore SIGTERM from now on, in a process that ends by itself but has yet to say why."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
