"""The reference kernel: a fixed piece of arithmetic that shows how fast the machine is just now.

A virtual machine cannot see all that its host takes away, nor a process who shares its cores. The
kernel runs on every CPU that the process may use at once and is done when the slowest is done, so
that one CPU that is taken away shows, also where the counters of ``/proc`` say nothing.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, List

from edgexfer.bench.latency import timed
from edgexfer.core.stats import median

_SIZE, _SORTS, _REPEATS = 20_000, 4, 3


class ReferenceKernel:
    """Sorts the same numbers on each CPU; call it for the median time of three rounds, in ns."""

    def __init__(self) -> None:
        """Draw the numbers and start a thread for each CPU."""
        import numpy as np

        self._sort = np.sort
        self._values = np.random.default_rng(0).random(_SIZE)
        self._cpus = usable_cpus()
        self._pool = ThreadPoolExecutor(self._cpus)
        self._round()  # starts the threads

    def __call__(self) -> int:
        """Return the median time of three rounds in nanoseconds."""
        self._round()  # what ran before has had the caches
        return int(median([timed(self._round)[1] for _ in range(_REPEATS)]))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _round(self) -> List[Any]:
        return list(self._pool.map(self._work, range(self._cpus)))

    def _work(self, _: int) -> None:
        # numpy lets go of the interpreter's lock while it sorts.
        for _ in range(_SORTS):
            self._sort(self._values)


def usable_cpus() -> int:
    """Return how many CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
