"""What a teacher's answers say of it, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from edgexfer.distill.health import against_student, at_chance, check_health

pytestmark = pytest.mark.torch

# Odds of 3 : 1 for the first class, three times right and once wrong.
LOGITS = torch.tensor([[math.log(3), 0.0]] * 4)
LABELS = torch.tensor([0, 0, 0, 1])


def test_accuracy_sureness_and_entropy_are_those_of_the_soft_targets() -> None:
    health = check_health(LOGITS, LABELS, 1.0)
    nats = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert (health.val_top1_pct, health.n) == (75.0, 4)
    assert health.sureness == pytest.approx(0.75)
    assert health.entropy_share == pytest.approx(nats / math.log(2))
    assert health.warnings == ()


def test_temperature_softens_the_targets_and_leaves_the_accuracy() -> None:
    health = check_health(LOGITS, LABELS, 2.0)
    odds = math.sqrt(3)
    assert health.sureness == pytest.approx(odds / (odds + 1))
    assert health.val_top1_pct == 75.0


@pytest.mark.parametrize(("temperature", "warned"), [(1.0, True), (4.0, False)])
def test_nearly_one_hot_targets_are_warned_of(temperature: float, warned: bool) -> None:
    # e^6 : 1 is 99.75 %; a quarter of the exponent is 81.8 %.
    health = check_health(
        torch.tensor([[6.0, 0.0], [0.0, 6.0]] * 2), torch.tensor([0, 1] * 2), temperature
    )
    assert bool(health.warnings) == warned
    if warned:
        assert "nearly one-hot at temperature 1 (their top class has 99.8 %" in health.warnings[0]
        assert "raise --temperature" in health.warnings[0]


def test_very_few_val_images_are_said() -> None:
    few = check_health(LOGITS[:3], LABELS[:3], 1.0)
    assert "only 3 val images" in few.warnings[0] and "raise data.val" in few.warnings[0]


@pytest.mark.parametrize(("student", "warned"), [(None, False), (75.0, False), (75.5, True)])
def test_a_student_better_than_its_teacher_is_said(student: float | None, warned: bool) -> None:
    health = against_student(check_health(LOGITS, LABELS, 1.0), student)
    assert bool(health.warnings) == warned
    if warned:
        assert "the student has 75.5 % on the val images, its teacher 75.0 %" in health.warnings[0]


@pytest.mark.parametrize(
    ("correct", "n", "classes", "refused"),
    [
        (8, 8, 2, False),
        (4, 8, 2, True),
        (40, 100, 10, False),
        (12, 100, 10, True),
        (0, 1, 10, False),
    ],
)
def test_a_few_val_images_do_not_condemn_a_good_teacher(
    correct: int, n: int, classes: int, refused: bool
) -> None:
    assert at_chance(correct, n, classes) == refused
