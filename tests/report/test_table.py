from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgexfer.core.record import Record, Server, Sustained, Throughput
from edgexfer.core.stats import Quantile
from edgexfer.report.table import summary_table
from tests.report.synthetic import STUDENT, TEACHER, failed, make_record

TEACHER_BUNDLE = {"name": "teacher", "model": "resnet20", "parameters": 272_474}


def test_the_table_is_aligned_and_complete() -> None:
    records = [make_record(TEACHER, TEACHER_BUNDLE), *(make_record(s) for s in STUDENT)]
    lines = summary_table(records).splitlines()
    head, rule, *rows, note = lines
    names = ["model", "artefact", "accuracy", "size", "p50", "p90", "speed-up", "status"]
    assert head.split() == names
    assert set(rule) == {"─", " "}
    assert len(rows) == 5
    assert rows[-1].startswith("teacher (resnet20)")
    assert note == "speed-up: p50 of teacher (resnet20) x86-torch-fp32 over its own"
    column = head.index("status")
    assert {row[column:] for row in rows} == {"ok"}
    assert not any(line != line.rstrip() for line in lines)


def test_a_failed_record_shows_its_reason() -> None:
    text = summary_table([make_record(STUDENT[0]), failed(STUDENT[1], "onnxruntime is missing")])
    *_, row, reason = text.splitlines()
    assert row.endswith("failed")
    assert reason == "x86-onnxruntime-int8 is failed: onnxruntime is missing"
    assert "speed-up" not in text


def test_of_several_reasons_the_first_is_shown_and_the_others_counted() -> None:
    doubtful = replace(make_record(STUDENT[0]), status="partial", reasons=("a", "b", "c"))
    assert summary_table([doubtful]).endswith("is partial: a (and 2 reasons more)")


def test_roles_name_the_models() -> None:
    bundle = {"name": "resnet8", "model": "resnet8", "manifest_sha256": "s"}
    text = summary_table([make_record(STUDENT[0], bundle)], roles={"s": "student"})
    assert text.splitlines()[2].startswith("student (resnet8)  ")


def test_machines_stand_apart() -> None:
    first, second = make_record(STUDENT[0]), make_record(STUDENT[1])
    second = replace(second, device={**second.device, "cpu": "Another CPU"})
    first_part, second_part = summary_table([first, second]).split("\n\n")
    assert first_part.startswith("Example CPU @ 2.50GHz, 2 cores, batch 1")
    assert second_part.startswith("Another CPU")


def _of(scenario: str, **changes: Any) -> Record:
    record = make_record(STUDENT[0])
    settings = {**record.settings, "scenario": scenario, **changes.pop("settings", {})}
    return replace(record, settings=settings, **changes)


def test_what_measures_a_rate_shows_the_rate() -> None:
    rate = Throughput(9840.0, (9700.0, 9840.0, 9910.0), 600_000, 61.0, 8, 2)
    sizes = {"batch": 8, "streams": 2}
    title, head, _, row = summary_table(
        [_of("offline", latency={}, throughput=rate, settings=sizes)]
    ).splitlines()
    assert title.endswith("offline, batch 8, threads chosen by the runtime, 2 streams")
    assert head.split() == ["model", "artefact", "accuracy", "size", "images/s", "status"]
    assert row.split()[-2:] == ["9840", "ok"]


def test_a_server_shows_its_rate_under_its_bound() -> None:
    p99 = Quantile(0.99, 5000, 18.2e6, 19.9e6)
    served = Server(412.3, (405.0, 412.3, 419.0), 20_000_000, p99, 2.0)
    none = Server(None, (None, 400.0, None), 20_000_000, None, 2.0)
    records = [
        _of("server", latency={}, server=found, settings={"bound_ns": 20_000_000})
        for found in (served, none)
    ]
    title, head, _, first, second = summary_table(records).splitlines()
    assert title.endswith(", p99 at most 20.0 ms")
    assert head.split()[-3:] == ["queries/s", "p99", "status"]
    assert first.split()[-4:] == ["412", "18.2", "ms", "ok"]
    assert second.split()[-3:] == ["–", "–", "ok"]


def test_what_slows_down_shows_its_first_minute_and_its_last_fifth() -> None:
    kept = Sustained(1.37, 3.1e6, 4.247e6, 600.0, (3.1e6, 4.247e6))
    title, head, _, row, note = summary_table([_of("sustained", sustained=kept)]).splitlines()
    assert "sustained, batch 1" in title
    assert head.split()[4:] == ["p50", "p90", "at", "first", "at", "last", "slow-down", "status"]
    assert row.split()[-6:] == ["3.10", "ms", "4.25", "ms", "1.37×", "ok"]
    assert note.startswith("slow-down: the last fifth of a run")


def test_rates_are_related_by_rate() -> None:
    rates = [Throughput(r, (r,), 1000, 1.0, 1, 1) for r in (100.0, 250.0)]
    teacher = make_record(TEACHER, TEACHER_BUNDLE)
    slow = replace(teacher, latency={}, throughput=rates[0])
    fast = replace(make_record(STUDENT[0]), latency={}, throughput=rates[1])
    head, _, first, _, note = summary_table(
        [replace(r, settings={**r.settings, "scenario": "offline"}) for r in (slow, fast)]
    ).splitlines()[1:]
    assert first.split()[-3:] == ["250", "2.5×", "ok"]
    assert "images/s  speed-up" in head
    assert note == "speed-up: its own rate over that of teacher (resnet20) x86-torch-fp32"


def test_wide_and_hostile_names_keep_the_columns() -> None:
    wide = make_record(STUDENT[0], {"name": "数字\x1b[31m", "model": "学生"})
    text = summary_table([wide, make_record(STUDENT[1])])
    assert "\x1b" not in text
    rows = text.splitlines()[2:]
    cells = [row.index("x86-onnxruntime") for row in rows]
    shown = next(row for row in rows if "学生" in row)
    assert max(cells) - min(cells) == sum(c in "数字学生" for c in shown)
