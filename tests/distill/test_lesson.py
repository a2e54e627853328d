"""What a teacher brings to a training: engine, cache, features and warm-up, for real."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgexfer.core.errors import DataError, ModelError, RecipeError
from edgexfer.core.rundir import read_events, read_run
from edgexfer.distill import stage
from edgexfer.distill.lesson import soft_warmup
from edgexfer.distill.teacher import Teacher, load_teacher
from edgexfer.distill.terms import parse_loss
from edgexfer.models.store import load_model
from edgexfer.recipe import DataSection
from edgexfer.training import precision
from edgexfer.training.job import FitResult, Job
from edgexfer.training.loop import fit
from tests.distill.taught import STUDENT, TRAIN
from tests.pictures import picture, write_folder

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEXFER_CACHE", str(tmp_path / "cache"))


def test_feature_losses_train_their_projectors_and_leave_no_trace(
    tmp_path: Path, data: DataSection, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[bool] = []

    def watched(job: Job) -> FitResult:
        assert job.auxiliary is not None
        before = [p.clone() for p in job.auxiliary.parameters()]
        result = fit(job)
        after = list(job.auxiliary.parameters())
        moved.extend(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        return result

    monkeypatch.setattr(stage, "fit", watched)
    asked = replace(STUDENT, loss="kd+hint@2+attention")
    info = stage.distill(data, (teacher,), asked, tmp_path / "student")
    assert moved and all(moved)
    assert info.lineage["teacher_engine"]["name"].startswith("torch")
    assert not info.lineage["teacher_cache"]["use"]
    assert [t["weight"] for t in info.config["terms"]] == [0.9, 100.0, 1000.0]
    model, card = load_model(tmp_path / "student")
    assert card.name == "resnet8" and not any(m._forward_hooks for m in model.modules())
    logged = [e for e in read_events(tmp_path / "student") if e["event"] == "train"]
    assert {"cross_entropy", "kd", "hint@2:2", "attention"} <= set(logged[-1])


def test_the_gradients_of_a_race_do_not_reach_the_first_step(
    tmp_path: Path, data: DataSection, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replace(STUDENT, loss="kd+hint@2", train=replace(TRAIN, epochs=1))
    plain = stage.distill(data, (teacher,), asked, tmp_path / "plain")
    raced: list[int] = []

    def race(model: nn.Module, objective: Any, batch: Any, steps: int) -> precision.Choice:
        torch.autograd.backward(objective(copy.deepcopy(model), *batch))
        raced.append(steps)
        return precision.Choice("fp32", "the only one", {})

    monkeypatch.setattr(precision, "race", race)
    auto = replace(asked, train=replace(asked.train, precision="auto"))
    other = stage.distill(data, (teacher,), auto, tmp_path / "raced")
    assert raced and other.result["weights_sha256"] == plain.result["weights_sha256"]


def test_what_computed_the_teacher_is_kept_when_a_training_goes_on(
    tmp_path: Path, data: DataSection, teacher: Path
) -> None:
    info = stage.distill(data, (teacher,), STUDENT, tmp_path / "student")
    assert read_run(tmp_path / "student").lineage["teacher_engine"]["name"] == "torch-fp32"
    assert info.result["teacher"]["n"] > 0 and 0 <= info.result["teacher"]["sureness"] <= 1


def test_images_without_labels_teach_by_the_teachers_word_alone(
    tmp_path: Path, data: DataSection, teacher: Path
) -> None:
    camera = tmp_path / "camera"
    camera.mkdir()
    for i in range(24):
        picture((200, 30, 30), seed=9000 + i).save(camera / f"{i:02d}.png")
    more = replace(data, unlabelled=str(camera))
    with_camera = stage.distill(more, (teacher,), STUDENT, tmp_path / "with")
    without = stage.distill(data, (teacher,), STUDENT, tmp_path / "without")
    alone = stage.distill(more, (), STUDENT, tmp_path / "control")
    assert with_camera.result["fit"]["steps"] > without.result["fit"]["steps"]
    assert alone.result["fit"]["steps"] == without.result["fit"]["steps"]


def test_a_teacher_whose_answers_are_not_finite_is_refused(
    tmp_path: Path, data: DataSection, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_teacher

    def too_loud(*args: Any, **how: Any) -> Teacher:
        guide = loaded(*args, **how)
        assert guide.modules_for_features is not None
        guide.modules_for_features.get_parameter("fc.weight").data.mul_(1e9)
        return guide

    monkeypatch.setattr(stage, "load_teacher", too_loud)
    with pytest.raises(ModelError, match="logits are not finite, or larger than float16") as caught:
        stage.distill(data, (teacher,), STUDENT, tmp_path / "student")
    assert "smaller --lr" in caught.value.fix


def test_without_val_images_no_teacher_is_listened_to(tmp_path: Path, teacher: Path) -> None:
    few = DataSection(str(write_folder(tmp_path / "few", 2)))
    with pytest.raises(DataError, match="no val images to look at the teacher with") as caught:
        stage.distill(few, (teacher,), STUDENT, tmp_path / "student")
    assert "at least 3 of each class" in caught.value.fix


def test_kept_answers_decide_the_engine_only_where_they_are_used(
    tmp_path: Path, data: DataSection, teacher: Path
) -> None:
    first = stage.distill(data, (teacher,), STUDENT, tmp_path / "first")
    assert first.lineage["teacher_cache"]["use"]
    again = stage.distill(data, (teacher,), STUDENT, tmp_path / "again")
    assert "are kept" in again.lineage["teacher_engine"]["why"]
    small = replace(STUDENT, cache_gb=1e-9)
    other = stage.distill(data, (teacher,), small, tmp_path / "small")
    assert not other.lineage["teacher_cache"]["use"]
    assert "are kept" not in other.lineage["teacher_engine"]["why"]


def test_mixup_is_refused_where_one_true_class_is_needed(
    tmp_path: Path, data: DataSection, teacher: Path
) -> None:
    asked = replace(STUDENT, loss="kd+nckd", train=replace(TRAIN, cutmix=1.0))
    with pytest.raises(RecipeError, match="nckd needs one true class") as caught:
        stage.distill(data, (teacher,), asked, tmp_path / "student")
    assert "take kd or dist" in caught.value.fix
    mixed = replace(asked, loss="kd+dist")
    assert stage.distill(data, (teacher,), mixed, tmp_path / "mixed").status == "done"


@pytest.mark.parametrize(
    ("loss", "epochs", "asked", "wanted"),
    [
        ("kd", 240, None, 0.0),
        ("dkd", 240, None, 20.0),
        ("dkd", 480, None, 20.0),
        ("dkd+hint", 12, None, 1.0),
        ("dkd", 240, 0.0, 0.0),
        ("kd", 240, 5.0, 5.0),
    ],
)
def test_soft_warmup(loss: str, epochs: int, asked: float | None, wanted: float) -> None:
    section = replace(STUDENT, soft_warmup=asked, train=replace(TRAIN, epochs=epochs))
    assert soft_warmup(section, parse_loss(loss, w_soft=None)) == pytest.approx(wanted)
