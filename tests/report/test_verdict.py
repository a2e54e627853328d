from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgexfer.core.record import Record
from edgexfer.core.stats import quantile
from edgexfer.report.collect import Found, FoundRecord, collect
from edgexfer.report.rows import Row, group_rows
from edgexfer.report.verdict import Verdict, judge, teacher_helped
from tests.report.synthetic import STUDENT, TEACHER, failed, make_record, make_run

TEACHER_BUNDLE = {"name": "teacher", "model": "resnet20", "parameters": 272_474}
FP32, INT8 = STUDENT[0], STUDENT[1]


def verdict_of(*records: Record, found: Found | None = None) -> Verdict:
    known = found or Found("x", records=[FoundRecord(Path("r.json"), r) for r in records])
    [group] = group_rows(Row("", f.record) for f in known.records)
    return judge(known, group)


def limited(record: Record, limit_pt: float) -> Record:
    return replace(record, profile={"limits": {"accuracy_drop_pt": limit_pt}})


def text_of(verdict: Verdict) -> str:
    return " ".join(verdict.sentences)


def test_the_fastest_within_the_limit_is_taken(trip: Path) -> None:
    verdict = verdict_of(found=collect([trip]))
    assert verdict.headline == "Take student (resnet8) x86-openvino-int8."
    assert verdict.best is not None
    text = text_of(verdict)
    assert "97.2 % of 360 test images right (95 % interval" in text
    assert "Against FP32 it loses 0.6 points" in text
    assert "up to 1.0 point may be lost" in text
    assert "The images are too few to exclude a larger loss." in text
    assert "measured the same way: 17× as fast, 11× as small, loses 1.7 points" in text
    assert ("17×", "as fast as the teacher") in verdict.figures


def test_a_faster_one_that_loses_too_much_is_named_and_not_taken() -> None:
    verdict = verdict_of(make_record(FP32), make_record(replace(INT8, wrong=40)))
    assert verdict.headline == "Take student (resnet8) x86-onnxruntime-fp32."
    assert (
        "student (resnet8) x86-onnxruntime-int8 is faster (0.223 ms), but not taken: "
        "it loses 8.9 points against FP32, more than 1.0 point." in text_of(verdict)
    )
    assert "its own yardstick" in text_of(verdict)


def test_one_that_looked_faster_in_an_invalid_record_is_named() -> None:
    moved = replace(make_record(INT8), status="invalid", reasons=("nonstationary: it moved",))
    slow = replace(
        make_record(replace(STUDENT[3], p50_ms=0.5)),
        status="invalid",
        reasons=("nonstationary: it moved",),
    )
    verdict = verdict_of(make_record(FP32), moved, slow)
    assert verdict.headline == "Take student (resnet8) x86-onnxruntime-fp32."
    assert (
        "student (resnet8) x86-onnxruntime-int8 (0.223 ms) looked faster, but its record is "
        "invalid: measure again before you decide." in text_of(verdict)
    )
    assert "looked" not in text_of(verdict_of(make_record(FP32), slow))


def test_each_row_has_its_word(trip: Path) -> None:
    assert verdict_of(found=collect([trip])).words == {
        "A": "take",
        "B": "1.2× as slow",
        "C": "1.5× as slow",
        "D": "1.7× as slow",
        "E": "compared with",
    }


def test_each_row_that_is_not_taken_is_told_why() -> None:
    fp32 = replace(make_record(FP32), status="partial", reasons=("busy",))
    lossy = make_record(replace(INT8, wrong=40))
    unknown = replace(make_record(STUDENT[2]), accuracy=None)
    broken = failed(STUDENT[3], "it broke")
    assert sorted(verdict_of(fp32, lossy, unknown, broken).words.values()) == [
        "accuracy unknown",
        "loses too much",
        "not usable",
        "take, with care",
    ]
    same = replace(fp32, artefact={**fp32.artefact, "name": "same", "size_bytes": 10})
    assert sorted(verdict_of(fp32, same).words.values()) == ["as fast", "take, with care"]
    assert verdict_of(make_record(INT8)).words == {"A": "loss unknown"}


@pytest.mark.parametrize(("limit_pt", "precision"), [(0.1, "fp32"), (0.3, "int8")])
def test_the_limit_is_the_profiles(limit_pt: float, precision: str) -> None:
    verdict = verdict_of(make_record(FP32), limited(make_record(INT8), limit_pt))
    assert verdict.best is not None
    assert verdict.best.record.artefact["precision"] == precision


@pytest.mark.parametrize(("max_drop", "precision"), [(0.1, "fp32"), (0.3, "int8"), (None, "fp32")])
def test_what_the_export_was_asked_for_comes_before_the_profile(
    max_drop: float | None, precision: str
) -> None:
    asked = {"export": {"max_drop": max_drop}}
    int8 = replace(limited(make_record(INT8), 0.2), lineage=asked)
    verdict = verdict_of(make_record(FP32), int8)
    assert verdict.best is not None
    assert verdict.best.record.artefact["precision"] == precision


