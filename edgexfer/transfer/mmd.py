"""Strategy ``mmd``: features of source and target are drawn together as distributions (DAN).

The loss is CE(source) + λ(p) · w · MMD²(S, T), with S and T the features before the head, (n, F)
and (m, F), and

    MMD² = mean_{i≠j} k(s_i, s_j) + mean_{i≠j} k(t_i, t_j) - 2 mean_{ij} k(s_i, t_j),
    k(x, y) = mean_u exp(-‖x - y‖² / (2^u · M)),

the unbiased estimate with several Gaussian kernels, whose widths stand around M, the median squared
distance within the batch (Long et al., "Learning Transferable Features with Deep Adaptation
Networks", ICML 2015; Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, equation 3). λ rises
with p, the share of the training that is done, as in ``dann``. Images without labels count in MMD²
alone. Defaults: w = 1, five kernels, u = -2..2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from edgexfer.transfer.adaptation import align
from edgexfer.transfer.plan import STRICT, Plan, Subject

NEEDS_WEIGHTS = False


@dataclass(frozen=True)
class Options:
    """How firmly, and at which widths, the features are compared.

    Attributes:
        weight: strength of the attraction (w).
        kernels: how many Gaussian kernels, each twice as wide as the one before.
        ramp: how soon the weight is full (γ of λ(p) = 2 / (1 + exp(-γp)) - 1).
    """

    __pydantic_config__ = STRICT

    weight: Annotated[float, Ge(0)] = 1.0
    kernels: Annotated[int, Ge(1)] = 5
    ramp: Annotated[float, Gt(0)] = 10.0


def prepare(subject: Subject) -> Plan:
    """Compare the features of both domains in each batch.

    Raises:
        RecipeError: no target is named, or the images of a batch are to be mixed.
    """
    options: Options = subject.options
    return align(subject, options.weight, options.ramp, partial(mmd, kernels=options.kernels))


def mmd(source: Tensor, target: Tensor, kernels: int) -> Tensor:
    """Return the unbiased MMD² of two samples (n, F) and (m, F), 0 where one has fewer than two."""
    n, m = len(source), len(target)
    both = torch.cat([source, target])
    if min(n, m) < 2:
        return 0 * both.sum()
    # Distances do not change with the origin; near it fewer digits cancel.
    both = both - both.detach().mean(0)
    square = both.square().sum(1)
    distance = (square[:, None] + square[None, :] - 2 * both @ both.T).clamp(min=0)
    pairs = ~torch.eye(n + m, dtype=torch.bool, device=both.device)
    median = distance.detach()[pairs].median().clamp(min=torch.finfo(both.dtype).tiny)
    widths = [2.0**i * median for i in range(-(kernels // 2), kernels - kernels // 2)]
    kernel = torch.stack([torch.exp(-distance / width) for width in widths]).mean(0) * pairs
    within = kernel[:n, :n].sum() / (n * (n - 1)) + kernel[n:, n:].sum() / (m * (m - 1))
    return within - 2 * kernel[:n, n:].mean()
