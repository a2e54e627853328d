from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from edgexfer.core.distributions import (
    binomial,
    binomial_at_most,
    normal_cdf,
    student_t,
    student_t_p,
)


@pytest.mark.parametrize("dof", [1.0, 1.5, 2.0, 2.7, 5.0, 30.0, 1000.0, 9999.0])
@pytest.mark.parametrize("p", [0.6, 0.9, 0.975, 0.999])
def test_student_t_is_that_of_scipy(p: float, dof: float) -> None:
    assert student_t(p, dof) == pytest.approx(scipy_stats.t.ppf(p, dof), rel=1e-6)


@given(st.integers(1, 40), st.integers(0, 40), st.floats(0.01, 0.99))
def test_the_lower_tail_is_the_binomial_one(n: int, k: int, p: float) -> None:
    wanted = scipy_stats.binom.cdf(k, n, p)
    assert binomial_at_most(n, k, p) == pytest.approx(wanted, rel=1e-6, abs=1e-15)


@given(st.integers(1, 400), st.integers(0, 400), st.floats(0.01, 0.99))
def test_the_binomial_is_that_of_scipy(n: int, k: int, p: float) -> None:
    k = min(k, n)
    wanted = scipy_stats.binom.pmf(k, n, p)
    assert binomial(n, k, p) == pytest.approx(wanted, rel=1e-6, abs=1e-300)


@given(st.floats(-8, 8))
def test_the_normal_distribution_is_that_of_scipy(x: float) -> None:
    assert normal_cdf(x) == pytest.approx(scipy_stats.norm.cdf(x), rel=1e-9)


@given(st.floats(-50, 50), st.floats(1, 500))
def test_the_p_value_of_t_is_that_of_scipy(t: float, dof: float) -> None:
    assert student_t_p(t, dof) == pytest.approx(2 * scipy_stats.t.sf(abs(t), dof), rel=1e-5)
