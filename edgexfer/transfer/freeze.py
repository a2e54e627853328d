"""Strategy ``freeze``: the layers near the image stay, the others and the new head train.

Early layers transfer best between tasks (Yosinski et al., "How transferable are features in deep
neural networks?", 2014). Frozen parts stay in eval mode: their batch-norm statistics stand still.
"""

from __future__ import annotations

from torch import nn

from edgexfer.models.freeze import freeze
from edgexfer.recipe import TeacherSection

NEEDS_WEIGHTS = True


def prepare(model: nn.Module, teacher: TeacherSection) -> list[nn.Module]:
    """Freeze up to and with ``freeze_until``; returns the modules that stay in eval mode.

    Raises:
        ModelError: no layer has that name.
    """
    return freeze(model, teacher.freeze_until)
