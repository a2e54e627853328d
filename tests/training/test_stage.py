"""What the stages hand to feed and job."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from edgexfer.core.codec import encode
from edgexfer.core.errors import RunError
from edgexfer.core.files import read_json, write_json
from edgexfer.core.rundir import INFO, RunDir
from edgexfer.models.freeze import freeze_backbone
from edgexfer.recipe import DataSection, ModelSection, TeacherSection, TrainSection
from edgexfer.training.objective import cross_entropy
from edgexfer.training.stage import (
    build_model,
    images_of,
    make_feed,
    make_job,
    open_data,
    open_training,
    train_along,
)
from tests.pictures import write_folder

pytestmark = pytest.mark.torch


def test_the_feed_is_the_one_that_the_sections_describe(tmp_path: Path) -> None:
    more = write_folder(tmp_path / "more", 2, {"orange": (230, 150, 30)})
    data = DataSection(str(write_folder(tmp_path / "pictures")), unlabelled=str(more))
    dataset = open_data(data)
    preprocess = build_model(ModelSection("resnet8", size=16), 3, 0).preprocess
    train = TrainSection(batch_size=8, seed=5, views=3, view_seed=4)
    feed = make_feed(data, dataset, preprocess, train, "train+unlabelled")
    assert feed.labels.tolist().count(-1) == 2
    assert (feed.batch_size, feed.seed, feed.period, feed.mixes) == (8, 5, 3, False)
    assert feed.identity()["view_seed"] == 4
    for mixed in (TrainSection(mixup=0.1), TrainSection(cutmix=0.1)):
        assert make_feed(data, dataset, preprocess, mixed).mixes


def test_a_run_of_an_older_release_goes_on_with_the_defaults_of_newer_settings(
    tmp_path: Path,
) -> None:
    data = DataSection(str(write_folder(tmp_path / "pictures")))
    section = TeacherSection(ModelSection("resnet8", size=16))

    def reopen() -> None:
        open_training("finetune", tmp_path / "run", encode(section), data, open_data(data)).close()

    reopen()
    place = tmp_path / "run" / INFO
    saved = read_json(place)
    del saved["config"]["train"]["views"], saved["config"]["model"]["options"]
    write_json(place, saved)
    reopen()
    saved["config"]["train"]["epochs"] = 77
    write_json(place, saved)
    with pytest.raises(RunError, match=r"train\.epochs: 77"):
        reopen()


def test_a_run_names_its_images_so_that_they_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "pictures")
    (tmp_path / "digits").mkdir()
    section = encode(TeacherSection(ModelSection("resnet8", size=16)))
    monkeypatch.chdir(tmp_path)
    for name, path, stored in (
        ("a", "pictures", str(tmp_path / "pictures")),
        ("b", "digits", "digits"),
    ):
        data = DataSection(path)
        with open_training("finetune", tmp_path / name, section, data, open_data(data)) as run:
            assert run.info.data["path"] == stored


def test_a_job_trains_what_is_not_frozen(run: RunDir, tmp_path: Path) -> None:
    data = DataSection(str(write_folder(tmp_path / "pictures")))
    dataset = open_data(data)
    built = build_model(ModelSection("resnet8", size=16), 3, 0)
    freeze_backbone(built.model)
    train = TrainSection(lr=0.25)
    feed = make_feed(data, dataset, built.preprocess, train)
    val = images_of(data, dataset, "val", built.preprocess)
    job = make_job(run, built, train, feed, val, cross_entropy())
    trained = [p for group in job.groups for p in group["params"]]
    assert trained and all(p.requires_grad for p in trained)
    assert len(trained) == sum(p.requires_grad for p in built.model.parameters())
    assert {group["lr"] for group in job.groups} == {0.25}
    assert (job.title, job.frozen, job.auxiliary) == (f"{run.info.kind} resnet8", [], None)


@pytest.mark.parametrize("decay_all", [False, True])
def test_what_is_trained_along_decays_as_the_model_does(
    run: RunDir, tmp_path: Path, decay_all: bool
) -> None:
    data = DataSection(str(write_folder(tmp_path / "pictures")))
    dataset = open_data(data)
    built = build_model(ModelSection("resnet8", size=16), 3, 0)
    train = TrainSection(lr=0.25, weight_decay=0.5, decay_all=decay_all)
    feed = make_feed(data, dataset, built.preprocess, train)
    val = images_of(data, dataset, "val", built.preprocess)
    job = make_job(run, built, train, feed, val, cross_entropy())
    layer = nn.Linear(4, 2)
    train_along(job, layer, "projectors")
    decays = {id(p): g["weight_decay"] for g in job.groups for p in g["params"]}
    assert job.auxiliary is layer
    assert decays[id(layer.weight)] == 0.5
    assert decays[id(layer.bias)] == (0.5 if decay_all else 0.0)
