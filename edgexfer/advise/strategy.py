"""Which strategy to start with: a table of rules, the simplest first.

::

    what is seen                                      strategy              why
    ------------------------------------------------  --------------------  ----------------------
    no source                                         scratch               nothing to transfer
    no layer is shown to beat the largest class       full, guarded         negative transfer is
                                                                            likely (Wang 2019)
    < 20 images a class, last features as good as any probe                 few images fit a head
                                                                            and no more (Kornblith
                                                                            2019)
    < 20 images a class, an earlier stage better      freeze until it       its features are more
                                                                            general (Yosinski 2014)
    < 200 images a class, near                        gradual               full tuning at once
                                                                            distorts good features
                                                                            (Howard 2018, Kumar
                                                                            2022)
    < 200 images a class, far                         freeze until the best as above
    more, near                                        full, backbone at a   close to where it
                                                      tenth of the rate     should be (Li 2020)
    more, far                                         full                  only the general part
                                                                            helps (Raghu 2019)

Near means that neither an earlier stage's probe is shown to be better than the last one's, nor the
proxy A-distance to be above 1.5. The limits of 20 and 200 are round numbers in the range of those
papers' figures, and no law: ``--guard`` and the learning curve of ``edgexfer curve`` decide.

Kornblith et al., "Do Better ImageNet Models Transfer Better?", CVPR 2019; Yosinski et al., "How
transferable are features in deep neural networks?", NeurIPS 2014; Howard and Ruder, "Universal
Language Model Fine-tuning", ACL 2018; Kumar et al., "Fine-Tuning can Distort Pretrained Features",
ICLR 2022; Li et al., "Rethinking the Hyperparameters for Fine-tuning", ICLR 2020; Raghu et al.,
"Transfusion: Understanding Transfer Learning for Medical Imaging", NeurIPS 2019; Wang et al.,
"Characterizing and Avoiding Negative Transfer", CVPR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgexfer.advise.distance import Distance
from edgexfer.advise.layers import Depth

FEW, MANY = 20, 200
FAR = 1.5


@dataclass(frozen=True)
class Choice:
    """A strategy and why.

    Attributes:
        strategy: a file of ``transfer/``.
        options: its own.
        backbone_lr: factor on the rate of pre-trained layers.
        guard: whether negative transfer should be looked for.
        why: a sentence.
    """

    strategy: str
    why: str
    options: dict[str, Any] = field(default_factory=dict)
    backbone_lr: float = 1.0
    guard: bool = False


def choose(
    per_class: float, depth: Depth | None, distance: Distance | None, *, several: bool = False
) -> Choice:
    """Choose a strategy by the table above.

    Args:
        per_class: training images of a class, on average.
        depth: what the probes say; ``None`` without a source.
        distance: of the source's pictures; ``None`` where they were not looked at.
        several: whether a model of several tasks is to be trained, whose probe is no closed form.
    """
    if depth is None:
        return Choice("scratch", "there is no source to start from")
    if depth.knows_nothing:
        why = "no layer of the source is shown to know the target: look whether it hurts"
        return Choice("full", why, guard=True)
    far = depth.last_is_worse or (distance is not None and distance.a_low > FAR)
    # Of a source whose last features are best, the last stage is what gives way.
    until = {"until": depth.until} if depth.last_is_worse else {}
    images = f"{per_class:.0f} images a class"
    if per_class < FEW and not depth.last_is_worse:
        why = f"{images} are few, and the last features are as good as any"
        return Choice("probe", why, {"head": "trained"} if several else {})
    if per_class < FEW:
        why = f"{images} are few, and {depth.until} knows more than the last layer"
        return Choice("freeze", why, until)
    if per_class < MANY and not far:
        return Choice("gradual", f"{images}, near the source: thaw what is good slowly")
    if per_class < MANY:
        return Choice("freeze", f"{images}, far from the source: keep the general layers", until)
    if not far:
        why = f"{images} are enough for every layer, near the source: move the backbone little"
        return Choice("full", why, backbone_lr=0.1)
    return Choice("full", f"{images} are enough for every layer, far from the source")
