"""The pulse of each process of a training, so that the one that died or hangs can be named.

A thread of each process writes into the store that ``torchrun`` keeps: how often it has done so,
and how far the process has come. Where an exchange then fails, those who are left read which of the
others has stopped writing, and which has not come as far as they have. Nothing is ever ended
because a pulse is late: an exchange has failed before anybody is looked at.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

_BEAT_S = 0.25
# Without a beat for so long a process is gone.
_SILENT_S = 2.0
# So long a process may take to notice that another one has given up.
_GRACE_S = 8.0
_GIVEN_UP = "pulse/given-up"


@dataclass(frozen=True)
class Beat:
    """What a process says of itself.

    Attributes:
        number: how often it has said so.
        reached: how many exchanges with the others it has come to.
        end: how it ended: ``None`` while it runs, its own error in one line, or nothing where it
            ended because of another.
    """

    number: int
    reached: int
    end: str | None


class Pulse:
    """Writes this process's pulse while it is open, and reads those of the others."""

    def __init__(self, store: Any, rank: int, size: int) -> None:
        """Nothing is written before it is entered.

        Args:
            store: torch's, which all processes share; a connection of its own is opened to it.
            rank: of this process.
            size: how many processes there are.
        """
        self._store = store.clone()
        self._rank, self._size = rank, size
        # A connection that answers no more must not hold this process up.
        self._store.set_timeout(timedelta(seconds=_SILENT_S))
        self._number, self._reached, self._met = 0, 0, 0
        self._end: str | None = None
        self._noticed = False
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def __enter__(self) -> Pulse:
        """Begin to write."""
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop writing."""
        self._closed.set()
        self._thread.join(_SILENT_S)

    def arrive(self) -> None:
        """Note that this process has come to its next exchange with the others."""
        self._reached += 1

    def give_up(self, error: str) -> None:
        """Tell the others that this process ends: by an error of its own, or else with ``""``."""
        self._end, self._noticed = error, True
        try:
            self._write()
            self._store.set(_GIVEN_UP, "")
        except RuntimeError:
            # The store has gone with the process that kept it: nobody is left to be told.
            return

    def follow(self, patience_s: float) -> bool:
        """Wait until the leader has come here too, from work that it does alone.

        However long that takes, it is waited for as long as it has a pulse.

        Args:
            patience_s: how long it may go without one.

        Returns:
            Whether it has; else it gave up or was killed.
        """
        self._met += 1
        here = f"pulse/met-{self._met}"
        if self._rank == 0:
            self._store.set(here, "")
            return True
        last, since = None, time.monotonic()
        try:
            while not self._store.check([here]):
                beat = self._others().get(0)
                if beat != last:
                    last, since = beat, time.monotonic()
                if self._store.check([_GIVEN_UP]) or time.monotonic() - since > patience_s:
                    return False
                time.sleep(_BEAT_S)
        except RuntimeError:
            # The store has gone with the leader, which kept it: that one was done.
            return True
        return True

    def blame(self) -> str | None:
        """Return in words which process ended or hangs, ``None`` where that cannot be told.

        It may take two seconds, to see who still has a pulse.
        """
        self._noticed = True
        before = self._others()
        told = [f"rank {rank} ended with {beat.end}" for rank, beat in before.items() if beat.end]
        if told:
            return ", ".join(told)
        time.sleep(_SILENT_S)
        after = self._others()
        words = [self._word(rank, before.get(rank), beat) for rank, beat in after.items()]
        return ", ".join(word for word in words if word) or None

    def _word(self, rank: int, before: Beat | None, now: Beat) -> str | None:
        if now.end is not None:
            return f"rank {rank} ended with {now.end}" if now.end else None
        if before is not None and before.number == now.number:
            return f"rank {rank} was killed"
        if now.reached < self._reached:
            return f"rank {rank} hangs"
        return None

    def _others(self) -> dict[int, Beat]:
        try:
            with self._lock:
                ranks = [r for r in range(self._size) if r != self._rank]
                known = [r for r in ranks if self._store.check([f"pulse/{r}"])]
                return {r: Beat(**json.loads(self._store.get(f"pulse/{r}"))) for r in known}
        except RuntimeError:
            return {}

    def _write(self) -> None:
        with self._lock:
            self._number += 1
            beat = Beat(self._number, self._reached, self._end)
            self._store.set(f"pulse/{self._rank}", json.dumps(asdict(beat)))

    def _run(self) -> None:
        told: float | None = None
        while not self._closed.wait(_BEAT_S):
            try:
                self._write()
                if told is None and self._store.check([_GIVEN_UP]):
                    told = time.monotonic()
            except RuntimeError:
                # The store is gone; the exchange that fails next will end this process.
                return
            stuck = told is not None and time.monotonic() - told > _GRACE_S
            if stuck and not self._noticed and not self._closed.is_set():
                # The main thread is stuck where no signal or error reaches it, and torchrun would
                # wait for it half a minute. Say where it is stuck.
                faulthandler.dump_traceback(sys.__stderr__ or 2)
                os._exit(1)
