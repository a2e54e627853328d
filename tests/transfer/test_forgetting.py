"""What keeps a model from forgetting: formulas by hand, and what is left of a first task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from edgexfer.core.errors import DataError, EdgexferError, ModelError, RecipeError, RunError
from edgexfer.core.rundir import RunInfo, read_run
from edgexfer.data.images import sample
from edgexfer.models.normalise import PixelModel
from edgexfer.models.store import load_model
from edgexfer.recipe import DataSection, ModelSection, TeacherSection, TrainSection
from edgexfer.training.objective import Views
from edgexfer.training.stage import build_model, open_data
from edgexfer.transfer import ewc, lwf, replay
from edgexfer.transfer.finetune import finetune
from edgexfer.transfer.former import take_up
from edgexfer.transfer.plan import Subject
from tests.pictures import write_folder

pytestmark = pytest.mark.torch

TRAIN = TrainSection(
    epochs=3, batch_size=16, lr=1e-2, warmup=0.5, augment="none", precision="fp32", compile="off"
)
MODEL = ModelSection("resnet8", size=16)
FIRST = {"blue": (30, 60, 200), "green": (40, 180, 60), "pink": (230, 130, 160)}
SECOND = {"amber": (230, 180, 30), "green": (40, 180, 60), "red": (200, 50, 40)}
VIEWS = Views(torch.arange(8), 0, 0, 1)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> DataSection:
    return DataSection(str(write_folder(tmp_path_factory.mktemp("b") / "second", 32, SECOND)))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned the first three colours; one of them comes again later."""
    place = tmp_path_factory.mktemp("a")
    data = DataSection(str(write_folder(place / "first", 32, FIRST)))
    finetune(data, TeacherSection(MODEL, "scratch", train=TRAIN), place / "run")
    return place / "run"


def teacher(strategy: str, old: Path, **options: Any) -> TeacherSection:
    return TeacherSection(
        MODEL, strategy, strategy_options={"old": str(old), **options}, train=TRAIN
    )


def subject(strategy: Any, old: Path, data: DataSection, **options: Any) -> Subject:
    dataset = open_data(data)
    section = teacher("ewc", old)
    built = build_model(MODEL, len(dataset.classes), 0)
    return Subject(built, section, strategy.Options(str(old), **options), data, dataset)


def test_the_former_model_answers_as_before_under_the_larger_head(
    old: Path, second: DataSection
) -> None:
    found = subject(ewc, old, second)
    former = take_up(found, str(old))
    assert former.classes == ("amber", "green", "red", "blue", "pink")
    assert former.columns == (3, 1, 4)
    pixels = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        new = PixelModel(found.built.model.eval(), found.built.preprocess)(pixels)
        before = PixelModel(former.model, found.built.preprocess)(pixels)
    torch.testing.assert_close(new[:, list(former.columns)], before, rtol=0, atol=1e-6)


