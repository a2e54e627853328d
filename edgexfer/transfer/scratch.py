"""Strategy ``scratch``: every layer trains from random weights.

The control of all the others: a transfer that does not beat it has transferred nothing.
"""

from __future__ import annotations

from torch import nn

from edgexfer.core.errors import RecipeError
from edgexfer.recipe import TeacherSection

NEEDS_WEIGHTS = False


def prepare(model: nn.Module, teacher: TeacherSection) -> list[nn.Module]:
    """Freeze nothing; returns no module.

    Raises:
        RecipeError: weights to start from were asked for as well.
    """
    del model
    if teacher.model.pretrained or teacher.model.weights:
        raise RecipeError(
            "strategy scratch starts from random weights, but weights were given too",
            "leave out --pretrained and --weights, or use --strategy full",
        )
    return []
