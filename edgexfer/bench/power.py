"""Energy per inference, from the readings of a named power sensor taken with the latencies.

A pure function of the raw readings. What a board draws before the measured part and after it is
taken from its draw meanwhile, which gives the net energy. What the figure cannot know is the
sensor's own calibration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

from edgexfer.core.record import Energy
from edgexfer.core.samples import Sensors

IDLE_S = 30.0
"""How long the idle machine is watched, before the measured part and after it."""
LEAST_S, LEAST_UPDATES = 60.0, 200
_LEAST_IDLE_S = 5.0
_LONGEST_GAP_S = 2.0
_BLOCKS = 10
# Rails that measure all that a board or a module draws; then those that add up to a module
# (NVIDIA's guides for AGX Orin and Thor, whose modules have no sensor for the whole); then what a
# machine of another kind has. The first that is there is taken.
_RAILS: Tuple[Tuple[str, ...], ...] = (
    *((f"{chip}:VIN_mw",) for chip in ("ina238", "ina3221", "tegrastats")),
    *((f"{chip}:VDD_IN_mw",) for chip in ("ina3221", "tegrastats")),
    *(
        tuple(f"{chip}:{rail}_mw" for rail in (*rails, "VIN_SYS_5V0"))
        for chip in ("ina3221", "tegrastats")
        for rails in (("VDD_GPU_SOC", "VDD_CPU_CV"), ("VDD_GPU", "VDD_CPU_SOC_MSS"))
    ),
    ("power_meter:power1_mw",),
    ("rapl:psys_uj",),
)


@dataclass(frozen=True)
class Part:
    """What one process measured.

    Attributes:
        sensors: with readings of the idle machine after ``measured_ns``, and as long at their
            beginning; a warm-up may lie between those and time 0.
        measured_ns: length of the measured part.
        inferences: how many samples fell in it; a call of a batch is several.
    """

    sensors: Sensors
    measured_ns: int
    inferences: int


def energy(parts: Sequence[Part], prefer: str = "") -> Tuple[Optional[Energy], str]:
    """Return the energy per inference over all parts, or ``None`` with the reason.

    Args:
        parts: of one artefact on one machine.
        prefer: kind of sensor that is taken where there is one, such as ``nvml`` for a model that
            runs on such a GPU.
    """
    if not parts:
        return None, "nothing was measured"
    names = choose_rails(parts[0].sensors, prefer)
    if not names:
        return None, parts[0].sensors.absent.get("power", "this machine shows no power sensor")
    windows = []
    for part in parts:
        window, reason = _window(part, names)
        if window is None:
            return None, reason
        windows.append(window)
    return _pooled(windows, names, parts[0].sensors.period_ns / 1e6)


def choose_rails(sensors: Sensors, prefer: str = "") -> Tuple[str, ...]:
    """Return the series whose sum is the draw of as much of the machine as can be seen."""
    power = [name for name in sensors.series if name.endswith(("_mw", "_uj"))]
    wanted = [name for name in power if prefer and name.startswith(f"{prefer}:")]
    if wanted:
        return tuple(wanted)
    for rails in _RAILS:
        if all(rail in power for rail in rails):
            return rails
    for kind in ("rapl", "nvml"):
        same = tuple(name for name in power if name.startswith(f"{kind}:"))
        if same:
            return same
    return tuple(power[:1])


@dataclass(frozen=True)
class _Window:
    """Energy of one measured part, in millijoules and milliwatts."""

    gross_mj: float
    idle_mw: float
    seconds: float
    inferences: int
    updates: int
    step_mw: float
    error_mw: float


def _window(part: Part, names: Tuple[str, ...]) -> Tuple[Optional[_Window], str]:
    """Integrate one part; ``None`` with the reason where its readings do not allow that."""
    missing = [name for name in names if name not in part.sensors.series]
    if missing:
        return None, f"{missing[0]} could not be read in every process"
    if part.inferences < 1 or part.measured_ns <= 0:
        return None, "nothing was measured"
    curve, reason = _curve(part.sensors, names)
    if curve is None:
        return None, reason
    seconds = part.measured_ns / 1e9
    first, idle_s = curve[0][0], curve[-1][0] - seconds
    if -first < _LEAST_IDLE_S or idle_s < _LEAST_IDLE_S:
        return None, f"the idle draw was not watched for {_LEAST_IDLE_S:.0f} s before and after"
    idle_s = min(idle_s, -first)
    before = (_at(curve, first + idle_s) - curve[0][1]) / idle_s
    after = (_at(curve, seconds + idle_s) - _at(curve, seconds)) / idle_s
    updates, step = _updates(part, names)
    if updates < 2:
        return None, f"{_rail(names)} stood still: its sensor does not measure"
    blocks = [_at(curve, seconds * i / _BLOCKS) for i in range(_BLOCKS + 1)]
    power = [(b - a) * _BLOCKS / seconds for a, b in zip(blocks, blocks[1:])]
    mean = sum(power) / _BLOCKS
    spread = sum((p - mean) ** 2 for p in power) / (_BLOCKS - 1) / _BLOCKS
    return _Window(
        gross_mj=_at(curve, seconds) - _at(curve, 0.0),
        idle_mw=(before + after) / 2,
        seconds=seconds,
        inferences=part.inferences,
        updates=updates,
        step_mw=step,
        error_mw=1.96 * math.sqrt(spread + ((after - before) / 2) ** 2),
    ), ""


def _pooled(
    windows: Sequence[_Window], names: Tuple[str, ...], period_ms: float
) -> Tuple[Optional[Energy], str]:
    seconds = sum(w.seconds for w in windows)
    updates = sum(w.updates for w in windows)
    if seconds < LEAST_S and updates < LEAST_UPDATES:
        return None, (
            f"{seconds:.1f} s with {updates} new readings of {_rail(names)} are too little: "
            f"measure {LEAST_S:.0f} s, or {LEAST_UPDATES} readings"
        )
    inferences = sum(w.inferences for w in windows)
    gross = sum(w.gross_mj for w in windows)
    net = sum(w.gross_mj - w.idle_mw * w.seconds for w in windows)
    if net <= 0:
        return None, f"{_rail(names)} drew no more in the measured part than when idle"
    # Parts are independent of each other, so that their errors add as squares.
    error = math.sqrt(sum((w.error_mw * w.seconds) ** 2 for w in windows))
    found = Energy(
        gross_mj=gross / inferences,
        net_mj=net / inferences,
        idle_mw=sum(w.idle_mw * w.seconds for w in windows) / seconds,
        sensor=names[0].partition(":")[0],
        rail=_rail(names),
        period_ms=period_ms,
        resolution_mw=min(w.step_mw for w in windows),
        u95_pct=100.0 * error / net,
        window_s=seconds,
        updates=updates,
        inferences=inferences,
    )
    return found, ""


def _rail(names: Tuple[str, ...]) -> str:
    return "+".join(name.partition(":")[2].rpartition("_")[0] for name in names)


Curve = List[Tuple[float, float]]
"""Seconds from the start of the measured part, and the energy until then in millijoules."""


def _curve(sensors: Sensors, names: Tuple[str, ...]) -> Tuple[Optional[Curve], str]:
    """Return the energy over time; readings of power are joined by straight lines."""
    points = []
    for place, at in enumerate(sensors.times_ns):
        values = [sensors.series[name][place] for name in names]
        if all(value is not None for value in values):
            points.append((at / 1e9, sum(value for value in values if value is not None)))
    if len(points) < 2:
        return None, f"{_rail(names)} was hardly ever read"
    gap = max(b[0] - a[0] for a, b in zip(points, points[1:]))
    if gap > _LONGEST_GAP_S:
        return None, f"{_rail(names)} could not be read for {gap:.1f} s"
    if names[0].endswith("_uj"):
        return [(at, value / 1e3) for at, value in points], ""
    curve, total = [(points[0][0], 0.0)], 0.0
    for (start, low), (end, high) in zip(points, points[1:]):
        total += (end - start) * (low + high) / 2
        curve.append((end, total))
    return curve, ""


def _at(curve: Curve, second: float) -> float:
    """Return the energy until a moment, on the straight line between its neighbours."""
    for (start, low), (end, high) in zip(curve, curve[1:]):
        if second <= end:
            return low + (high - low) * (second - start) / (end - start)
    return curve[-1][1]


def _updates(part: Part, names: Tuple[str, ...]) -> Tuple[int, float]:
    """Return how often a reading differed from the one before it, and the least difference, in mW.

    What a counter of energy can tell apart is a step of it in one period.
    """
    steps: List[List[float]] = []
    per_reading = 1e6 / part.sensors.period_ns if names[0].endswith("_uj") else 1.0
    for name in names:
        inside = [
            value
            for at, value in zip(part.sensors.times_ns, part.sensors.series[name])
            if value is not None and 0 <= at <= part.measured_ns
        ]
        changes = [abs(high - low) * per_reading for low, high in zip(inside, inside[1:])]
        steps.append([change for change in changes if change])
    # Rails are read together, and one may stand still: the liveliest tells how often they are new.
    return max(map(len, steps)), min((change for each in steps for change in each), default=0.0)
