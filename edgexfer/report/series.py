"""The course of a measurement: latencies in the order in which they were taken, with the sensors.

Drift, steps and throttling show here and nowhere else. ``courses`` returns the figures, which the
page also shows as a table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from edgexfer.core.samples import ProcessRun, Sensors
from edgexfer.core.stats import median
from edgexfer.report.draw import INK, MUTED, SERIES, WARN, WIDTH, drawing
from edgexfer.report.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BINS = 300
# Thermal and power brakes, by software or hardware; idle and chosen clocks are no throttling
# (nvml.h, nvmlClocksEventReasons).
_NVML_SLOWED = 0x04 | 0x08 | 0x20 | 0x40 | 0x80


@dataclass(frozen=True)
class Course:
    """How one process went.

    Attributes:
        process: its place among the record's, from 1.
        n: timed inferences.
        median_ns: of all of them.
        first_ns: median of the first fifth.
        last_ns: median of the last fifth.
        max_ns: the slowest.
        mhz: lowest and highest clock; ``None`` where no clock was read.
        highest_c: highest temperature; ``None`` likewise.
        throttled: whether a flag of throttling was ever set; ``None`` where none was read.
    """

    process: int
    n: int
    median_ns: float
    first_ns: float
    last_ns: float
    max_ns: float
    mhz: tuple[float, float] | None
    highest_c: float | None
    throttled: bool | None

    @property
    def change_pct(self) -> float:
        """How much slower the last fifth was than the first, in percent."""
        return 100 * (self.last_ns / self.first_ns - 1) if self.first_ns else 0.0


@dataclass(frozen=True)
class _Line:
    """A quantity over time: seconds and values."""

    at: list[float]
    values: list[float]


def courses(row: Row) -> list[Course]:
    """Return how each process of a record went, in the order in which they ran."""
    found = []
    for number, process in enumerate(_ordered(row), start=1):
        times = process.infer_ns
        fifth = max(len(times) // 5, 1)
        mhz = _clock(process.sensors).values
        heat = _heat(process.sensors).values
        known = process.sensors is not None and process.sensors.flags
        found.append(
            Course(
                number,
                len(times),
                median(times),
                median(times[:fifth]),
                median(times[-fifth:]),
                max(times),
                (min(mhz), max(mhz)) if mhz else None,
                max(heat) if heat else None,
                bool(_throttled(process.sensors, _seconds(process))) if known else None,
            )
        )
    return found


def draw_course(row: Row, slot: int) -> str | None:
    """Draw the latencies of a record over time, and clock, temperature and throttling below.

    The processes stand one after another, parted by a line. Where there are more inferences than
    the drawing has room for, a line joins the medians of neighbours and a band reaches from the
    fastest to the slowest. The axis ends where it would show the outliers alone; those stand as
    marks at its top, so that none is lost.

    Returns:
        An ``<svg>`` element; ``None`` where the record has no samples.
    """
    ordered = _ordered(row)
    if not ordered:
        return None
    starts = list(accumulate(map(_seconds, ordered), initial=0.0))
    placed = list(zip(starts, ordered, strict=False))
    wanted = (("MHz", _clock), ("°C", _heat))
    end = _top(ordered)
    below = [(unit, read) for unit, read in wanted if any(read(p.sensors).at for p in ordered)]

    def draw(figure: Figure) -> None:
        ratios = [2.2, *[1.0] * len(below)]
        grid = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)
        top, *others = [line[0] for line in grid]
        for start, process in placed:
            _latencies(top, process, start, SERIES[slot], _BINS // len(ordered))
            at = _at(process)
            far = [start + at[i] for i, ns in enumerate(process.infer_ns) if ns / 1e6 > end]
            top.plot(far, [0.97 * end] * len(far), "^", color=SERIES[slot], markersize=3)
        top.set_ylabel("ms")
        top.set_ylim(0, end)
        for axes, (unit, read) in zip(others, below, strict=True):
            for start, process in placed:
                line = read(process.sensors)
                axes.plot([start + s for s in line.at], line.values, color=INK, linewidth=1)
            axes.set_ylabel(unit)
            axes.margins(y=0.25)
            if unit == "MHz":
                axes.set_ylim(bottom=0)
        for axes in (top, *others):
            _frame(axes, placed, starts[-1])
        figure.axes[-1].set_xlabel("seconds of measuring, one process after another")

    height = 2.0 + 0.75 * len(below)
    return drawing(draw, f"Latency of {row.key} over time, in milliseconds", (WIDTH, height))


def _frame(axes: Axes, placed: Sequence[tuple[float, ProcessRun]], end: float) -> None:
    """Part the processes by lines, and shade where the machine was throttled."""
    axes.set_xlim(0, end)
    for start, process in placed:
        if start:
            axes.axvline(start, color=MUTED, linewidth=0.6, linestyle=(0, (2, 2)))
        for low, high in _throttled(process.sensors, _seconds(process)):
            axes.axvspan(start + low, start + high, color=WARN, alpha=0.25, linewidth=0)


def _ordered(row: Row) -> list[ProcessRun]:
    return sorted((p for p in row.record.processes if p.infer_ns), key=lambda p: p.order)


def _at(process: ProcessRun) -> Sequence[float]:
    """Return when each inference was issued, in seconds; end to end where that was not kept."""
    if len(process.issued_ns) == len(process.infer_ns):
        return [ns / 1e9 for ns in process.issued_ns]
    return [ns / 1e9 for ns in accumulate(process.infer_ns, initial=0)][:-1]


def _seconds(process: ProcessRun) -> float:
    return max(_at(process)[-1] + process.infer_ns[-1] / 1e9, 1e-9)


def _top(processes: Sequence[ProcessRun]) -> float:
    """Return where the axis of latencies ends, in ms: above all but the slowest 0.5 %."""
    ordered = sorted(ns for p in processes for ns in p.infer_ns)
    return max(1.3 * ordered[int(0.995 * (len(ordered) - 1))], 1.6 * median(ordered)) / 1e6


def _latencies(axes: Axes, process: ProcessRun, start: float, colour: str, bins: int) -> None:
    at, times = _at(process), [ns / 1e6 for ns in process.infer_ns]
    step = max(len(times) // max(bins, 1), 1)
    parts = [times[i : i + step] for i in range(0, len(times), step)]
    seconds = [start + at[min(i + step // 2, len(at) - 1)] for i in range(0, len(times), step)]
    if step > 1:
        low, high = [min(p) for p in parts], [max(p) for p in parts]
        axes.fill_between(seconds, low, high, color=colour, alpha=0.25, linewidth=0)
    axes.plot(seconds, [median(p) for p in parts], color=colour, linewidth=1.1)


def _clock(sensors: Sensors | None) -> _Line:
    """Return the median clock of all that have one: a single core that sleeps says nothing."""
    return _combined(sensors, "_mhz", median)


def _heat(sensors: Sensors | None) -> _Line:
    """Return the temperature of the hottest place."""
    return _combined(sensors, "_c", max)


def _combined(sensors: Sensors | None, unit: str, how: Callable[[list[float]], float]) -> _Line:
    line = _Line([], [])
    if sensors is None:
        return line
    chosen = [s for name, s in sensors.series.items() if name.endswith(unit)]
    for number, ns in enumerate(sensors.times_ns):
        # Before its time 0 the machine was idle.
        found = [s[number] for s in chosen if number < len(s) and ns >= 0]
        values = [v for v in found if v is not None]
        if values:
            line.at.append(ns / 1e9)
            line.values.append(how(values))
    return line


def _throttled(sensors: Sensors | None, seconds: float) -> list[tuple[float, float]]:
    """Return the spans, in seconds of the measured part, in which the machine was throttled."""
    if sensors is None:
        return []
    spans = []
    for flag, column in sensors.flags.items():
        last = None
        for ns, value in zip(sensors.times_ns, column, strict=False):
            if value is not None and 0 <= ns / 1e9 <= seconds and _raised(flag, value, last):
                spans.append((ns / 1e9, min((ns + sensors.period_ns) / 1e9, seconds)))
            last = value if value is not None else last
    return spans


def _raised(flag: str, value: int, last: int | None) -> bool:
    """Say whether a reading tells of throttling at that time.

    A counter does where it rose; a Raspberry Pi's register in its low four bits, as those above
    hold since its start; a step of cooling or a reason to slow down where it is not 0.
    """
    if flag == "get_throttled":
        return bool(value & 0xF)
    if flag.startswith("nvml:"):
        return bool(value & _NVML_SLOWED)
    if flag.startswith("cooling:"):
        return value > 0
    return last is not None and value > last
