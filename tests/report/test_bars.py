from __future__ import annotations

import re
from dataclasses import replace

import pytest

from edgexfer.core.record import Energy, Record
from edgexfer.report.bars import Bars, all_bars
from edgexfer.report.rows import Row
from tests.report.synthetic import STUDENT, TEACHER, failed, make_record

ENERGY = Energy(5.0, 3.0, 2000.0, "rapl", "package-0", 100.0, 15.0, None, 60.0, 600, 1000)


def bars_of(*records: Record) -> dict[str, Bars]:
    rows = [Row(chr(ord("A") + n), record) for n, record in enumerate(records)]
    return {bars.title: bars for bars in all_bars(rows)}


def test_the_parts_are_the_figures_of_the_record() -> None:
    record = replace(make_record(STUDENT[0]), power=ENERGY)
    found = bars_of(record)
    stages = found["Where the time of one image goes"]
    p50 = record.latency["p50"].value
    assert p50 is not None
    assert stages.rows[0][1] == pytest.approx((0.06, 0.025, 0.009, p50 / 1e6, 0.002))
    assert found["Cold start"].rows[0][1] == pytest.approx((30, 80, 2, 10, None, 0.9))
    assert found["Memory"].rows[0][1] == (31.0, None)
    assert found["Energy"].rows[0][1] == pytest.approx((3.0, 2.0))


def test_reading_and_compiling_in_one_is_one_part() -> None:
    cold = {"import_ns": 80e6, "load_ns": 12e6, "first_ns": 1e6}
    [(_, parts)] = bars_of(replace(make_record(STUDENT[0]), cold_start=cold))["Cold start"].rows
    assert parts == pytest.approx((None, 80, None, None, 12, 1))


def test_what_no_record_has_is_not_shown() -> None:
    assert "Energy" not in bars_of(make_record(STUDENT[0]))
    assert not bars_of(failed(STUDENT[0], "no"))


def test_a_bar_beyond_the_axis_says_so_with_its_figure() -> None:
    svg = bars_of(*(make_record(s) for s in STUDENT), make_record(TEACHER))[
        "Where the time of one image goes"
    ].drawing
    shown = re.findall(r">([^<]+)</text>", svg)
    assert "→ 3.22" in shown
    assert sum(t.startswith("→") for t in shown) == 1
    assert {"decode", "resize", "normalise", "infer", "post"} <= set(shown)
