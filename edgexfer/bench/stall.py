"""An end to what hangs, and to what is left alone."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
from typing import Iterator

# A runtime that has not loaded a model or answered once after so long never will.
STALL_S = 600.0
_PR_SET_PDEATHSIG = 1
_STDERR = 2


@contextlib.contextmanager
def ending_after(seconds: float = STALL_S) -> Iterator[None]:
    """End the process, with its stacks on stderr, if the block takes longer.

    Nothing less will do: a runtime that hangs in its own code, the interpreter's lock held, lets
    no other thread and no signal handler of Python's run.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def die_with_parent() -> None:
    """Ask Linux to kill this process when the one that started it ends, however it ends.

    A parent that is killed cannot end its children any more.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended in between
        os.kill(os.getpid(), signal.SIGKILL)
