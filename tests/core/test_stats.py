from __future__ import annotations

import functools
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from edgexfer.core.stats import (
    PairedDrop,
    ece_pct,
    images_needed,
    mad,
    median,
    paired_drop,
    quantile,
    samples_needed,
    seeded_gain,
    unpaired_drop,
    upper_rank,
    wilson,
)

SAMPLES = st.lists(st.integers(1, 10**9), min_size=1, max_size=300)
QS = st.sampled_from([0.5, 0.9, 0.95, 0.99])


@pytest.mark.parametrize(("q", "n"), [(0.5, 7), (0.9, 44), (0.95, 90), (0.99, 459), (0.999, 4603)])
def test_the_least_samples_for_a_bound_are_the_known_ones(q: float, n: int) -> None:
    assert samples_needed(q) == n
    assert upper_rank(n, q) == n
    assert upper_rank(n - 1, q) is None


@pytest.mark.parametrize("n", [7, 44, 100, 459, 1000, 5000])
@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_the_rank_is_the_smallest_that_the_binomial_allows(n: int, q: float) -> None:
    ranks = np.arange(1, n + 1)
    allowed = ranks[scipy_stats.binom.sf(ranks - 1, n, q) <= 0.01]
    assert upper_rank(n, q) == (int(allowed[0]) if len(allowed) else None)


def test_the_bound_holds_as_often_as_it_says() -> None:
    rng = random.Random(1)
    trials, n, q = 2000, 100, 0.9
    true = -math.log(1 - q)
    held = sum(
        (quantile([rng.expovariate(1) for _ in range(n)], q).upper99 or 0) >= true
        for _ in range(trials)
    )
    assert held / trials >= 0.985


@given(SAMPLES, QS)
def test_a_percentile_is_the_nearest_rank_in_any_order(samples: list[int], q: float) -> None:
    found = quantile(samples, q)
    ordered = sorted(samples)
    rank = math.ceil(Fraction(str(q)) * len(samples))
    assert found.n == len(samples)
    assert quantile(ordered[::-1], q) == found
    if found.upper99 is None:
        assert found.value is None
        assert found.reason == f"n={len(samples)} < {samples_needed(q)}, too few for a 99 % bound"
    else:
        assert found.reason is None
        assert found.value == ordered[max(rank, 1) - 1]
        assert found.upper99 >= found.value


@given(SAMPLES)
def test_percentiles_rise_with_q_and_scale_with_the_unit(samples: list[int]) -> None:
    found = [quantile(samples, q) for q in (0.5, 0.9, 0.95, 0.99)]
    values = [one.value for one in found if one.value is not None]
    uppers = [one.upper99 for one in found if one.upper99 is not None]
    assert (values, uppers) == (sorted(values), sorted(uppers))
    double = quantile([2 * s for s in samples], 0.9)
    once = quantile(samples, 0.9)
    if once.value is None or once.upper99 is None:
        assert (double.value, double.upper99) == (None, None)
    else:
        assert (double.value, double.upper99) == (2 * once.value, 2 * once.upper99)


@given(SAMPLES, QS)
def test_the_bound_does_not_rise_with_more_of_the_same(samples: list[int], q: float) -> None:
    once, twice = quantile(samples, q), quantile(samples * 2, q)
    if once.upper99 is not None:
        assert twice.upper99 is not None
        assert twice.upper99 <= once.upper99
        assert twice.value == once.value


@given(st.integers(1, 2000), QS, st.floats(0.001, 0.2), st.floats(0.001, 0.2))
def test_the_rank_rises_with_the_confidence(n: int, q: float, one: float, other: float) -> None:
    sure, unsure = (upper_rank(n, q, alpha) for alpha in sorted((one, other)))
    if sure is not None:
        assert unsure is not None
        assert unsure <= sure


def test_no_sample_is_no_value_and_says_so() -> None:
    found = quantile([], 0.5)
    assert (found.value, found.upper99, found.reason) == (None, None, "no samples")


def test_median_and_spread() -> None:
    assert median([3, 1, 2]) == 2
    assert median([4, 1, 2, 3]) == 2
    assert mad([1, 1, 2, 2, 4, 6, 9]) == 1


@given(st.integers(1, 2000), st.data())
def test_wilson_is_scipys(n: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, n))
    low, high = wilson(correct, n)
    theirs = scipy_stats.binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0 <= low <= correct / n <= high <= 1


