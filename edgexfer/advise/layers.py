"""Which layers already know the target: linear probes on every stage, and how deep to freeze.

Features of the first layers are general and those of the last ones are the source's (Yosinski et
al., "How transferable are features in deep neural networks?", NeurIPS 2014). Where a probe on an
earlier stage beats one on the last, what stands behind it is better trained anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edgexfer.advise.features import HEAD
from edgexfer.advise.transferability import Floats, Labels
from edgexfer.core.stats import paired_drop, wilson

FOLDS = 5
_RIDGES = tuple(10.0**e for e in range(-3, 5))


@dataclass(frozen=True)
class Probe:
    """A linear classifier on one layer.

    Attributes:
        layer: its dotted name; ``head`` for what goes into the head.
        features: how many.
        top1_pct: cross-validated accuracy.
        low_pct: lower end of its 95 % interval.
        high_pct: upper end of it.
        behind_pt: how many points it is behind the best layer.
        behind_low_pt: lower end of that difference's 95 % interval, paired by image.
        behind_high_pt: upper end of it.
    """

    layer: str
    features: int
    top1_pct: float
    low_pct: float
    high_pct: float
    behind_pt: float
    behind_low_pt: float
    behind_high_pt: float

    @property
    def worse(self) -> bool:
        """Whether it is shown to be worse than the best layer."""
        return self.behind_low_pt > 0


@dataclass(frozen=True)
class Depth:
    """How deep to freeze.

    Attributes:
        probes: of all layers, first to last.
        best: the layer whose probe is the most accurate.
        until: freeze up to and with this layer: the last that is not shown to be worse than the
            best; ``head`` for the whole backbone.
        likely: all layers that are not shown to be worse than the best.
        chance_pct: share of the largest class.
        knows_nothing: whether no layer is shown to be better than naming that class (95 %
            confidence for all layers together, Bonferroni).
    """

    probes: tuple[Probe, ...]
    best: str
    until: str
    likely: tuple[str, ...]
    chance_pct: float
    knows_nothing: bool

    @property
    def last_is_worse(self) -> bool:
        """Whether the last features are shown to be worse than earlier ones."""
        return self.until != HEAD

    @property
    def verdict(self) -> str:
        """What the probes say, as a sentence."""
        if self.knows_nothing:
            return "No layer is shown to know more than the size of the classes."
        what = "the whole backbone" if self.until == HEAD else f"up to {self.until}"
        if len(self.likely) == 1:
            return f"Freeze {what}: every other layer's probe is worse, beyond its interval."
        return (
            f"Freeze {what}; on these images the probes do not tell apart {', '.join(self.likely)}."
        )


def probe_layers(layers: Mapping[str, Floats], labels: Labels, *, seed: int = 0) -> Depth:
    """Probe every layer and recommend how deep to freeze.

    Args:
        layers: features (N, D) by layer, first to last; a stage whose features are those of the
            head is left out.
        labels: (N,).
        seed: of the folds, which are the same for all layers.
    """
    last = layers[HEAD]
    kept = {
        name: f
        for name, f in layers.items()
        if name == HEAD or f.shape != last.shape or not np.allclose(f, last, rtol=1e-3, atol=1e-5)
    }
    hits = {name: probe_hits(f, labels, seed=seed) for name, f in kept.items()}
    # The deeper of two equal ones.
    best = max(hits, key=lambda name: (hits[name].sum(), list(hits).index(name)))
    probes = []
    for name, right in hits.items():
        low, high = wilson(int(right.sum()), len(right))
        gap = paired_drop(hits[best].tolist(), right.tolist())
        probes.append(
            Probe(
                name,
                kept[name].shape[1],
                100 * float(right.mean()),
                100 * low,
                100 * high,
                *((gap.drop_pt, gap.low_pt, gap.high_pt) if name != best else (0.0, 0.0, 0.0)),
            )
        )
    likely = tuple(p.layer for p in probes if not p.worse)
    chance = float(np.bincount(labels).max()) / len(labels)
    strict = NormalDist().inv_cdf(1 - 0.025 / len(probes))
    surely, _ = wilson(int(hits[best].sum()), len(labels), strict)
    return Depth(tuple(probes), best, likely[-1], likely, 100 * chance, surely <= chance)


def probe_hits(features: Floats, labels: Labels, *, seed: int = 0) -> npt.NDArray[np.bool_]:
    """Say for each image whether a linear classifier that has not seen it is right.

    Ridge regression on the classes (one against the rest, labels ±1) of standardised features; its
    strength is chosen within each fold's training images by generalised leave-one-out. The only
    image of a class is wrong: whoever has not seen it does not know the class.

    Args:
        features: (N, D).
        labels: (N,).
        seed: of the folds.

    Returns:
        Bool, (N,).
    """
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    f = np.asarray(features, np.float64)
    counts = np.bincount(labels)
    right = np.zeros(len(labels), bool)
    if (counts > 1).sum() < 2:
        return right
    often = np.flatnonzero(counts[labels] > 1)
    cut = StratifiedKFold(min(FOLDS, counts[counts > 1].min()), shuffle=True, random_state=seed)
    for parts in cut.split(f[often], labels[often]):
        train, test = (often[part] for part in parts)
        model = make_pipeline(StandardScaler(), RidgeClassifierCV(_RIDGES))
        right[test] = model.fit(f[train], labels[train]).predict(f[test]) == labels[test]
    return right
