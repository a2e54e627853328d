"""The few probability distributions that the statistics need, in plain Python."""

from __future__ import annotations

import math


def binomial(n: int, k: int, p: float) -> float:
    """Return how probable it is that of ``n`` tries exactly ``k`` succeed, each with chance ``p``.

    Args:
        n: tries.
        k: successes, from 0 to n.
        p: between 0 and 1, neither included.
    """
    log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(log + k * math.log(p) + (n - k) * math.log1p(-p))


def binomial_at_most(n: int, k: int, p: float) -> float:
    """Return how probable it is that of ``n`` tries at most ``k`` succeed, each with chance ``p``.

    Args:
        n: tries.
        k: successes, at least 0.
        p: between 0 and 1, neither included.
    """
    return math.fsum(binomial(n, i, p) for i in range(min(k, n) + 1))


def normal_cdf(x: float) -> float:
    """Return P(Z ≤ x) of the standard normal distribution."""
    return math.erfc(-x / math.sqrt(2)) / 2


def student_t(p: float, dof: float) -> float:
    """Return the p-quantile of Student's t for p from 0.5 to 1, exclusive.

    Args:
        p: the probability.
        dof: degrees of freedom, above 0; need not be whole.
    """
    low, high = 0.0, 1.0
    while _t_cdf(high, dof) < p:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        if _t_cdf(middle, dof) < p:
            low = middle
        else:
            high = middle
    return high


def student_t_p(t: float, dof: float) -> float:
    """Return how probable a Student's t is that lies as far from 0 as ``t``, on either side."""
    return _incomplete_beta(dof / (dof + t * t), dof / 2, 0.5)


def _t_cdf(t: float, dof: float) -> float:
    """Return P(T ≤ t) for t ≥ 0, by the incomplete beta function (Abramowitz and Stegun 26.7.1)."""
    return 1 - student_t_p(t, dof) / 2


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Return the regularised I_x(a, b) by its continued fraction (Abramowitz and Stegun 26.5.8)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    fraction = 1.0
    # Evaluated from its tail: it converges in O(sqrt(max(a, b))) terms on this side of x.
    for k in range(200 + int(10 * math.sqrt(max(a, b))), 0, -1):
        m = k // 2
        if k % 2:
            term = -(a + m) * (a + b + m) * x / ((a + k - 1) * (a + k))
        else:
            term = m * (b - m) * x / ((a + k - 1) * (a + k))
        fraction = 1 + term / fraction
    return front / (a * fraction)
