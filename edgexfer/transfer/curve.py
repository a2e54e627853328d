"""The learning curve: what more data would gain, and whether that can be told at all.

The error is taken for e(n) = a + b·n^(-c) with a, b >= 0, the power law that learning curves of
many tasks follow (Cortes et al., "Learning Curves: Asymptotic Values and Rate of Convergence",
NIPS 1993; Hestness et al., "Deep Learning Scaling is Predictable, Empirically", 2017). Its interval
is a bootstrap over test images and seeds, each resample fitted anew. Where all images are right, or
none, a bootstrap sees no doubt at all; so four images stand among the others that each size has
right by the toss of a coin. For one size that is the interval of Agresti and Coull ("Approximate Is
Better than 'Exact' for Interval Estimation of Binomial Proportions", The American Statistician
1998), which follows Wilson's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgexfer.core.errors import RecipeError, RunError
from edgexfer.core.files import PathLike
from edgexfer.core.rundir import INFO
from edgexfer.data.task import find_task
from edgexfer.recipe import DataSection, TeacherSection
from edgexfer.training.predictions import read_rights
from edgexfer.training.stage import open_data
from edgexfer.transfer.finetune import finetune

Float = npt.NDArray[np.float64]
Rights = Mapping[int, Sequence[Sequence[bool]]]
# Exponents of learning curves are between 0.07 and 1 where they were measured (Hestness et al.).
_EXPONENTS = np.linspace(0.05, 2.0, 40)
_RESAMPLES = 1000
_COINS = 4


@dataclass(frozen=True)
class Point:
    """One size of the training set.

    Attributes:
        images: training images.
        top1_pct: mean test accuracy over the seeds, in percent.
        low_pct: lower end of its 95 % interval.
        high_pct: upper end of it.
    """

    images: int
    top1_pct: float
    low_pct: float
    high_pct: float


@dataclass(frozen=True)
class Curve:
    """What a learning curve says.

    Attributes:
        points: the sizes, smallest first.
        seeds: trainings of each.
        n: test images.
        exponent: c of the fitted power law.
        gain_pt: what twice the largest size would gain, in points of accuracy.
        gain_low_pt: lower end of the 95 % interval.
        gain_high_pt: upper end of it.
    """

    points: tuple[Point, ...]
    seeds: int
    n: int
    exponent: float
    gain_pt: float
    gain_low_pt: float
    gain_high_pt: float

    @property
    def verdict(self) -> str:
        """Say in one sentence what more data would do."""
        span = f"95 % interval {self.gain_low_pt:+.1f} to {self.gain_high_pt:+.1f}"
        if self.gain_low_pt > 0:
            return f"With twice the data you would gain about {self.gain_pt:.1f} points ({span})."
        return f"It cannot be told whether twice the data would gain anything ({span})."


def learning_curve(
    data: DataSection,
    teacher: TeacherSection,
    out: PathLike,
    *,
    fractions: Sequence[float] = (0.125, 0.25, 0.5, 1.0),
    seeds: int = 2,
    task: str | None = None,
) -> Curve:
    """Train on growing parts of the training images, each tested on the same test images.

    The trainings are ordinary runs, ``OUT/IMAGES/seed-S``: those that are done are not made again.
    A training on fewer images has as many epochs, so fewer steps.

    Args:
        data: the images.
        teacher: what is trained, and how.
        out: folder of the runs.
        fractions: parts of the training images, each above 0 and at most 1; at least three.
        seeds: trainings of each size.
        task: one of several, whose curve is looked at; ``None`` for all together, where an image is
            right with all labels that it has. The trainings are the same.

    Raises:
        RecipeError: there are too few sizes or seeds, or one is out of range.
        InputError: there is no such task.
        RunError: ``out`` is a run of its own.
        EdgexferError: as ``finetune`` raises it.
    """
    dataset = open_data(data)
    if task is not None:
        find_task(dataset.tasks, task)
    sizes = _sizes(len(dataset.splits["train"]), len(dataset.classes), fractions)
    if seeds < 1:
        raise RecipeError(f"--seeds {seeds}: trains nothing", "give at least 1")
    if (Path(out) / INFO).exists():
        raise RunError(f"{out}: is a run, and a curve is a folder of runs", "choose another --out")
    first = teacher.train.seed
    places: list[Path] = []
    # The larger ones last: what a folder of small ones shows is shown early.
    for size in sizes:
        for seed in range(first, first + seeds):
            section = replace(teacher, train=replace(teacher.train, seed=seed))
            places.append(Path(out) / f"{size}" / f"seed-{seed}")
            finetune(replace(data, train_limit=size), section, places[-1])
    rights = read_rights(places, task)
    return fit_curve({size: rights[i * seeds : (i + 1) * seeds] for i, size in enumerate(sizes)})


def fit_curve(rights: Rights) -> Curve:
    """Fit the power law to what trainings of several sizes had right.

    Args:
        rights: by number of training images, for each seed and test image, whether it was right;
            the same seeds and images for each size, at least three sizes.
    """
    sizes = np.array(sorted(rights), float)
    # (sizes, seeds, images)
    right = np.array([rights[int(size)] for size in sizes], np.float64)
    seeds, n = right.shape[1:]
    chance = np.random.default_rng(0)
    means = np.empty((1 + _RESAMPLES, len(sizes)))
    means[0] = right.mean((1, 2))
    for resample in range(1, 1 + _RESAMPLES):
        # How often each image and each seed is drawn. Seeds of different sizes have nothing in
        # common; the images are the same.
        images = np.bincount(chance.integers(n + _COINS, size=n + _COINS), minlength=n + _COINS)
        drawn = chance.multinomial(seeds, np.full(seeds, 1 / seeds), size=len(sizes)) / seeds
        count = np.einsum("psn,ps,n->p", right, drawn, images[:n], optimize=True)
        count += chance.binomial(images[n:].sum(), 0.5, size=len(sizes))
        means[resample] = count / (n + _COINS)
    gains, exponents = _gain(sizes, 1 - means)
    low, high = np.percentile(means[1:], [2.5, 97.5], axis=0)
    points = tuple(
        Point(int(size), 100 * float(value), 100 * float(a), 100 * float(b))
        for size, value, a, b in zip(sizes, means[0], low, high, strict=True)
    )
    gain_low, gain_high = (100 * float(v) for v in np.percentile(gains[1:], [2.5, 97.5]))
    gain = 100 * float(gains[0])
    return Curve(points, seeds, n, float(exponents[0]), gain, gain_low, gain_high)


def _gain(sizes: npt.NDArray[np.float64], errors: Float) -> tuple[Float, Float]:
    """Return by how much twice the largest size lowers the error, and the exponent.

    Least squares over a grid of exponents, a and b in closed form.

    Args:
        sizes: (P,), ascending.
        errors: (R, P), one row for each fit.
    """
    best = np.full(len(errors), np.inf)
    gain, chosen = np.zeros(len(errors)), np.zeros(len(errors))
    mean = errors.mean(1)
    for exponent in _EXPONENTS:
        # In units of the largest size: b is then what is left to gain there.
        x = (sizes / sizes[-1]) ** -exponent
        slope = (errors - mean[:, None]) @ (x - x.mean()) / ((x - x.mean()) ** 2).sum()
        # Where a would be negative it is 0 and b fits alone; where b would be, the line is level.
        slope = np.where(mean - slope * x.mean() < 0, errors @ x / (x @ x), slope).clip(min=0)
        level = (mean - slope * x.mean()).clip(min=0)
        rest = ((level[:, None] + slope[:, None] * x - errors) ** 2).sum(1)
        better = rest < best
        best = np.where(better, rest, best)
        gain = np.where(better, slope * (1 - 2**-exponent), gain)
        chosen = np.where(better, exponent, chosen)
    return gain, chosen


def _sizes(images: int, classes: int, fractions: Sequence[float]) -> list[int]:
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise RecipeError(
            "--fractions: one is not above 0 and at most 1",
            "write --fractions 0.125,0.25,0.5,1",
        )
    sizes = sorted({round(fraction * images) for fraction in fractions})
    if sizes and sizes[0] < classes:
        raise RecipeError(
            f"--fractions: the smallest is {sizes[0]} of {images} training images, but there are "
            f"{classes} classes",
            "leave out the smallest, or add images",
        )
    if len(sizes) < 3:
        raise RecipeError(
            f"--fractions give {len(sizes)} sizes of {images} training images",
            "a curve needs at least three: --fractions 0.125,0.25,0.5,1",
        )
    return sizes
