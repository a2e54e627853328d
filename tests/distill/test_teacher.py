"""The teacher: eval mode for good, its own normalisation and resolution, classes by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgexfer.core.errors import ModelError, RecipeError, RunError
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


def save_run(place: Path, preprocess: Preprocess = OWN, classes: Sequence[str] = CLASSES) -> Path:
    """Write a finished run; the same classes have the same weights, their order apart."""
    model = bare()
    head = model.get_submodule("fc")
    rows = [CLASSES.index(name) for name in classes]
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(parameter[rows].clone())
    info = RunInfo(SCHEMA, "finetune", "running", {}, {}, "0" * 64)
    with open_run(place, info) as opened:
        save_model(
            opened.path,
            model,
            name="resnet8",
            classes=classes,
            preprocess=preprocess,
            origin="scratch",
            options={},
        )
        opened.set(status="done")
    return place


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return save_run(tmp_path / "teacher")


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
    assert "--class-map" in caught.value.fix


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    info = RunInfo(SCHEMA, "finetune", "running", {}, {}, "0" * 64)
    open_run(tmp_path / "half", info).close()
    with pytest.raises(RunError, match=r"training is not finished \(running\)") as caught:
        load_teacher(tmp_path / "half", CLASSES)
    assert "goes on where it stopped" in caught.value.fix


def test_its_answers_are_float16_numbers_in_float32(run: Path) -> None:
    answers = load_teacher(run, CLASSES)(pixels(24))
    assert answers.dtype == torch.float32 and answers.half().float().equal(answers)
    assert not load_teacher(run, CLASSES).logits(pixels(24)).equal(answers)


def test_the_students_number_format_is_not_its_own(run: Path) -> None:
    teacher = load_teacher(run, CLASSES)
    alone = teacher(pixels(24))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert teacher(pixels(24)).equal(alone)


def test_several_answer_with_the_weighted_mean_each_fed_in_its_own_way(tmp_path: Path) -> None:
    small = save_run(tmp_path / "small", Preprocess((16, 16), 16), ("cow", "ant", "bee"))
    large = save_run(tmp_path / "large")
    x = pixels(24)
    a, b = (load_teacher(place, CLASSES).logits(x) for place in (small, large))
    assert not a.allclose(b, rtol=0.01)
    mean = load_teacher([small, large], CLASSES)
    weighted = load_teacher([small, large], CLASSES, weights=(1.0, 3.0))
    torch.testing.assert_close(mean.logits(x), (a + b) / 2)
    torch.testing.assert_close(weighted.logits(x), 0.25 * a + 0.75 * b)
    assert mean.reordered and len(mean.members()) == 2 and mean.modules_for_features is None
    assert mean.notes == (f"{small}: its classes stand in another order; matched by name",)
    assert mean.identity != weighted.identity != load_teacher(large, CLASSES).identity
    assert load_teacher([small, large], CLASSES, weights=(2.0, 6.0)).identity == weighted.identity


def test_its_identity_is_what_decides_its_answers(tmp_path: Path, run: Path) -> None:
    identity = load_teacher(run, CLASSES).identity
    assert len(identity) == 64 and identity == load_teacher(run, CLASSES).identity
    others = (
        load_teacher(run, ("bee", "ant", "cow")),
        load_teacher(save_run(tmp_path / "fed", Preprocess((24, 24), 24)), CLASSES),
    )
    assert len({identity, *(other.identity for other in others)}) == 3


@pytest.mark.parametrize(
    ("weights", "what"),
    [((1.0, 2.0), "2 teacher weights for 1 teachers"), ((-1.0,), "not above 0")],
)
def test_weights_that_fit_no_teacher_are_refused(
    run: Path, weights: tuple[float, ...], what: str
) -> None:
    with pytest.raises(RecipeError, match=what):
        load_teacher(run, CLASSES, weights=weights)


def test_a_file_says_what_the_teacher_calls_a_class(run: Path, tmp_path: Path) -> None:
    place = tmp_path / "map.yaml"
    place.write_text("dog: bee  # by its colour\n")
    mapped = load_teacher(run, ("dog", "ant"), class_map=place)
    x = pixels(24)
    assert mapped(x).equal(load_teacher(run, CLASSES)(x)[:, [1, 0]])
    assert mapped.notes == (
        f"{run}: its classes stand in another order; matched by name",
        f"{run}: 1 of its 3 classes are left out",
    )


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("ant: ant\ndgo: bee\n", r"the data has no class 'dgo' \(line 2\)", "did you mean 'dog'"),
        ("dog: beee\n", r"the model has no class 'beee' \(line 1\)", "did you mean 'bee'"),
        ("dog: 7\n", r"7 \(line 1\) is not text", "in quotes"),
        ("dog: ant\n", "'dog' and 'ant' are both the model's class 'ant'", "its own class"),
        ("- dog\n", "holds no keys", "key: value"),
    ],
)
def test_a_class_map_that_means_nothing_is_refused(
    run: Path, tmp_path: Path, text: str, what: str, fix: str
) -> None:
    place = tmp_path / "map.yaml"
    place.write_text(text)
    with pytest.raises(ModelError, match=what) as caught:
        load_teacher(run, ("dog", "ant"), class_map=place)
    assert fix in caught.value.fix
