from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgexfer.core.errors import InputError, RunError
from edgexfer.core.files import write_json
from edgexfer.report.collect import collect


def test_a_trip_is_read_whole(trip: Path) -> None:
    found = collect([trip])
    assert found.title == "example"
    assert [r.role for r in found.runs] == ["control", "student", "teacher"]
    assert {b.role: len(b.manifest.artefacts) for b in found.bundles} == {
        "student": 4,
        "teacher": 1,
    }
    assert len(found.records) == 5
    assert not found.faults
    assert all(found.bundle_of(f.record) is not None for f in found.records)


def test_parts_are_read_alone_and_named_twice_count_once(trip: Path) -> None:
    assert len(collect([trip / "student"]).runs) == 1
    assert len(collect([trip / "bundle"]).bundles) == 1
    assert len(collect([trip / "bench"]).records) == 5
    record = next((trip / "bench").glob("*.json"))
    both = collect([record, trip / "bench" / ".." / "bench" / record.name, trip])
    assert len(both.records) == 5
    assert both.title == record.stem


def test_a_bundle_has_a_role_in_its_trip_alone(trip: Path, tmp_path: Path) -> None:
    shutil.copytree(trip / "bundle", tmp_path / "alone" / "bundle")
    assert [b.role for b in collect([trip / "bundle"]).bundles] == ["student"]
    assert [b.role for b in collect([tmp_path / "alone" / "bundle"]).bundles] == ["bundle"]


def test_what_cannot_be_read_is_kept_as_a_fault(trip: Path) -> None:
    (trip / "bench" / "zz.json").write_text('{"schema": "edgexfer.ben')
    (trip / "student" / "run.json").write_text("[]")
    (trip / "bundle" / "labels.npy").write_bytes(b"no array")
    write_json(trip / "bench" / "other.json", {"schema": "edgexfer.bench/9"})
    found = collect([trip])
    faults = sorted(error.what for error in found.faults)
    assert len(faults) == 4
    assert all(error.fix for error in found.faults)
    for name in ("zz.json", "student", "labels.npy", "other.json"):
        assert any(name in what for what in faults), name
    assert (len(found.runs), len(found.bundles), len(found.records)) == (2, 1, 5)


@pytest.mark.parametrize("content", ["[1]", '{"labels": 3}', '{"labels": ["a"', '{"labels": [1]}'])
def test_damaged_predictions_are_a_fault(trip: Path, content: str) -> None:
    (trip / "student" / "predictions.json").write_text(content)
    [fault] = collect([trip]).faults
    assert "predictions.json" in fault.what


def test_labels_of_another_length_are_a_fault(trip: Path) -> None:
    np.save(trip / "bundle" / "labels.npy", np.zeros(7, np.int64))
    [fault] = collect([trip]).faults
    assert "holds labels of shape (7,), the manifest says 360" in fault.what
    assert fault.fix == "export it again"


def test_labels_without_a_class_are_a_fault(trip: Path) -> None:
    np.save(trip / "bundle" / "labels.npy", np.full(360, 10_000))
    [fault] = collect([trip]).faults
    assert "holds labels outside 0.." in fault.what


def test_a_pickle_among_the_labels_is_not_loaded(trip: Path) -> None:
    np.save(trip / "bundle" / "labels.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    [fault] = collect([trip]).faults
    assert "cannot be read" in fault.what


def test_labels_of_which_nothing_is_left_are_a_fault(trip: Path) -> None:
    (trip / "bundle" / "labels.npy").write_bytes(b"")
    [fault] = collect([trip]).faults
    assert "labels.npy: cannot be read" in fault.what


def test_a_missing_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such file or folder") as caught:
        collect([tmp_path / "nowhere"])
    assert caught.value.fix == "check the path"


def test_nothing_to_report_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run, bundle or record") as caught:
        collect([tmp_path])
    assert "`bench` has written" in caught.value.fix


def test_when_all_is_damaged_the_first_fault_is_raised(tmp_path: Path) -> None:
    place = tmp_path / "run"
    place.mkdir()
    (place / "run.json").write_text("{")
    with pytest.raises(RunError, match=r"run\.json: not readable as JSON"):
        collect([place])
    shutil.rmtree(place)


@pytest.mark.parametrize(
    ("classes", "label", "what"),
    [
        ((4, 5), 0, "its tasks are not those of its labels"),
        ((10, 0), 0, "its tasks are not those of its labels"),
        ((4, 6), 0, "holds labels outside 4..9"),
        ((4, 6), -2, "holds labels outside 4..9"),
    ],
)
def test_tasks_and_labels_that_do_not_fit_are_a_fault(
    trip: Path, classes: tuple[int, int], label: int, what: str
) -> None:
    place = trip / "bundle" / "manifest.json"
    manifest = json.loads(place.read_text())
    names = zip("ab", classes, strict=True)
    manifest["tasks"] = [{"name": a, "classes": [f"c{i}" for i in range(n)]} for a, n in names]
    place.write_text(json.dumps(manifest))
    labels = np.zeros((360, 2), np.int64)
    labels[:, 1] = -1
    labels[7, 1] = label
    np.save(trip / "bundle" / "labels.npy", labels)
    assert any(what in fault.what for fault in collect([trip]).faults)
