"""What a series of samples in the order of their time says of itself: is it steady, is it one?

Autocorrelation, trend, change-point, two modes, outliers. Every function is pure, takes samples of
any one unit and decides nothing: what makes a measurement invalid stands in ``bench/analyse.py``.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Dict, List, Optional, Sequence, Tuple

from edgexfer.core.stats import mad, median

OUTLIER_MADS = 14.8
CORRELATED = 0.05
_TREND_POINTS = 100
_BLOCKS = 10
_CHANGE_P = 0.001
_CHANGE_SHARE = 0.1
_MODE_SHARE = 0.1


def _lag1_parts(samples: Sequence[float]) -> Tuple[float, float]:
    """Return the sums of products of neighbours and of squares, about the mean."""
    if len(samples) < 3 or min(samples) == max(samples):
        return 0.0, 0.0
    mean = math.fsum(samples) / len(samples)
    both = zip(samples[:-1], samples[1:])
    covariance = math.fsum((a - mean) * (b - mean) for a, b in both)
    return covariance, math.fsum((s - mean) ** 2 for s in samples)


def correlation(runs: Sequence[Sequence[float]]) -> Tuple[float, float]:
    """Return the lag-1 autocorrelation over several runs, and the share of samples that count.

    Samples in a row that resemble each other tell less than as many independent ones: a share of
    (1 - ρ) / (1 + ρ) of them where the series is autoregressive of order one. A slow wandering
    below a quick noise has a small ρ and yet a long memory; it shows in the variance of means of
    ever longer blocks (Flyvbjerg and Petersen, J. Chem. Phys. 91, 461, 1989), and the smaller share
    is taken. Up to ρ = 0.05 all samples count. Outliers are drawn in to their limit first, lest one
    hides the correlation of all others.

    Args:
        runs: samples of each run in their order of time; empty ones are left out.
    """
    series = [_drawn_in(run) for run in runs if run]
    n = sum(map(len, series))
    if n < 3:
        return 0.0, 1.0
    parts = [_lag1_parts(run) for run in series]
    variance = math.fsum(part[1] for part in parts)
    # Pooled before they are divided: a run in which nothing happened says nothing of how long it
    # lasts when something does.
    rho = math.fsum(part[0] for part in parts) / variance if variance > 0 else 0.0
    if rho <= CORRELATED:
        return rho, 1.0
    share = (1 - rho) / (1 + rho)
    single, blocks = _block_variance(series, 1), 2
    while sum(len(run) // blocks for run in series) >= _BLOCKS * len(series):
        share = min(share, single / max(blocks * _block_variance(series, blocks), single))
        blocks *= 2
    return rho, max(share, 1 / n)


def _drawn_in(run: Sequence[float]) -> List[float]:
    centre, reach = median(run), OUTLIER_MADS * (mad(run) or _grain(run))
    return [min(max(sample, centre - reach), centre + reach) for sample in run]


def _block_variance(runs: Sequence[Sequence[float]], size: int) -> float:
    """Return the variance of the means of blocks, each about the mean of its own run."""
    squares, freedom = 0.0, 0
    for run in runs:
        means = [math.fsum(run[i : i + size]) / size for i in range(0, len(run) - size + 1, size)]
        if len(means) > 1:
            centre = math.fsum(means) / len(means)
            squares += math.fsum((m - centre) ** 2 for m in means)
            freedom += len(means) - 1
    return squares / freedom if freedom else 0.0


def outliers(samples: Sequence[float]) -> List[int]:
    """Return where samples lie further than 14.8 MAD from the median.

    Of a series whose MAD is 0, as a coarse clock gives, the smallest step between two values stands
    for it.
    """
    if not samples:
        return []
    centre, reach = median(samples), OUTLIER_MADS * (mad(samples) or _grain(samples))
    return [i for i, sample in enumerate(samples) if abs(sample - centre) > reach]


def _grain(samples: Sequence[float]) -> float:
    """Return the smallest step between two values: the clock's own, where it is coarse."""
    values = sorted(set(samples))
    return min((b - a for a, b in zip(values, values[1:])), default=0.0)


