"""Reads a machine's sensors while a process measures: clocks, temperatures, throttling, power.

A thread reads every channel four times a second; files stay open, so that one reading is one system
call, and the interpreter's lock is free meanwhile. What may be read where is the work of
``channels``, ``nvml`` and ``tegrastats``; what energy follows from it, of ``power``.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

from edgexfer.bench.channels import COOLING, PI_REGISTER, Channels, Read, system_channels
from edgexfer.bench.cores import usable_cpus
from edgexfer.bench.nvml import REASONS, Gpu, Nvml, NvmlError
from edgexfer.bench.tegrastats import Tegrastats
from edgexfer.core.samples import Sensors

PERIOD_S = 0.25
NVML = "nvml:"
_PI_BITS = {
    0: "under-voltage",
    1: "ARM frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
_STICKY = 16
_now = time.perf_counter_ns


class Sampler:
    """Reads the sensors from ``start`` to ``stop``; none of its methods raises.

    ::

        sampler = Sampler()
        sampler.start()
        ...                  # where energy is wanted: the idle machine, then the warm-up
        sampler.mark()
        ...                  # the measured part; where energy is wanted, the idle machine again
        sensors = sampler.stop()
    """

    def __init__(
        self,
        root: Path = Path("/"),
        period_s: float = PERIOD_S,
        nvml: Callable[[], Nvml] = Nvml,
    ) -> None:
        """Prepare to read the sensors below ``root`` every ``period_s`` seconds.

        Args:
            root: prefix of ``/sys``, ``/proc`` and the folders of tools.
            period_s: at most 0.5, so that no throttling is missed.
            nvml: opens NVIDIA's management library.
        """
        self._root, self._period_s, self._open_nvml = root, period_s, nvml
        self._channels = Channels()
        self._times: List[int] = []
        self._rows: List[List[Optional[float]]] = []
        self._reads: List[Read] = []
        self._reasons: Dict[int, str] = {}
        self._zero: Optional[int] = None
        self._over = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def start(self) -> None:
        """Find the sensors and begin to read them."""
        self._channels = _find(self._root, self._period_s, self._open_nvml)
        self._reads = [*self._channels.series.values(), *self._channels.flags.values()]
        self._zero = _now()
        if self._reads:
            self._thread = threading.Thread(target=self._follow, name="sensors", daemon=True)
            self._thread.start()

    @property
    def sees_power(self) -> bool:
        """Whether any of the sensors that ``start`` has found measures power or energy."""
        return any(name.endswith(("_mw", "_uj")) for name in self._channels.series)

    def mark(self) -> None:
        """Say that the measured part begins now; without it, it began with ``start``."""
        self._zero = _now()

    def stop(self) -> Sensors:
        """Read once more, end, and return what was read."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._channels.close()
        return self._told()

    def _follow(self) -> None:
        due = time.monotonic()
        while True:
            last = self._over.is_set()
            self._read()
            if last:
                return
            # Due at fixed times, so that slow sensors do not stretch the period.
            due = max(due + self._period_s, time.monotonic())
            self._over.wait(due - time.monotonic())

    def _read(self) -> None:
        at = _now()
        row: List[Optional[float]] = []
        for place, read in enumerate(self._reads):
            try:
                row.append(read())
            except (OSError, ValueError) as error:
                row.append(None)
                self._reasons[place] = str(error)
        self._times.append(at)
        self._rows.append(row)

    def _told(self) -> Sensors:
        """Turn the readings into series; one that was never read is absent, with its reason."""
        zero = self._zero if self._zero is not None else 0
        absent = dict(self._channels.absent)
        columns: Dict[str, Tuple[Optional[float], ...]] = {}
        for place, name in enumerate([*self._channels.series, *self._channels.flags]):
            column = tuple(row[place] for row in self._rows)
            if any(value is not None for value in column):
                columns[name] = column
            else:
                absent[name] = self._reasons.get(place, "it was never read")
        return Sensors(
            period_ns=int(self._period_s * 1e9),
            times_ns=tuple(at - zero for at in self._times),
            series={name: columns[name] for name in self._channels.series if name in columns},
            flags={
                name: tuple(None if value is None else int(value) for value in columns[name])
                for name in self._channels.flags
                if name in columns
            },
            absent=absent,
        )


