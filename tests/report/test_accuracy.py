from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgexfer.core.record import read_record, write_record
from edgexfer.report.accuracy import ImageSet, image_sets, run_hops
from edgexfer.report.collect import collect
from edgexfer.report.rows import Row
from edgexfer.report.view import grouped


def sets_of(*places: Path) -> list[ImageSet]:
    found = collect(places)
    return image_sets(found, [row for group in grouped(found) for row in group.rows])


def test_hops_lead_from_the_teacher_over_fp32_to_int8(trip: Path) -> None:
    [images] = sets_of(trip)
    told = [
        (h.before.row.artefact, h.after.row.artefact, h.changed, h.lost, h.gained)
        for h in images.hops
        if h.before and h.after
    ]
    assert told == [
        ("x86-torch-fp32", "x86-openvino-fp32", 4, 4, 0),
        ("x86-torch-fp32", "x86-onnxruntime-fp32", 4, 4, 0),
        ("x86-openvino-fp32", "x86-openvino-int8", 2, 2, 0),
        ("x86-onnxruntime-fp32", "x86-onnxruntime-int8", 1, 1, 0),
    ]
    [to_int8] = [h for h in images.hops if h.changed == 2]
    assert to_int8.flip_pct == pytest.approx(100 * 2 / 360)
    assert to_int8.drop.drop_pt == pytest.approx(100 * 2 / 360)
    assert to_int8.drop.low_pt < to_int8.drop.drop_pt < to_int8.drop.high_pt
    before, after = to_int8.ece_pct
    assert before is not None
    assert after is not None
    assert after > before


def test_what_was_gained_and_what_stayed_wrong_are_told_apart(trip: Path) -> None:
    place = trip / "bench" / "x86-openvino-int8.json"
    record = read_record(place)
    fp32 = read_record(trip / "bench" / "x86-openvino-fp32.json")
    assert record.accuracy is not None
    assert fp32.accuracy is not None
    labels = [i % 10 for i in range(360)]
    said = list(fp32.accuracy.predictions)
    wrong = [i for i in range(360) if said[i] != labels[i]]
    said[wrong[0]] = labels[wrong[0]]
    said[wrong[1]] = (labels[wrong[1]] + 5) % 10
    right = next(i for i in range(360) if said[i] == labels[i])
    said[right] = (labels[right] + 1) % 10
    accuracy = replace(record.accuracy, predictions=tuple(said))
    write_record(place, replace(record, accuracy=accuracy))
    [images] = sets_of(trip)
    [hop] = [h for h in images.hops if h.names[1].endswith("x86-openvino-int8")]
    assert (hop.changed, hop.lost, hop.gained) == (3, 1, 1)


def test_equal_answers_of_one_artefact_are_one_subject(fleet: Path) -> None:
    [images] = sets_of(fleet, *sorted((fleet / "records").iterdir()))
    assert {s.row.artefact: len(s.rows) for s in images.subjects} == {
        "x86-torch-fp32": 1,
        "x86-onnxruntime-fp32": 5,
        "x86-openvino-fp32": 4,
        "x86-onnxruntime-int8": 6,
        "x86-openvino-int8": 5,
    }
    assert images.subjects[0].row.role == "teacher"


def test_the_trainer_s_own_hop_is_told(trip: Path) -> None:
    [hop] = run_hops(collect([trip]))
    assert hop.names == ("teacher (resnet20)", "student (resnet8)")
    assert (hop.changed, hop.lost, hop.gained) == (4, 4, 0)
    assert None not in hop.ece_pct
    (trip / "student" / "predictions.json").unlink()
    assert not run_hops(collect([trip]))


def test_records_without_their_bundle_tell_nothing_image_by_image(trip: Path) -> None:
    found = collect([trip / "bench"])
    assert not image_sets(found, [Row("A", f.record) for f in found.records])
