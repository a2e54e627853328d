"""The sensors that Linux itself shows below ``/sys``, as channels that can be read again and again.

Formats: the kernel's ABI documents (cpufreq, devfreq, thermal, hwmon, powercap), and for Jetson
boards what is public of their INA3221 and INA238 monitors. They were tried on copies of such trees
alone: provided, not measured, on every board. Sampling them over time is the work of ``sensors``.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Set, Tuple

from edgexfer.bench.reading import ask_tool, find_tool, read_number, read_text, why_not

# So many CPUs at most: neighbours share their clock, and on x86 each reading interrupts its CPU.
MOST_CPUS = 8
MOST_TEMPERATURES = 12
# What the throttling register of a Raspberry Pi and the counters of others are called in a record.
PI_REGISTER = "get_throttled"
COOLING = "cooling:"
# No machine that this runs on draws more; a counter that says so was reset or is broken.
_MOST_W = 3000.0
_GPU_NAMES = re.compile(r"(^|[.-])(gpu|ga10b|gv11b|gp10b|gpu-gpc-0|mali)$")
# Cooling devices that slow the machine down; fans and idle injection that is off do not.
_SLOWING = re.compile(r"cpufreq|devfreq|throttle|alert|Processor", re.IGNORECASE)
_CPU_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
# Chips of hwmon whose power is that of a battery, a charger or a disk.
_NO_BOARD = re.compile(r"BAT|AC|ADP|ucsi|nvme|hidpp", re.IGNORECASE)

Read = Callable[[], float]
"""One reading in the unit of its channel's name; raises ``OSError`` or ``ValueError``."""


@dataclass
class Channels:
    """What can be read on a machine.

    Attributes:
        series: readings that are quantities; the end of a name is its unit.
        flags: counters and registers of throttling, for which 0 means nothing.
        absent: for each kind of sensor that there is none of, or that may not be read, why.
        closers: what gives back the open files.
    """

    series: Dict[str, Read] = field(default_factory=dict)
    flags: Dict[str, Read] = field(default_factory=dict)
    absent: Dict[str, str] = field(default_factory=dict)
    closers: List[Callable[[], None]] = field(default_factory=list)

    def close(self) -> None:
        """Give back the open files."""
        while self.closers:
            self.closers.pop()()

    def open(self, root: Path, name: str, limits: Limits) -> Optional[Read]:
        """Keep a file open; ``None`` where it may not be read, with the reason in ``absent``."""
        try:
            file = _File(root, name, limits)
        except OSError as error:
            self.absent[name] = why_not(error, name)
            return None
        self.closers.append(file.close)
        return file


@dataclass(frozen=True)
class Limits:
    """Between which integers a file's content makes sense.

    Attributes:
        least: smallest one; 1 where 0 is a sensor that is off.
        most: largest one.
        per: what the integer is divided by.
    """

    least: int = 1
    most: int = 2**63
    per: int = 1


_KHZ, _HZ = Limits(per=1_000), Limits(per=1_000_000)
_MILLI_C = Limits(most=200_000, per=1_000)
_COUNT = Limits(least=0)
_MICRO_W = Limits(most=int(_MOST_W * 1e6), per=1_000)


class _File:
    """A file of the kernel that is kept open: reading it once more is one system call."""

    def __init__(self, root: Path, name: str, limits: Limits) -> None:
        self._name, self._limits = name, limits
        self._descriptor = os.open(str(root / name), os.O_RDONLY | os.O_CLOEXEC)

    def __call__(self) -> float:
        """Read it from its start."""
        try:
            raw = os.pread(self._descriptor, 64, 0)
        except OSError as error:
            raise ValueError(why_not(error, self._name)) from error
        text = raw.decode(errors="replace").strip("\x00\n ")
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"/{self._name} holds {text[:20]!r}, no number") from None
        limits = self._limits
        if not limits.least <= value <= limits.most:
            raise ValueError(f"/{self._name} reads {value}, which cannot be")
        return value / limits.per if limits.per != 1 else value

    def close(self) -> None:
        os.close(self._descriptor)


