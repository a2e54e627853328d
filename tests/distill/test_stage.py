"""The distillation stage, run for real on pictures of three colours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from edgexfer.core.errors import ModelError, RecipeError
from edgexfer.core.rundir import read_events
from edgexfer.distill import stage
from edgexfer.recipe import DataSection, ModelSection, StudentSection, TeacherSection, TrainSection
from edgexfer.training.loop import FitResult, Job, fit
from edgexfer.transfer.finetune import finetune

pytestmark = pytest.mark.torch

TRAIN = TrainSection(epochs=3, batch_size=16, lr=1e-2, warmup=0.5, augment="none", precision="fp32")
STUDENT = StudentSection(ModelSection("resnet8", size=16), train=replace(TRAIN, epochs=1))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, data: DataSection) -> Path:
    section = TeacherSection(ModelSection("resnet8", size=24), "scratch", train=TRAIN)
    place = tmp_path_factory.mktemp("runs") / "teacher"
    finetune(data, section, place)
    return place


def weights_at_start(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Note the weights that each training of this test begins with; it trains all the same."""
    seen: list[dict[str, Tensor]] = []

    def noting(job: Job) -> FitResult:
        seen.append({n: t.clone() for n, t in job.model.state_dict().items()})
        return fit(job)

    monkeypatch.setattr(stage, "fit", noting)
    return seen


def test_student_and_control_differ_by_the_teacher_alone(
    tmp_path: Path, data: DataSection, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = weights_at_start(monkeypatch)
    student = stage.distill(data, (teacher,), STUDENT, tmp_path / "student")
    control = stage.distill(data, (), STUDENT, tmp_path / "control")
    assert started[0].keys() == started[1].keys()
    assert all(t.equal(started[1][n]) for n, t in started[0].items())
    assert (student.kind, control.kind) == ("distill", "control")
    assert student.result["weights_sha256"] != control.result["weights_sha256"]
    assert student.result["fit"]["steps"] == control.result["fit"]["steps"] == 4
    assert student.data_fingerprint == control.data_fingerprint
    assert list(student.parents) == ["teacher"] and not control.parents
    noted = [e for e in read_events(tmp_path / "student") if e["event"] == "teacher"]
    assert len(noted) == 1 and noted[0]["val_top1_pct"] > 60
    assert 0 < noted[0]["entropy_share"] < 1

    # Both are done: the same commands train no more.
    assert stage.distill(data, (teacher,), STUDENT, tmp_path / "student") == student
    assert stage.distill(data, (), STUDENT, tmp_path / "control") == control
    assert len(started) == 2


def test_a_teacher_at_chance_is_refused(tmp_path: Path, data: DataSection) -> None:
    untrained = TeacherSection(
        ModelSection("resnet8", size=16), "scratch", train=replace(TRAIN, epochs=1, lr=1e-12)
    )
    finetune(data, untrained, tmp_path / "teacher")
    with pytest.raises(ModelError, match=r"val images, chance is 33\.3 %") as caught:
        stage.distill(data, (tmp_path / "teacher",), STUDENT, tmp_path / "student")
    assert "fine-tune the teacher on this data first" in caught.value.fix


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"w_soft": 0.0, "w_hard": 0.0}, "all its weights and w_hard are 0"),
        ({"loss": "kdd"}, "loss 'kdd' is unknown"),
    ],
)
def test_a_loss_that_means_nothing_is_refused(
    tmp_path: Path, data: DataSection, teacher: Path, changes: dict[str, Any], what: str
) -> None:
    with pytest.raises(RecipeError, match=what):
        stage.distill(data, (teacher,), replace(STUDENT, **changes), tmp_path / "student")
    assert not (tmp_path / "student").exists()
