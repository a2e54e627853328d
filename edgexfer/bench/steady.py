"""Whether a series of latencies is steady, and whether the machine let it be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence

from edgexfer.core.codec import decode
from edgexfer.core.samples import ProcessRun
from edgexfer.core.series import trend_p

WINDOW = 30
MEDIAN_LIMIT = 0.02
QUARTILE_LIMIT = 0.05
TREND_P = 0.01
STEAL_LIMIT_PCT = 1.0
FOREIGN_LIMIT_PCT = 20.0
WAITING_LIMIT_PCT = 20.0
# The reference kernel is a median of few rounds, which itself varies by a tenth.
REFERENCE_LIMIT = 1.25
REFERENCE_SHARE = 0.1
SUSPENDED_LIMIT_NS = 10_000_000
# A clock that follows a time server is slowed down or sped up by at most 500 in a million.
SLEW_LIMIT = 0.001
SLEW_LIMIT_NS = 1_000_000


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
        involuntary_switches: how often this process was taken off a CPU.
        waiting_pct: share of the time in which some task waited for a CPU (PSI), in percent.
        elapsed_ns: how long it was watched.
        suspended_ns: how long the machine slept meanwhile.
        slewed_ns: how far the clock of the measurement ran ahead of one that nothing adjusts.
    """

    foreign_pct: Optional[float]
    steal_pct: Optional[float]
    involuntary_switches: int
    waiting_pct: Optional[float] = None
    elapsed_ns: int = 0
    suspended_ns: Optional[int] = None
    slewed_ns: Optional[int] = None

    def complaints(self) -> List[str]:
        """Say what makes the measurement doubtful, one line each; none for a quiet machine."""
        found = []
        if self.foreign_pct is not None and self.foreign_pct > FOREIGN_LIMIT_PCT:
            found.append(f"busy machine: other processes used {self.foreign_pct:.0f} % of its CPUs")
        if self.steal_pct is not None and self.steal_pct > STEAL_LIMIT_PCT:
            found.append(f"busy host: it took {self.steal_pct:.1f} % of the CPU time (steal)")
        if self.waiting_pct is not None and self.waiting_pct > WAITING_LIMIT_PCT:
            share = f"{self.waiting_pct:.0f} %"
            found.append(f"busy machine: tasks waited for a CPU in {share} of the time")
        return found

    def clock_faults(self) -> List[str]:
        """Say why the clock cannot be believed, one line each; none where it can."""
        found = []
        if self.suspended_ns is not None and self.suspended_ns > SUSPENDED_LIMIT_NS:
            found.append(f"clock: the machine slept for {self.suspended_ns / 1e9:.1f} s meanwhile")
        limit = SLEW_LIMIT * self.elapsed_ns + SLEW_LIMIT_NS
        if self.slewed_ns is not None and abs(self.slewed_ns) > limit:
            found.append(f"clock: it was set by {self.slewed_ns / 1e6:+.1f} ms meanwhile")
        return found


def complaints(run: ProcessRun) -> List[str]:
    """Say what makes a process's latencies doubtful, one line each; none for a quiet machine."""
    found = _noise(run).complaints()
    times = [reference.ns for reference in run.references]
    slow = [ns for ns in times if ns > REFERENCE_LIMIT * min(times)]
    if len(slow) > REFERENCE_SHARE * len(times):
        longer = 100 * (max(slow) / min(times) - 1)
        found.append(
            f"busy machine: the reference kernel took up to {longer:.0f} % longer "
            f"in {len(slow)} of {len(times)} pauses"
        )
    return found


def clock_faults(run: ProcessRun) -> List[str]:
    """Say why the times of a process cannot be believed, one line each; none where they can."""
    found = _noise(run).clock_faults()
    if any(ns < 0 for ns in run.infer_ns):
        found.append("clock: a latency is negative")
    if any(later < sooner for sooner, later in zip(run.issued_ns, run.issued_ns[1:])):
        found.append("clock: a query was issued before the one that came first")
    return found


def _noise(run: ProcessRun) -> Noise:
    return decode(Noise, run.noise, "noise") if run.noise else Noise(None, None, 0)


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
