"""What ``--loss`` says: a sum of weighted losses, and the weights that their papers give them.

::

    sums = sum ("," sum)*                                   several sums to compare
    sum  = term ("+" term)*
    term = [weight "*"] name ["@" student [":" teacher]]    the layers of a feature loss

A layer is the number of a stage, from 1, or from the end as -1, or the dotted name of a module.
``kd``, ``0.5*kd+2*dist``, ``dkd+hint@2:3`` and ``50*attention@layer3:stages.3`` are sums. A weight
is that of one term and nothing else; cross entropy with the labels has its own, ``w_hard``.

===========  =========  ========  ==================================================================
name         weight     w_hard    source of the weights
===========  =========  ========  ==================================================================
kd           0.9        0.1       Tian et al., "Contrastive Representation Distillation", ICLR 2020
dkd          1          1         Zhao et al., CVPR 2022 (alpha 1 and beta 8 are inside of dkd)
tckd         1          1         its alpha
nckd         8          1         its beta, for ResNets on CIFAR-100
dist         2          1         Huang et al., NeurIPS 2022
inter        2          1         its beta
intra        2          1         its gamma
mse          0.9        0.1       as ``kd``, whose limit it is
hard         0.5        0.5       Touvron et al. (DeiT), ICML 2021
hint         100        1         Tian et al. 2020, for FitNets (Romero et al., ICLR 2015)
attention    1000       1         Tian et al. 2020, for AT (Zagoruyko & Komodakis, ICLR 2017)
relational   1          1         Tian et al. 2020, for RKD (25 · distance + 50 · angle are inside)
similarity   3000       1         Tian et al. 2020, for SP (Tung & Mori, ICCV 2019)
review       1          1         Chen et al., CVPR 2021: 0.6 to 8, 1 for resnet110 → resnet32
===========  =========  ========  ==================================================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgexfer.core.errors import RecipeError, nearest


@dataclass(frozen=True)
class Facts:
    """What is known of a loss before anything is computed.

    Attributes:
        weight: its weight where none is given.
        hard: the weight of cross entropy with the labels beside it.
        features: whether it compares feature maps, and so takes layers.
        mixable: whether it works under mixup and cutmix; ``dkd`` and its halves need the one true
            class of each image. Losses that compare the images of a batch take mixed ones as well
            as others.
    """

    weight: float
    hard: float
    features: bool = False
    mixable: bool = True


#: Facts of every loss by name.
FACTS = {
    "kd": Facts(0.9, 0.1),
    "dkd": Facts(1.0, 1.0, mixable=False),
    "tckd": Facts(1.0, 1.0, mixable=False),
    "nckd": Facts(8.0, 1.0, mixable=False),
    "dist": Facts(2.0, 1.0),
    "inter": Facts(2.0, 1.0),
    "intra": Facts(2.0, 1.0),
    "mse": Facts(0.9, 0.1),
    "hard": Facts(0.5, 0.5),
    "hint": Facts(100.0, 1.0, features=True),
    "attention": Facts(1000.0, 1.0, features=True),
    "relational": Facts(1.0, 1.0, features=True),
    "similarity": Facts(3000.0, 1.0, features=True),
    "review": Facts(1.0, 1.0, features=True),
}


@dataclass(frozen=True)
class Term:
    """One weighted loss of a sum.

    Attributes:
        name: of the loss.
        weight: 0 or more.
        student: the student's layer, a stage's number or a module's name; ``None`` takes the
            layers that the loss takes by default, as all logit losses do.
        teacher: the teacher's layer.
    """

    name: str
    weight: float
    student: str | None = None
    teacher: str | None = None

    @property
    def facts(self) -> Facts:
        """What is known of its loss."""
        return FACTS[self.name]

    @property
    def label(self) -> str:
        """The term without its weight, such as ``kd`` or ``hint@2:3``; unique within a sum."""
        return self.name if self.student is None else f"{self.name}@{self.student}:{self.teacher}"


def parse_loss(text: str, *, w_soft: float | None) -> tuple[Term, ...]:
    """Read a sum of losses.

    Args:
        text: such as ``kd`` or ``0.5*dkd+hint@2:3``; spaces have no meaning. A teacher's layer that
            is left out is called as the student's.
        w_soft: weight of logit losses that have none in front of them; ``None`` takes the paper's.

    Raises:
        RecipeError: naming the piece that is wrong and how to mend it.
    """
    terms = tuple(_term(piece.strip(), text, w_soft) for piece in text.split("+"))
    labels = [term.label for term in terms]
    for label in labels:
        if labels.count(label) > 1:
            raise RecipeError(
                f"loss {text!r}: {label} stands in it {labels.count(label)} times",
                "write it once, with the sum of its weights",
            )
    return terms


def hard_weight(terms: Sequence[Term], w_hard: float | None) -> float:
    """Return the weight of cross entropy with the labels.

    Args:
        terms: of the sum that stands beside it, one at least.
        w_hard: as asked for; ``None`` takes the paper's. Of several losses it is the smallest, so
            that ``kd`` keeps its balance of 0.9 to 0.1 when a feature loss is added to it.
    """
    return min(term.facts.hard for term in terms) if w_hard is None else w_hard


def unmixable(terms: Sequence[Term]) -> tuple[str, ...]:
    """Return the names of the losses that cannot be used under mixup and cutmix."""
    return tuple(term.name for term in terms if not term.facts.mixable)


def split_losses(text: str) -> tuple[str, ...]:
    """Return the sums of ``kd,dkd,dist+hint@2``, to be compared.

    Raises:
        RecipeError: one is empty, or stands there twice.
    """
    sums = tuple(piece.strip() for piece in text.split(","))
    for one in sums:
        if not one:
            raise RecipeError(
                f"loss {text!r}: nothing stands beside one of its commas", "write as in kd,dkd,dist"
            )
        if sums.count(one) > 1:
            raise RecipeError(
                f"loss {text!r}: {one} is to be compared with itself",
                "name it once; --seeds repeats a training",
            )
    return sums


def _term(piece: str, text: str, w_soft: float | None) -> Term:
    if not piece:
        raise RecipeError(f"loss {text!r}: a term is empty", "write as in kd+hint@2")
    front, star, rest = piece.rpartition("*")
    name, at, layers = (part.strip() for part in rest.partition("@"))
    if name not in FACTS:
        raise RecipeError(f"loss {name!r} is unknown", nearest(name, FACTS))
    facts = FACTS[name]
    weight = facts.weight if facts.features or w_soft is None else w_soft
    if star:
        weight = _weight(front.strip(), piece)
    student, teacher = _layers(layers, piece) if at else (None, None)
    if at and not facts.features:
        raise RecipeError(
            f"loss {piece!r}: {name} compares logits and takes no layers",
            f"leave out @{layers}, or choose one of "
            + ", ".join(n for n, f in FACTS.items() if f.features),
        )
    return Term(name, weight, student, teacher)


def _weight(text: str, piece: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not (0 <= weight < math.inf):
        raise RecipeError(
            f"loss {piece!r}: {text!r} is not a weight", "write a number of 0 or more, as in 0.5*kd"
        )
    return weight


def _layers(text: str, piece: str) -> tuple[str, str]:
    names = [name.strip() for name in text.split(":")]
    if not all(names) or len(names) > 2:
        raise RecipeError(
            f"loss {piece!r}: {text!r} does not name the layers",
            "write @STUDENT:TEACHER, as in hint@2:3 or hint@layer2:stages.1",
        )
    return names[0], names[-1]
