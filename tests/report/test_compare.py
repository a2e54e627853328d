from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgexfer.core.stats import unpaired_drop
from edgexfer.report.collect import Found, collect
from edgexfer.report.compare import drop_between, drop_from_fp32, run_gain
from edgexfer.report.rows import Group, Row, group_rows
from tests.report.synthetic import STUDENT, make_record


def grouped(found: Found) -> Group:
    [group] = group_rows(Row("", f.record, found.title) for f in found.records)
    return group


def row_of(group: Group, name: str) -> Row:
    [row] = [r for r in group.rows if r.artefact == name]
    return row


def test_artefacts_on_the_same_images_are_paired(trip: Path) -> None:
    found = collect([trip])
    group = grouped(found)
    teacher, int8 = row_of(group, "x86-torch-fp32"), row_of(group, "x86-openvino-int8")
    drop = drop_between(found, teacher, int8)
    assert drop is not None
    assert drop.paired
    assert drop.n == 360
    assert drop.drop_pt == pytest.approx(100 * 6 / 360)
    assert drop.shown
    back = drop_between(found, int8, teacher)
    assert back is not None
    assert (back.drop_pt, back.low_pt) == pytest.approx((-drop.drop_pt, -drop.high_pt))


def test_without_the_bundles_the_wider_unpaired_interval_is_taken(trip: Path) -> None:
    whole, alone = collect([trip]), collect([trip / "bench"])
    names = ("x86-openvino-fp32", "x86-openvino-int8")
    paired, unpaired = (
        drop_between(f, *(row_of(grouped(f), name) for name in names)) for f in (whole, alone)
    )
    assert paired is not None
    assert unpaired is not None
    assert paired.drop_pt == pytest.approx(unpaired.drop_pt)
    assert not unpaired.paired
    assert unpaired.high_pt - unpaired.low_pt > paired.high_pt - paired.low_pt
    expected = unpaired_drop(352, 360, 350, 360)
    assert (unpaired.drop_pt, unpaired.low_pt, unpaired.high_pt) == expected


def test_bundles_with_other_labels_are_not_paired(trip: Path) -> None:
    import numpy as np

    np.save(trip / "teacher-bundle" / "labels.npy", np.zeros(360, np.int64))
    found = collect([trip])
    group = grouped(found)
    drop = drop_between(found, row_of(group, "x86-torch-fp32"), row_of(group, "x86-openvino-int8"))
    assert drop is not None
    assert not drop.paired


def test_fp32_loses_nothing_against_itself_and_int8_is_held_against_its_own_target(
    trip: Path,
) -> None:
    found = collect([trip])
    group = grouped(found)
    fp32 = drop_from_fp32(found, group, row_of(group, "x86-onnxruntime-fp32"))
    assert fp32 is not None
    assert (fp32.drop_pt, fp32.n) == (0.0, 360)
    int8 = drop_from_fp32(found, group, row_of(group, "x86-onnxruntime-int8"))
    assert int8 is not None
    assert int8.drop_pt == pytest.approx(100 / 360)


def test_without_an_fp32_record_the_drop_is_unknown() -> None:
    [group] = group_rows([Row("", make_record(STUDENT[1]))])
    assert drop_from_fp32(Found("x"), group, group.rows[0]) is None
    blind = replace(make_record(STUDENT[1]), accuracy=None)
    assert drop_between(Found("x"), group.rows[0], Row("", blind)) is None


def test_runs_are_paired_by_their_predictions(trip: Path) -> None:
    found = collect([trip])
    student, control = found.run_of("student"), found.run_of("control")
    assert student is not None
    assert control is not None
    gain = run_gain(student, control)
    assert gain is not None
    assert gain.paired
    assert gain.drop_pt == pytest.approx(100 * 3 / 360)
    totals = run_gain(replace(student, predictions=()), control)
    assert totals is not None
    assert not totals.paired
    assert totals.drop_pt == pytest.approx(gain.drop_pt)


@pytest.mark.parametrize(
    "test",
    [None, {}, {"n": 0, "correct": 0}, {"n": 10, "correct": 11}, {"n": "10", "correct": 5}],
)
def test_runs_without_a_test_have_no_gain(trip: Path, test: object) -> None:
    place = trip / "control" / "run.json"
    info = json.loads(place.read_text())
    info["result"]["test"] = test
    place.write_text(json.dumps(info))
    found = collect([trip])
    student, control = found.run_of("student"), found.run_of("control")
    assert student is not None
    assert control is not None
    assert run_gain(student, control) is None
