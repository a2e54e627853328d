"""Transferability: how well the features of a source model suit new classes, before any training.

Each score is a function of features or probabilities and labels; larger is better in all of them.
How certain a ranking by them is stands in ``ranking.py``. Float64 throughout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

#: Neighbours that vote.
NEIGHBOURS = 5
# Distortion of TransRate, as in the paper.
_EPSILON = 1e-4
# Share of the variance that the mixture of NLEEP sees, and its components per class, as in the
# paper; no fewer images than this for each component.
_ENERGY, _PER_CLASS, _IMAGES_EACH = 0.8, 5, 10
_ROUNDS, _TOLERANCE = 100, 1e-6


def logme(features: Floats, labels: Labels) -> float:
    """Return the logarithm of maximum evidence of a Bayesian linear model, per image.

    For each class c, with y = 1 for its images and 0 for others, w ~ N(0, 1/α) and
    y ~ N(F w, 1/β): log p(y | F, α, β) / N at the α and β that maximise it, found by MacKay's
    fixed point α = γ / |m|², β = (N - γ) / |F m - y|²; the mean over classes.

    You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML
    2021.

    Args:
        features: (N, D).
        labels: (N,).
    """
    f = np.asarray(features, np.float64)
    n, d = f.shape
    y = (labels[:, None] == np.unique(labels)).astype(np.float64)
    u, s, _ = np.linalg.svd(f, full_matrices=False)
    s2, z = s[:, None] ** 2, u.T @ y
    outside = np.maximum((y**2).sum(0) - (z**2).sum(0), 0.0)
    alpha = beta = np.ones(y.shape[1])
    before = np.full(y.shape[1], -np.inf)
    for _ in range(_ROUNDS):
        precision = alpha + beta * s2
        m = beta * s[:, None] * z / precision
        m2 = np.maximum((m**2).sum(0), 1e-30)
        error = np.maximum(((z - s[:, None] * m) ** 2).sum(0) + outside, 1e-30)
        log_det = np.log(precision).sum(0) + (d - len(s)) * np.log(alpha)
        evidence = 0.5 * (
            n * np.log(beta / (2 * np.pi)) + d * np.log(alpha) - beta * error - alpha * m2 - log_det
        )
        if np.all(np.abs(evidence - before) < _TOLERANCE * n):
            break
        before = evidence
        gamma = (beta * s2 / precision).sum(0)
        # Features without any information drive α, those that fit each image β, to infinity.
        alpha = np.clip(gamma / m2, 1e-12, 1e12)
        beta = np.clip((n - gamma) / error, 1e-12, 1e12)
    return float(evidence.mean() / n)


def leep(probabilities: Floats, labels: Labels) -> float:
    """Return the log expected empirical prediction, at most 0.

    With θ(x) the source head's probabilities: P(y, z) is the mean over images of class y of
    θ(x)_z, and LEEP = mean over images of log Σ_z P(y_i | z) θ(x_i)_z.

    Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned Representations",
    ICML 2020.

    Args:
        probabilities: (N, Z), of the source's own classes.
        labels: (N,), of the target.
    """
    theta = np.asarray(probabilities, np.float64)
    y = (labels[:, None] == np.unique(labels)).astype(np.float64)
    joint = y.T @ theta
    conditional = joint / np.maximum(joint.sum(0), 1e-300)
    expected = ((theta @ conditional.T) * y).sum(1)
    return float(np.log(np.maximum(expected, 1e-300)).mean())


def mixture(features: Floats, classes: int, *, seed: int = 0) -> Float64:
    """Return which component of a Gaussian mixture each image is from, for ``nleep``.

    Principal components with 80 % of the variance, then a mixture of five components a class,
    fewer where that leaves less than ten images for each, with diagonal covariances: principal
    components are uncorrelated, and few images estimate no full ones.

    Args:
        features: (N, D).
        classes: of the target.
        seed: of the mixture's start.

    Returns:
        Posteriors, (N, components).
    """
    import warnings

    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    f = np.asarray(features, np.float64)
    f = f - f.mean(0)
    spread = np.sqrt((f**2).sum(1).mean())
    if spread == 0:
        return np.ones((len(f), 1))
    reduced = PCA(_ENERGY, svd_solver="full").fit_transform(f / spread)
    components = max(1, min(_PER_CLASS * classes, len(f) // _IMAGES_EACH))
    model = GaussianMixture(components, covariance_type="diag", reg_covar=1e-5, random_state=seed)
    with warnings.catch_warnings():
        # Any mixture gives posteriors; a hundred rounds are enough of one.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found: Float64 = model.fit(reduced).predict_proba(reduced)
    return found


def nleep(features: Floats, labels: Labels) -> float:
    """Return LEEP with the components of a Gaussian mixture in place of the source's classes.

    It needs no source head. Li et al., "Ranking Neural Checkpoints", CVPR 2021.

    Args:
        features: (N, D).
        labels: (N,).
    """
    return leep(mixture(features, len(np.unique(labels))), labels)


def hscore(features: Floats, labels: Labels) -> float:
    """Return the H-score, tr(Σ⁻¹ Σ_between), with a shrunk covariance.

    Σ is Ledoit and Wolf's (1 - λ) S + λ tr(S)/D I, and Σ_between, the covariance of the class
    means over images, is shrunk by 1 - λ too: the plain score grows without meaning where there
    are about as few images as features.

    Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning",
    ICIP 2019; Ibrahim et al., "Newer is not always better: Rethinking transferability metrics,
    their peculiarities, stability and performance", 2021.

    Args:
        features: (N, D).
        labels: (N,).
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    f = np.asarray(features, np.float64)
    n = len(f)
    f = f - f.mean(0)
    scale = float(np.sqrt((f**2).mean()))
    if scale == 0:
        return 0.0
    f = f / scale  # tr(S)/D becomes 1
    shrinkage = float(ledoit_wolf_shrinkage(f, assume_centered=True))
    # The class means lie where the features do, so that Σ is inverted on their axes alone.
    _, s, axes = np.linalg.svd(f, full_matrices=False)
    variances = (1 - shrinkage) * s**2 / n + shrinkage
    kept = variances > 1e-12
    between = np.zeros(len(s))
    for c in np.unique(labels):
        own = f[labels == c]
        between += len(own) / n * (axes @ own.mean(0)) ** 2
    return float((1 - shrinkage) * (between[kept] / variances[kept]).sum())