def test_the_fisher_information_of_the_head_is_that_of_the_formula(
    old: Path, second: DataSection
) -> None:
    """For a linear head the gradient of log p(y) is (onehot(y) - p) times the features."""
    found = subject(ewc, old, second)
    former = take_up(found, str(old))
    images, _, _ = sample(former.dataset, "train", 6, found.built.preprocess, seed=0)
    measured = ewc.fisher(found, former, 6)
    features: list[np.ndarray[Any, Any]] = []
    head: Any = found.built.model.get_submodule("fc")
    hook = head.register_forward_pre_hook(lambda _, x: features.append(x[0].detach().numpy()))
    model = PixelModel(found.built.model.eval(), found.built.preprocess)
    chance = torch.Generator().manual_seed(0)
    weight, bias = np.zeros((5, 64)), np.zeros(5)
    for image in torch.from_numpy(images).permute(0, 3, 1, 2):
        with torch.no_grad():
            logits = model(image[None])[0, list(former.columns)].double().numpy()
        p = softmax(logits)
        drawn = int(torch.multinomial(torch.from_numpy(p).float(), 1, generator=chance))
        error = np.zeros(5)
        error[list(former.columns)] = np.eye(3)[drawn] - p
        bias += error**2 / 6
        weight += np.outer(error, features.pop()[0].astype(float)) ** 2 / 6
    hook.remove()
    np.testing.assert_allclose(measured["fc.weight"].numpy(), weight, rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(measured["fc.bias"].numpy(), bias, rtol=1e-3, atol=1e-9)
    assert not measured["fc.weight"][[0, 2]].any()  # outputs that the former model had not


def test_the_pull_is_the_weighted_square_of_the_way() -> None:
    start = {"a.weight": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}
    importance = {"a.weight": torch.tensor([0.5, 4.0]), "b": torch.tensor([[2.0]])}
    anchor = ewc.Anchor(start, importance)
    now = {"a.weight": torch.tensor([2.0, 2.5]), "b": torch.tensor([[1.0]])}
    assert float(anchor(now)) == pytest.approx((0.5 * 1 + 4 * 0.25 + 2 * 4) / 2)
    assert float(anchor(start)) == 0
    assert len(dict(anchor.named_buffers())) == 4  # a checkpoint holds them


def test_learning_without_forgetting_is_its_formula(old: Path, second: DataSection) -> None:
    found = subject(lwf, old, second, weight=0.7, temperature=3.0)
    plan = lwf.prepare(found)
    chance = torch.Generator().manual_seed(1)
    pixels = torch.rand(8, 3, 16, 16, generator=chance) * 255
    targets = torch.nn.functional.one_hot(torch.arange(8) % 3, 5).float()
    logits = torch.randn(8, 5, generator=chance)
    model: Any = lambda _: logits  # noqa: E731 - stands for a model that answers just so
    assert plan.objective is not None
    loss, parts = plan.objective(model, pixels, targets, VIEWS)
    former, _ = load_model(old)
    with torch.no_grad():
        wanted = PixelModel(former, found.built.preprocess)(pixels).double().numpy() / 3
    said = logits.double().numpy()
    hard = -log_softmax(said[:, :3], axis=1)[np.arange(8), np.arange(8) % 3].mean()
    ours = log_softmax(said[:, [3, 1, 4]] / 3, axis=1)
    theirs = log_softmax(wanted, axis=1)
    soft = 9 * (np.exp(theirs) * (theirs - ours)).sum(1).mean()
    assert float(parts["hard"]) == pytest.approx(hard, rel=1e-5)
    assert float(parts["soft"]) == pytest.approx(soft, rel=1e-4)
    assert float(loss) == pytest.approx(hard + 0.7 * soft, rel=1e-5)


def test_the_buffer_is_balanced_repeated_and_labelled_for_the_larger_head(
    old: Path, second: DataSection
) -> None:
    found = subject(replay, old, second)
    former = take_up(found, str(old))
    new = found.dataset.splits["train"]
    mixed = replay.with_buffer(found.dataset, former, 6).splits["train"]
    counts = np.bincount(mixed.labels[len(new) :], minlength=5)
    assert mixed.keys[: len(new)] == new.keys and len(set(mixed.keys)) == len(mixed.keys)
    per_class = len(new) / 3
    # Blue, green and pink, two images of each, as often as a new class but for rounding.
    assert counts[[0, 2]].tolist() == [0, 0]
    assert all(abs(counts[c] - per_class) <= 2 for c in (1, 3, 4))
    assert mixed.read(len(mixed) - 1) == former.dataset.splits["train"].reader(
        mixed.keys[-1].split("/", 2)[2]
    )
    assert mixed.labels.shape == (len(mixed.keys),)


def test_replay_learns_a_second_task_beside_the_first(
    tmp_path: Path, old: Path, second: DataSection
) -> None:
    info: RunInfo = finetune(second, teacher("replay", old), tmp_path / "run")
    task = info.result["old_task"]
    assert info.result["test"]["top1_pct"] >= 60
    assert task["before_pct"] >= 90 and task["after_pct"] >= 60 and task["n"] == 14
    assert task["among_old_pct"] >= task["after_pct"]
    assert task["drop"]["drop_pt"] == pytest.approx(task["before_pct"] - task["after_pct"])
    _, card = load_model(tmp_path / "run")
    assert card.classes == ("amber", "green", "red", "blue", "pink")
    assert finetune(second, teacher("replay", old), tmp_path / "run") == info
    spoilt = replace(teacher("replay", old), train=replace(TRAIN, seed=1))
    with pytest.raises(RunError, match="other settings"):
        finetune(second, spoilt, tmp_path / "run")


def test_former_answers_keep_a_first_task(tmp_path: Path, old: Path, second: DataSection) -> None:
    kept, plain = (
        finetune(second, gently("lwf", old, weight), tmp_path / f"run-{weight}")
        for weight in (1.0, 0.0)
    )
    assert kept.result["old_task"]["among_old_pct"] > plain.result["old_task"]["among_old_pct"]


def test_weights_that_matter_move_less(tmp_path: Path, old: Path, second: DataSection) -> None:
    found = subject(ewc, old, second)
    former = take_up(found, str(old))
    start = {n: p.detach().clone() for n, p in found.built.model.named_parameters()}
    anchor = ewc.Anchor(start, ewc.fisher(found, former, 16))
    moved = {}
    for weight in (1e10, 0.0):
        finetune(second, gently("ewc", old, weight), tmp_path / f"run-{weight}")
        model, _ = load_model(tmp_path / f"run-{weight}")
        moved[weight] = float(anchor(dict(model.named_parameters())).detach())
    assert 0 < moved[1e10] < 0.5 * moved[0.0]


def gently(strategy: str, old: Path, weight: float) -> TeacherSection:
    train = replace(TRAIN, lr=2e-3)
    return replace(teacher(strategy, old, weight=weight), train=train)


@pytest.mark.parametrize(
    ("section", "kind", "what", "fix"),
    [
        ({"strategy_options": {}}, RecipeError, "nothing to remember", "--option old=RUN"),
        (
            {"strategy_options": {"old": "nowhere"}},
            RunError,
            "nowhere: holds no trained model",
            "finished",
        ),
        (
            {"model": ModelSection("resnet14", size=16)},
            ModelError,
            "its model is resnet8, but resnet14",
            "resnet8 at 16 pixels",
        ),
        (
            {"model": ModelSection("resnet8", size=32)},
            ModelError,
            "its preprocess is",
            "resnet8 at 16 pixels",
        ),
        (
            {"model": replace(MODEL, weights="w.safetensors")},
            EdgexferError,
            "w.safetensors",
            "",
        ),
    ],
)
def test_what_cannot_be_remembered_is_refused(
    tmp_path: Path,
    old: Path,
    second: DataSection,
    section: dict[str, Any],
    kind: type[EdgexferError],
    what: str,
    fix: str,
) -> None:
    asked = replace(teacher("lwf", old), **section)
    with pytest.raises(kind) as caught:
        finetune(second, asked, tmp_path / "run")
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_a_buffer_smaller_than_the_classes_is_refused(
    tmp_path: Path, old: Path, second: DataSection
) -> None:
    with pytest.raises(EdgexferError, match="2, but there are 3 classes"):
        finetune(second, teacher("replay", old, images=2), tmp_path / "run")


def test_what_has_several_tasks_or_other_images_now_is_refused(
    tmp_path: Path, old: Path, second: DataSection, tabled: DataSection
) -> None:
    finetune(tabled, TeacherSection(MODEL, "scratch", train=TRAIN), tmp_path / "tasks")
    with pytest.raises(ModelError, match="tasks: answers 2 tasks, and lwf remembers") as caught:
        finetune(second, teacher("lwf", tmp_path / "tasks"), tmp_path / "run")
    assert "a run of one task" in caught.value.fix
    place = tmp_path / "first"
    first = DataSection(str(write_folder(place, 32, FIRST)))
    finetune(first, TeacherSection(MODEL, "scratch", train=TRAIN), tmp_path / "moved")
    next(place.rglob("*.png")).unlink()
    with pytest.raises(DataError, match="has changed since it was trained") as changed:
        finetune(second, teacher("replay", tmp_path / "moved"), tmp_path / "run")
    assert "restore the data" in changed.value.fix


def test_a_former_model_of_other_options_is_refused(tmp_path: Path, second: DataSection) -> None:
    """Of the same name, it has other layers: those that fit would be taken and the rest random."""
    name, small = "vit_tiny_patch16_224", {"patch_size": 8, "depth": 2}
    first = DataSection(str(write_folder(tmp_path / "first", 12, FIRST)))
    short = replace(TRAIN, epochs=1)
    known = TeacherSection(ModelSection(name, 16, options=small), "scratch", train=short)
    finetune(first, known, tmp_path / "old")
    wider = ModelSection(name, 16, options={**small, "depth": 1})
    asked = replace(teacher("lwf", tmp_path / "old"), model=wider)
    with pytest.raises(ModelError, match=r"tensor blocks\.1\.\S+ is unknown") as caught:
        finetune(second, asked, tmp_path / "run")
    assert "architecture and options" in caught.value.fix


def test_the_buffer_has_no_image_that_was_not_trained_on(
    tmp_path: Path, second: DataSection
) -> None:
    first = DataSection(str(write_folder(tmp_path / "first", 12, FIRST)), train_limit=9)
    finetune(first, TeacherSection(MODEL, "scratch", train=TRAIN), tmp_path / "old")
    found = subject(replay, tmp_path / "old", second)
    former = take_up(found, str(tmp_path / "old"))
    mixed = replay.with_buffer(found.dataset, former, 200).splits["train"]
    kept = {key.split("/", 2)[2] for key in mixed.keys if key.startswith(".former/")}
    assert kept == set(former.dataset.splits["train"].keys) and len(kept) == 9


def test_the_buffer_has_no_copy_of_an_image_that_is_measured_on_now(
    tmp_path: Path, old: Path
) -> None:
    known = open_data(DataSection(**read_run(old).data)).splits["train"]
    green = [key for key in known.keys if key.startswith("green/")]
    write_folder(tmp_path / "second" / "train", 8, SECOND)
    for name in SECOND:
        (tmp_path / "second" / "test" / name).mkdir(parents=True)
    for number, key in enumerate(green):
        place = tmp_path / "second" / "test" / "green" / f"{number}.png"
        place.write_bytes((old.parent / "first" / key).read_bytes())
    found = subject(replay, old, DataSection(str(tmp_path / "second")))
    former = take_up(found, str(old))
    mixed = replay.with_buffer(found.dataset, former, 200).splits["train"]
    kept = {key.split("/", 2)[2] for key in mixed.keys if key.startswith(".former/")}
    assert kept == set(known.keys) - set(green)
    assert set(mixed.labels[-len(kept) :].tolist()) == {3, 4}  # blue and pink
