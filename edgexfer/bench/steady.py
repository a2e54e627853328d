"""Whether a series of latencies is steady, and whether the machine let it be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence

from edgexfer.core.series import trend_p

WINDOW = 30
MEDIAN_LIMIT = 0.02
QUARTILE_LIMIT = 0.05
TREND_P = 0.01
STEAL_LIMIT_PCT = 1.0
FOREIGN_LIMIT_PCT = 20.0
SPEED_LIMIT_PCT = 10.0


def windows_agree(before: Sequence[int], after: Sequence[int]) -> bool:
    """Say whether two windows show the same steady state.

    Their medians differ by at most 2 %, both quartiles by at most 5 %, and the second has no
    monotone trend (p < 0.01).
    """
    pairs = [(0.5, MEDIAN_LIMIT), (0.25, QUARTILE_LIMIT), (0.75, QUARTILE_LIMIT)]
    first, second = sorted(before), sorted(after)
    for q, limit in pairs:
        a, b = first[int(q * len(first))], second[int(q * len(second))]
        if abs(a - b) > limit * max(a, b):
            return False
    return trend_p(after) >= TREND_P


@dataclass(frozen=True)
class Noise:
    """What else happened on the machine while one process measured.

    Attributes:
        foreign_pct: share of the machine's CPU time that other processes used, in percent.
        steal_pct: share that the hypervisor took, in percent.
        reference_before_ns: median time of a fixed piece of arithmetic before the measurement.
        reference_after_ns: the same after it.
        involuntary_switches: how often this process was taken off a CPU.
    """

    foreign_pct: Optional[float]
    steal_pct: Optional[float]
    reference_before_ns: int
    reference_after_ns: int
    involuntary_switches: int

    def complaints(self) -> List[str]:
        """Say what makes the measurement doubtful, one line each; none for a quiet machine."""
        found = []
        if self.foreign_pct is not None and self.foreign_pct > FOREIGN_LIMIT_PCT:
            found.append(f"busy machine: other processes used {self.foreign_pct:.0f} % of its CPUs")
        if self.steal_pct is not None and self.steal_pct > STEAL_LIMIT_PCT:
            found.append(f"busy host: it took {self.steal_pct:.1f} % of the CPU time (steal)")
        change = 100.0 * abs(self.reference_after_ns / max(self.reference_before_ns, 1) - 1.0)
        if change > SPEED_LIMIT_PCT:
            found.append(f"the machine's own speed changed by {change:.0f} % meanwhile")
        return found


@dataclass(frozen=True)
class CpuTimes:
    """A reading of ``/proc/stat``, in ticks since boot, summed over all CPUs.

    Attributes:
        total: all of them.
        busy: neither idle nor waiting for a disk nor stolen.
        steal: taken by the hypervisor.
    """

    total: int
    busy: int
    steal: int


def parse_cpu_times(text: str) -> Optional[CpuTimes]:
    """Read the first line of ``/proc/stat``; ``None`` where it is not as expected."""
    fields = text.split("\n", 1)[0].split()
    if len(fields) < 9 or fields[0] != "cpu" or not all(f.isdigit() for f in fields[1:9]):
        return None
    # user nice system idle iowait irq softirq steal; guest time is already part of user.
    ticks = [int(f) for f in fields[1:9]]
    return CpuTimes(sum(ticks), sum(ticks) - ticks[3] - ticks[4] - ticks[7], ticks[7])
