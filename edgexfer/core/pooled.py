"""Percentiles over several runs, with a bound that knows that runs differ from each other.

The percentile of one independent sample is in ``stats``. This file adds what real runs do: samples
in a row resemble each other, and whole runs lie apart.
"""

from __future__ import annotations

import functools
import math
import random
from bisect import bisect_right
from dataclasses import replace
from typing import List, Sequence, Tuple

from edgexfer.core.distributions import normal_cdf
from edgexfer.core.series import correlation
from edgexfer.core.stats import Quantile, median, quantile, samples_needed, upper_rank

_RESAMPLES = 1000
_DRAWS = 2000
_THIN = 200


def pooled_quantile(runs: Sequence[Sequence[float]], q: float) -> Quantile:
    """Return a percentile over all runs; see ``pooled_quantiles``."""
    return pooled_quantiles(runs, [q])[0]


def pooled_quantiles(runs: Sequence[Sequence[float]], qs: Sequence[float]) -> List[Quantile]:
    """Return percentiles over all runs, each with an upper bound that holds with 99 % confidence.

    The bound is the largest of three:

    1. the order statistic of ``quantile``, of as many samples as there would be if they were
       independent (see ``series.correlation``), its rank scaled back to all of them;
    2. a bootstrap over whole runs (Davison and Hinkley, "Bootstrap Methods and their Application",
       1997, section 3.8), which sees that runs differ in shape;
    3. a normal effect of the run on the level, its size unknown, which also sees how little a few
       runs tell of it, as a bootstrap over them cannot.

    With one run there is nothing to say of the last two.

    Args:
        runs: samples of each run in their order of time, in any one unit; empty ones are left out.
        qs: each between 0 and 1, exclusive.
    """
    filled = [list(run) for run in runs if run]
    pooled = sorted(sample for run in filled for sample in run)
    _, share = correlation(filled)
    found = [_order_statistic(pooled, share, q) for q in qs]
    if len(filled) < 2:
        return found
    ordered = [sorted(run) for run in filled]
    drawn = _resampled(len(filled))
    levels = [median(run) for run in filled]
    return [
        one
        if one.upper99 is None
        else replace(
            one,
            upper99=max(
                one.upper99,
                _between_runs(ordered, pooled, drawn, one.q),
                _run_effect(ordered, levels, one.q),
            ),
        )
        for one in found
    ]


def _order_statistic(ordered: Sequence[float], share: float, q: float) -> Quantile:
    n = len(ordered)
    counted = int(n * share)
    plain = quantile(ordered, q)
    if plain.upper99 is None or counted == n:
        return plain
    rank = upper_rank(counted, q)
    if rank is None:
        need = samples_needed(q)
        reason = f"n={n} count for {counted} < {need} independent ones, too few for a 99 % bound"
        return replace(plain, upper99=None, reason=reason)
    scaled = min(n, math.ceil(rank / counted * n))
    return replace(plain, upper99=float(ordered[scaled - 1]))


@functools.lru_cache(maxsize=8)
def _resampled(runs: int) -> Tuple[Tuple[int, ...], ...]:
    """Return draws of whole runs with replacement, each as how often every run was drawn."""
    chance = random.Random(0)
    drawn = []
    for _ in range(_RESAMPLES):
        picked = chance.choices(range(runs), k=runs)
        drawn.append(tuple(picked.count(i) for i in range(runs)))
    return tuple(drawn)


def _between_runs(
    runs: Sequence[Sequence[float]],
    union: Sequence[float],
    drawn: Sequence[Tuple[int, ...]],
    q: float,
) -> float:
    """Return the 99th percentile of the q-quantile when whole runs are drawn with replacement."""
    known = {}
    for counts in set(drawn):
        taken = [(run, count) for run, count in zip(runs, counts) if count]
        rank = math.ceil(q * sum(len(run) * count for run, count in taken) - 1e-9)
        low, high = 0, len(union) - 1
        while low < high:
            middle = (low + high) // 2
            below = sum(bisect_right(run, union[middle]) * count for run, count in taken)
            low, high = (low, middle) if below >= rank else (middle + 1, high)
        known[counts] = union[low]
    found = sorted(known[counts] for counts in drawn)
    return float(found[math.ceil(0.99 * len(found)) - 1])


def _run_effect(runs: Sequence[Sequence[float]], levels: Sequence[float], q: float) -> float:
    """Return the bound of a percentile where each run's level is drawn from a normal distribution.

    Neither its mean nor its spread is known. Both are drawn from their fiducial distributions given
    the levels of the runs (Weerahandi, "Generalized Confidence Intervals", JASA 1993); for each
    draw, the percentile is that of the samples' distances from their own run's level, spread by a
    new run's. Without such distances this is the one-sided tolerance bound of a normal sample.
    """
    k = len(levels)
    centre = math.fsum(levels) / k
    spread = math.sqrt(math.fsum((level - centre) ** 2 for level in levels) / (k - 1))
    rests = sorted(sample - level for run, level in zip(runs, levels) for sample in run)
    inner = quantile(rests, q).value or 0.0
    if spread == 0.0:
        return centre + inner
    pivots = _pivots(k)
    widest = max(scale for scale, _ in pivots)
    thin = [rests[int((i + 0.5) * len(rests) / _THIN)] for i in range(_THIN)]
    plain = _spread_quantile(thin, 0.0, q)
    # The excess is convex in the spread, so that straight lines between few points err above it.
    grid = [widest * (i / 8) ** 2 for i in range(9)]
    excess = [_spread_quantile(thin, spread * scale, q) - plain for scale in grid]
    draws = sorted(spread * shift + _interpolated(grid, excess, scale) for scale, shift in pivots)
    bound = centre + inner + draws[math.ceil(0.99 * len(draws)) - 1]
    # Nine digits are alike on every machine, whatever the last bit of its exp and log.
    return float(f"{bound:.9g}")


@functools.lru_cache(maxsize=8)
def _pivots(runs: int) -> Tuple[Tuple[float, float], ...]:
    """Return draws of a normal distribution's spread and of its mean's distance from the estimate.

    Both are in units of the standard deviation of so many values.
    """
    chance = random.Random(0)
    drawn = []
    for _ in range(_DRAWS):
        scale = math.sqrt((runs - 1) / chance.gammavariate((runs - 1) / 2, 2.0))
        drawn.append((scale, scale * chance.gauss(0.0, 1.0) / math.sqrt(runs)))
    return tuple(drawn)


def _spread_quantile(ordered: Sequence[float], spread: float, q: float) -> float:
    """Return the q-quantile of samples that each have a normal error of one spread."""
    if spread == 0.0:
        return ordered[min(math.ceil(q * len(ordered)), len(ordered)) - 1]
    low, high = ordered[0] - 9 * spread, ordered[-1] + 9 * spread
    for _ in range(32):
        middle = (low + high) / 2
        below = math.fsum(normal_cdf((middle - sample) / spread) for sample in ordered)
        low, high = (middle, high) if below < q * len(ordered) else (low, middle)
    return high


def _interpolated(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """Return a value on the lines through points; ``x`` lies within the first and the last."""
    right = min(max(bisect_right(xs, x), 1), len(xs) - 1)
    share = (x - xs[right - 1]) / (xs[right] - xs[right - 1])
    return ys[right - 1] + share * (ys[right] - ys[right - 1])
