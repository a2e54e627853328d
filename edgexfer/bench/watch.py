"""Watches the machine while a process measures: foreign load, stolen time, its own speed.

A virtual machine cannot see all that its host takes away, so a fixed piece of arithmetic is timed
before and after; that shows what the counters of ``/proc`` do not.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Optional

from edgexfer.bench.latency import timed
from edgexfer.bench.steady import CpuTimes, Noise, parse_cpu_times
from edgexfer.core.stats import median

_REPEATS = 21
_SIZE = 20_000


class Watch:
    """Begins to watch when it is made; ``finish`` says what was seen."""

    def __init__(self, root: Path = Path("/")) -> None:
        """Take the first readings; ``root`` is the prefix of ``/proc``."""
        self._root = root
        self._reference_ns = reference_ns()
        self._usage = resource.getrusage(resource.RUSAGE_SELF)
        self._cpu = self._read()

    def finish(self) -> Noise:
        """Take the last readings and return the differences."""
        cpu, usage = self._read(), resource.getrusage(resource.RUSAGE_SELF)
        own_s = usage.ru_utime + usage.ru_stime - self._usage.ru_utime - self._usage.ru_stime
        foreign_pct = steal_pct = None
        if self._cpu is not None and cpu is not None and cpu.total > self._cpu.total:
            total = cpu.total - self._cpu.total
            own = own_s * os.sysconf("SC_CLK_TCK")
            foreign_pct = max(0.0, 100.0 * (cpu.busy - self._cpu.busy - own) / total)
            steal_pct = 100.0 * (cpu.steal - self._cpu.steal) / total
        return Noise(
            foreign_pct=foreign_pct,
            steal_pct=steal_pct,
            reference_before_ns=self._reference_ns,
            reference_after_ns=reference_ns(),
            involuntary_switches=usage.ru_nivcsw - self._usage.ru_nivcsw,
        )

    def _read(self) -> Optional[CpuTimes]:
        try:
            return parse_cpu_times((self._root / "proc/stat").read_text())
        except OSError:
            return None


def reference_ns() -> int:
    """Return the median time of a fixed piece of arithmetic on one thread, in nanoseconds."""
    import numpy as np

    values = np.random.default_rng(0).random(_SIZE)
    return int(median([timed(lambda: np.sort(values))[1] for _ in range(_REPEATS)]))
