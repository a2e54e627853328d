"""Each score against another way of computing it, and against cases whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from edgexfer.advise.transferability import (
    Float64,
    Labels,
    hscore,
    knn,
    leep,
    logme,
    mixture,
    nleep,
    transrate,
)

SCORES = (logme, nleep, hscore, transrate, knn)


def blobs(apart: float, n: int = 60, d: int = 8, classes: int = 3) -> tuple[Float64, Labels]:
    """Return features of classes whose means are so far apart, in noise of deviation 1."""
    rng = np.random.default_rng(5)
    labels = (np.arange(n) % classes).astype(np.int64)
    return apart * rng.normal(size=(classes, d))[labels] + rng.normal(size=(n, d)), labels


@pytest.mark.parametrize("d", [5, 40], ids=["more images", "more features"])
def test_logme_is_the_largest_evidence_that_an_optimiser_finds(d: int) -> None:
    features, labels = blobs(0.6, n=30, d=d)

    def loss(at: Float64, y: Float64) -> float:
        alpha, beta = np.exp(at)
        covariance = np.eye(30) / beta + features @ features.T / alpha
        return -float(multivariate_normal(np.zeros(30), covariance).logpdf(y)) / 30

    best = []
    for c in range(3):
        y = (labels == c).astype(np.float64)
        starts = [minimize(loss, s, args=(y,), method="Nelder-Mead") for s in ([0, 0], [3, 1])]
        best.append(-min(found.fun for found in starts))
    assert logme(features, labels) == pytest.approx(np.mean(best), abs=2e-4)


def test_leep_is_what_its_definition_says_image_by_image() -> None:
    rng = np.random.default_rng(1)
    theta, labels = rng.dirichlet(np.ones(4), 12), rng.integers(0, 3, 12)
    n = len(theta)
    total = 0.0
    for i in range(n):
        expected = 0.0
        for z in range(4):
            joint = sum(theta[j, z] for j in range(n) if labels[j] == labels[i]) / n
            marginal = sum(theta[j, z] for j in range(n)) / n
            expected += joint / marginal * theta[i, z]
        total += math.log(expected)
    assert leep(theta, labels) == pytest.approx(total / n, rel=1e-12)


def test_leep_of_a_head_that_knows_the_classes_and_of_one_that_knows_nothing() -> None:
    labels = np.arange(30, dtype=np.int64) % 3
    assert leep(np.eye(3)[labels], labels) == pytest.approx(0)
    assert leep(np.full((30, 5), 0.2), labels) == pytest.approx(-math.log(3))


def test_nleep_is_leep_of_a_mixture_fitted_by_hand() -> None:
    from sklearn.mixture import GaussianMixture

    features, labels = blobs(1.0, n=90, d=6)
    centred = features - features.mean(0)
    centred = centred / math.sqrt((centred**2).sum(1).mean())
    values, axes = np.linalg.eigh(centred.T @ centred)
    values, axes = values[::-1], axes[:, ::-1]
    kept = int(np.searchsorted(np.cumsum(values) / values.sum(), 0.8)) + 1
    # Nine components: five a class would leave six images for each.
    by_hand = GaussianMixture(9, covariance_type="diag", reg_covar=1e-5, random_state=0)
    posteriors = by_hand.fit_predict(centred @ axes[:, :kept])
    found = mixture(features, 3)
    assert found.shape == (90, 9)
    # The sign of an axis is free, and a diagonal mixture does not see it.
    agree = (posteriors[:, None] == posteriors) == (found.argmax(1)[:, None] == found.argmax(1))
    assert agree.mean() > 0.9
    assert nleep(features, labels) == pytest.approx(leep(found, labels))


def test_hscore_is_its_formula_with_the_covariances_written_out() -> None:
    features, labels = blobs(0.8, n=40, d=12)
    n, d = features.shape
    f = features - features.mean(0)
    s = f.T @ f / n
    mu = np.trace(s) / d
    # Ledoit and Wolf 2004: how far S is from mu I, and how much of that is noise.
    far = np.linalg.norm(s - mu * np.eye(d)) ** 2
    noise = sum(np.linalg.norm(np.outer(row, row) - s) ** 2 for row in f) / n**2
    shrinkage = min(noise, far) / far
    sigma = (1 - shrinkage) * s + shrinkage * mu * np.eye(d)
    means = np.stack([f[labels == label].mean(0) for label in labels])
    between = (1 - shrinkage) * means.T @ means / n
    expected = np.trace(np.linalg.inv(sigma) @ between)
    assert hscore(features, labels) == pytest.approx(expected, rel=1e-9)
    assert hscore(1e3 * features + 7, labels) == pytest.approx(expected, rel=1e-6)


def test_hscore_stays_small_where_features_outnumber_images() -> None:
    rng = np.random.default_rng(0)
    noise, labels = rng.normal(size=(40, 400)), np.arange(40, dtype=np.int64) % 4
    f = noise - noise.mean(0)
    means = np.stack([f[labels == label].mean(0) for label in labels])
    # Without shrinkage it is the number of classes less one, whatever the features are.
    assert np.trace(np.linalg.pinv(f.T @ f / 40) @ means.T @ means / 40) == pytest.approx(3)
    assert hscore(noise, labels) < 1


@pytest.mark.parametrize("d", [4, 50])
def test_transrate_from_the_singular_values(d: int) -> None:
    features, labels = blobs(0.7, n=30, d=d)
    f = features - features.mean(0)
    f = f / math.sqrt((f**2).sum(1).mean())

    def rate(z: Float64) -> float:
        lengths = np.linalg.svd(z, compute_uv=False)
        return float(0.5 * np.log1p(lengths**2 / (len(z) * 1e-4)).sum())

    expected = rate(f) - sum(rate(f[labels == c]) for c in range(3)) / 3
    assert transrate(features, labels) == pytest.approx(expected, rel=1e-9)
    assert transrate(50 * features, labels) == pytest.approx(expected, rel=1e-9)


def test_knn_votes_as_counted_by_hand() -> None:
    features, labels = blobs(0.5, n=24, d=3)
    f = features - features.mean(0)
    right = 0
    for i in range(24):
        cosines = {
            j: float(f[i] @ f[j] / np.linalg.norm(f[i]) / np.linalg.norm(f[j]))
            for j in range(24)
            if j != i
        }
        votes = [0.0, 0.0, 0.0]
        for j in sorted(cosines, key=cosines.__getitem__)[-5:]:
            votes[labels[j]] += math.exp(cosines[j] / 0.07)
        right += votes.index(max(votes)) == labels[i]
    assert 0 < right < 24
    assert knn(features, labels) == pytest.approx(right / 24)


@pytest.mark.parametrize("score", SCORES, ids=lambda s: s.__name__)
def test_features_that_part_the_classes_score_higher(score: object) -> None:
    assert callable(score)
    values = [score(*blobs(apart)) for apart in (0.0, 1.0, 2.0)]
    assert values == sorted(values)
    assert values[2] > values[0]


@pytest.mark.parametrize("score", SCORES, ids=lambda s: s.__name__)
def test_dead_features_have_a_finite_score(score: object) -> None:
    assert callable(score)
    labels = np.arange(20, dtype=np.int64) % 2
    assert math.isfinite(score(np.zeros((20, 4), np.float32), labels))
