from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgexfer.core.series import (
    change_point,
    correlation,
    drift,
    outliers,
    trend_p,
    two_modes,
)


def _noise(n: int, seed: int, spread: float = 0.02, centre: float = 1e6) -> list[int]:
    chance = random.Random(seed)
    return [int(centre * chance.gauss(1, spread)) for _ in range(n)]


def _wandering(n: int, rho: float, seed: int, spread: float = 0.02) -> list[float]:
    chance = random.Random(seed)
    series = [chance.gauss(0, 1)]
    for _ in range(n - 1):
        series.append(rho * series[-1] + (1 - rho * rho) ** 0.5 * chance.gauss(0, 1))
    return [1e6 * (1 + spread * s) for s in series]


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.6])
def test_correlation_finds_the_autocorrelation_of_a_known_process(rho: float) -> None:
    rng = random.Random(3)
    series = [0.0]
    for _ in range(20_000):
        series.append(rho * series[-1] + rng.gauss(0, 1))
    assert correlation([series])[0] == pytest.approx(rho, abs=0.03)


def test_correlation_is_zero_where_it_is_not_defined() -> None:
    assert correlation([[1, 2]]) == (0.0, 1.0)
    assert correlation([[5, 5, 5, 5]]) == (0.0, 1.0)


def test_independent_samples_all_count() -> None:
    rho, share = correlation([_noise(400, seed) for seed in range(5)])
    assert abs(rho) < 0.05
    assert share == 1.0


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.9])
def test_a_correlated_series_counts_for_less(rho: float) -> None:
    found, share = correlation([_wandering(2000, rho, seed) for seed in range(5)])
    wanted = (1 - rho) / (1 + rho)
    assert found == pytest.approx(rho, abs=0.03)
    assert 0.55 * wanted < share < 1.1 * wanted


def test_a_slow_wandering_below_a_quick_noise_is_seen() -> None:
    slow, quick = _wandering(4000, 0.99, 1, 0.01), _wandering(4000, 0.0, 2, 0.02)
    rho, share = correlation([[a + b - 1e6 for a, b in zip(slow, quick, strict=True)]])
    assert rho < 0.35
    # By ρ alone a half would count; the wandering leaves about a twentieth.
    assert share < 0.12


def test_an_outlier_does_not_hide_the_correlation() -> None:
    series = _wandering(1000, 0.8, 3)
    series[500] *= 100
    assert correlation([series])[0] > 0.7


def test_outliers_are_found_where_they_are() -> None:
    series = _noise(300, 4)
    series[7] = series[250] = 2_000_000
    assert outliers(series) == [7, 250]
    assert outliers([]) == []
    assert outliers([5] * 50) == []


def test_a_coarse_clock_does_not_make_its_own_steps_outliers() -> None:
    assert outliers([100] * 90 + [110] * 10) == []
    assert outliers([100] * 90 + [110] * 9 + [300]) == [99]


def test_the_trend_test_keeps_its_level() -> None:
    alarms = sum(trend_p(_noise(50, seed)) < 0.01 for seed in range(1000))
    assert alarms <= 25  # 10 are expected; more than 25 would be one case in 10 000


def test_a_constant_series_has_no_trend() -> None:
    assert trend_p([5.0] * 40) == 1.0


def test_a_long_series_is_thinned_and_its_trend_still_seen() -> None:
    assert trend_p([float(i) for i in range(50_000)]) < 1e-6


def test_drift_is_the_change_over_the_whole_series() -> None:
    noise = _noise(600, 5)
    rising = [sample * (1 + 0.08 * i / 600) for i, sample in enumerate(noise)]
    assert drift(rising) == pytest.approx(0.08 / 1.04, abs=0.015)
    assert abs(drift(noise)) < 0.01
    assert drift([]) == 0.0


@pytest.mark.parametrize("change", [0.8, 1.06, 1.25])
@pytest.mark.parametrize("at", [60, 300, 540])
def test_a_step_is_found_where_it_is(change: float, at: int) -> None:
    series = [s * (change if i >= at else 1) for i, s in enumerate(_noise(600, 6))]
    found = change_point(series)
    assert found is not None
    assert abs(found.index - at) <= 12
    wanted = change - 1 if change > 1 else 1 - 1 / change
    assert found.relative == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_a_steady_series_has_no_change(rho: float) -> None:
    found = [change_point(_wandering(400, rho, seed, 0.05)) for seed in range(100)]
    # One in a thousand is expected where samples are independent, and some more where the memory
    # of a series is known from the series itself alone.
    assert sum(one is not None for one in found) <= 5


def test_too_short_a_series_has_no_change() -> None:
    assert change_point([1] * 9 + [2] * 10) is None
    assert change_point([]) is None


def test_two_modes_are_told_with_their_share() -> None:
    low, high = _noise(300, 7), _noise(100, 8, centre=1.3e6)
    found = two_modes(random.Random(0).sample(low + high, 400))
    assert found is not None
    assert found.low == pytest.approx(1e6, rel=0.01)
    assert found.high == pytest.approx(1.3e6, rel=0.01)
    assert found.high_share == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("shape", ["normal", "exponential", "uniform", "lognormal", "coarse"])
def test_one_mode_is_not_taken_for_two(shape: str) -> None:
    chance = random.Random(9)
    draws: dict[str, Callable[[], float]] = {
        "normal": lambda: chance.gauss(1e6, 2e4),
        "exponential": lambda: 1e6 + chance.expovariate(1e-4),
        "uniform": lambda: chance.uniform(9e5, 1.1e6),
        "lognormal": lambda: chance.lognormvariate(13, 0.5),
        "coarse": lambda: 1000 * round(chance.gauss(20, 0.5)),
    }
    draw = draws[shape]
    found = [two_modes([int(draw()) for _ in range(400)]) for _ in range(50)]
    assert sum(one is not None for one in found) <= 1


@given(st.lists(st.integers(1, 10**6), max_size=120), st.sampled_from([2, 1000]))
def test_what_a_series_says_does_not_hang_on_its_unit(series: list[int], unit: int) -> None:
    scaled = [unit * s for s in series]
    assert outliers(scaled) == outliers(series)
    one, other = change_point(series), change_point(scaled)
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert other.index == one.index
        assert other.relative == pytest.approx(one.relative)
    assert drift(scaled) == pytest.approx(drift(series))
