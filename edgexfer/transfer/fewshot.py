"""The k-shot protocol: how good a model's features are for classes of which few images are there.

Each episode draws its classes, k training images of each, and as many as 15 test images of each to
be told apart by the nearest prototype (Vinyals et al., "Matching Networks for One Shot Learning",
2016; Snell et al. 2017). Nothing is trained. Larger k add images to those of smaller ones, and the
test images are the same, so that the rows of the table differ by the shots alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgexfer.core.distributions import student_t
from edgexfer.core.errors import DataError, RecipeError
from edgexfer.core.stats import wilson
from edgexfer.recipe import DataSection, ModelSection
from edgexfer.training.stage import images_of, open_data
from edgexfer.transfer.backbone import Float32, open_backbone, unit_features
from edgexfer.transfer.prototype import prototypes

Int64 = npt.NDArray[np.int64]
_QUERIES = 15


@dataclass(frozen=True)
class Shots:
    """Accuracy with so many images of each class.

    Attributes:
        shots: training images of each class, k.
        ways: classes of an episode.
        episodes: how many were drawn.
        top1_pct: mean accuracy over the episodes, in percent.
        low_pct: lower end of its 95 % interval, for other draws from these images.
        high_pct: upper end of it.
    """

    shots: int
    ways: int
    episodes: int
    top1_pct: float
    low_pct: float
    high_pct: float


@dataclass(frozen=True)
class Protocol:
    """What is drawn.

    Attributes:
        shots: training images of each class, one row of the table each.
        episodes: at least 2, so that there is an interval.
        ways: classes of an episode; ``None`` takes all.
        seed: of all draws.
    """

    shots: tuple[int, ...] = (1, 5, 10)
    episodes: int = 100
    ways: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Episode:
    """One draw.

    Attributes:
        support: places of training images, (ways, largest k).
        queries: places of test images.
        wanted: for each of the queries its class, 0..ways-1.
    """

    support: Int64
    queries: Int64
    wanted: Int64


def few_shot(data: DataSection, model: ModelSection, protocol: Protocol) -> tuple[Shots, ...]:
    """Evaluate a model's features with few images of each class.

    Args:
        data: the images; few are drawn from its train split, and its test split is told apart.
        model: a run's folder as its name, or an architecture with weights.
        protocol: what is drawn.

    Raises:
        RecipeError: the protocol draws nothing, the data has several tasks, or the model is random.
        DataError: a class has too few images, or the images are unusable.
        EdgexferError: as ``open_backbone`` raises it.
    """
    _refuse(protocol)
    dataset = open_data(data)
    if dataset.tasks:
        raise RecipeError(
            f"data.labels has {len(dataset.tasks)} tasks, and few-shot classes are of one",
            "leave out --labels, or lay the images out in class folders",
        )
    backbone = open_backbone(model)
    train, test = (
        images_of(data, dataset, split, backbone.preprocess) for split in ("train", "test")
    )
    ways = _ways(protocol, dataset.classes)
    trained, asked = train.labels.numpy(), test.labels.numpy()
    for split, labels, least in (("training", trained, max(protocol.shots)), ("test", asked, 1)):
        for name, found in zip(dataset.classes, _counts(labels, dataset.classes), strict=True):
            if found < least:
                raise DataError(
                    f"{data.path}: class {name!r} has {found} {split} images, {least} are drawn",
                    "give fewer --shots, or add images of it",
                )
    known, unknown = (
        unit_features(backbone.model, backbone.preprocess, images) for images in (train, test)
    )
    drawn = list(episodes(trained, asked, protocol, ways))
    rows = []
    for shots in protocol.shots:
        rights = np.array([accuracy(e, known, unknown, shots) for e in drawn])
        ends = interval(rights, len(asked))
        rows.append(Shots(shots, ways, len(drawn), 100 * float(rights.mean()), *ends))
    return tuple(rows)


def episodes(trained: Int64, asked: Int64, protocol: Protocol, ways: int) -> Iterator[Episode]:
    """Draw episodes, each from (seed, its number) alone.

    Args:
        trained: labels of the training images.
        asked: labels of the test images.
        protocol: what is drawn.
        ways: classes of an episode.
    """
    classes = int(trained.max()) + 1
    most = max(protocol.shots)
    for number in range(protocol.episodes):
        chance = np.random.default_rng([protocol.seed, number])
        chosen = chance.permutation(classes)[:ways]
        support = [chance.permutation(np.flatnonzero(trained == c))[:most] for c in chosen]
        queries = [chance.permutation(np.flatnonzero(asked == c))[:_QUERIES] for c in chosen]
        wanted = np.repeat(np.arange(ways), [len(q) for q in queries])
        yield Episode(np.stack(support), np.concatenate(queries), wanted)


def accuracy(episode: Episode, known: Float32, unknown: Float32, shots: int) -> float:
    """Return the share of an episode's test images whose nearest prototype is their class's.

    Args:
        episode: what was drawn.
        known: features of the training images, (N, F), each of length 1.
        unknown: likewise of the test images.
        shots: training images of each class that are looked at.
    """
    support = episode.support[:, :shots]
    ways = len(support)
    weight, bias = prototypes(known[support.ravel()], np.repeat(np.arange(ways), shots), ways)
    scores = unknown[episode.queries] @ weight.T + bias
    return float((scores.argmax(axis=1) == episode.wanted).mean())


def interval(rights: npt.NDArray[np.float64], n: int) -> tuple[float, float]:
    """Return the ends of the 95 % interval of the mean over episodes (Student's t), in percent.

    Where all episodes are alike it is Wilson's for the test images: that nothing varied among a few
    images shows no certainty.

    Args:
        rights: accuracy of each episode, 0..1.
        n: test images that they are drawn from.
    """
    mean = float(rights.mean())
    spread = float(rights.std(ddof=1))
    half = student_t(0.975, len(rights) - 1) * spread / len(rights) ** 0.5
    low, high = (mean - half, mean + half) if half else wilson(round(mean * n), n)
    return 100 * max(low, 0.0), 100 * min(high, 1.0)


def _refuse(protocol: Protocol) -> None:
    if not protocol.shots or min(protocol.shots) < 1:
        raise RecipeError(
            f"--shots {', '.join(map(str, protocol.shots))}: is not a list of counts from 1",
            "write --shots 1,5,10",
        )
    if protocol.episodes < 2:
        raise RecipeError(
            f"--episodes {protocol.episodes}: has no interval", "give at least 2, better 100"
        )


def _ways(protocol: Protocol, classes: Sequence[str]) -> int:
    ways = len(classes) if protocol.ways is None else protocol.ways
    if not 2 <= ways <= len(classes):
        raise RecipeError(
            f"--ways {ways}: the data has {len(classes)} classes", f"give 2 to {len(classes)}"
        )
    return ways


def _counts(labels: Int64, classes: Sequence[str]) -> list[int]:
    return [int(n) for n in np.bincount(labels, minlength=len(classes))]
