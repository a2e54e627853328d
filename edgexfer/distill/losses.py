"""Distillation losses: one function each, named as on the command line (``--loss kd``).

Each is a pure function of logits; weights are applied by the objective in ``distill/objective.py``,
never here, so that a weight has one meaning.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from edgexfer.core.errors import RecipeError, nearest

Loss = Callable[[Tensor, Tensor, float], Tensor]


def kd(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Soft-target loss of Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.

    T² · KL(softmax(teacher / T) ‖ softmax(student / T)), the mean over the batch. The factor T²
    keeps the gradient's size when T changes (section 2 of the paper).

    Args:
        student: logits, (B, C).
        teacher: logits of the same classes in the same order, (B, C); no gradient flows into them.
        temperature: T, above 0.

    Returns:
        Scalar tensor, in nats.
    """
    log_student = functional.log_softmax(_full(student) / temperature, dim=1)
    log_teacher = functional.log_softmax(_full(teacher.detach()) / temperature, dim=1)
    divergence = functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def mse(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Squared distance of centred logits: the limit of ``kd`` for a high temperature.

    For T → ∞, T² · KL tends to Σᵢ ((sᵢ - s̄) - (tᵢ - t̄))² / (2C), the mean over the batch (Hinton
    2015, section 2.1; Kim et al., "Comparing Kullback-Leibler Divergence and Mean Squared Error
    Loss in Knowledge Distillation", 2021).

    Args:
        student: logits, (B, C).
        teacher: logits of the same classes in the same order, (B, C); no gradient flows into them.
        temperature: has no effect; it is here so that all losses are called alike.

    Returns:
        Scalar tensor, in squared logits.
    """
    del temperature
    target = _full(teacher.detach())
    centred = _full(student) - _full(student).mean(1, keepdim=True)
    difference = centred - (target - target.mean(1, keepdim=True))
    return difference.square().mean(1).mean() / 2


def hard(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross entropy with the teacher's own decision (hard distillation, DeiT, Touvron et al. 2021).

    Args:
        student: logits, (B, C).
        teacher: logits of the same classes in the same order, (B, C).
        temperature: has no effect; it is here so that all losses are called alike.

    Returns:
        Scalar tensor, in nats.
    """
    del temperature
    return functional.cross_entropy(_full(student), teacher.argmax(dim=1))


def _full(logits: Tensor) -> Tensor:
    """Compute in float32 at least; half precision is too coarse for logarithms."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def get_loss(name: str) -> Loss:
    """Return the loss of that name.

    Raises:
        RecipeError: there is none; the nearest names are offered.
    """
    known = {f.__name__: f for f in (kd, mse, hard)}
    if name not in known:
        raise RecipeError(f"loss {name!r} is unknown", nearest(name, known))
    return known[name]


def entropy(logits: Tensor, temperature: float) -> float:
    """Return the mean entropy of softmax(logits / T) as a share of its maximum ln C, 0..1.

    Near 0 the soft targets say no more than the labels; near 1 they say nothing at all.

    Args:
        logits: (N, C), C at least 2.
        temperature: T, above 0.
    """
    log_p = functional.log_softmax(logits.double() / temperature, dim=1)
    nats = -(log_p.exp() * log_p).sum(1).mean()
    return float(nats / torch.log(torch.tensor(float(logits.shape[1]), dtype=torch.float64)))
