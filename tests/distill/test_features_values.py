"""Feature losses against values worked out independently, and their invariances."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from edgexfer.distill.features import (
    Hint,
    Maps,
    Review,
    attention,
    hierarchical_context,
    relational,
    similarity,
)
from edgexfer.distill.terms import FACTS

pytestmark = pytest.mark.torch


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
