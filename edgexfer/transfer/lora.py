"""Strategy ``lora``: weights stay, a low-rank change of each trains, and is merged in the end.

W' = W + α/r · B A with A (r, n) random and B (m, r) zero; a convolution's weight is a matrix of
outputs x (inputs · kernel) (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR
2022, section 4.1). The head trains in full. The backbone stays in eval mode: batch norms stand
still. The artefact has no trace of it, and no cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from annotated_types import Ge, Gt

from edgexfer.models.adapters import LowRank, attach, choose_sites, merge
from edgexfer.models.freeze import freeze_backbone
from edgexfer.transfer.plan import STRICT, Plan, Subject

MULTI_TASK = True
NEEDS_WEIGHTS = True


@dataclass(frozen=True)
class Options:
    """What changes, and how freely.

    Attributes:
        targets: layers that change, of the kinds attention, linear, conv, pointwise, or by the name
            or number of a stage or layer: [attention, layer3]; unset takes all below the head.
        rank: rank of each change (r).
        alpha: scale of the changes, divided by the rank (α).
    """

    __pydantic_config__ = STRICT

    targets: tuple[str, ...] | None = None
    rank: Annotated[int, Ge(1)] = 8
    alpha: Annotated[float, Gt(0)] = 16.0


def prepare(subject: Subject) -> Plan:
    """Freeze all but the head and put the changes beside the weights.

    Raises:
        ModelError: a target is unknown, or nothing in it can be adapted.
    """
    options: Options = subject.options
    model = subject.built.model
    sites = choose_sites(model, options.targets, "strategy lora")
    frozen = freeze_backbone(model)
    make = partial(LowRank, rank=options.rank, alpha=options.alpha)
    attach(model, sites, make, seed=subject.section.train.seed)
    return Plan(frozen=frozen, finish=partial(merge, model, sites))
