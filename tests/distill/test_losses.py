"""Logit losses against values worked out independently in float64, and their invariances."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgexfer.core.errors import RecipeError
from edgexfer.distill.losses import (
    LOSSES,
    Loss,
    dist,
    dkd,
    entropy,
    get_loss,
    hard,
    inter,
    intra,
    kd,
    mse,
    nckd,
    standardise,
    tckd,
)

STUDENT = np.array([[1.0, -0.5, 0.25, 2.0], [0.0, 3.0, -1.0, 0.5], [-2.0, 0.1, 0.2, 0.3]])
TEACHER = np.array([[2.0, 0.0, -1.0, 1.0], [0.5, 4.0, -2.0, 0.0], [0.0, 0.1, 0.0, 0.0]])
# The third image has no label; its teacher decides for class 1.
TARGETS = np.array([[0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
TRUE = [3, 1, 1]

ALL = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    powers: np.ndarray = np.exp(logits / temperature)
    powers /= powers.sum(1, keepdims=True)
    return powers


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return the divergence of each row."""
    result: np.ndarray = (p * np.log(p / q)).sum(1)
    return result


def binary(p: np.ndarray) -> np.ndarray:
    """Return the probabilities of the true class and of any other."""
    of_true = p[range(len(p)), TRUE]
    return np.stack([of_true, 1 - of_true], 1)


def without_true(logits: np.ndarray) -> np.ndarray:
    rows = [np.delete(row, true) for row, true in zip(logits, TRUE, strict=True)]
    return np.stack(rows)


def kd_by_definition(student: np.ndarray, teacher: np.ndarray, t: float) -> float:
    return float(t**2 * kl(softmax(teacher, t), softmax(student, t)).mean())


def tckd_by_definition(student: np.ndarray, teacher: np.ndarray, t: float) -> float:
    return float(t**2 * kl(binary(softmax(teacher, t)), binary(softmax(student, t))).mean())


def nckd_by_definition(student: np.ndarray, teacher: np.ndarray, t: float) -> float:
    return kd_by_definition(without_true(student), without_true(teacher), t)


def inter_by_definition(student: np.ndarray, teacher: np.ndarray, t: float) -> float:
    p, q = softmax(teacher, t), softmax(student, t)
    return float(t**2 * np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)]))


def intra_by_definition(student: np.ndarray, teacher: np.ndarray, t: float) -> float:
    p, q = softmax(teacher, t).T, softmax(student, t).T
    return float(t**2 * np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)]))


def mse_by_definition(student: np.ndarray, teacher: np.ndarray, t: float) -> float:
    s, u = student - student.mean(1, keepdims=True), teacher - teacher.mean(1, keepdims=True)
    return float(((s - u) ** 2).mean() / 2)


def hard_by_definition(student: np.ndarray, teacher: np.ndarray, t: float) -> float:
    q = softmax(student, 1.0)
    return float(-np.mean([np.log(q[i, teacher[i].argmax()]) for i in range(len(q))]))


DEFINITIONS: dict[str, Callable[[np.ndarray, np.ndarray, float], float]] = {
    "kd": kd_by_definition,
    "dkd": lambda s, u, t: tckd_by_definition(s, u, t) + 8 * nckd_by_definition(s, u, t),
    "tckd": tckd_by_definition,
    "nckd": nckd_by_definition,
    "dist": lambda s, u, t: inter_by_definition(s, u, t) + intra_by_definition(s, u, t),
    "inter": inter_by_definition,
    "intra": intra_by_definition,
    "mse": mse_by_definition,
    "hard": hard_by_definition,
}


def tensors(*arrays: np.ndarray, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.tensor(a, dtype=dtype) for a in arrays]


def gradient(loss: Loss, student: Tensor, teacher: Tensor, t: float, targets: Tensor) -> Tensor:
    student = student.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(student, teacher, t, targets), student)
    return found


def test_every_loss_has_a_definition_here() -> None:
    assert DEFINITIONS.keys() == LOSSES.keys()


@ALL
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_a_loss_is_its_definition(loss: Loss, temperature: float) -> None:
    expected = DEFINITIONS[loss.__name__](STUDENT, TEACHER, temperature)
    student, teacher, targets = tensors(STUDENT, TEACHER, TARGETS)
    found = loss(student, teacher, temperature, targets).item()
    assert found == pytest.approx(expected, rel=1e-9)
    single = [t.float() for t in tensors(STUDENT, TEACHER, TARGETS)]
    assert loss(single[0], single[1], temperature, single[2]).item() == pytest.approx(
        expected, rel=2e-4
    )


@ALL
def test_a_loss_has_the_gradient_of_its_value(loss: Loss) -> None:
    student, teacher, targets = tensors(STUDENT, TEACHER, TARGETS)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, 2.0, targets), (student,))


@ALL
def test_no_gradient_reaches_the_teacher(loss: Loss) -> None:
    student, teacher, targets = tensors(STUDENT, TEACHER, TARGETS)
    student.requires_grad_()
    teacher.requires_grad_()
    torch.autograd.backward(loss(student, teacher, 2.0, targets))
    assert teacher.grad is None
    assert student.grad is not None and float(student.grad.norm()) > 0