class Counter:
    """A counter of energy that wraps, as what was used since its first reading."""

    def __init__(self, read: Read, wraps_at: Optional[int]) -> None:
        """Count what ``read`` gives in microjoules; after ``wraps_at`` it begins again at 0."""
        self._read, self._wraps_at = read, wraps_at
        self._last: Optional[float] = None
        self._last_ns, self._total = 0, 0.0

    def __call__(self) -> float:
        """Return microjoules since the first reading.

        Raises:
            ValueError: it went backwards without a limit to wrap at, or faster than can be.
        """
        value, now = self._read(), time.perf_counter_ns()
        if self._last is None:
            self._last, self._last_ns = value, now
            return 0.0
        step, elapsed_us = value - self._last, (now - self._last_ns) / 1e3
        self._last, self._last_ns = value, now
        if step < 0 and self._wraps_at is not None:
            step += self._wraps_at
        if not 0 <= step <= _MOST_W * max(elapsed_us, 1e5):
            raise ValueError("the energy counter jumped: it was reset or is broken")
        self._total += step
        return self._total


def system_channels(root: Path, cpus: Set[int]) -> Channels:
    """Return the channels below ``root``; a kind without any is named in ``absent``.

    Args:
        root: prefix of ``/sys``.
        cpus: those whose clocks matter.
    """
    found = Channels()
    _cpu_clocks(root, cpus, found)
    _gpu_clock(root, found)
    _temperatures(root, found)
    _throttle_counters(root, cpus, found)
    _cooling(root, found)
    _raspberry(root, found)
    _monitors(root, found)
    _rapl(root, found)
    return found


def _below(root: Path, pattern: str) -> Iterator[str]:
    """Yield paths below ``root`` in the order of the numbers in them."""
    names = (str(path.relative_to(root)) for path in root.glob(pattern))
    return iter(sorted(names, key=lambda name: [int(n) for n in re.findall(r"\d+", name)]))


def _cpu_clocks(root: Path, cpus: Set[int], found: Channels) -> None:
    policies = list(_below(root, "sys/devices/system/cpu/cpufreq/policy*"))
    if not policies:
        found.absent["cpu_mhz"] = "no cpufreq on this machine (a virtual machine has none)"
    for policy in policies:
        first = int(policy.rpartition("policy")[2])
        related = read_text(root, f"{policy}/affected_cpus")[0] or str(first)
        ours = cpus & {int(cpu) for cpu in related.split() if cpu.isdigit()}
        if ours and len(found.series) < MOST_CPUS:
            read = found.open(root, f"{policy}/scaling_cur_freq", _KHZ)
            if read is not None:
                found.series[f"cpu{first}_mhz"] = read


def _gpu_clock(root: Path, found: Channels) -> None:
    """Find the GPU's clock: devfreq for Jetson and Mali, i915 for Intel."""
    for folder in _below(root, "sys/class/devfreq/*"):
        if _GPU_NAMES.search(folder.rpartition("/")[2]):
            read = found.open(root, f"{folder}/cur_freq", _HZ)
            if read is not None:
                found.series["gpu_mhz"] = read
                return
    for name in _below(root, "sys/class/drm/card*/gt_act_freq_mhz"):
        read = found.open(root, name, Limits())
        if read is not None:
            found.series["gpu_mhz"] = read
            return
    found.absent["gpu_mhz"] = "no GPU shows its clock in /sys"


def _temperatures(root: Path, found: Channels) -> None:
    """Take the thermal zones; and the CPU's own chip, as x86 zones are often but a fixed number."""
    places: List[Tuple[str, str]] = [
        (read_text(root, f"{zone}/type")[0] or "zone", f"{zone}/temp")
        for zone in _below(root, "sys/class/thermal/thermal_zone*")
    ]
    for chip in _below(root, "sys/class/hwmon/hwmon*"):
        name = read_text(root, f"{chip}/name")[0]
        if name in _CPU_CHIPS and (root / chip / "temp1_input").exists():
            places.append((name, f"{chip}/temp1_input"))
    before = len(found.series)
    for label, place in places[:MOST_TEMPERATURES]:
        read = found.open(root, place, _MILLI_C)
        if read is not None:
            found.series[_free(found.series, label, "_c")] = read
    if len(found.series) == before:
        found.absent["temperature_c"] = "the kernel shows no temperature"


def _free(taken: Dict[str, Read], label: str, unit: str) -> str:
    """Return a name that is not taken yet: two zones may have one type."""
    name, number = label + unit, 2
    while name in taken:
        name, number = f"{label}#{number}{unit}", number + 1
    return name


def _throttle_counters(root: Path, cpus: Set[int], found: Channels) -> None:
    """Find what Intel CPUs count, and Jetson boards of under-voltage and over-current.

    Each package's events are counted by each of its CPUs, so that one CPU tells them.
    """
    for cpu in sorted(cpus)[:MOST_CPUS]:
        folder = f"sys/devices/system/cpu/cpu{cpu}/thermal_throttle"
        kinds = ("core", "package") if cpu == min(cpus) else ("core",)
        for kind in kinds:
            name = f"{folder}/{kind}_throttle_count"
            if (root / name).exists():
                read = found.open(root, name, _COUNT)
                if read is not None:
                    found.flags[f"cpu{cpu}_{kind}_throttle_count"] = read
    for name in _below(root, "sys/class/hwmon/hwmon*/oc*_event_cnt"):
        read = found.open(root, name, _COUNT)
        if read is not None:
            found.flags[name.rpartition("/")[2]] = read


