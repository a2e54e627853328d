"""Feature losses against values worked out independently, and inside of real models."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed import destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel

from edgexfer.core.errors import ModelError
from edgexfer.core.preprocess import Preprocess
from edgexfer.distill.features import (
    Features,
    Hint,
    Maps,
    Review,
    attention,
    hierarchical_context,
    relational,
    similarity,
)
from edgexfer.distill.terms import FACTS, parse_loss
from edgexfer.models.create import create_model
from edgexfer.models.normalise import PixelModel

pytestmark = pytest.mark.torch

EVERY = "hint+attention+relational+similarity+review"


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def maps(random: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=random, dtype=torch.float64)


def unit(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return result


def halved(x: np.ndarray) -> np.ndarray:
    """Pool maps to half their height and width."""
    b, c, h, w = x.shape
    result: np.ndarray = x.reshape(b, c, h // 2, 2, w // 2, 2).mean((3, 5))
    return result


def huber(x: np.ndarray) -> float:
    return float(np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5).mean())


def test_attention_is_its_definition(random: torch.Generator) -> None:
    s, t = maps(random, 3, 4, 6, 6), maps(random, 3, 5, 3, 3)
    p, q = ((m**2).mean(1).reshape(3, 9) for m in (halved(s.numpy()), t.numpy()))
    expected = ((unit(p) - unit(q)) ** 2).mean()
    assert attention([s], [t]).item() == pytest.approx(expected)
    assert attention([s, s], [t, t]).item() == pytest.approx(2 * expected)
    assert attention([5 * s], [t]).item() == pytest.approx(expected)
    assert attention([s], [3 * s]).item() == pytest.approx(0, abs=1e-12)


def relations(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = len(points)
    distances = np.array([[np.linalg.norm(a - b) for b in points] for a in points])
    cosines = np.zeros((n, n, n))
    for i, j, k in itertools.product(range(n), repeat=3):
        if i != j and k != j:
            a, b = points[i] - points[j], points[k] - points[j]
            cosines[j, i, k] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return distances / distances[distances > 0].mean(), cosines


def test_relational_is_its_definition(random: torch.Generator) -> None:
    s, t = maps(random, 4, 3, 2, 2), 4 * maps(random, 4, 5, 3, 3)
    (d, c), (e, f) = (relations(m.numpy().mean((2, 3))) for m in (s, t))
    assert relational([s], [t]).item() == pytest.approx(25 * huber(d - e) + 50 * huber(c - f))


def test_relational_knows_no_scale_place_or_direction(random: torch.Generator) -> None:
    t = maps(random, 4, 5, 1, 1)
    turn, _ = torch.linalg.qr(maps(random, 5, 5))
    s = 7 * torch.einsum("bchw,cd->bdhw", t, turn) + 2
    assert relational([s], [t]).item() == pytest.approx(0, abs=1e-12)
    assert relational([t.flip(0)], [t]).item() > 0.1


def test_similarity_is_its_definition(random: torch.Generator) -> None:
    s, t = maps(random, 4, 3, 2, 2), maps(random, 4, 5, 3, 3)
    g, h = (m.reshape(4, -1) @ m.reshape(4, -1).T for m in (s.numpy(), t.numpy()))
    expected = ((unit(g) - unit(h)) ** 2).sum() / 16
    assert similarity([s], [t]).item() == pytest.approx(expected)
    assert similarity([9 * s], [t]).item() == pytest.approx(expected)
    assert similarity([s.flip(1)], [s]).item() == pytest.approx(0, abs=1e-12)


def normalised(x: np.ndarray) -> np.ndarray:
    mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    result: np.ndarray = (x - mean) / np.sqrt(variance + 1e-5)
    return result


def test_hint_is_its_definition(random: torch.Generator) -> None:
    s, t = maps(random, 2, 3, 4, 4), maps(random, 2, 5, 2, 2)
    hint = Hint([(3, 4, 4)], [(5, 2, 2)]).double()
    weight, scale, shift = hint.parameters()
    with torch.no_grad():
        scale.fill_(2.0)
        shift.fill_(0.5)
    kernel = weight.detach().numpy()[:, :, 0, 0]
    projected = 2 * normalised(np.einsum("bchw,dc->bdhw", halved(s.numpy()), kernel)) + 0.5
    assert hint([s], [t]).item() == pytest.approx(((projected - t.numpy()) ** 2).mean())


def test_the_hierarchical_context_is_its_definition(random: torch.Generator) -> None:
    s, t = maps(random, 2, 3, 8, 8), maps(random, 2, 3, 8, 8)
    difference = (s - t).numpy()
    scales = [difference]
    while scales[-1].shape[-1] > 1:
        scales.append(halved(scales[-1]))
    weights = [1, 1 / 2, 1 / 4, 1 / 8]
    expected = sum(w * (x**2).mean() for w, x in zip(weights, scales, strict=True)) / sum(weights)
    assert hierarchical_context(s, t).item() == pytest.approx(expected)
    one = hierarchical_context(s[..., :1, :1], t[..., :1, :1])
    assert one.item() == pytest.approx((difference[..., :1, :1] ** 2).mean())


def convolved(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Convolve with zeros around, a 1x1 or 3x3 kernel."""
    side = weight.shape[-1]
    margin, (h, w) = side // 2, x.shape[-2:]
    x = np.pad(x, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    result = np.zeros((len(x), len(weight), h, w))
    for i, j in itertools.product(range(side), repeat=2):
        part = x[:, :, i : i + h, j : j + w]
        result += np.einsum("bchw,dc->bdhw", part, weight[:, :, i, j])
    return result


def test_review_is_its_definition(random: torch.Generator) -> None:
    s, t = maps(random, 3, 4, 4, 4), maps(random, 3, 5, 8, 8)
    review = Review([(4, 4, 4)], [(5, 8, 8)]).double()
    p = {name: parameter.detach().numpy() for name, parameter in review.named_parameters()}
    ours, theirs = s.numpy(), t.numpy()

    # The pooled map alone, then the map itself, mixed with it position by position.
    deep = convolved(ours.mean((2, 3), keepdims=True), p["fusions.1.enter.0.weight"])
    deep = normalised(deep)
    reviewed = normalised(convolved(deep, p["fusions.1.leave.0.weight"]))
    expected = ((reviewed - theirs.mean((2, 3), keepdims=True)) ** 2).mean()

    shallow = normalised(convolved(ours, p["fusions.0.enter.0.weight"]))
    deep = deep.repeat(4, 2).repeat(4, 3)
    mixed = convolved(np.concatenate([shallow, deep], 1), p["fusions.0.attend.weight"])
    share = 1 / (1 + np.exp(-mixed - p["fusions.0.attend.bias"][None, :, None, None]))
    fused = (shallow * share[:, :1] + deep * share[:, 1:]).repeat(2, 2).repeat(2, 3)
    reviewed = normalised(convolved(fused, p["fusions.0.leave.0.weight"]))
    expected += hierarchical_context(torch.tensor(reviewed), t).item()
    assert review([s], [t]).item() == pytest.approx(expected)


LOSSES: dict[str, Callable[[Maps, Maps], Tensor]] = {
    "hint": Hint([(4, 4, 4)], [(6, 2, 2)]),
    "attention": attention,
    "relational": relational,
    "similarity": similarity,
    "review": Review([(4, 4, 4)], [(6, 2, 2)]),
}


def one_dead(x: Tensor) -> Tensor:
    return torch.cat([0 * x[:1], x[1:]])


DEGENERATE: dict[str, Callable[[Tensor], Tensor]] = {
    "dead": lambda x: 0 * x,
    "one dead": one_dead,
    "equal images": lambda x: x[:1].expand_as(x),
    "small": lambda x: 1e-3 * x,
    "large": lambda x: 1e3 * x,
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_maps_have_a_finite_loss_and_gradient(
    random: torch.Generator, name: str, batch: int, case: str
) -> None:
    student = DEGENERATE[case](maps(random, batch, 4, 4, 4)).float().detach().requires_grad_()
    value = LOSSES[name]([student], [maps(random, batch, 6, 2, 2).float()])
    (gradient,) = torch.autograd.grad(value, student)
    assert value.isfinite() and value >= 0
    assert gradient.isfinite().all() and gradient.abs().max() < 1e4


def test_every_feature_loss_is_here() -> None:
    assert [name for name, facts in FACTS.items() if facts.features] == list(LOSSES)


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
