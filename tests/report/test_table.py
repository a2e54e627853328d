from __future__ import annotations

from dataclasses import replace

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


def test_wide_and_hostile_names_keep_the_columns() -> None:
    wide = make_record(STUDENT[0], {"name": "数字\x1b[31m", "model": "学生"})
    text = summary_table([wide, make_record(STUDENT[1])])
    assert "\x1b" not in text
    rows = text.splitlines()[2:]
    cells = [row.index("x86-onnxruntime") for row in rows]
    shown = next(row for row in rows if "学生" in row)
    assert max(cells) - min(cells) == sum(c in "数字学生" for c in shown)
