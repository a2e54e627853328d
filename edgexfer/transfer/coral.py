"""Strategy ``coral``: the features of source and target get the same covariance (Deep CORAL).

The loss is CE(source) + λ(p) · w · ‖C_S - C_T‖²_F / (4F²), with C the covariance (F, F) of the
features before the head, over the n images of a domain in the batch, divided by n - 1 (Sun and
Saenko, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation", 2016, equations 1 to 4). λ
rises with p, the share of the training that is done, as in ``dann``. Images without labels count in
the second term alone. The divisor makes that term small: the paper chooses w so that both terms are
of one size in the end; the default is 100.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from edgexfer.transfer.adaptation import align
from edgexfer.transfer.plan import STRICT, Plan, Subject

NEEDS_WEIGHTS = False


@dataclass(frozen=True)
class Options:
    """How firmly the covariances are held together.

    Attributes:
        weight: strength of the alignment (w).
        ramp: how soon the weight is full (γ of λ(p) = 2 / (1 + exp(-γp)) - 1).
    """

    __pydantic_config__ = STRICT

    weight: Annotated[float, Ge(0)] = 100.0
    ramp: Annotated[float, Gt(0)] = 10.0


def prepare(subject: Subject) -> Plan:
    """Compare the covariances of both domains in each batch.

    Raises:
        RecipeError: no target is named, or the images of a batch are to be mixed.
    """
    options: Options = subject.options
    return align(subject, options.weight, options.ramp, coral)


def coral(source: Tensor, target: Tensor) -> Tensor:
    """Return the CORAL loss of two samples (n, F) and (m, F), 0 where one has fewer than two."""
    if min(len(source), len(target)) < 2:
        return 0 * torch.cat([source, target]).sum()
    apart = torch.cov(source.T) - torch.cov(target.T)
    return apart.square().sum() / (4 * source.shape[1] ** 2)
