"""Feature losses inside of real models; their values are tested in ``test_features_values.py``."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel

from edgexfer.core.errors import ModelError
from edgexfer.core.preprocess import Preprocess
from edgexfer.distill.features import (
    Features,
    similarity,
)
from edgexfer.distill.terms import parse_loss
from edgexfer.models.create import create_model
from edgexfer.models.normalise import PixelModel

pytestmark = pytest.mark.torch

EVERY = "hint+attention+relational+similarity+review"

# Of a pair: both architectures and the sizes of their images.
PAIRS = {
    "own": ("resnet8", 16, "resnet20", 32),
    "timm": ("mobilenetv3_small_050", 64, "resnet18", 96),
    "tokens": ("convnext_atto", 64, "deit_tiny_patch16_224", 224),
}


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    ours, our_size, theirs, their_size = PAIRS[request.param]
    random = torch.Generator().manual_seed(2)
    return (
        create_model(ours, 3, seed=1)[0],
        create_model(theirs, 3, seed=2)[0].eval(),
        torch.randn(4, 3, our_size, our_size, generator=random),
        torch.randn(4, 3, their_size, their_size, generator=random),
    )


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_all_losses_between_two_architectures(
    pair: tuple[nn.Module, nn.Module, Tensor, Tensor], precision: torch.dtype
) -> None:
    student, teacher, ours, theirs = pair
    with Features(parse_loss(EVERY, w_soft=None), student, teacher, ours[:1], theirs[:1]) as all_of:
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            logits = student(ours)
            with torch.no_grad():
                teacher(theirs)
            losses = all_of()
        assert list(losses) == EVERY.split("+")
        assert all(v.dtype == torch.float32 and v.isfinite() and v > 0 for v in losses.values())
        torch.autograd.backward(torch.stack([*losses.values()]).sum() + 0 * logits.float().sum())
        for parameter in (*student.parameters(), *all_of.parameters()):
            assert parameter.grad is not None and parameter.grad.isfinite().all()
        assert all(p.grad is None for p in teacher.parameters())
    assert not any(m._forward_hooks for model in (student, teacher) for m in model.modules())


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def student() -> nn.Module:
    return create_model("resnet8", 3, seed=1)[0].eval()


@pytest.fixture
def teacher() -> nn.Module:
    return create_model("resnet14", 3, seed=2)[0].eval()


@pytest.fixture
def features(student: nn.Module, teacher: nn.Module, images: Tensor) -> Iterator[Features]:
    terms = parse_loss("kd+hint@2:3+similarity", w_soft=None)
    with Features(terms, student, teacher, images[:1], images[:1]) as features:
        yield features


def ask(teacher: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        teacher(images)


def test_the_losses_are_those_of_the_layers_that_were_named(
    student: nn.Module, teacher: nn.Module, features: Features, images: Tensor
) -> None:
    student(images)
    ask(teacher, images)
    losses = features()
    assert list(losses) == ["hint@2:3", "similarity"]

    def run(model: nn.Module, *names: str) -> Tensor:
        x = torch.relu(model.get_submodule("bn1")(model.get_submodule("conv1")(images)))
        for name in names:
            x = model.get_submodule(name)(x)
        return x

    last = "layer1", "layer2", "layer3"
    expected = similarity([run(student, *last)], [run(teacher, *last)])
    torch.testing.assert_close(losses["similarity"], expected)
    (hint,) = features.projectors
    expected = hint([run(student, "layer1", "layer2")], [run(teacher, *last)])
    torch.testing.assert_close(losses["hint@2:3"], expected)


def test_micro_batches_add_up(student: nn.Module, teacher: nn.Module, images: Tensor) -> None:
    gradients = []
    terms = parse_loss("attention", w_soft=None)
    with Features(terms, student, teacher, images[:1], images[:1]) as features:
        for size in (4, 2):
            student.zero_grad()
            for part in torch.split(images, size):
                student(part)
                ask(teacher, part)
                torch.autograd.backward(features()["attention"] * size / 4)
            used = student.get_submodule("layer2").parameters()
            gradients.append([p.grad for p in used])
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, parts)


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("attention", "attention@1:2+attention@2:3+attention@3:4"),
        ("hint", "hint@2:2"),
        ("relational", "relational@layer3:layer4"),
        ("similarity", "similarity@-1"),
    ],
)
def test_the_layers_that_a_loss_takes_by_default(
    student: nn.Module, images: Tensor, short: str, long: str
) -> None:
    teacher = create_model("resnet18", 3, seed=2)[0].eval()
    values = []
    for text in (short, long):
        terms = parse_loss(text, w_soft=None)
        with Features(terms, student, teacher, images, images) as features:
            student(images)
            ask(teacher, images)
            values.append(torch.stack([*features().values()]).sum())
    torch.testing.assert_close(*values)


def test_validation_between_the_steps_is_not_heard(
    student: nn.Module, teacher: nn.Module, features: Features, images: Tensor
) -> None:
    student(images)
    ask(teacher, images)
    wanted = features()["similarity"]
    student(images)
    ask(student, torch.zeros_like(images))
    ask(teacher, images)
    assert features()["similarity"].equal(wanted)
    with pytest.raises(RuntimeError, match="layer2, layer3: did not run since"):
        features()


def test_a_rehearsal_on_a_copy_leaves_the_student_alone(
    student: nn.Module, teacher: nn.Module, features: Features, images: Tensor
) -> None:
    model = PixelModel(student, Preprocess((16, 16), 16))
    pixels = 255 * torch.rand(4, 3, 16, 16)
    twin = copy.deepcopy(model)
    twin(pixels)
    ask(teacher, images)
    torch.autograd.backward(torch.stack([*features().values()]).sum())
    assert all(p.grad is None for p in student.parameters())
    assert any(p.grad is not None for p in twin.parameters())
    model(pixels)
    ask(teacher, images)
    torch.autograd.backward(torch.stack([*features().values()]).sum())
    assert any(p.grad is not None for p in student.parameters())


def test_the_student_may_be_inside_of_ddp(
    student: nn.Module, teacher: nn.Module, features: Features, images: Tensor, tmp_path: Path
) -> None:
    student(images)
    ask(teacher, images)
    wanted = features()
    init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        outside = DistributedDataParallel(student)
        logits = outside(images)
        ask(teacher, images)
        found = features()
        torch.autograd.backward(torch.stack([*found.values()]).sum() + 0 * logits.sum())
    finally:
        destroy_process_group()
    for label, value in wanted.items():
        torch.testing.assert_close(found[label], value)
    assert all(p.grad is not None for p in student.parameters())


def test_the_student_may_be_compiled(
    student: nn.Module, teacher: nn.Module, features: Features, images: Tensor
) -> None:
    student(images)
    ask(teacher, images)
    wanted = features()
    torch.compile(student, backend="eager", fullgraph=True)(images)
    ask(teacher, images)
    for label, value in features().items():
        torch.testing.assert_close(value, wanted[label])


def test_projectors_are_a_function_of_their_seed(
    student: nn.Module, teacher: nn.Module, images: Tensor
) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    found = []
    for seed in (1, 1, 2):
        with Features(
            parse_loss("review", w_soft=None), student, teacher, images[:1], images[:1], seed
        ) as features:
            found.append(torch.cat([p.detach().flatten() for p in features.parameters()]))
    assert found[0].equal(found[1]) and not found[0].equal(found[2])
    assert torch.random.get_rng_state().equal(before)
    # No statistics: a rehearsal moves nothing but gradients.
    assert not list(features.buffers())


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("hint@5:1", "loss hint@5:1: the student: CifarResNet has 3 stages, none is 5", "2 layer2"),
        ("hint@1:layr2", "loss hint@1:layr2: the teacher: CifarResNet has no layer", "'layer2'"),
    ],
)
def test_a_layer_that_does_not_exist_is_named_with_its_model(
    student: nn.Module, teacher: nn.Module, images: Tensor, text: str, what: str, fix: str
) -> None:
    with pytest.raises(ModelError) as caught:
        Features(parse_loss(text, w_soft=None), student, teacher, images, images)
    assert what in caught.value.what and fix in caught.value.fix


def test_a_model_without_stages_needs_names(teacher: nn.Module, images: Tensor) -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh())
    with pytest.raises(
        ModelError, match="the student Sequential does not say its stages"
    ) as caught:
        Features(parse_loss("attention", w_soft=None), plain, teacher, images, images)
    assert "attention@STUDENT_MODULE:TEACHER_MODULE" in caught.value.fix
    with Features(parse_loss("hint@1:2", w_soft=None), plain, teacher, images, images) as features:
        plain(images)
        ask(teacher, images)
        assert features()["hint@1:2"] > 0


def test_a_refusal_leaves_no_hooks(student: nn.Module, images: Tensor) -> None:
    odd = nn.Sequential(nn.MaxPool2d(2, return_indices=True), nn.Identity())
    with pytest.raises(ModelError, match="layer 0 puts out a tuple"):
        Features(parse_loss("hint@1:0", w_soft=None), student, odd, images, images)
    assert not any(m._forward_hooks for m in (*student.modules(), *odd.modules()))
