"""Ranking sources by their scores, and how certain that ranking is.

The uncertainty is that of other images of the same kind, found by half-samples: each score is
computed again on random halves of the images. The spread of a statistic over halves drawn without
replacement is, to first order, its standard error on all images (Shao and Wu, "A General Theory for
Jackknife Variance Estimation", Annals of Statistics 1989, the delete-d jackknife at d = N/2). A
bootstrap draws images twice, and every score here takes a copy for a neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edgexfer.advise.features import Features
from edgexfer.advise.transferability import (
    Float64,
    Floats,
    Labels,
    hscore,
    knn,
    leep,
    logme,
    mixture,
    transrate,
)

#: The scores by name; the first one decides, and the others say whether they agree.
SCORES = ("logme", "nleep", "hscore", "transrate", "knn", "leep")
_ON_FEATURES: dict[str, Callable[[Floats, Labels], float]] = {
    "logme": logme,
    "hscore": hscore,
    "transrate": transrate,
    "knn": knn,
}
HALVES = 50


@dataclass(frozen=True)
class Score:
    """One source's score.

    Attributes:
        source: its name.
        value: the score on all images; ``None`` where it cannot be told.
        low: lower end of its 95 % interval.
        high: upper end of it.
        reason: why there is none.
    """

    source: str
    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Ranking:
    """Sources by one score.

    Attributes:
        score: its name.
        scores: the best first; those without one last.
        tied: names of all that cannot be told apart from the best, the best first; 95 % confidence
            for all comparisons with it together (Bonferroni).
    """

    score: str
    scores: tuple[Score, ...]
    tied: tuple[str, ...]

    @property
    def decided(self) -> bool:
        """Whether the best stands apart from every other."""
        return len(self.tied) == 1


def rank(
    features: Mapping[str, Features], *, halves: int = HALVES, seed: int = 0
) -> tuple[Ranking, ...]:
    """Rank sources by every score.

    Args:
        features: of each source by its name, all of the same images.
        halves: half-samples; the same ones for all sources, so that differences are paired.
        seed: of the half-samples.

    Returns:
        One ranking for each of ``SCORES`` that any source has.
    """
    labels = next(iter(features.values())).labels
    drawn = half_samples(labels, halves, seed)
    rankings = []
    for score in SCORES:
        inputs = {name: _input(score, found) for name, found in features.items()}
        known = {name: x for name, x in inputs.items() if x is not None}
        if known:
            function = _ON_FEATURES.get(score, leep)
            values = {name: function(x, labels) for name, x in known.items()}
            again = {
                name: np.array([function(x[half], labels[half]) for half in drawn])
                for name, x in known.items()
            }
            rankings.append(_ranking(score, values, again, tuple(features)))
    return tuple(rankings)


def half_samples(labels: Labels, count: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Draw random halves of the images without replacement, class by class.

    Args:
        labels: (N,).
        count: how many halves.
        seed: of the draw.

    Returns:
        Sorted indices; a class with an odd number of images gives one more in every second half.
    """
    rng = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    halves = []
    for _ in range(count):
        parts = [
            rng.permutation(own)[: max(1, (len(own) + int(rng.integers(2))) // 2)]
            for own in classes
        ]
        halves.append(np.sort(np.concatenate(parts)))
    return halves


def decision(rankings: Sequence[Ranking]) -> tuple[str | None, str]:
    """Say which source the scores choose, or that they cannot.

    Returns:
        The source's name, ``None`` where the scores cannot decide; and why, as a sentence.
    """
    if not rankings:
        return None, "No source was looked at."
    first = rankings[0]
    best = first.tied[0]
    if len(first.scores) == 1:
        return best, f"{best} is the only source; nothing is compared."
    if not first.decided:
        others = ", ".join(first.tied[1:])
        return None, (
            f"The scores cannot decide: {first.score} puts {best} first, but does not tell it "
            f"apart from {others} on these images."
        )
    agree = [r.score for r in rankings if r.tied[0] == best]
    against = [
        f"{r.score} chooses {r.tied[0]}" for r in rankings if r.decided and r.tied[0] != best
    ]
    if 2 * len(agree) <= len(rankings):
        return None, (
            f"The scores cannot decide: {first.score} chooses {best}, but only {len(agree)} of "
            f"{len(rankings)} scores agree" + (f" ({'; '.join(against)})." if against else ".")
        )
    return best, (
        f"{best}: {first.score} tells it apart from every other, and {len(agree)} of "
        f"{len(rankings)} scores put it first" + (f"; {'; '.join(against)}." if against else ".")
    )


def _input(score: str, found: Features) -> Floats | None:
    """Return what a score is computed from; the mixture of ``nleep`` is that of all images."""
    if score == "leep":
        return found.probabilities
    if score == "nleep":
        return mixture(found.last, len(np.unique(found.labels)))
    return found.last


def _ranking(
    score: str, values: Mapping[str, float], again: Mapping[str, Float64], names: Sequence[str]
) -> Ranking:
    z = NormalDist().inv_cdf(0.975)
    scores = [
        Score(name, value, value - z * _sd(again[name]), value + z * _sd(again[name]))
        for name, value in sorted(values.items(), key=lambda item: -item[1])
    ]
    best = scores[0].source
    rivals = [s.source for s in scores[1:]]
    strict = NormalDist().inv_cdf(1 - 0.025 / max(len(rivals), 1))
    tied = [
        name
        for name in rivals
        if values[best] - values[name] <= strict * _sd(again[best] - again[name])
    ]
    absent = [Score(n, None, reason="it has no trained head") for n in names if n not in values]
    return Ranking(score, (*scores, *absent), (best, *tied))


def _sd(values: Float64) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.inf
