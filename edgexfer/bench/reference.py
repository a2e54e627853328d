"""The reference kernel: a fixed piece of arithmetic that shows how fast the machine is just now.

A virtual machine cannot see all that its host takes away, nor a process who shares its cores. The
kernel runs on every CPU that the process may use at once and is done when the slowest is done, so
that one CPU that is taken away shows, also where the counters of ``/proc`` say nothing.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import List

from edgexfer.bench.cores import usable_cores, usable_cpus
from edgexfer.bench.latency import now_ns, timed
from edgexfer.core.stats import median

# A round takes milliseconds, as long as a scheduler lets another process have a CPU; a shorter one
# would slip in between, and show how long threads take to wake up.
_SIZE, _SORTS, _REPEATS = 20_000, 40, 3
# What a thread has used on another CPU is counted at the system's ticks, up to 10 ms apart.
_LOOK_S = 0.01
_SETTLED = 0.25
_LONGEST_NS = 200_000_000


class ReferenceKernel:
    """Sorts the same numbers on each CPU; call it for the median time of three rounds, in ns."""

    def __init__(self) -> None:
        """Draw the numbers and start a thread on each CPU."""
        import numpy as np

        self._sort = np.sort
        self._values = np.random.default_rng(0).random(_SIZE)
        cpus = sorted(usable_cpus())[: usable_cores()]
        self._threads = [ThreadPoolExecutor(1, initializer=_stay_on, initargs=(c,)) for c in cpus]
        self._round()  # starts them

    def __call__(self) -> int:
        """Return the median time of three rounds in nanoseconds."""
        settle()
        self._round()  # what ran before has had the caches
        return int(median([timed(self._round)[1] for _ in range(_REPEATS)]))

    def close(self) -> None:
        """End the threads."""
        for thread in self._threads:
            thread.shutdown()

    def _round(self) -> List[None]:
        return [begun.result() for begun in [each.submit(self._work) for each in self._threads]]

    def _work(self) -> None:
        # numpy lets go of the interpreter's lock while it sorts.
        for _ in range(_SORTS):
            self._sort(self._values)


def settle() -> None:
    """Return when this process no longer uses a CPU, at the latest after 0.2 s.

    The threads of a runtime look out for more work before they sleep, ONNX Runtime's for 30 ms.
    """
    end = now_ns() + _LONGEST_NS
    while now_ns() < end:
        begun, used = now_ns(), time.process_time_ns()
        time.sleep(_LOOK_S)
        if time.process_time_ns() - used < _SETTLED * (now_ns() - begun):
            return


def _stay_on(cpu: int) -> None:
    """Keep this thread on one CPU; left alone, two of them often share one."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})