def trend_p(samples: Sequence[float]) -> float:
    """Return the two-sided p-value of a monotone trend (Mann 1945, Kendall 1975, ties corrected).

    A long series is thinned to at most 100 evenly spaced samples, as the test compares all pairs.
    """
    step = max(1, math.ceil(len(samples) / _TREND_POINTS))
    thin = list(samples[::step])
    n = len(thin)
    s = sum(_sign(thin[j] - thin[i]) for i in range(n) for j in range(i + 1, n))
    ties: Dict[float, int] = {}
    for value in thin:
        ties[value] = ties.get(value, 0) + 1
    tied = sum(t * (t - 1) * (2 * t + 5) for t in ties.values())
    variance = (n * (n - 1) * (2 * n + 5) - tied) / 18
    if variance <= 0:
        return 1.0
    z = (s - _sign(s)) / math.sqrt(variance)
    return math.erfc(abs(z) / math.sqrt(2))


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def drift(samples: Sequence[float]) -> float:
    """Return the change of a series over its length, relative to its median.

    The slope is Theil and Sen's, the median over pairs of samples, of block medians at most 20.
    """
    blocks = _block_medians(samples, 20)
    pairs = [
        (blocks[j] - blocks[i]) / (j - i)
        for i in range(len(blocks))
        for j in range(i + 1, len(blocks))
    ]
    centre = median(samples) if samples else 0.0
    return median(pairs) * (len(blocks) - 1) / centre if pairs and centre else 0.0


def _block_medians(samples: Sequence[float], most: int) -> List[float]:
    size = max(1, math.ceil(len(samples) / most))
    return [median(samples[i : i + size]) for i in range(0, len(samples), size)]


@dataclass(frozen=True)
class Change:
    """Where a series changes its level.

    Attributes:
        index: the first sample of the new level.
        before: median before it.
        after: median from it on.
        p: how probable so large a change is in a series without one.
    """

    index: int
    before: float
    after: float
    p: float

    @property
    def relative(self) -> float:
        """By how much the level changed, of the smaller level; positive for a rise."""
        low = min(self.before, self.after)
        return (self.after - self.before) / low if low > 0 else 0.0


def change_point(samples: Sequence[float]) -> Optional[Change]:
    """Return the change of level that splits a series best, ``None`` where none is shown.

    The largest standardised sum of ranks up to a split, at p < 0.001 by its limit distribution
    (James, James and Siegmund, Biometrika 74, 71, 1987). The number of samples is scaled by the
    autocorrelation that is left on both sides of the split. Both sides hold a tenth of the samples
    at least: what is shorter is a burst.
    """
    n = len(samples)
    least = max(_BLOCKS, math.ceil(_CHANGE_SHARE * n))
    if n < 2 * least:
        return None
    ordered = sorted(samples)
    # The mean rank of ties, from -n to n: positive above the median.
    ranks = [bisect_left(ordered, s) + bisect_right(ordered, s) - n for s in samples]
    sums = list(accumulate(ranks))
    power = sum(rank * rank for rank in ranks) / (n - 1)
    if power == 0:
        return None

    def squared(split: int) -> float:
        return sums[split - 1] ** 2 * n / (power * split * (n - split))

    split = max(range(least, n - least + 1), key=squared)
    before, after = samples[:split], samples[split:]
    _, share = correlation([before, after])
    height = math.sqrt(squared(split) * share)
    p = _excess_p(height, (n - least) ** 2 / least**2)
    if p >= _CHANGE_P:
        return None
    return Change(split, median(before), median(after), p)


def _excess_p(height: float, odds: float) -> float:
    """Return how probable it is that a standardised tied-down random walk gets so high somewhere.

    Args:
        height: the most that it gets from 0.
        odds: odds of the last split that was looked at over those of the first.
    """
    if height <= 1:
        return 1.0
    density = math.exp(-(height**2) / 2) / math.sqrt(2 * math.pi)
    return min(1.0, density * ((height - 1 / height) * math.log(odds) + 4 / height))


@dataclass(frozen=True)
class Modes:
    """Two levels between which a series jumps.

    Attributes:
        low: median of the lower.
        high: median of the higher.
        high_share: share of samples in the higher.
    """

    low: float
    high: float
    high_share: float


def two_modes(samples: Sequence[float]) -> Optional[Modes]:
    """Return two modes of a distribution, ``None`` where one is enough.

    Samples are split where the variance within both parts is least (Otsu 1979). They are two modes
    where each holds a tenth of the samples, and the density halfway between their medians is less
    than half of that at either. A coarse clock, whose steps would be modes, is asked for four steps
    between them.
    """
    ordered = sorted(samples)
    n = len(ordered)
    least = max(_BLOCKS, math.ceil(_MODE_SHARE * n))
    if n < 2 * least:
        return None
    sums = list(accumulate(ordered))

    def between(split: int) -> float:
        low, high = sums[split - 1] / split, (sums[-1] - sums[split - 1]) / (n - split)
        return split * (n - split) * (high - low) ** 2

    split = max(range(least, n - least + 1), key=between)
    low, high = median(ordered[:split]), median(ordered[split:])
    window = (high - low) / 4
    if window < _grain(ordered) or window <= 0:
        return None

    def near(centre: float) -> int:
        lower, upper = centre - window / 2, centre + window / 2
        return bisect_right(ordered, upper) - bisect_left(ordered, lower)

    if near((low + high) / 2) * 2 >= min(near(low), near(high)):
        return None
    return Modes(low, high, (n - split) / n)