def _find(root: Path, period_s: float, open_nvml: Callable[[], Nvml]) -> Channels:
    """Return all channels of a machine; tegrastats runs only where sysfs shows no rail."""
    found = Channels()
    try:
        found = system_channels(root, usable_cpus())
        _add_nvml(open_nvml, found)
        if not any(name.startswith("ina3221:") for name in found.series):
            _add_tegrastats(root, period_s, found)
    except (OSError, RuntimeError) as error:  # a folder that may not be listed, no more threads
        found.absent["sensors"] = f"they cannot be looked for ({error})"
    if not any(name.endswith(("_mw", "_uj")) for name in found.series):
        reasons = [found.absent[name] for name in found.absent if name.endswith(("_mw", "_uj"))]
        found.absent["power"] = "; ".join(reasons) or "this machine shows no power sensor"
    if not found.flags:
        found.absent["throttling"] = "this machine shows no counter or register of throttling"
    return found


def _add_tegrastats(root: Path, period_s: float, found: Channels) -> None:
    try:
        tool = Tegrastats(root, period_s)
    except ValueError as error:
        found.absent["tegrastats"] = str(error)
        return
    found.closers.append(tool.close)
    for name in tool.names():
        if name not in found.series:
            found.series[name] = _latest(tool, name)
            found.absent.pop(name, None)


def _latest(tool: Tegrastats, name: str) -> Read:
    return lambda: tool.latest(name)


def _add_nvml(open_nvml: Callable[[], Nvml], found: Channels) -> None:
    try:
        library = open_nvml()
    except NvmlError as error:
        found.absent["nvml"] = str(error)
        return
    found.closers.append(library.close)
    try:
        gpus = library.gpus()
    except NvmlError as error:
        found.absent["nvml"] = str(error)
        return
    for gpu in gpus:
        _add_gpu(gpu, found)


def _add_gpu(gpu: Gpu, found: Channels) -> None:
    name = f"{NVML}gpu{gpu.index}"
    reads: Dict[str, Read] = {
        "mhz": gpu.clock_mhz,
        "memory_mhz": gpu.memory_clock_mhz,
        "c": gpu.temperature_c,
        "mw": gpu.power_mw,
        "reasons": gpu.reasons,
    }
    for unit, read in reads.items():
        try:
            read()
        except NvmlError as error:
            found.absent[f"{name}_{unit}"] = str(error)
            continue
        (found.flags if unit == "reasons" else found.series)[f"{name}_{unit}"] = read


@dataclass(frozen=True)
class Throttling:
    """What the flags say of a measured part.

    Attributes:
        throttled: the machine was slower than it is, in words.
        doubts: it was so for moments, which it may be at all times in that power mode.
    """

    throttled: Tuple[str, ...]
    doubts: Tuple[str, ...]


def throttling(sensors: Sensors, measured_ns: Optional[int] = None) -> Throttling:
    """Read the flags of a measured part, a pure function of the raw readings.

    Args:
        sensors: what was read; readings before its time 0 only tell what was so already.
        measured_ns: length of the measured part; ``None`` takes all until the last reading.
    """
    throttled: List[str] = []
    doubts: List[str] = []
    for name, column in sensors.flags.items():
        before, during = _split(sensors.times_ns, column, measured_ns)
        if not during:
            continue
        if name == PI_REGISTER:
            throttled += [f"{word} ({name})" for word in _pi_words(before, during)]
        elif name.startswith(COOLING):
            if max(during) > 0:
                throttled.append(f"{name[len(COOLING) :]} was at step {max(during)}")
        elif name.startswith(NVML):
            bits = [word for bit, word in REASONS.items() if any(bit & value for value in during)]
            throttled += [f"{word} ({name[len(NVML) :].rpartition('_')[0]})" for word in bits]
        else:
            rise = max(during) - (before[-1] if before else during[0])
            if rise > 0:
                events = f"{name} rose by {rise}"
                (doubts if re.match(r"oc\d", name) else throttled).append(events)
    return Throttling(tuple(throttled), tuple(doubts))


def _split(
    times_ns: Tuple[int, ...], column: Tuple[Optional[int], ...], measured_ns: Optional[int]
) -> Tuple[List[int], List[int]]:
    """Return the readings before the measured part and in it, those that failed left out."""
    before: List[int] = []
    during: List[int] = []
    for at, value in zip(times_ns, column):
        if value is None:
            continue
        if at < 0:
            before.append(value)
        elif measured_ns is None or at <= measured_ns or not during:
            during.append(value)
    return before, during


def _pi_words(before: List[int], during: List[int]) -> List[str]:
    """Say what a Raspberry Pi's register tells: live bits, and sticky ones that were not set."""
    old = (before[-1] if before else during[0]) >> _STICKY
    found = []
    for bit, word in _PI_BITS.items():
        new = any(value >> _STICKY & ~old & 1 << bit for value in during)
        if new or any(value & 1 << bit for value in during):
            found.append(word)
    return found
