"""The weighted sum that a distilled student minimises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgexfer.distill.objective import Distillation
from edgexfer.distill.teacher import Teacher
from edgexfer.distill.terms import parse_loss
from edgexfer.training.objective import Views

pytestmark = pytest.mark.torch


class Fixed(nn.Module):
    """Answers with the same logits, whatever it sees."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, pixels: Tensor) -> Tensor:
        del pixels
        return self.logits


def test_the_objective_is_the_weighted_sum_of_its_parts() -> None:
    student = Fixed([[1.0, -0.5, 0.25], [0.0, 3.0, -1.0]])
    teacher = Teacher(Fixed([[2.0, 0.0, -1.0], [0.5, 4.0, -2.0]]), [0, 1, 2], "")
    targets = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.25, 0.75]])
    objective = Distillation(
        lambda pixels, _: teacher(pixels),
        parse_loss("0.7*kd", w_soft=None),
        w_hard=0.2,
        temperature=4.0,
        label_smoothing=0.1,
    )
    views = Views(torch.arange(2), epoch=0, step=0, steps_per_epoch=1)
    loss, parts = objective(student, torch.zeros(2, 3, 8, 8), targets, views)

    wanted = teacher(torch.zeros(2, 3, 8, 8))
    p, log_q = (wanted / 4).softmax(1), (student.logits / 4).log_softmax(1)
    soft = 16 * (p * (p.log() - log_q)).sum(1).mean()
    smooth = 0.9 * targets + 0.1 / 3
    hard = -(smooth * functional.log_softmax(student.logits, dim=1)).sum(1).mean()
    torch.testing.assert_close(loss, 0.7 * soft + 0.2 * hard)
    torch.testing.assert_close(parts["kd"], soft.detach())
    torch.testing.assert_close(parts["cross_entropy"], hard.detach())
    torch.autograd.backward(loss)
    assert student.logits.grad is not None and teacher.model.get_parameter("logits").grad is None


@pytest.mark.parametrize(
    ("epoch", "step", "share"), [(0, 0, 0.0), (0, 2, 0.25), (1, 0, 0.5), (2, 0, 1.0), (5, 3, 1.0)]
)
def test_the_weights_of_logit_losses_grow_from_0(epoch: int, step: int, share: float) -> None:
    student = Fixed([[1.0, -0.5, 0.25]])
    told = torch.tensor([[2.0, 0.0, -1.0]])
    objective = Distillation(
        lambda *_: told,
        parse_loss("2*kd", w_soft=None),
        w_hard=1.0,
        temperature=4.0,
        soft_warmup=2.0,
    )
    views = Views(torch.arange(1), epoch=epoch, step=step, steps_per_epoch=4)
    targets = torch.tensor([[1.0, 0.0, 0.0]])
    loss, parts = objective(student, torch.zeros(1, 3, 8, 8), targets, views)
    torch.testing.assert_close(loss.detach(), parts["cross_entropy"] + share * 2 * parts["kd"])


def test_the_labels_and_the_teachers_decision_are_told_apart() -> None:
    student = Fixed([[1.0, -0.5, 0.25]])
    told = torch.tensor([[-1.0, 2.0, 0.0]])
    objective = Distillation(
        lambda *_: told, parse_loss("hard", w_soft=None), w_hard=0.5, temperature=1.0
    )
    views = Views(torch.arange(1), epoch=0, step=0, steps_per_epoch=1)
    targets = torch.tensor([[1.0, 0.0, 0.0]])
    _, parts = objective(student, torch.zeros(1, 3, 8, 8), targets, views)
    log_q = student.logits.log_softmax(1)[0]
    torch.testing.assert_close(parts["cross_entropy"], -log_q[0])
    torch.testing.assert_close(parts["hard"], -log_q[1])
