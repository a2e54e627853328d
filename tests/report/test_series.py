from __future__ import annotations

import re
from dataclasses import replace

import pytest

from edgexfer.core.samples import ProcessRun, Sensors
from edgexfer.report.rows import Row
from edgexfer.report.series import courses, draw_course
from tests.report.synthetic import STUDENT, make_record

MS = 1_000_000


def row_of(*processes: ProcessRun) -> Row:
    return Row("A", replace(make_record(STUDENT[0]), processes=processes))


def process(times: list[int], sensors: Sensors | None = None, order: int = 0) -> ProcessRun:
    first = make_record(STUDENT[0]).processes[0]
    return replace(first, infer_ns=tuple(times), sensors=sensors, order=order)


def sensors_of(flag: str, values: tuple[int | None, ...], start: int = 0) -> Sensors:
    times = tuple(start + 250 * MS * i for i in range(len(values)))
    series: dict[str, tuple[float | None, ...]] = {
        "cpu0_mhz": tuple(1000.0 + i for i in range(len(values))),
        "gpu_c": tuple(50.0 + i for i in range(len(values))),
    }
    return Sensors(250 * MS, times, series, {flag: values})


def test_a_drift_is_told_in_figures_and_processes_in_their_order() -> None:
    slow, steady = process([MS] * 80 + [2 * MS] * 20, order=1), process([MS] * 50, order=0)
    first, second = courses(row_of(slow, steady))
    assert (first.process, first.n, first.change_pct) == (1, 50, 0)
    assert (second.n, second.first_ns, second.last_ns) == (100, MS, 2 * MS)
    assert second.change_pct == pytest.approx(100)
    assert [first.mhz, first.highest_c, first.throttled] == [None, None, None]


@pytest.mark.parametrize(
    ("flag", "values", "throttled"),
    [
        ("get_throttled", (0x50000, 0x50000), False),
        ("get_throttled", (0x50000, 0x50008), True),
        ("cooling:Processor", (0, 0), False),
        ("cooling:Processor", (2, 2), True),
        ("nvml:0_reasons", (1, 1), False),
        ("nvml:0_reasons", (1, 0x20), True),
        ("cpu0_core_throttle_count", (17, 17), False),
        ("cpu0_core_throttle_count", (17, None, 18), True),
    ],
)
def test_what_was_so_since_the_start_of_the_machine_is_no_throttling(
    flag: str, values: tuple[int | None, ...], throttled: bool
) -> None:
    [course] = courses(row_of(process([10 * MS] * 100, sensors_of(flag, values))))
    assert course.throttled is throttled


def test_what_was_read_before_the_measured_part_is_left_out() -> None:
    early = sensors_of("cooling:cpu", (3, 3, 0, 0), start=-500 * MS)
    [course] = courses(row_of(process([10 * MS] * 100, early)))
    assert course.throttled is False
    assert course.mhz == (1002.0, 1003.0)
    assert course.highest_c == 53.0


def test_the_drawing_shows_throttling_and_each_outlier() -> None:
    calm = draw_course(row_of(process([10 * MS] * 1000, sensors_of("cooling:x", (0, 0)))), 0)
    times = [10 * MS] * 1000
    times[500] = 900 * MS
    wild = draw_course(row_of(process(times, sensors_of("cooling:x", (0, 1)))), 0)
    assert calm is not None
    assert wild is not None
    assert "var(--warn)" not in calm
    # Once on each of the three panels, latency, clock and temperature.
    assert wild.count("var(--warn)") == 3
    assert {"MHz", "°C"} <= set(re.findall(r">([^<]+)</text>", wild))
    assert "9" not in {t[:1] for t in re.findall(r">(\d{3,})</text>", wild)}


def test_a_record_without_samples_is_not_drawn() -> None:
    assert draw_course(row_of(process([])), 0) is None
    assert courses(row_of()) == []


def test_a_single_sample_is_drawn() -> None:
    assert draw_course(row_of(process([MS])), 0) is not None
