"""A synthetic fleet on disk: five machines with sensors; one record failed, one is offline."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgexfer.core.record import Energy, Record, Throughput, write_record
from edgexfer.core.samples import ProcessRun, Sensors
from edgexfer.core.stats import quantile
from tests.report.synthetic import STUDENT, TEACHER, Spec, failed, make_bundle, make_record


@dataclass(frozen=True)
class Board:
    """A machine of the fleet: its facts, its speed, what it cannot do and what it suffers from."""

    name: str
    facts: dict[str, Any]
    factor: float
    power_mw: float | None = None
    throttles: bool = False
    bounded: bool = True


BOARDS = (
    Board(
        "desk",
        {"cpu": "Example CPU @ 2.50GHz", "machine": "x86_64", "usable_cores": 8},
        1.0,
        power_mw=9500,
    ),
    Board("pi5", {"board": "Raspberry Pi 5 Model B", "machine": "aarch64", "usable_cores": 4}, 5.2),
    Board(
        "pi4",
        {"board": "Raspberry Pi 4 Model B", "machine": "aarch64", "usable_cores": 4},
        14.0,
        throttles=True,
    ),
    Board(
        "orin",
        {
            "board": "NVIDIA Jetson Orin Nano Developer Kit",
            "machine": "aarch64",
            "usable_cores": 6,
            "power_mode": "15W",
        },
        0.8,
        power_mw=7200,
    ),
    Board(
        "n100", {"cpu": "Intel(R) N100", "machine": "x86_64", "usable_cores": 4}, 2.6, bounded=False
    ),
)


def make_fleet(place: Path) -> Path:
    """Write a bundle and the records of five machines; a failed one and one offline are among."""
    bundle = make_bundle(place / "bundle", "student", "resnet8", STUDENT)
    teacher = make_bundle(place / "teacher-bundle", "teacher", "resnet20", [TEACHER])
    for board in BOARDS:
        folder = place / "records" / board.name
        folder.mkdir(parents=True)
        for spec in STUDENT:
            write_record(folder / f"{spec.name}.json", _on(board, spec, bundle))
    desk = place / "records" / "desk"
    write_record(desk / "teacher.json", _on(BOARDS[0], TEACHER, teacher))
    write_record(desk / "offline.json", _offline(BOARDS[0], STUDENT[1], bundle))
    lost = failed(STUDENT[2], "libopenvino.so: cannot open shared object file")
    pi4 = {**lost.device, **BOARDS[2].facts, "cpu": None}
    write_record(
        place / "records" / "pi4" / "x86-openvino-fp32.json",
        replace(lost, bundle=bundle, device=pi4),
    )
    return place


def _on(board: Board, spec: Spec, bundle: dict[str, Any]) -> Record:
    record = make_record(replace(spec, p50_ms=spec.p50_ms * board.factor), bundle)
    processes = tuple(_watched(board, p, n) for n, p in enumerate(record.processes))
    pooled = [ns for p in processes for ns in p.infer_ns]
    changes: dict[str, Any] = {
        "device": {"memory_bytes": 8_000_000_000, **board.facts},
        "processes": processes,
        "latency": {f"p{q}": quantile(pooled, q / 100) for q in (50, 90, 95, 99)},
    }
    if not board.bounded:
        reason = "n=600 count for 136 < 459 independent ones, too few for a 99 % bound"
        changes["latency"]["p99"] = replace(changes["latency"]["p99"], upper99=None, reason=reason)
    if board.throttles:
        changes["status"] = "invalid" if spec is STUDENT[0] else "partial"
        changes["reasons"] = ("throttled: soft temperature limit (get_throttled)",)
    if board.power_mw is not None:
        net = board.power_mw * spec.p50_ms * board.factor / 1e3
        changes["power"] = Energy(
            *(1.6 * net, net, 3100.0, "ina3221", "VDD_IN", 100.0, 32.0, 3.8, 61.0, 610, 250_000)
        )
        changes["absent"] = {}
    return replace(record, **changes)


def _offline(board: Board, spec: Spec, bundle: dict[str, Any]) -> Record:
    record = _on(board, spec, bundle)
    return replace(
        record,
        settings={**record.settings, "scenario": "offline", "batch": 8, "streams": 2},
        latency={},
        processes=(),
        throughput=Throughput(9840.0, (9700.0, 9840.0, 9910.0), 600_000, 61.0, 8, 2),
    )


def _watched(board: Board, process: ProcessRun, number: int) -> ProcessRun:
    """Give a process sensors, a drift, and on some boards a step down when it gets hot."""
    rng = random.Random(number)
    infer = list(process.infer_ns)
    step = len(infer) // 2 if board.throttles else len(infer)
    infer[step:] = [round(1.3 * ns) for ns in infer[step:]]
    issued, now = [], 0
    for ns in infer:
        issued.append(now)
        now += ns + 4000
    period = max(now // 40, 1)
    times = tuple(range(0, now, period))
    hot = [i for i, t in enumerate(times) if board.throttles and t >= issued[step - 1]]
    clock = [1500.0 if i in hot else 2400.0 - rng.uniform(0, 20) for i in range(len(times))]
    heat = [52 + 30 * (1 - 0.93**i) + rng.uniform(0, 0.6) for i in range(len(times))]
    flags = tuple(8 if i in hot else 0 for i in range(len(times)))
    return replace(
        process,
        infer_ns=tuple(infer),
        issued_ns=tuple(issued),
        sensors=Sensors(
            period,
            times,
            {"cpu0_mhz": tuple(clock), "cpu-thermal_c": tuple(heat)},
            {"get_throttled": flags},
        ),
    )
