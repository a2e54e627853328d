from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgexfer.core.pooled import pooled_quantile, pooled_quantiles
from edgexfer.core.stats import quantile

QS = (0.5, 0.9, 0.95, 0.99)
RUNS = st.lists(st.lists(st.integers(1, 10**6), max_size=60), min_size=1, max_size=5)


def test_runs_that_differ_widen_the_bound() -> None:
    rng = random.Random(5)
    alike = [[100 + rng.random() for _ in range(200)] for _ in range(5)]
    apart = [[sample + 10 * i for sample in run] for i, run in enumerate(alike)]
    same, spread = pooled_quantile(alike, 0.5), pooled_quantile(apart, 0.5)
    together = quantile([sample for run in apart for sample in run], 0.5)
    assert spread.value == together.value
    assert (same.upper99 or 0) < 101
    # The median of five medians 10 apart is not known to better than about two of them.
    assert (spread.upper99 or 0) > (together.upper99 or 0) + 10


def test_one_run_has_the_bound_of_its_samples() -> None:
    run = random.Random(0).sample([float(i) for i in range(100)], 100)
    assert pooled_quantile([run, []], 0.9) == quantile(run, 0.9)
    assert pooled_quantile([[], []], 0.9).reason == "no samples"


def test_the_bound_holds_for_new_machines_states() -> None:
    """Medians of runs spread by 5 %: the bound over 8 runs covers the true median mostly."""
    rng = random.Random(11)
    covered = 0
    for _ in range(60):
        runs = [
            [100 * effect + rng.gauss(0, 0.5) for _ in range(60)]
            for effect in (rng.gauss(1, 0.05) for _ in range(8))
        ]
        covered += (pooled_quantile(runs, 0.5).upper99 or 0) >= 100
    assert covered >= 54


def test_samples_that_resemble_their_neighbours_widen_the_bound() -> None:
    rng = random.Random(2)
    levels = [rng.gauss(1000, 50) for _ in range(300)]
    held = [level for level in levels for _ in range(5)]
    mixed = rng.sample(held, len(held))
    alone, beside = pooled_quantile([mixed], 0.9), pooled_quantile([held], 0.9)
    assert alone.value == beside.value
    assert alone.upper99 is not None
    assert beside.upper99 is not None
    assert beside.upper99 > alone.upper99 + 5


def test_too_few_independent_samples_have_no_bound_and_say_so() -> None:
    rng = random.Random(2)
    held = [level for level in [rng.gauss(1000, 50) for _ in range(30)] for _ in range(10)]
    found = pooled_quantile([held], 0.99)
    assert (found.value, found.upper99) == (None, None)
    assert found.reason == "n=300 < 459, too few for a 99 % bound"
    found = pooled_quantile([held], 0.95)
    assert (found.value, found.upper99, found.n) == (quantile(held, 0.95).value, None, 300)
    assert (found.reason or "").startswith("n=300 count for ")
    assert (found.reason or "").endswith(" < 90 independent ones, too few for a 99 % bound")


@pytest.mark.parametrize("runs", [3, 8])
def test_levels_without_spread_inside_have_the_tolerance_bound_of_a_normal(runs: int) -> None:
    """Each run is one level: the bound of p90 holds for the levels of further runs."""
    rng = random.Random(runs)
    held = 0
    for _ in range(60):
        levels = [rng.gauss(1000, 10) for _ in range(runs)]
        found = pooled_quantile([[level] * 40 for level in levels], 0.9)
        held += (found.upper99 or 0) >= 1000 + 1.2815515655446004 * 10
    assert held >= 56  # 59 are expected; fewer than 56 would be one case in 500


@settings(max_examples=25)
@given(RUNS, st.randoms(use_true_random=False))
def test_percentiles_of_runs_rise_with_q(runs: list[list[int]], chance: random.Random) -> None:
    found = [one for one in pooled_quantiles(runs, QS) if one.upper99 is not None]
    uppers = [one.upper99 or 0 for one in found]
    assert uppers == pytest.approx(sorted(uppers), rel=1e-6)
    assert all((one.upper99 or 0) >= (one.value or 0) for one in found)
    chance.shuffle(runs)
    for one, other in zip(found, pooled_quantiles(runs, [one.q for one in found]), strict=True):
        assert other.value == one.value


@settings(max_examples=25)
@given(RUNS, st.sampled_from([10, 1000]))
def test_the_bound_of_runs_scales_with_the_unit(runs: list[list[int]], unit: int) -> None:
    for one, other in zip(
        pooled_quantiles(runs, QS),
        pooled_quantiles([[unit * sample for sample in run] for run in runs], QS),
        strict=True,
    ):
        assert (other.value is None) == (one.value is None)
        if one.value is not None:
            assert other.value == unit * one.value
        assert (other.upper99 is None) == (one.upper99 is None)
        if one.upper99 is not None:
            assert other.upper99 == pytest.approx(unit * one.upper99, rel=1e-6)


def test_equal_records_have_equal_bounds_to_the_bit() -> None:
    rng = random.Random(9)
    runs = [[int(rng.gauss(1e6, 1e4)) for _ in range(300)] for _ in range(5)]
    assert pooled_quantiles(runs, QS) == pooled_quantiles(runs, QS)
