"""One host measures on a board at a time: a lock that says who has it and since when.

What is measured on a machine without a host shares the lock, so that no host's work runs beside it;
several of those are not kept apart, and show each other in their records as load.
The kernel holds it (``flock``) for as long as one process of the holder lives, so that nothing that
is killed leaves a board locked. Its file is one for all users of the board.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

from edgexfer.core.errors import MachineError

NAME = "edgexfer-board.lock"


class Busy(Exception):  # noqa: N818 - an answer, not a fault
    """The board is taken.

    Attributes:
        holder: who has it, as far as its file tells.
    """

    def __init__(self, holder: Dict[str, Any]) -> None:
        """Keep the holder."""
        super().__init__(str(holder.get("holder")))
        self.holder = holder


@contextlib.contextmanager
def no_host_beside() -> Iterator[None]:
    """Keep hosts from measuring on this machine while it measures by itself.

    Raises:
        MachineError: a host measures on it, or there is something else in the lock's place.
    """
    try:
        handle = take_board({"holder": f"process {os.getpid()}"}, shared=True)
    except Busy as busy:
        raise MachineError(
            f"this machine: {busy.holder.get('holder', 'somebody')} measures on it over ssh",
            "wait until that has ended, or its load would be in the figures",
        ) from busy
    except OSError as error:
        raise MachineError(
            f"this machine: its lock cannot be taken ({error})",
            "see who put something else there, and take it away",
        ) from error
    try:
        yield
    finally:
        os.close(handle)


def take_board(note: Dict[str, Any], place: Optional[Path] = None, *, shared: bool = False) -> int:
    """Take the board and return the handle that holds it; every copy of it must be closed.

    Args:
        note: what others are told: ``holder``, and whatever else is of use.
        place: file of the lock; ``None`` is the board's one.
        shared: whether others who share it may have it at the same time.

    Raises:
        Busy: somebody has it.
        OSError: there is something else in the lock's place.
    """
    path = place or Path(tempfile.gettempdir()) / NAME
    handle = _open(path)
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        found = _read(handle)
        os.close(handle)
        raise Busy(found) from error
    text = json.dumps({**note, "since_s": time.time()})
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode(), 0)
    return handle


def _open(path: Path) -> int:
    """Open the file that all users share, or make it; never through a link."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        handle = os.open(str(path), flags)
    except FileNotFoundError:
        try:
            handle = os.open(str(path), flags | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return _open(path)
        os.fchmod(handle, 0o666)  # the umask would keep other users out
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"{path} is not a file")
    return handle


def _read(handle: int) -> Dict[str, Any]:
    """Return the holder's note with ``held_s``, the time since; a note half written is none."""
    try:
        found: Dict[str, Any] = json.loads(os.pread(handle, 4096, 0))
        return {**found, "held_s": max(0.0, time.time() - found["since_s"])}
    except (ValueError, KeyError, TypeError):
        return {}
