"""Watches the machine while a process measures: foreign load, stolen time, waiting, the clocks.

A virtual machine cannot see all that its host takes away; what the counters of ``/proc`` do not
show, the reference kernel does, which is timed between blocks of the measurement.
"""

from __future__ import annotations

import os
import re
import resource
import time
from pathlib import Path
from typing import Optional, Tuple

from edgexfer.bench.steady import CpuTimes, Noise, parse_cpu_times

_PRESSURE = re.compile(r"^some .*total=(\d+)$", re.MULTILINE)


class Watch:
    """Begins to watch when it is made; ``finish`` says what was seen."""

    def __init__(self, root: Path = Path("/")) -> None:
        """Take the first readings; ``root`` is the prefix of ``/proc``."""
        self._root = root
        self._usage = resource.getrusage(resource.RUSAGE_SELF)
        self._waited_us = self._waited()
        self._cpu = self._read()
        self._clocks = _clocks()

    def finish(self) -> Noise:
        """Take the last readings and return the differences."""
        clocks, cpu, usage = _clocks(), self._read(), resource.getrusage(resource.RUSAGE_SELF)
        waited_us = self._waited()
        own_s = usage.ru_utime + usage.ru_stime - self._usage.ru_utime - self._usage.ru_stime
        elapsed, raw, boot = (
            None if now is None or then is None else now - then
            for now, then in zip(clocks, self._clocks)
        )
        assert elapsed is not None, "every system has a monotonic clock"
        foreign_pct = steal_pct = waiting_pct = None
        if self._cpu is not None and cpu is not None and cpu.total > self._cpu.total:
            total = cpu.total - self._cpu.total
            own = own_s * os.sysconf("SC_CLK_TCK")
            foreign_pct = max(0.0, 100.0 * (cpu.busy - self._cpu.busy - own) / total)
            steal_pct = 100.0 * (cpu.steal - self._cpu.steal) / total
        if self._waited_us is not None and waited_us is not None and elapsed > 0:
            waiting_pct = 1e5 * (waited_us - self._waited_us) / elapsed
        return Noise(
            foreign_pct=foreign_pct,
            steal_pct=steal_pct,
            involuntary_switches=usage.ru_nivcsw - self._usage.ru_nivcsw,
            waiting_pct=waiting_pct,
            elapsed_ns=elapsed,
            suspended_ns=None if boot is None else boot - elapsed,
            slewed_ns=None if raw is None else elapsed - raw,
        )

    def _read(self) -> Optional[CpuTimes]:
        try:
            return parse_cpu_times((self._root / "proc/stat").read_text())
        except OSError:
            return None

    def _waited(self) -> Optional[int]:
        try:
            found = _PRESSURE.search((self._root / "proc/pressure/cpu").read_text())
        except OSError:
            return None
        return int(found.group(1)) if found else None


def _clocks() -> Tuple[Optional[int], ...]:
    """Read the monotonic clock, the one that nothing adjusts, and the one that counts sleep."""
    names = ("CLOCK_MONOTONIC", "CLOCK_MONOTONIC_RAW", "CLOCK_BOOTTIME")
    known = [getattr(time, name, None) for name in names]
    return tuple(None if clock is None else time.clock_gettime_ns(clock) for clock in known)
