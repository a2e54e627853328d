"""How far the target's pictures are from the source's, in what a model sees of them.

Three distances between two sets of features, each with what it is worth on few images, and the
pictures that are furthest away. The page that shows them is made in ``sheet.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgexfer.advise.features import Source, open_source, read_features
from edgexfer.advise.layers import probe_hits
from edgexfer.advise.transferability import Float64, Floats
from edgexfer.core.errors import DataError
from edgexfer.core.rundir import read_run
from edgexfer.core.stats import wilson
from edgexfer.data.dataset import open_dataset, open_pictures

_PERMUTATIONS = 200
_NEIGHBOURS = 5
_FEWEST = 20
# Pictures of source and target that are looked at where nobody asked for a distance.
_MOST = 300


@dataclass(frozen=True)
class Distance:
    """How far two sets of pictures are apart.

    Attributes:
        n_source: pictures of the source that were looked at.
        n_target: pictures of the target.
        a_distance: proxy A-distance, 0 for no difference that a linear classifier finds, 2 for one
            that it always finds.
        a_low: lower end of its 95 % interval.
        a_high: upper end of it.
        mmd2: squared maximum mean discrepancy; unbiased, so that it may be below 0.
        mmd_p: how often random divisions of the same pictures differ as much.
        frechet: Fréchet distance of the features.
        frechet_within: the same between two halves of the source's pictures, each with as many as
            there are of source or target at most: what chance and too few pictures come to.
        foreign: the target's pictures, as indices, the most foreign first.
        foreignness: of each of them, mean cosine distance to its five nearest source pictures.
    """

    n_source: int
    n_target: int
    a_distance: float
    a_low: float
    a_high: float
    mmd2: float
    mmd_p: float
    frechet: float
    frechet_within: float
    foreign: tuple[int, ...]
    foreignness: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """What the distances say, as a sentence."""
        if self.a_low <= 0 and self.mmd_p > 0.05:
            return "No difference between source and target pictures is shown."
        return (
            f"Proxy A-distance {self.a_distance:.2f} of 2 (95 % interval {self.a_low:.2f} to "
            f"{self.a_high:.2f}), MMD² {self.mmd2:.3f} (p {self.mmd_p:.3f}), Fréchet distance "
            f"{self.frechet:.1f} ({self.frechet_within:.1f} between halves of the source)."
        )


def measure(source: Floats, target: Floats, *, seed: int = 0) -> Distance:
    """Measure how far two sets of features are apart.

    Args:
        source: (N, D).
        target: (M, D).
        seed: of folds, permutations and halves.

    Raises:
        DataError: one has fewer than 20 pictures.
    """
    for name, features in (("source", source), ("target", target)):
        if len(features) < _FEWEST:
            raise DataError(
                f"{len(features)} {name} pictures are too few for a distance",
                f"give at least {_FEWEST}",
            )
    a, low, high = proxy_a_distance(source, target, seed=seed)
    squared, p = mmd(source, target, seed=seed)
    half = min(len(source) // 2, len(target))
    mixed = source[np.random.default_rng(seed).permutation(len(source))]
    foreign = foreignness(source, target)
    order = np.argsort(-foreign, kind="stable")
    return Distance(
        n_source=len(source),
        n_target=len(target),
        a_distance=a,
        a_low=low,
        a_high=high,
        mmd2=squared,
        mmd_p=p,
        frechet=frechet(source, target),
        frechet_within=frechet(mixed[:half], mixed[half : 2 * half]),
        foreign=tuple(int(i) for i in order),
        foreignness=tuple(float(foreign[i]) for i in order),
    )


def proxy_a_distance(
    source: Floats, target: Floats, *, seed: int = 0
) -> tuple[float, float, float]:
    """Return 2 (1 - 2 ε), with ε the error of a linear classifier that tells the two apart.

    The classifier is cross-validated, on as many of the one as of the other; an ε above one half
    counts as one half. Ben-David et al., "Analysis of Representations for Domain Adaptation",
    NeurIPS 2006.

    Returns:
        The distance and the ends of its 95 % interval (Wilson's of ε), 0 to 2.
    """
    n = min(len(source), len(target))
    rng = np.random.default_rng(seed)
    both = np.concatenate([x[np.sort(rng.permutation(len(x))[:n])] for x in (source, target)])
    hits = probe_hits(both, np.repeat([0, 1], n), seed=seed)
    wrong = int((~hits).sum())
    low, high = wilson(wrong, 2 * n)
    near, value, far = (max(0.0, 2 - 4 * e) for e in (high, wrong / (2 * n), low))
    return value, near, far


def mmd(source: Floats, target: Floats, *, seed: int = 0) -> tuple[float, float]:
    """Return the squared maximum mean discrepancy and the p of a permutation test.

    Gaussian kernel whose width is the median distance of all pairs; the unbiased estimate. Gretton
    et al., "A Kernel Two-Sample Test", JMLR 2012.

    Args:
        source: (N, D), at least two.
        target: (M, D), at least two.
        seed: of the permutations.
    """
    x = np.concatenate([np.asarray(f, np.float64) for f in (source, target)])
    lengths = (x**2).sum(1)
    squared = np.maximum(lengths[:, None] + lengths - 2 * x @ x.T, 0)
    width = float(np.median(squared[np.triu_indices(len(x), 1)]))
    kernel = np.exp(-squared / max(width, 1e-30))
    np.fill_diagonal(kernel, 0)
    n, m = len(source), len(target)
    # All sums of blocks are those of products with membership: one for each permutation.
    rng = np.random.default_rng(seed)
    member = np.zeros((len(x), _PERMUTATIONS + 1))
    member[:n, 0] = 1
    for i in range(1, _PERMUTATIONS + 1):
        member[rng.permutation(len(x))[:n], i] = 1
    with_source = kernel @ member
    own = (member * with_source).sum(0)
    across = ((1 - member) * with_source).sum(0)
    other = kernel.sum() - own - 2 * across
    values = own / (n * (n - 1)) + other / (m * (m - 1)) - 2 * across / (n * m)
    # Equal up to rounding counts as equal.
    as_far = int((values[1:] >= values[0] - 1e-12).sum())
    return float(values[0]), (1 + as_far) / (1 + _PERMUTATIONS)


def frechet(first: Floats, second: Floats) -> float:
    """Return |μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½), the distance of two Gaussians.

    Few pictures overestimate it, by about the same between any two sets of that size and spread
    (Chong and Forsyth, "Effectively Unbiased FID and Inception Score and where to find them", CVPR
    2020): compare it with that between halves. Dowson and Landau, 1982; Heusel et al., NeurIPS
    2017.

    Args:
        first: (N, D).
        second: (M, D).
    """
    a, b = (np.asarray(x, np.float64) for x in (first, second))
    ca, cb = a - a.mean(0), b - b.mean(0)
    # With Σ = CᵀC/(n-1), the root of the trace is the sum of the singular values of C_a C_bᵀ.
    crossed = np.linalg.svd(ca @ cb.T if len(a) + len(b) < 2 * a.shape[1] else _cores(ca, cb))[1]
    root = crossed.sum() / np.sqrt((len(a) - 1) * (len(b) - 1))
    spread = (ca**2).sum() / (len(a) - 1) + (cb**2).sum() / (len(b) - 1)
    return max(0.0, float(((a.mean(0) - b.mean(0)) ** 2).sum() + spread - 2 * root))


def foreignness(source: Floats, target: Floats) -> Float64:
    """Return the mean cosine distance of each target picture to its five nearest of the source.

    Features are centred on the source's mean.

    Args:
        source: (N, D).
        target: (M, D).

    Returns:
        (M,), 0 to 2.
    """
    centre = np.asarray(source, np.float64).mean(0)
    unit = [np.asarray(f, np.float64) - centre for f in (source, target)]
    s, t = (f / np.maximum(np.linalg.norm(f, axis=1, keepdims=True), 1e-30) for f in unit)
    k = min(_NEIGHBOURS, len(s))
    nearest = np.partition(-(t @ s.T), k - 1, axis=1)[:, :k]
    found: Float64 = 1 + nearest.mean(1)
    return found


def pictures_seen(source: Source, path: str, most: int) -> npt.NDArray[np.float32]:
    """Return what a source hands to its head for pictures, float32, (N, D).

    Args:
        source: the model.
        path: a folder of images at any depth, with or without classes, or a data set as
            ``open_dataset`` takes it, of which train is taken.
        most: how many images are looked at; one that cannot be read is left out.

    Raises:
        DataError: it does not exist, or holds no images.
    """
    folder = Path(path).expanduser().is_dir()
    pictures = open_pictures(path, most) if folder else open_dataset(path)
    return read_features(source, pictures, "train", most).last


def distance_of_run(weights: str, path: str) -> Distance:
    """Measure how far pictures are from those that a run was trained on, in what its model sees.

    Args:
        weights: the finished run, or its weights file.
        path: of the pictures, as ``pictures_seen`` takes it; of either 300 are looked at, at most.

    Raises:
        RunError: the weights are of no run.
        DataError: the run's pictures are not there any more, or either are fewer than 20.
    """
    place = Path(weights).expanduser()
    theirs = read_run(place if place.is_dir() else place.parent.parent).data["path"]
    source = open_source(weights)
    return measure(*(pictures_seen(source, each, _MOST) for each in (theirs, path)))


def _cores(a: Float64, b: Float64) -> Float64:
    """Return a D x D matrix with the singular values of A Bᵀ, from the triangular factors."""
    first, second = np.linalg.qr(a).R, np.linalg.qr(b).R
    core: Float64 = first @ second.T
    return core