def _cooling(root: Path, found: Channels) -> None:
    for device in _below(root, "sys/class/thermal/cooling_device*"):
        kind = read_text(root, f"{device}/type")[0] or ""
        if _SLOWING.search(kind):
            read = found.open(root, f"{device}/cur_state", _COUNT)
            if read is not None:
                found.flags[_free(found.flags, COOLING + kind, "")] = read


def _raspberry(root: Path, found: Channels) -> None:
    """Ask a Raspberry Pi's firmware; its file in sysfs is a cached value, and deprecated.

    Bits 0 to 3 say what holds now, bits 16 to 19 what has since the start of the board
    (documentation of ``vcgencmd get_throttled``).
    """
    if "Raspberry Pi" not in (read_text(root, "proc/device-tree/model")[0] or ""):
        return
    if find_tool(root, "vcgencmd") is None:
        found.absent[PI_REGISTER] = "there is no vcgencmd (sudo apt install raspi-utils-core)"
        return
    found.flags[PI_REGISTER] = lambda: read_pi_register(root)


def read_pi_register(root: Path) -> int:
    """Return the register of throttling.

    Raises:
        ValueError: it cannot be read, with the reason.
    """
    text, reason = ask_tool(root, "vcgencmd", ["get_throttled"])
    match = re.search(r"throttled=(0x[0-9a-fA-F]{1,8})\b", text or "")
    if match is None:
        raise ValueError(reason or "`vcgencmd get_throttled` names no register")
    return int(match.group(1), 16)


def _monitors(root: Path, found: Channels) -> None:
    """Find the power monitors of boards (INA chips), and whatever else hwmon says of power."""
    for chip in _below(root, "sys/class/hwmon/hwmon*"):
        name = read_text(root, f"{chip}/name")[0] or ""
        if name == "ina3221":
            _ina3221(root, chip, found)
        elif name and not _NO_BOARD.match(name):
            for kind in ("average", "input"):
                if (root / chip / f"power1_{kind}").exists():
                    read = found.open(root, f"{chip}/power1_{kind}", _MICRO_W)
                    label = _label(root, chip)
                    if read is not None:
                        found.series[_free(found.series, f"{name}:{label}", "_mw")] = read
                    break


def _label(root: Path, chip: str) -> str:
    for name in ("label", "power1_label"):
        text = read_text(root, f"{chip}/{name}")[0]
        if text:
            return str(text)
    return "power1"


def _ina3221(root: Path, chip: str, found: Channels) -> None:
    """Multiply the voltage and the current of each rail; a channel without a current is a sum."""
    for name in _below(root, f"{chip}/in*_label"):
        number = re.sub(r"\D", "", name.rpartition("/")[2])
        current = f"{chip}/curr{number}_input"
        label = read_text(root, name)[0]
        if not label or label == "NC" or not (root / current).exists():
            continue
        volts = found.open(root, f"{chip}/in{number}_input", Limits(per=1_000))
        amperes = found.open(root, current, Limits(most=100_000))
        if volts is not None and amperes is not None:
            found.series[_free(found.series, f"ina3221:{label}", "_mw")] = _product(volts, amperes)


def _product(volts: Read, milliamperes: Read) -> Read:
    return lambda: volts() * milliamperes()


def _rapl(root: Path, found: Channels) -> None:
    """Find the energy counters of Intel and AMD packages; since Linux 5.10 they are root's alone.

    Domains within a package (``intel-rapl:0:0``) and the same package once more through MMIO
    (``intel-rapl-mmio:0``) are left out.
    """
    for domain in _below(root, "sys/class/powercap/intel-rapl:*"):
        if domain.count(":") != 1:
            continue
        label = read_text(root, f"{domain}/name")[0]
        if not label:
            continue
        read = found.open(root, f"{domain}/energy_uj", _COUNT)
        if read is None:
            found.absent[f"rapl:{label}_uj"] = found.absent.pop(f"{domain}/energy_uj")
            continue
        most = read_number(root, f"{domain}/max_energy_range_uj")[0]
        found.series[f"rapl:{label}_uj"] = Counter(read, most)
