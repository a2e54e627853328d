from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgexfer.core.record import Record
from edgexfer.report.rows import Row, group_rows, machine_name, settings_name
from tests.report.synthetic import STUDENT, TEACHER, failed, make_record

TEACHER_BUNDLE = {"name": "teacher", "model": "resnet20", "parameters": 272_474}


def rows_of(*records: Record) -> list[Row]:
    return [Row("", record) for record in records]


def test_one_machine_is_one_group_by_rising_latency() -> None:
    [group] = group_rows(
        rows_of(make_record(TEACHER, TEACHER_BUNDLE), *(make_record(s) for s in STUDENT))
    )
    assert [r.key for r in group.rows] == ["A", "B", "C", "D", "E"]
    latencies = [r.p50_ns or 0 for r in group.rows]
    assert latencies == sorted(latencies)
    assert group.reference is group.rows[-1]
    assert group.rows[-1].speedup == 1.0
    assert group.rows[0].speedup == pytest.approx(latencies[-1] / latencies[0])


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("device", {"cpu": "Another CPU"}),
        ("device", {"usable_cores": 8}),
        ("device", {"power_mode": "15W"}),
        ("settings", {"threads": 1}),
        ("settings", {"batch": 8}),
    ],
)
def test_other_machines_and_settings_are_not_ranked_together(
    part: str, change: dict[str, object]
) -> None:
    first, second = make_record(TEACHER, TEACHER_BUNDLE), make_record(STUDENT[0])
    changes: dict[str, Any] = {part: {**getattr(second, part), **change}}
    second = replace(second, **changes)
    groups = group_rows(rows_of(first, second))
    assert [len(g.rows) for g in groups] == [1, 1]
    assert [r.key for g in groups for r in g.rows] == ["A", "B"]
    assert groups[1].rows[0].speedup is None


def test_facts_that_change_on_one_machine_do_not_part_it() -> None:
    first, second = make_record(STUDENT[0]), make_record(STUDENT[1])
    second = replace(second, device={**second.device, "load1": 3.0})
    assert len(group_rows(rows_of(first, second))) == 1


@pytest.mark.parametrize("status", ["invalid", "failed"])
def test_unusable_records_stand_last_and_are_not_ranked(status: str) -> None:
    fast = make_record(replace(STUDENT[3], p50_ms=0.01, status=status, reasons=("throttled",)))
    [group] = group_rows(rows_of(fast, make_record(TEACHER, TEACHER_BUNDLE)))
    assert [r.usable for r in group.rows] == [True, False]
    assert group.rows[1].speedup is None


def test_what_failed_before_it_saw_its_machine_joins_the_only_one() -> None:
    lost = replace(failed(STUDENT[0], "no runtime"), device={}, settings={})
    [group] = group_rows(rows_of(lost, make_record(STUDENT[1])))
    assert [r.usable for r in group.rows] == [True, False]
    other = make_record(STUDENT[2])
    other = replace(other, device={**other.device, "cpu": "Another CPU"})
    assert len(group_rows(rows_of(lost, make_record(STUDENT[1]), other))) == 3


def test_the_reference_is_the_largest_torch_model_or_the_one_named() -> None:
    small = make_record(TEACHER, {"name": "small", "model": "resnet8", "parameters": 10})
    large = make_record(TEACHER, TEACHER_BUNDLE)
    int8 = make_record(STUDENT[3])
    [group] = group_rows(rows_of(small, large, int8))
    assert group.reference is not None
    assert group.reference.record is large
    [group] = group_rows(rows_of(small, large, int8), "x86-openvino-int8")
    assert group.reference is not None
    assert group.reference.record is int8
    [group] = group_rows(rows_of(int8))
    assert group.reference is None


def test_a_student_in_torch_is_not_the_reference() -> None:
    [group] = group_rows([Row("", make_record(TEACHER), role="student")])
    assert group.reference is None


def test_more_rows_than_letters() -> None:
    [group] = group_rows(rows_of(*[make_record(STUDENT[0])] * 28))
    assert [r.key for r in group.rows][-3:] == ["Z", "AA", "AB"]


def test_names_of_machines_and_settings() -> None:
    record = make_record(STUDENT[0])
    assert machine_name(record) == "Example CPU @ 2.50GHz, 2 cores"
    assert settings_name(record) == "batch 1, threads chosen by the runtime"
    arm = {"machine": "aarch64", "cpu": "Cortex-A76", "board": "Raspberry Pi 5", "power_mode": "7W"}
    record = replace(record, device=arm, settings={"batch": 1, "threads": 1})
    assert machine_name(record) == "Raspberry Pi 5, 7W"
    assert settings_name(record) == "batch 1, 1 thread"
    assert machine_name(replace(record, device={})) == "unknown machine"


def test_memory_is_what_the_artefact_added() -> None:
    record = make_record(STUDENT[0])
    assert Row("", record).memory_bytes == 31_000_000
    assert Row("", replace(record, memory={})).memory_bytes is None
