"""Sweeps over seeds and losses, run for real on pictures of three colours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgexfer.core.errors import ModelError, RecipeError, RunError
from edgexfer.core.rundir import SCHEMA, RunInfo, open_run, read_run
from edgexfer.core.sweep import read_sweep
from edgexfer.distill import sweep as sweeping
from edgexfer.distill.stage import distill
from edgexfer.distill.sweep import distill_all
from edgexfer.recipe import DataSection
from tests.distill import taught
from tests.distill.taught import TRAIN

pytestmark = pytest.mark.torch

STUDENT = replace(taught.STUDENT, control=True)


def test_losses_and_seeds_are_compared_with_the_control(
    tmp_path: Path, data: DataSection, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEXFER_CACHE", str(tmp_path / "cache"))
    asked = replace(STUDENT, loss="kd,dist", seeds=2)
    outcome = distill_all(data, (teacher,), asked, tmp_path / "student")

    found = outcome.sweep
    assert found is not None and found == read_sweep(outcome.folder)
    assert [arm.name for arm in found.arms] == ["kd", "dist", "control"]
    assert found.baseline == "control" and found.teacher_top1_pct is not None
    assert all(arm.seeds == (0, 1) and len(arm.top1_pct) == 2 for arm in found.arms)
    assert [arm.gain is None for arm in found.arms] == [False, False, True]
    for arm in found.arms:
        for run, seed, top1_pct in zip(arm.runs, arm.seeds, arm.top1_pct, strict=True):
            info = read_run(outcome.folder / run)
            assert info.status == "done" and info.config["train"]["seed"] == seed
            assert info.result["test"]["top1_pct"] == top1_pct
    kd, _, control = found.arms
    assert kd.gain is not None and kd.gain.seeds == 2
    assert kd.gain.gain_pt == pytest.approx(kd.mean_pct - control.mean_pct)
    assert (outcome.folder / kd.runs[0]).resolve() == tmp_path / "student"
    assert (outcome.folder / control.runs[0]).resolve() == tmp_path / "student-control"

    # The teacher was asked once about the views that all of them saw.
    taught = [read_run(outcome.folder / run) for arm in found.arms[:2] for run in arm.runs]
    assert all(info.lineage["teacher_cache"]["use"] for info in taught)
    kept = "its answers to these views are kept"
    assert [i.lineage["teacher_engine"]["why"] == kept for i in taught] == [False, True, True, True]
    assert len(list((tmp_path / "cache" / "teacher").glob("*/*.rows"))) == 1


def test_a_sweep_goes_on_with_more_seeds(
    tmp_path: Path, data: DataSection, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEXFER_CACHE", str(tmp_path / "cache"))
    once = distill_all(data, (teacher,), STUDENT, tmp_path / "student")
    assert once.sweep is None and once.control is not None
    trained: list[Path] = []
    whole = distill

    def noting(*args: object, **more: object) -> object:
        before = (Path(str(args[3])) / "run.json").exists()
        if not before:
            trained.append(Path(str(args[3])))
        return whole(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(sweeping, "distill", noting)
    twice = distill_all(data, (teacher,), replace(STUDENT, seeds=2), tmp_path / "student")
    assert [place.relative_to(twice.folder).as_posix() for place in trained] == [
        "kd/seed-1",
        "control/seed-1",
    ]
    assert twice.student == once.student and twice.control == once.control


def test_without_a_control_the_first_loss_is_what_others_are_compared_with(
    tmp_path: Path, data: DataSection, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEXFER_CACHE", str(tmp_path / "cache"))
    asked = replace(STUDENT, loss="kd, mse", control=False)
    outcome = distill_all(data, (teacher,), asked, tmp_path / "student")
    assert outcome.control is None and outcome.sweep is not None
    assert outcome.sweep.baseline == "kd"
    assert [arm.gain is None for arm in outcome.sweep.arms] == [True, False]


def test_an_assistant_stands_between_teacher_and_student(
    tmp_path: Path, data: DataSection, teacher: Path
) -> None:
    asked = replace(STUDENT, control=False, assistants=("resnet14",))
    outcome = distill_all(data, (teacher,), asked, tmp_path / "student")
    assistant = read_run(tmp_path / "student-assistant-1")
    assert assistant.result["model"] == "resnet14"
    alone = distill_all(
        data, (tmp_path / "student-assistant-1",), replace(asked, assistants=()), tmp_path / "alone"
    )
    assert outcome.student.parents == alone.student.parents
    assert outcome.student.result["weights_sha256"] == alone.student.result["weights_sha256"]


def test_losses_whose_names_look_alike_have_folders_of_their_own(
    tmp_path: Path, data: DataSection, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[Path] = []

    def noting(*args: object, **_: object) -> object:
        places.append(Path(str(args[3])))
        return read_run(tmp_path / "done")

    open_run(tmp_path / "done", RunInfo(SCHEMA, "distill", "done", {}, {}, "")).close()
    monkeypatch.setattr(sweeping, "distill", noting)
    asked = replace(STUDENT, loss="kd,hint@a:b,hint@a_b", control=False)
    distill_all(data, ("teacher",), asked, tmp_path / "student")
    assert len(set(places)) == 3


def test_one_loss_in_two_spellings_is_refused(
    tmp_path: Path, data: DataSection, teacher: Path
) -> None:
    asked = replace(STUDENT, loss="1*kd, 1 * kd")
    with pytest.raises(RecipeError, match="names a loss twice"):
        distill_all(data, (teacher,), asked, tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_what_a_later_training_would_refuse_is_refused_before_the_first(
    tmp_path: Path, data: DataSection, teacher: Path
) -> None:
    hint = replace(STUDENT, loss="kd,hint", teacher_cache="on")
    mixed = replace(STUDENT, loss="kd,dkd", train=replace(TRAIN, mixup=0.2))
    for asked, what in (
        (replace(STUDENT, loss="kd,kdd"), "loss 'kdd' is unknown"),
        (hint, "teacher_cache is on, but a feature loss"),
        (mixed, "dkd needs one true class"),
    ):
        with pytest.raises(RecipeError, match=what):
            distill_all(data, (teacher,), asked, tmp_path / "student")
    with pytest.raises(ModelError, match="resnett14"):
        distill_all(data, (teacher,), replace(STUDENT, assistants=("resnett14",)), tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_a_distillation_without_a_teacher_is_refused(tmp_path: Path, data: DataSection) -> None:
    with pytest.raises(RecipeError, match="no teacher is named") as caught:
        distill_all(data, (), STUDENT, tmp_path / "student")
    assert "a run, a bundle or an ONNX file" in caught.value.fix


def test_answers_are_kept_for_those_alone_who_ask_again(
    tmp_path: Path, data: DataSection, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[bool] = []

    def noting(*args: object, **how: object) -> object:
        shares.append(bool(how.get("shared")))
        raise RunError("enough", "")

    monkeypatch.setattr(sweeping, "distill", noting)
    mixed = replace(TRAIN, mixup=0.2)
    for asked in (
        STUDENT,  # the control asks no teacher
        replace(STUDENT, seeds=2),
        replace(STUDENT, loss="kd,mse"),
        replace(STUDENT, seeds=2, train=mixed),  # each seed mixes in an order of its own
        replace(STUDENT, loss="kd,mse", train=mixed),
    ):
        with pytest.raises(RunError, match="enough"):
            distill_all(data, (teacher,), asked, tmp_path / "student")
    assert shares == [False, True, True, False, True]
