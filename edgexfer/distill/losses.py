"""Logit losses: one function each, named as on the command line (``--loss kd``).

===========  =======================================================  ===========================
name         compares                                                 paper
===========  =======================================================  ===========================
kd           softened probabilities                                   Hinton et al. 2015
dkd          the same, parted into tckd and nckd                      Zhao et al., CVPR 2022
tckd         how sure of the true class                               its first half
nckd         the other classes among themselves                       its second half
dist         correlations within images and within classes            Huang et al., NeurIPS 2022
inter        correlations over the classes of each image              its first half
intra        correlations over the images of each class               its second half
mse          centred logits                                           Kim et al., IJCAI 2021
hard         the teacher's decision                                   Touvron et al., ICML 2021
===========  =======================================================  ===========================

Each is a pure function of logits and targets; their weights stand in ``distill/terms.py`` and are
applied by the objective in ``distill/objective.py``, never here, so that a weight has one meaning.
Losses of feature maps stand in ``distill/features.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from edgexfer.core.errors import RecipeError, nearest

# Probabilities that differ by less are equal; the inverse of it is still a float32.
_TINY = 1e-30

#: Called with the student's logits (B, C), the teacher's (B, C) of the same classes in the same
#: order, the temperature, and the targets (B, C), which are probabilities or, where an image has no
#: label, a row of zeros. Returns the mean over the batch, float32 or wider; no gradient flows into
#: the teacher's logits.
Loss = Callable[[Tensor, Tensor, float, Tensor], Tensor]


def kd(student: Tensor, teacher: Tensor, temperature: float, targets: Tensor) -> Tensor:
    """Soft-target loss of Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.

    T² · KL(softmax(teacher / T) ‖ softmax(student / T)), the mean over the batch. The factor T²
    keeps the gradient's size when T changes (section 2 of the paper).

    Args:
        student: logits, (B, C).
        teacher: logits, (B, C).
        temperature: T, above 0.
        targets: (B, C); they have no effect.

    Returns:
        Scalar, in nats.
    """
    del targets
    log_q = F.log_softmax(_full(student) / temperature, dim=1)
    log_p = F.log_softmax(_full(teacher.detach()) / temperature, dim=1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * temperature**2


def dkd(
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    targets: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Tensor:
    """Decoupled loss of Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, equation 7.

    alpha · ``tckd`` + beta · ``nckd``. In ``kd`` the second half is weighted with 1 - p, p the
    teacher's probability of the true class, so that a sure teacher teaches little; here it is not.

    Args:
        student: logits, (B, C), C at least 2.
        teacher: logits, (B, C).
        temperature: T, above 0; 4 in the paper.
        targets: (B, C); the largest is the true class, without a label the teacher's decision.
        alpha: weight of the first half.
        beta: weight of the second half; the paper's is 1 to 10, 8 for ResNets on CIFAR-100.

    Returns:
        Scalar, in nats.
    """
    first = tckd(student, teacher, temperature, targets)
    return alpha * first + beta * nckd(student, teacher, temperature, targets)


def tckd(student: Tensor, teacher: Tensor, temperature: float, targets: Tensor) -> Tensor:
    """First half of ``dkd``: knowledge of the true class against all others.

    T² · KL(b(teacher) ‖ b(student)), b the two probabilities of the true class and of any other
    class at temperature T, the mean over the batch.

    Args:
        student: logits, (B, C), C at least 2.
        teacher: logits, (B, C).
        temperature: T, above 0.
        targets: (B, C); the largest is the true class, without a label the teacher's decision.

    Returns:
        Scalar, in nats.
    """
    true = _true_class(teacher, targets)
    # A probability and its complement are both exact as sigmoids of the margin, however near to 1.
    ours = _margin(_full(student) / temperature, true)
    theirs = _margin(_full(teacher.detach()) / temperature, true)
    for_true = theirs.sigmoid() * (F.logsigmoid(theirs) - F.logsigmoid(ours))
    for_others = (-theirs).sigmoid() * (F.logsigmoid(-theirs) - F.logsigmoid(-ours))
    return (for_true + for_others).mean() * temperature**2


def nckd(student: Tensor, teacher: Tensor, temperature: float, targets: Tensor) -> Tensor:
    """Second half of ``dkd``: knowledge of the other classes among themselves.

    T² · KL(softmax(teacher / T) ‖ softmax(student / T)), both over all classes but the true one,
    the mean over the batch; 0 where there are two classes.

    Args:
        student: logits, (B, C), C at least 2.
        teacher: logits, (B, C).
        temperature: T, above 0.
        targets: (B, C); the largest is the true class, without a label the teacher's decision.

    Returns:
        Scalar, in nats.
    """
    true = _true_class(teacher, targets)
    log_q = _log_softmax_without(_full(student) / temperature, true)
    log_p = _log_softmax_without(_full(teacher.detach()) / temperature, true)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * temperature**2


def dist(student: Tensor, teacher: Tensor, temperature: float, targets: Tensor) -> Tensor:
    """Loss of Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022.

    ``inter`` + ``intra``: the student need not match the teacher's probabilities, only correlate
    with them.

    Args:
        student: logits, (B, C).
        teacher: logits, (B, C).
        temperature: T, above 0; in the paper 4 on CIFAR-100 and 1 on ImageNet.
        targets: (B, C); they have no effect.

    Returns:
        Scalar, 0 to 4 T².
    """
    first = inter(student, teacher, temperature, targets)
    return first + intra(student, teacher, temperature, targets)


def inter(student: Tensor, teacher: Tensor, temperature: float, targets: Tensor) -> Tensor:
    """First half of ``dist``: how an image's classes relate to each other (its equation 7).

    T² · (1 - r), r Pearson's correlation of softmax(student / T) with softmax(teacher / T) over the
    classes, the mean over the batch. A uniform row correlates with nothing, its r is 0.

    Args:
        student: logits, (B, C).
        teacher: logits, (B, C).
        temperature: T, above 0.
        targets: (B, C); they have no effect.

    Returns:
        Scalar, 0 to 2 T².
    """
    del targets
    return _uncorrelated(student, teacher, temperature, dim=1)


def intra(student: Tensor, teacher: Tensor, temperature: float, targets: Tensor) -> Tensor:
    """Second half of ``dist``: how a batch's images relate to each other (its equation 9).

    Arguments and result are those of ``inter``, but r is over the images for each class, and the
    mean over the classes. Among micro-batches only their own images are compared; of a single image
    r is 0.
    """
    del targets
    return _uncorrelated(student, teacher, temperature, dim=0)


def mse(student: Tensor, teacher: Tensor, temperature: float, targets: Tensor) -> Tensor:
    """Squared distance of centred logits: the limit of ``kd`` for a high temperature.

    For T → ∞, T² · KL tends to Σᵢ ((sᵢ - s̄) - (tᵢ - t̄))² / (2C), the mean over the batch (Hinton
    2015, section 2.1; Kim et al., "Comparing Kullback-Leibler Divergence and Mean Squared Error
    Loss in Knowledge Distillation", IJCAI 2021).

    Args:
        student: logits, (B, C).
        teacher: logits, (B, C).
        temperature: has no effect.
        targets: (B, C); they have no effect.

    Returns:
        Scalar, in squared logits.
    """
    del temperature, targets
    ours, theirs = _full(student), _full(teacher.detach())
    difference = (ours - ours.mean(1, keepdim=True)) - (theirs - theirs.mean(1, keepdim=True))
    return difference.square().mean() / 2


def hard(student: Tensor, teacher: Tensor, temperature: float, targets: Tensor) -> Tensor:
    """Cross entropy with the teacher's own decision.

    Hard distillation of Touvron et al., "Training data-efficient image transformers & distillation
    through attention" (DeiT), ICML 2021, equation 3.

    Args:
        student: logits, (B, C).
        teacher: logits, (B, C).
        temperature: has no effect.
        targets: (B, C); they have no effect.

    Returns:
        Scalar, in nats.
    """
    del temperature, targets
    return F.cross_entropy(_full(student), teacher.argmax(dim=1))


def standardise(logits: Tensor) -> Tensor:
    """Bring each image's logits to mean 0 and deviation 1.

    Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024, algorithm 1: both
    models' logits are standardised before any logit loss, and its temperature acts on the z-scores;
    the student keeps its own range of logits. The deviation is that over all C classes, not the
    estimate with C - 1.

    Args:
        logits: (B, C); rows whose logits are all equal become 0.

    Returns:
        (B, C), float32 or wider.
    """
    return _unit(_full(logits), dim=1) * math.sqrt(logits.shape[1])


def entropy(logits: Tensor, temperature: float) -> float:
    """Return the mean entropy of softmax(logits / T) as a share of its maximum ln C, 0..1.

    Near 0 the soft targets say no more than the labels; near 1 they say nothing at all.

    Args:
        logits: (N, C), C at least 2.
        temperature: T, above 0.
    """
    log_p = F.log_softmax(logits.double() / temperature, dim=1)
    nats = -(log_p.exp() * log_p).sum(1).mean()
    return float(nats / torch.log(torch.tensor(float(logits.shape[1]), dtype=torch.float64)))


#: Every logit loss by name.
LOSSES: dict[str, Loss] = {
    f.__name__: f for f in (kd, dkd, tckd, nckd, dist, inter, intra, mse, hard)
}


def get_loss(name: str) -> Loss:
    """Return the logit loss of that name.

    Raises:
        RecipeError: there is none; the nearest names are offered.
    """
    if name not in LOSSES:
        raise RecipeError(f"loss {name!r} is unknown", nearest(name, LOSSES))
    return LOSSES[name]


def _full(logits: Tensor) -> Tensor:
    """Compute in float32 at least; half precision is too coarse for logarithms."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _true_class(teacher: Tensor, targets: Tensor) -> Tensor:
    """Return a mask (B, C) of the true class, of the teacher's decision where there is no label."""
    labelled = targets.sum(1) > 0
    index = torch.where(labelled, targets.argmax(1), teacher.argmax(1))
    return F.one_hot(index, teacher.shape[1]).bool()


def _margin(logits: Tensor, true: Tensor) -> Tensor:
    """Return the log odds (B,) of the true class against all others together."""
    others = logits.masked_fill(true, -torch.inf).logsumexp(1)
    return logits.masked_fill(~true, 0).sum(1) - others


def _log_softmax_without(logits: Tensor, true: Tensor) -> Tensor:
    """Return log probabilities (B, C) over all classes but the true one, which stands at 0."""
    return F.log_softmax(logits.masked_fill(true, -torch.inf), dim=1).masked_fill(true, 0)


def _uncorrelated(student: Tensor, teacher: Tensor, temperature: float, dim: int) -> Tensor:
    """Return T² · (1 - the mean of Pearson's correlations along ``dim``)."""
    ours = _unit(F.softmax(_full(student) / temperature, dim=1), dim)
    theirs = _unit(F.softmax(_full(teacher.detach()) / temperature, dim=1), dim)
    return (1 - (ours * theirs).sum(dim).mean()) * temperature**2


def _unit(x: Tensor, dim: int) -> Tensor:
    """Centre along ``dim`` and scale to norm 1.

    Where all values are equal, nothing but rounding is left, and it is not scaled: neither the
    result nor its gradient then grows beyond bounds.
    """
    centred = x - x.mean(dim, keepdim=True)
    spread = centred.detach().abs().amax(dim, keepdim=True)
    rounding = 16 * torch.finfo(x.dtype).eps * x.detach().abs().amax(dim, keepdim=True)
    flat = spread <= rounding.clamp(min=_TINY)
    # First to a largest value of 1: squares of small probabilities would vanish.
    scaled = centred / spread.masked_fill(flat, 1)
    return scaled * scaled.square().sum(dim, keepdim=True).masked_fill(flat, 1).rsqrt()
