"""The teacher: eval mode for good, its own normalisation and resolution, classes by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgexfer.core.errors import ModelError, RunError
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.rundir import SCHEMA, RunInfo, open_run
from edgexfer.distill.teacher import Teacher, load_teacher
from edgexfer.models.create import create_model
from edgexfer.models.normalise import PixelModel
from edgexfer.models.store import save_model

pytestmark = pytest.mark.torch

MEAN, STD = (0.2, 0.5, 0.7), (0.1, 0.2, 0.4)
OWN = Preprocess((24, 24), 24, mean=MEAN, std=STD)
CLASSES = ("ant", "bee", "cow")


def bare() -> nn.Module:
    model, _ = create_model("resnet8", len(CLASSES), seed=3)
    return model.eval()


def pixels(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, size, size), generator=generator).float()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    info = RunInfo(SCHEMA, "finetune", "running", {}, {}, "0" * 64)
    with open_run(tmp_path / "teacher", info) as opened:
        save_model(
            opened.path,
            bare(),
            name="resnet8",
            classes=CLASSES,
            preprocess=OWN,
            origin="scratch",
            options={},
        )
        opened.set(status="done")
    return tmp_path / "teacher"


def test_it_never_leaves_eval_mode_and_its_statistics_stand_still() -> None:
    teacher = Teacher(PixelModel(bare(), OWN), range(3), "")
    around = nn.ModuleList([teacher]).train()
    before = {n: t.clone() for n, t in teacher.state_dict().items()}
    teacher(pixels(24))
    assert around.training and not any(m.training for m in teacher.modules())
    assert all(t.equal(before[n]) for n, t in teacher.state_dict().items())


def test_no_gradient_flows_through_it() -> None:
    teacher = Teacher(PixelModel(bare(), OWN), range(3), "")
    assert not teacher(pixels(24).requires_grad_()).requires_grad
    assert not any(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize("size", [24, 16, 40])
def test_it_brings_its_own_normalisation_and_resolution(run: Path, size: int) -> None:
    x = pixels(size)
    scaled = functional.interpolate(
        x, (24, 24), mode="bilinear", align_corners=False, antialias=True
    )
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    with torch.no_grad():
        expected = bare()((scaled / 255 - mean) / std)
    torch.testing.assert_close(load_teacher(run, CLASSES)(x), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("classes", "order"),
    [
        (("ant", "bee", "cow"), [0, 1, 2]),
        (("cow", "ant", "bee"), [2, 0, 1]),
        (("ant", "bee"), [0, 1]),
        (("cow", "ant"), [2, 0]),
    ],
)
def test_classes_are_matched_by_name(run: Path, classes: tuple[str, ...], order: list[int]) -> None:
    x = pixels(24)
    whole = load_teacher(run, CLASSES)(x)
    teacher = load_teacher(run, classes)
    assert teacher(x).equal(whole[:, order])
    assert teacher.reordered == (order != sorted(order))


def test_a_class_that_it_does_not_know_is_refused(run: Path) -> None:
    with pytest.raises(ModelError, match="does not know 1 of the data's classes: 'dog'") as caught:
        load_teacher(run, ("ant", "dog"))
    assert "rename the class folders" in caught.value.fix


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    info = RunInfo(SCHEMA, "finetune", "running", {}, {}, "0" * 64)
    open_run(tmp_path / "half", info).close()
    with pytest.raises(RunError, match=r"training is not finished \(running\)") as caught:
        load_teacher(tmp_path / "half", CLASSES)
    assert "goes on where it stopped" in caught.value.fix
