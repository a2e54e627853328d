"""Strategy ``freeze``: the layers near the image stay, the others and the new head train.

Early layers transfer best between tasks (Yosinski et al., "How transferable are features in deep
neural networks?", 2014). Frozen parts stay in eval mode: their batch-norm statistics stand still.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgexfer.models.freeze import freeze
from edgexfer.transfer.plan import STRICT, Plan, Subject

MULTI_TASK = True
NEEDS_WEIGHTS = True


@dataclass(frozen=True)
class Options:
    """What stays.

    Attributes:
        until: layers up to and with the one of this name stay as they are; unset freezes the whole
            backbone but its last stage.
    """

    __pydantic_config__ = STRICT

    until: str | None = None


def prepare(subject: Subject) -> Plan:
    """Freeze up to and with the layer ``until``.

    Raises:
        ModelError: no layer has that name.
    """
    return Plan(frozen=freeze(subject.built.model, subject.options.until))
