"""The Python API: its names, that they cost nothing, and that rooms and verbs share them."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import edgexfer
from edgexfer import ModelSection, TeacherSection, Wishes
from edgexfer.bench.analyse import analyse
from edgexfer.cli import VERBS
from edgexfer.core.errors import DataError
from edgexfer.core.record import write_record
from tests.bench.made import make_record
from tests.pictures import COLOURS, write_folder
from tests.transfer.tiny import TRAIN

# Verbs that have another name here, and those that draft or look at something for a person.
OTHER_NAMES = {"data": "check_data", "eval": "evaluate", "predict": "load_bundle"}
FOR_PEOPLE = {"doctor", "init", "lint", "profiles", "quickstart"}


def test_every_public_name_resolves() -> None:
    for name in edgexfer.__all__:
        assert getattr(edgexfer, name) is not None
    assert sorted(edgexfer.__all__) == list(edgexfer.__all__)
    assert set(edgexfer.__all__) < set(dir(edgexfer))


def test_the_import_is_light() -> None:
    code = (
        "import sys, edgexfer\n"
        "heavy = {'numpy', 'torch', 'pydantic', 'onnx', 'click'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_room_of_a_verbs_name_is_still_the_verb() -> None:
    importlib.import_module("edgexfer.distill.losses")

    assert edgexfer.distill.losses.kd.__name__ == "kd"  # type: ignore[attr-defined]
    assert list(inspect.signature(edgexfer.distill).parameters)[:2] == ["data", "teacher"]
    with pytest.raises(DataError, match="nowhere"):
        edgexfer.distill("nowhere", "teacher", "resnet8", "out")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fine_tune'"):
        _ = edgexfer.fine_tune


def test_every_verb_is_a_function() -> None:
    assert {OTHER_NAMES.get(v, v) for v in VERBS if v not in FOR_PEOPLE} < set(edgexfer.__all__)


@pytest.mark.torch
def test_the_verbs_of_transfer_answer(tmp_path: Path) -> None:
    data, run = str(write_folder(tmp_path / "pictures", 16)), tmp_path / "run"
    section = TeacherSection(
        ModelSection("resnet8", size=16), "scratch", train=replace(TRAIN, epochs=1)
    )
    edgexfer.finetune(data, section, run)
    advice = edgexfer.advise(data, run)
    assert advice.chosen == str(run)
    wishes = Wishes((str(run),), students=("resnet14", "resnet8"), target="x86")
    wished = edgexfer.advise(data, wishes)
    assert {student.name for student in wished.students} == set(wishes.students)
    assert wished.recipe.export.targets == ("x86",)
    (subject,) = edgexfer.audit(run).subjects
    assert {group.group for group in subject.groups} == set(COLOURS)
    assert [row.shots for row in edgexfer.fewshot(data, run, shots=(1, 2), episodes=5)] == [1, 2]
    assert len(edgexfer.cluster(data, run, tmp_path / "clusters", clusters=3).sizes) == 3
    curve = edgexfer.curve(data, section, tmp_path / "curve", fractions=(0.3, 0.6, 1), seeds=1)
    assert len(curve.points) == 3 and curve.points[-1].images == advice.images[1]


def test_records_are_compared_by_themselves_and_by_their_files(tmp_path: Path) -> None:
    record = analyse(make_record([[1_000_000 + i for i in range(100)] for _ in range(3)]))
    write_record(tmp_path / "record.json", record)
    of_files = edgexfer.compare(tmp_path / "record.json", tmp_path / "record.json")
    assert edgexfer.compare(record, record) == of_files
    assert edgexfer.compare(record, record, across="precision") == of_files
    assert {row.metric for row in of_files.rows} >= {"latency_p50", "top1"}


def test_one_place_needs_no_list(tmp_path: Path) -> None:
    record = analyse(make_record([[1_000_000 + i for i in range(100)] for _ in range(3)]))
    write_record(tmp_path / "record.json", record)
    page = edgexfer.report(tmp_path / "record.json", tmp_path / "page.html")
    assert "<html" in page.read_text(encoding="utf-8")
    assert edgexfer.check_data(write_folder(tmp_path / "pictures")).classes == tuple(
        sorted(COLOURS)
    )
