"""Pre-training without labels: NT-Xent by hand, views, resuming, and weights to start from."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import edgexfer
from edgexfer.core.errors import DataError, RecipeError, TrainingError
from edgexfer.core.rundir import RunInfo, read_run
from edgexfer.data.simclr import two_views
from edgexfer.models.head import backbone_parameters
from edgexfer.recipe import DataSection, ModelSection, PretrainSection
from edgexfer.training.objective import Views
from edgexfer.training.stage import build_model
from edgexfer.transfer import pretrain as stage
from edgexfer.transfer.pretrain import nt_xent, pretrain, simclr
from tests.pictures import picture
from tests.training.test_resume import start
from tests.transfer.contrast_worker import SECTION, TRAIN

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> DataSection:
    """Twenty pictures, some in folders."""
    root = tmp_path_factory.mktemp("camera")
    for i in range(20):
        place = root / ("" if i % 2 else f"day-{i % 3}") / f"{i:02d}.png"
        place.parent.mkdir(exist_ok=True)
        picture((40 + 10 * i, 255 - 12 * i, 90), seed=i).save(place)
    return DataSection(str(root))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "weights.safetensors")


@pytest.fixture(scope="module")
def whole(camera: DataSection, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunInfo]:
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, edgexfer.pretrain(camera, SECTION, out)


def test_nt_xent_is_that_of_the_paper() -> None:
    z = np.random.default_rng(0).normal(size=(10, 4))
    temperature = 0.3
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    cosines = unit @ unit.T / temperature
    losses = []
    for i in range(10):
        others = np.exp([cosines[i, k] for k in range(10) if k != i]).sum()
        losses.append(-np.log(np.exp(cosines[i, (i + 5) % 10]) / others))
    found = nt_xent(torch.from_numpy(z), temperature)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_weights_are_to_start_from(whole: tuple[Path, RunInfo]) -> None:
    out, info = whole
    assert info.kind == "pretrain" and info.status == "done"
    assert info.result["images"] == 20 and info.result["fit"]["steps"] == 4
    begun = build_model(ModelSection("resnet8", size=16, weights=str(out)), 3, 0)
    learned, random = weights(out), build_model(SECTION.model, 3, 0).model.state_dict()
    for name, parameter in backbone_parameters(begun.model).items():
        assert parameter.equal(learned[name])
    assert not begun.model.state_dict()["conv1.weight"].equal(random["conv1.weight"])


def train_until_killed(
    camera: DataSection, section: PretrainSection, out: Path, steps: int
) -> None:
    """Die without a word in the step after so many."""
    torch.set_num_threads(1)
    calls = iter(range(100))

    def dying(*args: Any) -> Any:
        if next(calls) == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return two_views(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "two_views", dying)
        pretrain(camera, section, out)


@pytest.mark.parametrize("steps", [2, 3], ids=("after an epoch", "within an epoch"))
def test_a_killed_training_ends_with_the_same_bits(
    camera: DataSection, whole: tuple[Path, RunInfo], tmp_path: Path, steps: int
) -> None:
    out = tmp_path / "run"
    often = replace(SECTION, train=replace(TRAIN, checkpoint_s=1e-9))
    child = start(train_until_killed, camera, often, out, steps)
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    again = pretrain(camera, often, out).result
    assert again["fit"]["resumed_from"] == steps
    assert again["weights_sha256"] == whole[1].result["weights_sha256"]


@pytest.mark.slow
def test_two_processes_compare_with_the_views_of_both(camera: DataSection, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.transfer.contrast_worker", str(tmp_path / "run"), camera.path]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert read_run(tmp_path / "run").result["fit"]["steps"] == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patience": 3}, "train.patience is 3"),
        ({"accumulate": 2}, "train.accumulate is 2"),
        ({"mixup": 0.2}, "train.mixup is 0.2"),
        ({"views": 4}, "train.views is 4"),
        ({"balance": "uncertainty"}, "train.balance is uncertainty"),
    ],
    ids=("patience", "accumulate", "mixup", "views", "balance"),
)
def test_what_needs_labels_is_refused(
    camera: DataSection, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    section = replace(SECTION, train=replace(TRAIN, **change))
    with pytest.raises(RecipeError, match=words) as caught:
        pretrain(camera, section, tmp_path / "run")
    assert caught.value.fix == f"leave out {words.split()[0]}"
    assert not (tmp_path / "run").exists()


def test_one_image_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    (tmp_path / "camera").mkdir()
    picture((9, 9, 200), seed=0).save(tmp_path / "camera" / "0.png")
    with pytest.raises(DataError, match="1 usable images") as caught:
        pretrain(DataSection(str(tmp_path / "camera")), SECTION, tmp_path / "run")
    assert "add images" in caught.value.fix


def test_a_step_in_parts_is_not_compared_in_parts() -> None:
    objective = simclr(torch.nn.Identity(), SECTION, 8)
    pixels = torch.zeros(4, 3, 8, 8)
    with pytest.raises(TrainingError, match="with 8 images at once") as caught:
        objective(torch.nn.Flatten(), pixels, pixels, Views(torch.arange(4), 0, 0, 1))
    assert "batch_size" in caught.value.fix
    # What formats are raced with is a part of a batch, and nothing of it counts.
    timed = Views(torch.arange(4), 0, 0, 1, rehearsal=True)
    some = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255
    assert objective(torch.nn.Flatten(), some, pixels, timed)[0].isfinite()
