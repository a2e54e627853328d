"""Strategy ``probe``: a new head on a backbone that stays as it is (linear probing).

The cheapest transfer, and the yardstick of the others: it cannot forget and hardly overfits. Its
accuracy says how good the features are for the new classes (Kornblith et al., "Do Better ImageNet
Models Transfer Better?", 2019).
"""

from __future__ import annotations

from torch import nn

from edgexfer.models.freeze import freeze_backbone
from edgexfer.recipe import TeacherSection

NEEDS_WEIGHTS = True


def prepare(model: nn.Module, teacher: TeacherSection) -> list[nn.Module]:
    """Freeze all but the head; returns the modules that stay in eval mode."""
    del teacher
    return freeze_backbone(model)
