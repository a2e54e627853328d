"""Energy is computed from readings whose truth is known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest

from edgexfer.bench import latency
from edgexfer.bench.analyse import analyse
from edgexfer.bench.power import Part, choose_rails, energy
from edgexfer.bench.scenarios import Ask, run_scenario
from edgexfer.core.samples import Sensors
from tests.bench.made import make_record, make_run

PERIOD_S = 0.25


def part(
    power_mw: Callable[[float], float | None],
    *,
    name: str = "ina3221:VDD_IN_mw",
    measured_s: float = 60.0,
    idle_s: float = 30.0,
    inferences: int = 1000,
) -> Part:
    """Readings of a rail whose power is a function of the second; ``_uj`` counts it up."""
    count = int((measured_s + 2 * idle_s) / PERIOD_S) + 1
    seconds = [-idle_s + i * PERIOD_S for i in range(count)]
    values = [power_mw(second) for second in seconds]
    if name.endswith("_uj"):
        total, counted = 0.0, []
        for value in values:
            counted.append(total)
            total += (value or 0.0) * PERIOD_S * 1e3
        values = list(counted)
    times = tuple(round(second * 1e9) for second in seconds)
    sensors = Sensors(int(PERIOD_S * 1e9), times, {name: tuple(values)})
    return Part(sensors, int(measured_s * 1e9), inferences)


def load(second: float, *, length: float = 60.0) -> float:
    """5 W when idle and about 12 W at work, never the same twice."""
    return (12_000 if 0 <= second < length else 5_000) + 40 * math.sin(2 * math.pi * second / 0.9)


def test_known_power_gives_known_energy() -> None:
    found, reason = energy([part(load)])
    assert reason == ""
    assert found is not None
    assert found.gross_mj == pytest.approx(60 * 12_000 / 1000, rel=0.01)
    assert found.net_mj == pytest.approx(60 * 7_000 / 1000, rel=0.01)
    assert found.idle_mw == pytest.approx(5_000, rel=0.01)
    assert (found.sensor, found.rail) == ("ina3221", "VDD_IN")
    assert (found.period_ms, found.window_s, found.inferences) == (250, 60, 1000)
    assert found.updates >= 200
    assert found.u95_pct is not None
    assert 0 < found.u95_pct < 2


class _Machine:
    """A clock and a counter of energy that move on only by what is done: all truth is known."""

    def __init__(self) -> None:
        self.now_ns, self.used_uj = 0, 0.0
        self.readings: list[tuple[int, float]] = []

    def spend(self, ms: int, mw: float) -> None:
        """Draw so much for so long, and read the counter every quarter of a second."""
        for _ in range(ms):
            if self.now_ns % 250_000_000 == 0:
                self.readings.append((self.now_ns, self.used_uj))
            self.now_ns += 1_000_000
            self.used_uj += mw

    def infer(self, feed: int) -> int:
        self.spend(8, 12_000)
        return feed

    def kernel(self) -> int:
        self.spend(25, 30_000)
        return 25_000_000


@pytest.mark.parametrize("scenario", ["sustained", "offline"])
def test_an_inference_s_energy_is_that_of_inferences_alone(
    scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = _Machine()
    monkeypatch.setattr(latency, "_now", lambda: machine.now_ns)
    machine.spend(30_000, 5_000)
    start = machine.now_ns
    ask = Ask(scenario, samples=1, seconds=60.0, batch=1, bound_ns=None, seed=0)
    found = run_scenario(ask, [machine.infer], [0, 1], 8e6, machine.kernel)
    measured_ns = machine.now_ns - start
    machine.spend(30_001, 5_000)
    count = found.bulk.samples if found.bulk else len(found.series.infer_ns)
    times, counted = zip(*((at - start, value) for at, value in machine.readings), strict=True)
    sensors = Sensors(250_000_000, times, {"rapl:package-0_uj": counted})
    told, reason = energy([Part(sensors, measured_ns, count)])
    assert told is not None, reason
    assert told.gross_mj == pytest.approx(12_000 * 0.008, rel=1e-3)
    assert told.net_mj == pytest.approx(7_000 * 0.008, rel=1e-3)
    assert told.idle_mw == pytest.approx(5_000, rel=1e-3)


def test_a_counter_gives_the_same_as_power_does() -> None:
    counted, _ = energy([part(load, name="rapl:package-0_uj")])
    summed, _ = energy([part(load)])
    assert counted is not None
    assert summed is not None
    assert counted.net_mj == pytest.approx(summed.net_mj, rel=0.01)
    assert (counted.sensor, counted.rail) == ("rapl", "package-0")


def test_a_warm_up_before_the_measured_part_is_not_idle() -> None:
    """30 s idle, 20 s of warm-up, 60 s measured, 30 s idle."""
    whole = part(lambda s: load(s + 20 if s < 0 else s), idle_s=50)
    cut = len([at for at in whole.sensors.times_ns if at <= 90e9])
    series = {name: column[:cut] for name, column in whole.sensors.series.items()}
    sensors = dataclasses.replace(
        whole.sensors, times_ns=whole.sensors.times_ns[:cut], series=series
    )
    found, _ = energy([dataclasses.replace(whole, sensors=sensors)])
    assert found is not None
    assert found.idle_mw == pytest.approx(5_000, rel=0.02)
    assert found.net_mj == pytest.approx(60 * 7_000 / 1000, rel=0.02)


def test_processes_are_pooled() -> None:
    short = [part(lambda s: load(s, length=20.0), measured_s=20, inferences=n) for n in (300, 500)]
    found, _ = energy([*short, *short])
    assert found is not None
    assert (found.window_s, found.inferences) == (80, 1600)
    assert found.gross_mj == pytest.approx(80 * 12_000 / 1600, rel=0.02)


def test_an_idle_draw_that_drifts_widens_the_interval() -> None:
    steady, _ = energy([part(load)])
    drifting, _ = energy([part(lambda s: load(s) + 20 * s)])
    assert steady is not None
    assert drifting is not None
    assert (drifting.u95_pct or 0) > 3 * (steady.u95_pct or 0)


@pytest.mark.parametrize(
    ("readings", "reason"),
    [
        (part(lambda s: load(s, length=5.0), measured_s=5.0), "are too little: measure 60 s"),
        (part(load, idle_s=2.0), "the idle draw was not watched for 5 s before and after"),
        (part(lambda _: 5_000.0), "VDD_IN stood still: its sensor does not measure"),
        (part(lambda _: 0.0, name="rapl:package-0_uj"), "package-0 stood still"),
        (part(lambda s: 20_000 - load(s)), "VDD_IN drew no more in the measured part than when"),
        (part(lambda s: None if 10 < s < 20 else load(s)), "VDD_IN could not be read for 10.0 s"),
        (part(lambda s: None if s > -29 else 1.0), "the idle draw was not watched for 5 s before"),
        (part(load, inferences=0), "nothing was measured"),
    ],
    ids=["short", "no idle", "stuck", "zero", "negative", "gap", "silent", "no inference"],
)
def test_what_cannot_be_told_is_none_with_its_reason(readings: Part, reason: str) -> None:
    found, why = energy([readings])
    assert found is None
    assert reason in why


def test_no_sensor_and_no_part() -> None:
    without = Sensors(1, (0, 1), {"cpu0_mhz": (1, 1)}, {}, {"power": "none in a container"})
    assert energy([Part(without, 1, 1)]) == (None, "none in a container")
    assert energy([]) == (None, "nothing was measured")


def test_a_rail_that_stands_still_makes_the_sensor_no_slower() -> None:
    alone = part(load, name="ina3221:VDD_GPU_SOC_mw")
    series = alone.sensors.series
    still = dict.fromkeys(
        ("ina3221:VDD_CPU_CV_mw", "ina3221:VIN_SYS_5V0_mw"), (500.0,) * len(alone.sensors.times_ns)
    )
    three = dataclasses.replace(alone.sensors, series={**series, **still})
    found, _ = energy([dataclasses.replace(alone, sensors=three)])
    expected, _ = energy([alone])
    assert found is not None
    assert expected is not None
    assert found.rail == "VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0"
    assert found.updates == expected.updates
    assert found.resolution_mw == expected.resolution_mw


def test_a_call_of_a_batch_is_as_many_inferences() -> None:
    second = 1_000_000_000
    measured: dict[str, Any] = {
        "infer_ns": (second,) * 60,
        "issued_ns": tuple(second * i for i in range(60)),
        "sensors": part(load).sensors,
    }
    for batch in (1, 8):
        settings = {"scenario": "sustained", "batch": batch}
        raw = make_record([()], settings=settings)
        record = analyse(dataclasses.replace(raw, processes=(make_run(**measured),)))
        assert record.power is not None
        assert record.power.inferences == 60 * batch
        assert record.power.gross_mj == pytest.approx(12_000 / batch, rel=0.01)


def test_a_sensor_that_only_one_process_saw() -> None:
    other = part(load, name="rapl:package-0_uj")
    assert energy([part(load), other]) == (
        None,
        "ina3221:VDD_IN_mw could not be read in every process",
    )


@pytest.mark.parametrize(
    ("names", "prefer", "chosen"),
    [
        (("ina3221:VDD_SOC_mw", "ina3221:VDD_IN_mw"), "", ("ina3221:VDD_IN_mw",)),
        (("rapl:package-0_uj", "rapl:psys_uj"), "", ("rapl:psys_uj",)),
        (
            ("rapl:package-0_uj", "rapl:package-1_uj"),
            "",
            ("rapl:package-0_uj", "rapl:package-1_uj"),
        ),
        (("rapl:package-0_uj", "nvml:gpu0_mw"), "nvml", ("nvml:gpu0_mw",)),
        (("rapl:package-0_uj", "nvml:gpu0_mw"), "", ("rapl:package-0_uj",)),
        (("amdgpu:PPT_mw", "cpu0_mhz"), "", ("amdgpu:PPT_mw",)),
        (("cpu0_mhz",), "", ()),
    ],
)
def test_the_rail_that_sees_most_is_taken(
    names: tuple[str, ...], prefer: str, chosen: tuple[str, ...]
) -> None:
    sensors = Sensors(1, (0,), {name: (1.0,) for name in names})
    assert choose_rails(sensors, prefer) == chosen