@ALL
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_full(loss: Loss, dtype: torch.dtype) -> None:
    student, teacher, targets = tensors(STUDENT, TEACHER, TARGETS, dtype=dtype)
    found = loss(student, teacher, 4.0, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(student.float(), teacher.float(), 4.0, targets))


@ALL
def test_a_loss_knows_no_order_of_classes_or_images(loss: Loss) -> None:
    student, teacher, targets = tensors(STUDENT, TEACHER, TARGETS)
    wanted = loss(student, teacher, 2.0, targets)
    classes, images = [2, 0, 3, 1], [1, 2, 0]
    torch.testing.assert_close(
        loss(student[:, classes], teacher[:, classes], 2.0, targets[:, classes]), wanted
    )
    torch.testing.assert_close(loss(student[images], teacher[images], 2.0, targets[images]), wanted)


@ALL
def test_a_loss_is_blind_to_a_shift_of_an_images_logits(loss: Loss) -> None:
    student, teacher, targets = tensors(STUDENT, TEACHER, TARGETS)
    shift = torch.tensor([[5.0], [-3.0], [40.0]], dtype=torch.float64)
    torch.testing.assert_close(
        loss(student + shift, teacher - shift, 2.0, targets), loss(student, teacher, 2.0, targets)
    )


@ALL
def test_equal_logits_have_no_loss_but_that_of_the_decision(loss: Loss) -> None:
    teacher, targets = tensors(TEACHER, TARGETS)
    value = loss(teacher, teacher, 3.0, targets).item()
    if loss is hard:
        assert value == pytest.approx(hard_by_definition(TEACHER, TEACHER, 1.0))
    else:
        assert value == pytest.approx(0.0, abs=1e-12)
        assert loss(-teacher, teacher, 3.0, targets).item() > 0.1


@pytest.mark.parametrize("loss", [f for f in LOSSES.values() if f not in (dist, intra)])
def test_a_loss_is_a_mean_over_the_batch(loss: Loss) -> None:
    student, teacher, targets = tensors(STUDENT, TEACHER, TARGETS)
    parts = [
        loss(student[i : i + 1], teacher[i : i + 1], 2.0, targets[i : i + 1]) for i in range(3)
    ]
    torch.testing.assert_close(loss(student, teacher, 2.0, targets), torch.stack(parts).mean())


EXTREMES = {
    "constant": torch.full((4, 10), 1000.1),
    "zero": torch.zeros(4, 10),
    "nearly one-hot": 30.0 * torch.eye(10)[:4],
    "vanishing": 46.0 * F.pad(torch.ones(4, 1), (0, 9)) + torch.linspace(0, 2, 40).view(4, 10),
    "one-hot": 1e4 * torch.eye(10)[:4],
    "one-hot elsewhere": 1e4 * torch.eye(10)[4:8],
    "huge": torch.linspace(-3e4, 3e4, 40).view(4, 10),
    "one image": torch.linspace(-2, 2, 10).view(1, 10),
    "equal images": torch.linspace(-2, 2, 10).expand(4, 10),
}


@ALL
@pytest.mark.parametrize("standard", [False, True], ids=["plain", "standardised"])
@pytest.mark.parametrize("ours", EXTREMES)
def test_extreme_logits_have_a_finite_loss_and_gradient(
    loss: Loss, standard: bool, ours: str
) -> None:
    for theirs, temperature in itertools.product(EXTREMES.values(), (0.5, 4.0)):
        rows = min(len(EXTREMES[ours]), len(theirs))
        student, targets = EXTREMES[ours][:rows].clone().requires_grad_(), torch.eye(10)[:rows]
        before: Callable[[Tensor], Tensor] = standardise if standard else torch.clone
        value = loss(before(student), before(theirs[:rows]), temperature, targets)
        (found,) = torch.autograd.grad(value, student)
        assert value.isfinite() and value > -1e-4
        # Where student and teacher are 30,000 apart, mse is as steep.
        assert found.isfinite().all() and found.abs().max() < 1e5


def test_kd_worked_by_hand() -> None:
    # Teacher (ln 3, 0) is (3/4, 1/4), the student (0, 0) is (1/2, 1/2).
    value = kd(torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]]), 1.0, torch.zeros(1, 2))
    assert value.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-6)


def test_the_halves_of_dkd_worked_by_hand() -> None:
    # Teacher (1/2, 3/8, 1/8), student (1/3, 1/3, 1/3), the first class true.
    teacher = torch.tensor([[0.5, 0.375, 0.125]], dtype=torch.float64).log()
    student, targets = torch.zeros(1, 3, dtype=torch.float64), torch.tensor([[1.0, 0.0, 0.0]])
    first = 0.5 * math.log(1.5) + 0.5 * math.log(0.75)
    second = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert tckd(student, teacher, 1.0, targets).item() == pytest.approx(first)
    assert nckd(student, teacher, 1.0, targets).item() == pytest.approx(second)
    assert dkd(student, teacher, 1.0, targets, alpha=3, beta=2).item() == pytest.approx(
        3 * first + 2 * second
    )
    # Equation 4 of the paper: the whole is the first half and the second by the doubt in it.
    assert kd(student, teacher, 1.0, targets).item() == pytest.approx(first + 0.5 * second)


