"""What of a machine's CPUs and memory this process may use, and how they are set.

A container shows the whole machine in ``/proc`` and holds its processes to less through cgroups
(Linux: ``cgroup-v2.rst``, ``cgroup-v1/``); a runtime that starts a thread for each visible core
would then be stopped many times a second.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Iterator, List, Optional, Set, Tuple

from edgexfer.bench.reading import Reading, read_number, read_text

_NO_CPUFREQ = "no cpufreq on this machine (a virtual machine has none)"
_CPU = "sys/devices/system/cpu"
# Version 1 says "no limit" with the largest multiple of a page; nothing has that much memory.
_UNLIMITED = 1 << 60


def usable_cpus() -> Set[int]:
    """Return the numbers of the CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many CPUs this process can keep busy at once, at least 1.

    It is bound by its affinity and by the quota of its container, rounded up.
    """
    quota = cpu_quota(root)[0]
    allowed = len(usable_cpus())
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def cpu_quota(root: Path = Path("/")) -> Reading:
    """Return how many CPUs' time the cgroups of this process grant it, as in ``1.5``."""
    found: List[float] = []
    for folder in _groups(root, "cpu"):
        limit = _quota_of(root, folder)
        if limit is not None:
            found.append(limit)
    return (min(found), "") if found else (None, "no cgroup limits the CPU time")


def _quota_of(root: Path, folder: str) -> Optional[float]:
    """Read ``cpu.max`` of version 2, else the two files of version 1."""
    text = read_text(root, f"{folder}/cpu.max")[0]
    if text is not None:
        parts = text.split()
        if len(parts) == 2 and all(part.isdigit() and int(part) > 0 for part in parts):
            return int(parts[0]) / int(parts[1])
        return None  # "max 100000"
    quota = read_number(root, f"{folder}/cpu.cfs_quota_us")[0]
    period = read_number(root, f"{folder}/cpu.cfs_period_us")[0]
    return quota / period if quota and period else None


def memory_limit(root: Path = Path("/")) -> Reading:
    """Return the least memory limit of this process's cgroups, in bytes."""
    found: List[int] = []
    for folder in _groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            value = read_number(root, f"{folder}/{name}", most=_UNLIMITED)[0]
            if value is not None:
                found.append(value)
    return (min(found), "") if found else (None, "no cgroup limits the memory")


def _groups(root: Path, controller: str) -> Iterator[str]:
    """Yield the folders of this process's cgroup and of all above it, which bind it too."""
    for line in (read_text(root, "proc/self/cgroup")[0] or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            base = "sys/fs/cgroup"
        elif controller in controllers.split(","):
            base = f"sys/fs/cgroup/{controller}"
        else:
            continue
        # A container may see the path that its group has outside; its own is then the base.
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        for depth in range(len(parts), -1, -1):
            yield "/".join([base, *parts[:depth]])


def governor(root: Path) -> Reading:
    """Return the cpufreq governor of the CPUs, several joined by ``+``."""
    names: Set[str] = set()
    reason = _NO_CPUFREQ
    for path in sorted((root / _CPU).glob("cpu[0-9]*/cpufreq/scaling_governor")):
        text, why = read_text(root, str(path.relative_to(root)))
        if text:
            names.add(text)
        else:
            reason = why or f"/{path.relative_to(root)} is empty"
    return ("+".join(sorted(names)), "") if names else (None, reason)


def max_mhz(root: Path) -> Reading:
    """Return the highest clock that the fastest CPU may be set to now."""
    return _clock(root, "scaling_max_freq")


def now_mhz(root: Path) -> Reading:
    """Return the clock of the fastest CPU at this moment."""
    return _clock(root, "scaling_cur_freq")


def _clock(root: Path, name: str) -> Reading:
    """Return the highest of a file of all CPUs: big and little cores differ."""
    readings: List[Tuple[Optional[int], str]] = [
        read_number(root, str(path.relative_to(root)))
        for path in sorted((root / _CPU).glob(f"cpu[0-9]*/cpufreq/{name}"))
    ]
    values = [value for value, _ in readings if value is not None]
    if values:
        return max(values) // 1000, ""
    return None, readings[0][1] if readings else _NO_CPUFREQ


def turbo(root: Path) -> Reading:
    """Return whether the CPU may exceed its base clock, by intel_pstate or any other driver."""
    off = read_number(root, f"{_CPU}/intel_pstate/no_turbo", least=0, most=1)[0]
    if off is not None:
        return off == 0, ""
    boost = read_number(root, f"{_CPU}/cpufreq/boost", least=0, most=1)[0]
    if boost is not None:
        return boost == 1, ""
    return None, "the kernel shows no switch for turbo or boost"


def smt(root: Path) -> Reading:
    """Return whether two threads share a core."""
    active, reason = read_number(root, f"{_CPU}/smt/active", least=0, most=1)
    return (None, reason) if active is None else (active == 1, "")