def transrate(features: Floats, labels: Labels) -> float:
    """Return the gap between the coding rate of all features and that within classes.

    R(Z) = ½ log det(I + ZᵀZ / (n ε)) and TrR = R(Z) - Σ_c n_c/n R(Z_c), on centred features with
    ε = 1e-4: about the mutual information of features and labels. Features are brought to a mean
    square length of 1, since the rate grows with the mere size of activations.

    Huang et al., "Frustratingly Easy Transferability Estimation", ICML 2022.

    Args:
        features: (N, D).
        labels: (N,).
    """
    f = np.asarray(features, np.float64)
    f = f - f.mean(0)
    f = f / max(float(np.sqrt((f**2).sum(1).mean())), 1e-30)
    within = sum(
        len(f[labels == c]) / len(f) * _coding_rate(f[labels == c]) for c in np.unique(labels)
    )
    return float(_coding_rate(f) - within)


def knn(features: Floats, labels: Labels) -> float:
    """Return the share of images whose five nearest neighbours, without themselves, vote right.

    Cosine similarity of centred features, votes weighted by it (Wu et al., "Unsupervised Feature
    Learning via Non-Parametric Instance Discrimination", CVPR 2018, with temperature 0.07).

    Args:
        features: (N, D).
        labels: (N,).
    """
    f = np.asarray(features, np.float64)
    f = f - f.mean(0)
    f = f / np.maximum(np.linalg.norm(f, axis=1, keepdims=True), 1e-30)
    similar = f @ f.T
    np.fill_diagonal(similar, -np.inf)
    k = min(NEIGHBOURS, len(f) - 1)
    near = np.argpartition(-similar, k - 1, axis=1)[:, :k]
    classes, place = np.unique(labels, return_inverse=True)
    votes = np.zeros((len(f), len(classes)))
    weights: Any = np.exp(np.take_along_axis(similar, near, axis=1) / 0.07)
    np.add.at(votes, (np.arange(len(f))[:, None], place[near]), weights)
    return float((votes.argmax(1) == place).mean())


def _coding_rate(f: Float64) -> float:
    """Return ½ log det(I + FᵀF / (n ε)), computed on the smaller side."""
    n, d = f.shape
    gram = f @ f.T if n < d else f.T @ f
    return float(0.5 * np.linalg.slogdet(np.eye(len(gram)) + gram / (n * _EPSILON))[1])
