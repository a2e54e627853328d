"""Strategy ``gradual``: the head trains first, then stage after stage towards the image thaws.

Gradual unfreezing of ULMFiT (Howard and Ruder, "Universal Language Model Fine-tuning for Text
Classification", ACL 2018, section 3.3): the random head must not disturb what lies below it. At
epoch e the top 1 + e // E stages move, with E epochs for each. Frozen stages stay in eval mode:
their batch-norm statistics stand still. ULMFiT's discriminative rates are ``train.layer_decay``
(theirs is 1 / 2.6).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from torch import nn

from edgexfer.core.errors import RecipeError
from edgexfer.models.freeze import freeze_stages
from edgexfer.models.head import stages
from edgexfer.transfer.plan import STRICT, Plan, Subject

MULTI_TASK = True
NEEDS_WEIGHTS = True


@dataclass(frozen=True)
class Options:
    """When a stage thaws.

    Attributes:
        epochs_per_stage: epochs from one stage to the next; unset spreads them over the first half
            of the training.
    """

    __pydantic_config__ = STRICT

    epochs_per_stage: Annotated[int, Ge(1)] | None = None


def prepare(subject: Subject) -> Plan:
    """Thaw from the head down, by epochs.

    Raises:
        RecipeError: the training ends before the stem thaws.
    """
    per_stage: int | None = subject.options.epochs_per_stage
    epochs = subject.section.train.epochs
    below_head = len(stages(subject.built.model)) - 1
    if per_stage is not None and below_head * per_stage >= epochs:
        raise RecipeError(
            f"strategy gradual: {below_head} stages below the head, one every {per_stage} epochs, "
            f"never all thaw within {epochs}",
            f"train for {below_head * per_stage + 1} epochs or more, or leave out epochs_per_stage",
        )
    return Plan(thaw=_thaw(subject.built.model, below_head, per_stage, epochs))


def _thaw(
    model: nn.Module, below_head: int, per_stage: int | None, epochs: int
) -> Callable[[int], list[nn.Module]]:
    # What an architecture holds still by itself, such as a fixed position embedding.
    fixed = [p for p in model.parameters() if not p.requires_grad]

    def thaw(epoch: int) -> list[nn.Module]:
        if per_stage is None:
            thawed = below_head * epoch // max(epochs // 2, 1)
        else:
            thawed = epoch // per_stage
        frozen = freeze_stages(model, max(below_head - thawed, 0))
        for parameter in fixed:
            parameter.requires_grad_(False)
        return frozen

    return thaw
