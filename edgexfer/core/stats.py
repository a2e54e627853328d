"""Percentiles with confidence bounds, and intervals for accuracies, in plain Python.

Definitions are fixed here once: a percentile is the nearest rank; its upper bound is an order
statistic that holds with 99 % confidence; an accuracy has a Wilson interval; the difference of two
accuracies has Newcombe's, paired where the images are the same; a calibration error has 15 bins.
What several runs, and samples that resemble their neighbours, do to a percentile is in
``pooled.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

from edgexfer.core.distributions import binomial, student_t

Z95_TWO_SIDED = 1.959963984540054
# Of confidences, for the calibration error.
_BINS = 15


@dataclass(frozen=True)
class Quantile:
    """One percentile of a sample.

    Attributes:
        q: the percentile as a fraction, 0.9 for p90.
        n: how many samples it rests on.
        value: nearest-rank percentile in the samples' unit; ``None`` where ``n`` is too small for a
            bound, as it then says little more than the largest sample.
        upper99: value that the true percentile does not exceed with 99 % confidence; ``None``
            likewise, and where the samples hang together too much to count for as many.
        reason: why they are ``None``.
    """

    q: float
    n: int
    value: Optional[float]
    upper99: Optional[float]
    reason: Optional[str] = None


def quantile(samples: Sequence[float], q: float) -> Quantile:
    """Return a nearest-rank percentile, x₍⌈q·n⌉₎, with its 99 % upper bound.

    Args:
        samples: in any order and any one unit.
        q: between 0 and 1, exclusive.
    """
    ordered = sorted(samples)
    n = len(ordered)
    if n == 0:
        return Quantile(q, 0, None, None, "no samples")
    value = float(ordered[max(math.ceil(q * n - 1e-9), 1) - 1])
    rank = upper_rank(n, q)
    if rank is None:
        need = samples_needed(q)
        return Quantile(q, n, None, None, f"n={n} < {need}, too few for a 99 % bound")
    return Quantile(q, n, value, float(ordered[rank - 1]))


def upper_rank(n: int, q: float, alpha: float = 0.01) -> Optional[int]:
    """Return the smallest rank r (from 1) with P(Bin(n, q) ≥ r) ≤ alpha, or None if there is none.

    The r-th smallest of n independent samples is then an upper bound of the q-quantile with
    confidence 1 - alpha.
    """
    tail = 0.0
    rank = n + 1
    while rank > 1:
        tail += binomial(n, rank - 1, q) if rank - 1 <= n else 0.0
        if tail > alpha:
            break
        rank -= 1
    return rank if rank <= n else None


def samples_needed(q: float, alpha: float = 0.01) -> int:
    """Return the least n for which ``upper_rank`` exists: the largest sample must bound q."""
    return math.ceil(math.log(alpha) / math.log(q))


def median(samples: Sequence[float]) -> float:
    """Return the nearest-rank median."""
    ordered = sorted(samples)
    return float(ordered[(len(ordered) + 1) // 2 - 1])


def mad(samples: Sequence[float]) -> float:
    """Return the median absolute deviation from the median, in the samples' unit."""
    centre = median(samples)
    return median([abs(s - centre) for s in samples])


def wilson(correct: int, n: int, z: float = Z95_TWO_SIDED) -> Tuple[float, float]:
    """Return the 95 % Wilson score interval of a proportion (Wilson 1927), as fractions.

    ``(0, 1)`` where n is 0. Another ``z`` gives another confidence.
    """
    if n == 0:
        return 0.0, 1.0
    z2 = z**2
    p = correct / n
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # Rounding must not part 0 of n from 0, nor n of n from 1.
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


@dataclass(frozen=True)
class PairedDrop:
    """How much accuracy was lost between two models on the same images.

    Attributes:
        drop_pt: accuracy of the first minus accuracy of the second, in percentage points.
        low_pt: lower end of the 95 % interval, in percentage points.
        high_pt: upper end of the 95 % interval, in percentage points.
        lost: images that only the first had right.
        gained: images that only the second had right.
        n: images in all.
    """

    drop_pt: float
    low_pt: float
    high_pt: float
    lost: int
    gained: int
    n: int


def paired_drop(
    first: Sequence[bool], second: Sequence[bool], z: float = Z95_TWO_SIDED
) -> PairedDrop:
    """Compare two models on the same images with Newcombe's method 10 (Statist. Med. 1998).

    Args:
        first: for each image, whether the reference was right.
        second: for each image, whether the other model was right.
        z: of another confidence than 95 %.

    Raises:
        ValueError: the two differ in length or are empty.
    """
    n = len(first)
    if n == 0 or n != len(second):
        raise ValueError(f"paired_drop needs two equal, non-empty lists, got {n}, {len(second)}")
    both = sum(1 for a, b in zip(first, second) if a and b)
    lost = sum(1 for a, b in zip(first, second) if a and not b)
    gained = sum(1 for a, b in zip(first, second) if b and not a)
    neither = n - both - lost - gained
    p1, p2 = (both + lost) / n, (both + gained) / n
    (l1, u1), (l2, u2) = wilson(both + lost, n, z), wilson(both + gained, n, z)
    phi = _phi(both, lost, gained, neither)
    low = _newcombe(p1 - l1, u2 - p2, phi)
    high = _newcombe(u1 - p1, p2 - l2, phi)
    d = p1 - p2
    return PairedDrop(100 * d, 100 * (d - low), 100 * (d + high), lost, gained, n)


