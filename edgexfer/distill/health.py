"""Whether a teacher is worth listening to: asked before hours are spent on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch.nn.functional as F
from torch import Tensor

from edgexfer.bench.tasks import right
from edgexfer.core.tasks import Task, spans
from edgexfer.distill.losses import entropy

# Soft targets below this share of the largest entropy, or above this mean probability of their top
# class, hardly say more than the labels do.
_LEAST_ENTROPY, _MOST_SURE = 0.01, 0.99
# Fewer val images than this say nothing: a good teacher is now and then wrong about all of them.
_FEW = 4


@dataclass(frozen=True)
class Health:
    """What a teacher knows of a student's val images, asked as the student will ask it.

    Attributes:
        val_top1_pct: its accuracy, in percent.
        n: val images.
        entropy_share: mean entropy of its soft targets at the chosen temperature, as a share of the
            largest there can be.
        sureness: mean probability of the soft targets' top class.
        warnings: what the user should know, one line each.
    """

    val_top1_pct: float
    n: int
    entropy_share: float
    sureness: float
    warnings: tuple[str, ...] = ()


def check_health(
    logits: Tensor, labels: Tensor, temperature: float, tasks: Sequence[Task] = ()
) -> Health:
    """Look at a teacher's answers.

    Args:
        logits: (N, C), C at least 2.
        labels: int64 (N,), or of several tasks (N, tasks).
        temperature: T of the logit losses, above 0.
        tasks: what the logits are about, where that is more than one question: an image is right
            where all its labels are, and what is said of the soft targets is the tasks' mean.
    """
    n = len(labels)
    correct = int(right(logits.numpy(), labels.numpy(), tasks).sum())
    parts = [logits[:, a:b] for a, b in spans(tasks, logits.shape[1])]
    share = fmean(entropy(part, temperature) for part in parts)
    sureness = fmean(
        float(F.softmax(part.double() / temperature, dim=1).amax(1).mean()) for part in parts
    )
    warnings = []
    if share < _LEAST_ENTROPY or sureness > _MOST_SURE:
        warnings.append(
            f"the teacher's soft targets are nearly one-hot at temperature {temperature:g} (their "
            f"top class has {100 * sureness:.1f} % on average): raise --temperature, or it teaches "
            "little that the labels do not"
        )
    if n < _FEW:
        warnings.append(
            f"there are only {n} val images: whether the teacher knows more than chance is not "
            "known; raise data.val"
        )
    return Health(100 * correct / n, n, share, sureness, tuple(warnings))


def against_student(health: Health, student_top1_pct: float | None) -> Health:
    """Add a warning where the student ended up better on the val images than its teacher."""
    if student_top1_pct is None or student_top1_pct <= health.val_top1_pct:
        return health
    text = (
        f"the student has {student_top1_pct:.1f} % on the val images, its teacher "
        f"{health.val_top1_pct:.1f} %: see whether it helped with --control"
    )
    return replace(health, warnings=(*health.warnings, text))


def at_chance(correct: int, n: int, classes: int) -> bool:
    """Say whether so many right answers are no more than guessing gives.

    The bound is three standard deviations above chance; of a few images that may be more than all
    of them, so it lies at most halfway between chance and perfect. Of very few nothing follows.
    """
    if n < _FEW:
        return False
    chance = 1 / classes
    deviation = math.sqrt(chance * (1 - chance) / n)
    return correct / n < min(chance + 3 * deviation, (1 + chance) / 2)
