"""Distillation losses against values worked out independently, and their invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from edgexfer.core.errors import RecipeError
from edgexfer.distill.losses import entropy, get_loss, hard, kd, mse

STUDENT = [[1.0, -0.5, 0.25, 2.0], [0.0, 3.0, -1.0, 0.5], [-2.0, 0.1, 0.2, 0.3]]
TEACHER = [[2.0, 0.0, -1.0, 1.0], [0.5, 4.0, -2.0, 0.0], [0.0, 0.0, 0.0, 0.0]]


def softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    powers: np.ndarray = np.exp(logits / temperature)
    powers /= powers.sum(1, keepdims=True)
    return powers


def kd_by_definition(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    return float(temperature**2 * (p * np.log(p / q)).sum(1).mean())


@pytest.fixture
def student() -> torch.Tensor:
    return torch.tensor(STUDENT, dtype=torch.float64, requires_grad=True)


@pytest.fixture
def teacher() -> torch.Tensor:
    return torch.tensor(TEACHER, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_kd_is_its_definition(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> None:
    expected = kd_by_definition(np.array(STUDENT), np.array(TEACHER), temperature)
    assert kd(student, teacher, temperature).item() == pytest.approx(expected, rel=1e-5)


def test_kd_worked_by_hand() -> None:
    # Teacher (ln 3, 0) is (3/4, 1/4), the student (0, 0) is (1/2, 1/2).
    value = kd(torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]]), 1.0)
    assert value.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-6)


def test_kd_gradient_keeps_its_size_when_the_temperature_changes() -> None:
    # Without T² the gradient would fall by (64 / 16)² = 16 between these two temperatures.
    norms = []
    for temperature in (16.0, 64.0):
        student = torch.tensor(STUDENT, dtype=torch.float64, requires_grad=True)
        loss = kd(student, torch.tensor(TEACHER, dtype=torch.float64), temperature)
        (gradient,) = torch.autograd.grad(loss, student)
        norms.append(float(gradient.norm()))
    assert norms[0] / norms[1] == pytest.approx(1.0, abs=0.15)


def test_kd_is_zero_for_equal_logits_and_blind_to_a_common_shift(teacher: torch.Tensor) -> None:
    assert kd(teacher, teacher, 3.0).item() == pytest.approx(0.0, abs=1e-6)
    assert kd(teacher + 5.0, teacher, 3.0).item() == pytest.approx(0.0, abs=1e-6)


def test_kd_for_a_high_temperature_is_mse(student: torch.Tensor, teacher: torch.Tensor) -> None:
    assert kd(student, teacher, 1000.0).item() == pytest.approx(
        mse(student, teacher, 1.0).item(), rel=0.01
    )


def test_mse_is_its_definition(student: torch.Tensor, teacher: torch.Tensor) -> None:
    s, t = np.array(STUDENT), np.array(TEACHER)
    s, t = s - s.mean(1, keepdims=True), t - t.mean(1, keepdims=True)
    assert mse(student, teacher, 1.0).item() == pytest.approx(((s - t) ** 2).mean() / 2, rel=1e-5)


def test_hard_asks_for_the_teachers_decision(student: torch.Tensor, teacher: torch.Tensor) -> None:
    log_q = np.log(softmax(np.array(STUDENT), 1.0))
    expected = -np.mean([log_q[0, 0], log_q[1, 1], log_q[2, 0]])
    assert hard(student, teacher, 7.0).item() == pytest.approx(expected, rel=1e-5)


def test_half_precision_logits_are_computed_in_full(teacher: torch.Tensor) -> None:
    half = torch.tensor(STUDENT).bfloat16()
    assert kd(half, teacher.bfloat16(), 4.0).dtype == torch.float32


@pytest.mark.parametrize("loss", [kd, mse, hard])
def test_no_gradient_reaches_the_teacher(loss: object, student: torch.Tensor) -> None:
    teacher = torch.tensor(TEACHER, dtype=torch.float64, requires_grad=True)
    loss(student, teacher, 2.0).backward()  # type: ignore[operator]
    assert teacher.grad is None
    assert student.grad is not None
    assert float(student.grad.norm()) > 0


def test_losses_are_means_over_the_batch(student: torch.Tensor, teacher: torch.Tensor) -> None:
    for loss in (kd, mse, hard):
        parts = [loss(student[i : i + 1], teacher[i : i + 1], 2.0).item() for i in range(3)]
        assert loss(student, teacher, 2.0).item() == pytest.approx(sum(parts) / 3, rel=1e-5)


def test_an_unknown_loss_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="loss 'kdd' is unknown") as caught:
        get_loss("kdd")
    assert "'kd'" in caught.value.fix


def test_entropy_runs_from_decided_to_undecided() -> None:
    assert entropy(torch.zeros(5, 10), 1.0) == pytest.approx(1.0)
    assert entropy(50.0 * torch.eye(10), 1.0) == pytest.approx(0.0, abs=1e-6)
    assert entropy(50.0 * torch.eye(10), 1.0) < entropy(50.0 * torch.eye(10), 20.0)
