"""What a distillation prints, for people and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgexfer.cli.show import show_distillation, show_run
from edgexfer.core.codec import encode
from edgexfer.core.files import make_dir, write_json
from edgexfer.core.rundir import SCHEMA, RunInfo
from edgexfer.core.stats import PairedDrop, SeededGain
from edgexfer.core.sweep import SCHEMA as SWEEP
from edgexfer.core.sweep import Arm, Sweep
from edgexfer.distill.sweep import Outcome
from edgexfer.training.predictions import PREDICTIONS

pytestmark = pytest.mark.torch

TEST = {"n": 4, "correct": 3, "top1_pct": 75.0, "low_pct": 30.1, "high_pct": 95.4}
RUN = RunInfo(
    SCHEMA,
    "distill",
    "done",
    {"qat_for": None},
    {},
    "0" * 64,
    result={"model": "resnet8", "parameters": 78_000, "test": TEST},
)
ARMS = (
    Arm("kd", ("../student",), (0,), (75.0,), 75.0, (9.0,), SeededGain(25.0, -30.0, 70.0, 1, 4)),
    Arm("control", ("../student-control",), (0,), (50.0,), 50.0, (9.0,)),
)
COMPARED = Sweep(SWEEP, "resnet8", 80.0, 4, "control", ARMS)


def outcome(folder: Path, *, control: bool, sweep: bool) -> Outcome:
    for name, right in (("student", 3), ("student-control", 2)):
        labels = [0, 0, 0, 0]
        predictions = [0] * right + [1] * (4 - right)
        saved = {"labels": labels, "predictions": predictions}
        write_json(make_dir(folder / name) / PREDICTIONS, saved)
    return Outcome(
        student=RUN,
        control=replace(RUN, kind="control") if control else None,
        control_place=folder / "student-control",
        sweep=COMPARED if sweep else None,
        folder=folder / "student-sweep",
    )


def as_json(place: Path, found: Outcome, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    show_distillation(place, found, as_json=True)
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_json_holds_all_that_was_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "student"
    alone = as_json(place, outcome(tmp_path, control=False, sweep=False), capsys)
    assert alone["kind"] == "distill" and alone["result"]["test"] == TEST
    controlled = as_json(place, outcome(tmp_path, control=True, sweep=False), capsys)
    assert list(controlled) == ["student", "control", "gain"]
    assert controlled["gain"]["drop_pt"] == 25.0
    both = as_json(place, outcome(tmp_path, control=True, sweep=True), capsys)
    assert list(both) == ["student", "control", "sweep"]
    assert both["control"]["kind"] == "control"
    assert [arm["name"] for arm in both["sweep"]["arms"]] == ["kd", "control"]


def test_a_sweep_with_a_control_is_one_table_and_one_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_distillation(
        tmp_path / "student", outcome(tmp_path, control=True, sweep=True), as_json=False
    )
    text = capsys.readouterr().out
    assert "Did the teacher help the student? With 1 seed: kd no difference shown" in text
    assert "the control, without the teacher" not in text


def test_a_student_that_was_quantized_is_exported_for_its_own_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = outcome(tmp_path, control=False, sweep=False)
    found = replace(found, student=replace(RUN, config={"qat_for": "rpi5-onnxruntime"}))
    show_distillation(tmp_path / "student", found, as_json=False)
    assert "--target rpi5-onnxruntime --out bundle" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("before", "after", "drop", "said"),
    [
        (
            75.0,
            62.5,
            PairedDrop(12.5, -3.04, 27.1, 6, 1, 40),
            "75.0 % → 62.5 % of 40 test images, lost 12.5 points "
            "(95 % interval −3.0 to 27.1); 70.0 % where only its own classes",
        ),
        (
            75.0,
            80.0,
            PairedDrop(-5.0, -12.0, 2.0, 1, 3, 40),
            "75.0 % → 80.0 % of 40 test images, gained 5.0 points (95 % interval −2.0 to 12.0)",
        ),
    ],
)
def test_what_was_forgotten_is_said(
    capsys: pytest.CaptureFixture[str], before: float, after: float, drop: PairedDrop, said: str
) -> None:
    task = {"before_pct": before, "after_pct": after, "among_old_pct": 70.0, "drop": encode(drop)}
    info = replace(RUN, result={**RUN.result, "old_task": task})
    show_run(Path("run"), info, as_json=False, following="nothing")
    assert f"  former task: {said}" in capsys.readouterr().out
    show_run(Path("run"), RUN, as_json=False, following="nothing")
    assert "former task" not in capsys.readouterr().out