def test_wilson_of_nothing_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # Newcombe, Statist. Med. 17, 2635-2650 (1998), method 10.
        ((36, 12, 2, 0), 0.0569, 0.3404),
        # With phi = 0.2137, worked by hand from the paper's formula.
        ((36, 12, 0, 2), 0.1144, 0.3735),
        # Closed forms: z²/(n + z²) is Wilson's bound of 0 in n, and phi is 0.
        ((30, 0, 0, 0), -0.1135, 0.1135),
        ((0, 30, 0, 0), 1 - 0.1135 * 2**0.5, 1.0),
    ],
)
def test_the_paired_interval_is_newcombes(
    table: tuple[int, int, int, int], low: float, high: float
) -> None:
    both, lost, gained, neither = table
    first = [True] * (both + lost) + [False] * (gained + neither)
    second = [True] * both + [False] * lost + [True] * gained + [False] * neither
    drop = paired_drop(first, second)
    n = sum(table)
    assert (drop.lost, drop.gained, drop.n) == (lost, gained, n)
    assert drop.drop_pt == pytest.approx(100 * (lost - gained) / n)
    assert (drop.low_pt, drop.high_pt) == pytest.approx((100 * low, 100 * high), abs=0.006)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200))
def test_the_paired_interval_is_antisymmetric_and_ordered(pairs: list[tuple[bool, bool]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    one, two = paired_drop(first, second), paired_drop(second, first)
    assert one.low_pt <= one.drop_pt <= one.high_pt
    assert (one.drop_pt, one.low_pt) == pytest.approx((-two.drop_pt, -two.high_pt), abs=1e-9)
    assert paired_drop(first, first).drop_pt == 0.0


@pytest.mark.parametrize(("first", "second"), [([], []), ([True], [True, False])])
def test_what_cannot_be_paired_is_refused(first: list[bool], second: list[bool]) -> None:
    with pytest.raises(ValueError, match="two equal, non-empty lists"):
        paired_drop(first, second)


def test_the_unpaired_interval_is_newcombes() -> None:
    # Newcombe, Statist. Med. 17, 873-890 (1998), table II, method 10: 56/70 against 48/80.
    drop, low, high = unpaired_drop(56, 70, 48, 80)
    assert drop == pytest.approx(20.0)
    assert (low, high) == pytest.approx((5.24, 33.39), abs=0.006)
    with pytest.raises(ValueError, match="non-empty"):
        unpaired_drop(0, 0, 1, 2)


@given(st.integers(1, 400), st.data())
def test_pairing_never_widens_the_interval_of_agreeing_models(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    lost = data.draw(st.integers(0, right))
    first = [i < right for i in range(n)]
    second = [i < right - lost for i in range(n)]
    paired = paired_drop(first, second)
    drop, low, high = unpaired_drop(right, n, right - lost, n)
    assert paired.drop_pt == pytest.approx(drop)
    assert paired.high_pt - paired.low_pt <= high - low + 1e-9


def test_images_needed_grows_as_the_limit_nears_the_drop() -> None:
    drop = PairedDrop(0.5, -0.5, 1.5, 4, 2, 400)
    assert images_needed(drop, 1.5) == 400
    assert images_needed(drop, 1.0) == 1600
    assert images_needed(drop, 0.5) is None


@given(st.integers(50, 500), st.data())
def test_images_needed_would_do(n: int, data: st.DataObject) -> None:
    lost = data.draw(st.integers(0, n // 20))
    gained = data.draw(st.integers(0, lost))
    table = [(True, False)] * lost + [(False, True)] * gained
    table += [(True, True)] * (n - lost - gained)
    drop = paired_drop([a for a, _ in table], [b for _, b in table])
    need = images_needed(drop, drop.drop_pt + 1.0)
    assume(need is not None and need < 20_000)
    times = math.ceil((need or 0) / n)
    larger = table * times
    again = paired_drop([a for a, _ in larger], [b for _, b in larger])
    assert again.high_pt <= drop.drop_pt + 1.0 + 0.05


def test_a_gain_over_seeds_worked_by_hand() -> None:
    # Two seeds, four images: the first gains 2 of 4 and 1 of 4.
    first = [[True, True, True, False], [True, True, False, False]]
    second = [[True, False, False, False], [True, False, False, False]]
    gain = seeded_gain(first, second)
    between_seeds = ((0.5 - 0.375) ** 2 + (0.25 - 0.375) ** 2) / 1 / 2
    by_image = np.array([0.0, 1.0, 0.5, 0.0])
    between_images = by_image.var(ddof=1) / 4
    variance = between_seeds + between_images
    dof = variance**2 / (between_seeds**2 / 1 + between_images**2 / 3)
    half = 100 * scipy_stats.t.ppf(0.975, dof) * math.sqrt(variance)
    assert (gain.gain_pt, gain.seeds, gain.n) == (37.5, 2, 4)
    assert gain.low_pt == pytest.approx(37.5 - half, rel=1e-6)
    assert gain.high_pt == pytest.approx(37.5 + half, rel=1e-6)
    assert gain.verdict == "no difference shown"


def test_one_seed_has_the_interval_of_its_images() -> None:
    first, second = [True] * 30 + [False] * 10, [True] * 20 + [False] * 20
    gain, drop = seeded_gain([first], [second]), paired_drop(first, second)
    assert (gain.gain_pt, gain.low_pt, gain.high_pt) == (drop.drop_pt, drop.low_pt, drop.high_pt)
    assert gain.verdict == "helps"
    assert seeded_gain([second], [first]).verdict == "hurts"


@pytest.mark.parametrize("second", [True, False])
def test_where_nothing_varied_the_interval_is_that_of_the_images(second: bool) -> None:
    ours, theirs = [[True] * 20] * 2, [[second] * 20] * 2
    gain, drop = seeded_gain(ours, theirs), paired_drop(ours[0], theirs[0])
    assert (gain.low_pt, gain.high_pt) == (drop.low_pt, drop.high_pt)
    assert gain.low_pt < gain.gain_pt == drop.drop_pt and gain.high_pt - gain.low_pt > 10
    assert gain.seeds == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [([], []), ([[]], [[]]), ([[True]], [[True], [True]]), ([[True]], [[True, False]])],
)
def test_trainings_that_cannot_be_compared(first: list[list[bool]], second: object) -> None:
    with pytest.raises(ValueError, match="the same seeds and images"):
        seeded_gain(first, second)  # type: ignore[arg-type]


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_of_a_gain_holds_for_new_seeds_and_images(seeds: int) -> None:
    # True gain 2 points; a seed is worth a point or so of its own, and images differ in difficulty.
    chance = np.random.default_rng(seeds)
    held = 0
    for _ in range(400):
        ease = chance.normal(1.0, 1.0, 300)
        rates = [ease + chance.normal(shift, 0.1, (seeds, 1)) for shift in (0.1, 0.0)]
        rights = [chance.random(r.shape) < 1 / (1 + np.exp(-r)) for r in rates]
        gain = seeded_gain(rights[0].tolist(), rights[1].tolist())
        # The expected accuracies, over many seeds and images, with the same two logits.
        held += gain.low_pt <= 100 * _expected_gain() <= gain.high_pt
    assert held / 400 >= 0.95


@functools.cache
def _expected_gain() -> float:
    chance = np.random.default_rng(99)
    ease, own = chance.normal(1.0, 1.0, 200_000), chance.normal(0.0, 0.1, 200_000)
    first, second = (1 / (1 + np.exp(-(ease + own + shift))) for shift in (0.1, 0.0))
    return float((first - second).mean())


def test_answers_as_sure_as_they_are_right_have_no_error() -> None:
    assert ece_pct([0.75] * 4, [True, True, True, False]) == pytest.approx(0)
    assert ece_pct([1.0] * 4, [True, True, True, False]) == pytest.approx(25)
    # Over- and under-confidence of different bins do not cancel: 0.5 * 0.4 + 0.5 * 0.3.
    assert ece_pct([0.9, 0.9, 0.2, 0.2], [True, False, True, False]) == pytest.approx(35)


def test_a_bin_is_closed_above() -> None:
    """1/15 belongs to the first bin and anything above it to the second (Guo et al., 2017)."""
    same = ece_pct([1 / 15, 0.01], [True, False])
    other = ece_pct([1 / 15 + 1e-6, 0.01], [True, False])
    assert same == pytest.approx(100 * abs(1 / 15 + 0.01 - 1) / 2)
    assert other == pytest.approx(100 * (1 - 1 / 15 + 0.01) / 2, abs=1e-3)


@pytest.mark.parametrize(("confidences", "right"), [([], []), ([], [True]), ([0.5], [True, False])])
def test_without_a_probability_for_each_there_is_no_error(
    confidences: list[float], right: list[bool]
) -> None:
    assert ece_pct(confidences, right) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1), st.randoms())
def test_the_error_is_a_percentage_whatever_the_order(
    pairs: list[tuple[float, bool]], chance: random.Random
) -> None:
    first = ece_pct(*map(list, zip(*pairs, strict=True)))
    chance.shuffle(pairs)
    second = ece_pct(*map(list, zip(*pairs, strict=True)))
    assert first is not None
    assert 0 <= first <= 100 + 1e-9
    assert first == pytest.approx(second)


def test_a_probability_that_rounding_left_above_one_is_in_the_last_bin() -> None:
    assert ece_pct([1.0000001], [True]) == pytest.approx(0.0, abs=1e-4)