def test_what_cannot_be_told_apart_is_said() -> None:
    twin = STUDENT[2]
    first = make_record(FP32)
    near = replace(make_record(twin), latency=first.latency, processes=first.processes)
    verdict = verdict_of(first, near)
    assert verdict.headline == "Take student (resnet8) x86-onnxruntime-fp32."
    assert (
        "student (resnet8) x86-openvino-fp32 is as fast, within what this measurement can tell "
        "apart, and student (resnet8) x86-onnxruntime-fp32 is smaller." in text_of(verdict)
    )


def slowed(record: Record, factors: Sequence[float]) -> Record:
    """Stretch the latencies of each process by a factor of its own."""
    processes = tuple(
        replace(p, infer_ns=tuple(int(ns * factor) for ns in p.infer_ns))
        for p, factor in zip(record.processes, factors, strict=True)
    )
    pooled = [ns for p in processes for ns in p.infer_ns]
    latency = {name: quantile(pooled, q.q) for name, q in record.latency.items()}
    return replace(record, processes=processes, latency=latency)


@pytest.mark.parametrize(
    ("factors", "taken"), [((1.0, 1.02, 1.06), "int8"), ((1.0, 1.05, 1.06), "fp32")]
)
def test_a_gap_within_the_spread_of_the_processes_is_decided_by_size(
    factors: tuple[float, ...], taken: str
) -> None:
    """Processes that differ by 6 % hide that INT8 is 2 % slower; 5 % is more than it is worth."""
    fp32 = make_record(FP32)
    int8 = slowed(replace(make_record(INT8), processes=fp32.processes), factors)
    verdict = verdict_of(fp32, int8)
    assert verdict.best is not None
    assert verdict.best.record.artefact["precision"] == taken
    assert ("is as fast" in text_of(verdict)) == (taken == "int8")
    assert "not taken" not in text_of(verdict)


def test_a_partial_record_is_taken_with_care() -> None:
    doubtful = replace(make_record(FP32), status="partial", reasons=("the machine was busy",))
    verdict = verdict_of(doubtful)
    assert verdict.headline == "Take student (resnet8) x86-onnxruntime-fp32, with care."
    assert verdict.sentences[0] == "Its measurement is not beyond doubt: the machine was busy."


@pytest.mark.parametrize(
    ("records", "headline"),
    [
        (
            [failed(FP32, "onnxruntime is missing")],
            "No measurement is usable: onnxruntime is missing.",
        ),
        (
            [replace(make_record(FP32), accuracy=None)],
            "No accuracy was measured, so no artefact can be recommended.",
        ),
        (
            [make_record(INT8)],
            "No artefact can be recommended: none was shown to stay within its limit of accuracy.",
        ),
        (
            [replace(failed(FP32, ""), reasons=())],
            "No measurement is usable: its status is failed.",
        ),
    ],
)
def test_nothing_is_recommended_without_ground(records: Sequence[Record], headline: str) -> None:
    verdict = verdict_of(*records)
    assert verdict.best is None
    assert verdict.headline == headline
    assert not verdict.figures


def test_a_teacher_alone_is_judged_itself() -> None:
    verdict = verdict_of(make_record(TEACHER, TEACHER_BUNDLE))
    assert verdict.headline == "Take teacher (resnet20) x86-torch-fp32."
    assert "measured the same way" not in text_of(verdict)


def test_no_difference_to_the_teacher_is_said_as_such() -> None:
    same = make_record(replace(FP32, wrong=TEACHER.wrong + 1))
    text = text_of(verdict_of(make_record(TEACHER, TEACHER_BUNDLE), same))
    assert "no difference of accuracy shown (95 % interval" in text


def test_a_slower_and_larger_student_is_called_that() -> None:
    bad = make_record(replace(FP32, p50_ms=6.2, size_bytes=2_240_000))
    text = text_of(verdict_of(make_record(TEACHER, TEACHER_BUNDLE), bad))
    assert "2.0× as slow, 2.0× as large" in text


@pytest.mark.parametrize(
    ("student", "control", "answer"),
    [
        (8, 11, "No difference shown: 97.8 % with it, 96.9 % without, on 360 test images"),
        (8, 40, "Yes: 97.8 % with it, 88.9 % without, on 360 test images, 8.9 points"),
        (40, 8, "No, it did harm: 88.9 % with it, 97.8 % without, on 360 test images"),
    ],
)
def test_whether_the_teacher_helped(
    tmp_path: Path, student: int, control: int, answer: str
) -> None:
    make_run(tmp_path / "student", "distill", student, seed=1)
    make_run(tmp_path / "control", "control", control, seed=2)
    said = teacher_helped(collect([tmp_path]))
    assert said is not None
    assert answer in said
    assert "95 % interval" in said


def test_without_a_control_nothing_is_said_of_the_teacher(tmp_path: Path) -> None:
    make_run(tmp_path / "student", "distill", 8, seed=1)
    assert teacher_helped(collect([tmp_path])) is None


def test_an_unfinished_control_leaves_the_question_open(trip: Path) -> None:
    from edgexfer.core.files import read_json, write_json

    place = trip / "control" / "run.json"
    info: dict[str, Any] = read_json(place)
    write_json(place, {**info, "status": "interrupted", "result": {}})
    said = teacher_helped(collect([trip]))
    assert said == "Whether the teacher helped is open: student or control has no test accuracy."
