"""Distances against closed forms and other ways of computing them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import sqrtm

from edgexfer.advise.distance import (
    foreignness,
    frechet,
    measure,
    mmd,
    pictures_seen,
    proxy_a_distance,
)
from edgexfer.advise.features import open_source
from edgexfer.advise.transferability import Float64
from edgexfer.core.errors import DataError
from tests.pictures import write_folder


def cloud(shift: float, n: int, seed: int, d: int = 5) -> Float64:
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def test_proxy_a_distance_is_none_within_one_domain_and_two_between_far_ones() -> None:
    value, low, high = proxy_a_distance(cloud(0, 100, 1), cloud(0, 80, 2))
    assert low <= 0.0 <= value < 0.5 <= high
    value, low, high = proxy_a_distance(cloud(0, 100, 1), cloud(9, 80, 2))
    assert value == high == 2.0
    assert 1.8 < low < 2.0


def test_mmd_is_the_unbiased_sum_over_pairs() -> None:
    x, y = cloud(0, 12, 1), cloud(0.7, 9, 2)
    both = np.concatenate([x, y])
    squares = [float(((a - b) ** 2).sum()) for i, a in enumerate(both) for b in both[i + 1 :]]
    width = float(np.median(squares))

    def k(a: Float64, b: Float64) -> float:
        return float(np.exp(-((a - b) ** 2).sum() / width))

    def within(z: Float64) -> float:
        n = len(z)
        return sum(k(z[i], z[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    across = sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
    assert mmd(x, y)[0] == pytest.approx(within(x) + within(y) - 2 * across, abs=1e-12)


def test_the_test_of_mmd_finds_a_shift_and_no_more() -> None:
    assert mmd(cloud(0, 40, 1), cloud(1, 30, 2))[1] == pytest.approx(1 / 201)
    found = [mmd(cloud(0, 20, 2 * i), cloud(0, 20, 2 * i + 1))[1] for i in range(40)]
    assert sum(p <= 0.1 for p in found) <= 10  # 4 are expected


@pytest.mark.parametrize(("n", "m", "d"), [(40, 30, 6), (12, 10, 30)], ids=["wide", "narrow"])
def test_frechet_with_the_root_of_the_matrices(n: int, m: int, d: int) -> None:
    a, b = cloud(0, n, 1, d), 1.5 * cloud(0.4, m, 2, d)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # The root of a product that has no full rank is found through one root of the two.
    half = np.real(sqrtm(first + 1e-12 * np.eye(d)))
    root = np.sqrt(np.maximum(np.linalg.eigvalsh(half @ second @ half), 0)).sum()
    gap = ((a.mean(0) - b.mean(0)) ** 2).sum()
    expected = gap + np.trace(first) + np.trace(second) - 2 * root
    assert frechet(a, b) == pytest.approx(expected, rel=1e-4)


def test_frechet_of_two_gaussians_on_a_line_is_the_closed_form() -> None:
    a = np.array([[-1.0], [1.0]]) * np.sqrt(0.5)  # deviation 1
    assert frechet(a, 3 * a + 4) == pytest.approx(4**2 + (3 - 1) ** 2)
    assert frechet(a, a) == pytest.approx(0, abs=1e-12)


def test_few_pictures_overestimate_frechet_and_the_halves_show_it() -> None:
    found = measure(cloud(0, 60, 1, 40), cloud(0, 30, 2, 40))
    assert found.frechet > 5
    assert found.frechet == pytest.approx(found.frechet_within, rel=0.5)
    assert found.verdict == "No difference between source and target pictures is shown."


def test_the_planted_stranger_is_the_most_foreign() -> None:
    source, target = cloud(3, 50, 1), cloud(3, 30, 2)
    target[17] = source.mean(0) - 5 * (source[0] - source.mean(0)) * [1, -1, 1, -1, 1]
    target[17] += 40 * np.array([1, -1, 0, 0, 0])
    values = foreignness(source, target)
    near = sorted(
        1 - float(s @ t / np.linalg.norm(s) / np.linalg.norm(t))
        for s in source - source.mean(0)
        for t in [target[4] - source.mean(0)]
    )
    assert values[4] == pytest.approx(np.mean(near[:5]))
    far = measure(source, cloud(9, 40, 3))
    assert "Proxy A-distance 2.00 of 2" in far.verdict
    assert list(far.foreignness) == sorted(far.foreignness, reverse=True)


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(DataError, match="19 target pictures are too few") as caught:
        measure(cloud(0, 30, 1), cloud(0, 19, 2))
    assert caught.value.fix == "give at least 20"


@pytest.mark.torch
def test_pictures_are_looked_at_with_or_without_classes_and_whole_ones_alone(
    tmp_path: Path, seeing: Path
) -> None:
    source = open_source(str(seeing))
    deep = write_folder(tmp_path / "deep" / "er", 4)
    (deep / "blue" / "cut.png").touch()
    found = pictures_seen(source, str(tmp_path), 20)
    assert found.shape == (12, 64)
    assert len(pictures_seen(source, str(tmp_path), 7)) in (6, 7)
    assert len(pictures_seen(source, "digits", 9)) == 9
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images") as caught:
        pictures_seen(source, str(tmp_path / "empty"), 7)
    assert "another folder" in caught.value.fix