def test_dkd_of_an_image_without_label_asks_for_the_teachers_decision() -> None:
    student, teacher = tensors(STUDENT, TEACHER)
    decided = torch.eye(4, dtype=torch.float64)[teacher.argmax(1)]
    for loss in (dkd, tckd, nckd):
        torch.testing.assert_close(
            loss(student, teacher, 4.0, torch.zeros(3, 4)), loss(student, teacher, 4.0, decided)
        )


def test_dkd_stays_exact_where_the_teacher_is_sure() -> None:
    # The other classes hold 1e-9 of the probability, less than float32 can tell from 1.
    teacher = torch.tensor([[22.0, 1.0, 0.0, -1.0]])
    student, targets = torch.zeros(1, 4), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    p = softmax(np.array([[1.0, 0.0, -1.0]]), 1.0)
    expected = kl(p, np.full((1, 3), 1 / 3))[0]
    assert nckd(student, teacher, 1.0, targets).item() == pytest.approx(expected, rel=1e-5)


def test_dist_asks_for_correlation_alone() -> None:
    # Probabilities of the student that are a line through those of the teacher correlate fully.
    p = torch.tensor(softmax(TEACHER, 1.0))
    student = (0.5 * p + 0.5 / 4).log()
    targets = torch.zeros(3, 4)
    assert dist(student, p.log(), 1.0, targets).item() == pytest.approx(0.0, abs=1e-9)
    assert kd(student, p.log(), 1.0, targets).item() > 0.01


def test_the_batch_of_one_image_has_no_relations_among_images() -> None:
    student, teacher, targets = (t[:1] for t in tensors(STUDENT, TEACHER, TARGETS))
    assert intra(student, teacher, 2.0, targets).item() == pytest.approx(4.0)
    assert gradient(intra, student, teacher, 2.0, targets).norm() == 0
    assert inter(student, teacher, 2.0, targets).item() == pytest.approx(
        inter_by_definition(STUDENT[:1], TEACHER[:1], 2.0)
    )


@pytest.mark.parametrize("loss", [kd, tckd, nckd, inter])
def test_the_gradient_of_a_high_temperature(loss: Loss) -> None:
    # Without T² the gradient of a divergence would fall by (256 / 64)² = 16 between these two.
    # Correlation is blind to scale and so to a high T: there T² is but a weight, as in the paper.
    student, teacher, targets = tensors(STUDENT, TEACHER, TARGETS)
    norms = [float(gradient(loss, student, teacher, t, targets).norm()) for t in (64.0, 256.0)]
    wanted = 16.0 if loss is inter else 1.0
    assert norms[1] / norms[0] == pytest.approx(wanted, rel=0.1)


def test_kd_for_a_high_temperature_is_mse() -> None:
    student, teacher, targets = tensors(STUDENT, TEACHER, TARGETS)
    assert kd(student, teacher, 1000.0, targets).item() == pytest.approx(
        mse(student, teacher, 1.0, targets).item(), rel=0.01
    )


def test_standardised_logits_are_z_scores() -> None:
    expected = (STUDENT - STUDENT.mean(1, keepdims=True)) / STUDENT.std(1, keepdims=True)
    (student,) = tensors(STUDENT)
    np.testing.assert_allclose(standardise(student).numpy(), expected, rtol=1e-9, atol=1e-12)
    assert standardise(student.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(standardise(1e-6 * student + 7), standardise(student))
    torch.testing.assert_close(standardise(1e6 * student), standardise(student))
    assert torch.autograd.gradcheck(standardise, (student.requires_grad_(),))


def test_standardised_equal_logits_are_zero() -> None:
    logits = torch.full((2, 1000), 1000.1, requires_grad=True)
    z = standardise(logits)
    assert z.abs().max() < 0.05
    torch.autograd.backward(z.square().sum())
    assert logits.grad is not None and logits.grad.abs().max() < 100


def test_after_standardising_kd_lets_the_student_keep_its_range() -> None:
    teacher, targets = tensors(TEACHER, TARGETS)
    assert kd(3 * teacher + 1, teacher, 2.0, targets) > 0.1
    z = kd(standardise(3 * teacher + 1), standardise(teacher), 2.0, targets)
    assert z.item() == pytest.approx(0.0, abs=1e-12)


def test_losses_are_found_by_name() -> None:
    assert all(get_loss(name).__name__ == name for name in LOSSES)
    with pytest.raises(RecipeError, match="loss 'kdd' is unknown") as caught:
        get_loss("kdd")
    assert "'kd'" in caught.value.fix


def test_entropy_runs_from_decided_to_undecided() -> None:
    assert entropy(torch.zeros(5, 10), 1.0) == pytest.approx(1.0)
    assert entropy(50.0 * torch.eye(10), 1.0) == pytest.approx(0.0, abs=1e-6)
    assert entropy(50.0 * torch.eye(10), 1.0) < entropy(50.0 * torch.eye(10), 20.0)