def unpaired_drop(
    correct1: int, n1: int, correct2: int, n2: int, z: float = Z95_TWO_SIDED
) -> Tuple[float, float, float]:
    """Compare two accuracies that cannot be paired, by Newcombe's method 10 (Statist. Med. 1998).

    Another ``z`` gives another confidence.

    Returns:
        First accuracy minus second and the ends of its 95 % interval, in percentage points.

    Raises:
        ValueError: a sample is empty.
    """
    if n1 < 1 or n2 < 1:
        raise ValueError(f"unpaired_drop needs two non-empty samples, got {n1}, {n2}")
    p1, p2 = correct1 / n1, correct2 / n2
    (l1, u1), (l2, u2) = wilson(correct1, n1, z), wilson(correct2, n2, z)
    d = p1 - p2
    low = math.hypot(p1 - l1, u2 - p2)
    high = math.hypot(u1 - p1, p2 - l2)
    return 100 * d, 100 * (d - low), 100 * (d + high)


def _phi(a: int, b: int, c: int, d: int) -> float:
    product = (a + b) * (c + d) * (a + c) * (b + d)
    if product == 0:
        return 0.0
    top: float = a * d - b * c
    if top > 0:
        top = max(top - (a + b + c + d) / 2, 0)
    return top / math.sqrt(product)


def _newcombe(d1: float, d2: float, phi: float) -> float:
    return math.sqrt(max(d1 * d1 - 2 * phi * d1 * d2 + d2 * d2, 0.0))


def ece_pct(confidences: Sequence[float], right: Sequence[bool]) -> Optional[float]:
    """Return the expected calibration error of top-1 answers, in percent.

    It is the mean distance between confidence and accuracy over 15 bins of equal width, weighted by
    the images in each (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).

    Args:
        confidences: probability of each answer, 0 to 1.
        right: whether each answer was right.

    Returns:
        ``None`` where there are no probabilities, or not one for each answer.
    """
    if not confidences or len(confidences) != len(right):
        return None
    gaps = [0.0] * _BINS
    for p, good in zip(confidences, right):
        # Bins are closed above, as in the paper; rounding may leave a probability just above 1.
        place = min(max(math.ceil(p * _BINS) - 1, 0), _BINS - 1)
        gaps[place] += p - good
    return 100 * sum(abs(gap) for gap in gaps) / len(right)


def images_needed(drop: PairedDrop, limit_pt: float) -> Optional[int]:
    """Return about how many images would show that a drop stays below a limit, at the same rates.

    The interval's upper half shrinks with the root of the number of images, or faster.

    Args:
        drop: what was measured.
        limit_pt: largest drop that is allowed, in percentage points.

    Returns:
        ``None`` where no number would do: the drop itself is not below the limit.
    """
    margin = limit_pt - drop.drop_pt
    if margin < 1e-9:
        return None
    return max(drop.n, math.ceil(drop.n * ((drop.high_pt - drop.drop_pt) / margin) ** 2))


@dataclass(frozen=True)
class SeededGain:
    """How much more accurate one way of training is than another, over several seeds.

    Attributes:
        gain_pt: mean accuracy of the first minus that of the second, in percentage points.
        low_pt: lower end of the 95 % interval, in percentage points.
        high_pt: upper end of it.
        seeds: trainings of each.
        n: test images.
    """

    gain_pt: float
    low_pt: float
    high_pt: float
    seeds: int
    n: int

    @property
    def verdict(self) -> str:
        """``helps``, ``hurts`` or ``no difference shown``."""
        if self.low_pt > 0:
            return "helps"
        return "hurts" if self.high_pt < 0 else "no difference shown"


def seeded_gain(first: Sequence[Sequence[bool]], second: Sequence[Sequence[bool]]) -> SeededGain:
    """Compare two ways of training, each with the same seeds and on the same test images.

    The interval holds for other seeds and other images of the same kind: the variance of the mean
    difference is that between seeds plus that between images (two crossed random effects; their
    interaction counts in both, which errs on the wide side), with Student's t at Satterthwaite's
    degrees of freedom (Biometrics Bulletin 1946). One seed says nothing of other seeds; its
    interval is that of ``paired_drop``, for other images alone. So is that of several where neither
    seeds nor images differ in the gain: that nothing varied among a few images shows no certainty.

    Args:
        first: for each seed and image, whether the first was right.
        second: likewise of the second.

    Raises:
        ValueError: they differ in seeds or images, or are empty.
    """
    seeds, n = len(first), len(first[0]) if first else 0
    if not n or len(second) != seeds or any(len(r) != n for r in (*first, *second)):
        raise ValueError("seeded_gain needs the same seeds and images of both, and at least one")
    by_seed = [(sum(a) - sum(b)) / n for a, b in zip(first, second)]
    by_image = [
        (sum(rights) - sum(others)) / seeds for rights, others in zip(zip(*first), zip(*second))
    ]
    if seeds == 1 or len(set(by_seed)) == len(set(by_image)) == 1:
        one = paired_drop(first[0], second[0])
        return SeededGain(one.drop_pt, one.low_pt, one.high_pt, seeds, n)
    gain = math.fsum(by_seed) / seeds
    parts = [(_variance(by_seed) / seeds, seeds - 1)]
    if n > 1:
        parts.append((_variance(by_image) / n, n - 1))
    variance = sum(v for v, _ in parts)
    dof = variance**2 / sum(v * v / d for v, d in parts)
    half = student_t(0.975, dof) * math.sqrt(variance)
    return SeededGain(100 * gain, 100 * (gain - half), 100 * (gain + half), seeds, n)


def _variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
