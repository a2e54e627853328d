"""Strategy ``replay``: a few former images are trained on along with the new ones.

A buffer of former training images, balanced over their classes, stands among the new images so
often that a class of the one is seen as often as a class of the other; each time in another view.
The plainest guard and a strong one (Chaudhry et al., "On Tiny Episodic Memories in Continual
Learning", 2019). Cross entropy is taken among all classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgexfer.core.errors import DataError
from edgexfer.core.files import canonical_json, sha256_bytes
from edgexfer.data.dataset import Dataset, Split
from edgexfer.data.decode import UInt8
from edgexfer.recipe import Count
from edgexfer.training.stage import open_data
from edgexfer.transfer.former import Former, forgotten, identity, take_up
from edgexfer.transfer.plan import STRICT, Plan, Subject

NEEDS_WEIGHTS = False
# No key of a data set begins like this: hidden folders are never looked into.
_PREFIX = ".former/"


@dataclass(frozen=True)
class Options:
    """What is kept.

    Attributes:
        old: the former run.
        images: size of the buffer.
    """

    __pydantic_config__ = STRICT

    old: str | None = None
    images: Count = 200


def parents(options: Options) -> dict[str, str]:
    """Return the hash of the former model."""
    return identity(options.old)


def prepare(subject: Subject) -> Plan:
    """Take up the former model and put its images among the new ones.

    Raises:
        RunError: the former run is not finished.
        ModelError: it is another architecture.
        DataError: the buffer cannot hold an image of each class.
    """
    options: Options = subject.options
    former = take_up(subject, str(options.old))
    return Plan(
        dataset=with_buffer(subject.dataset, former, options.images),
        classes=former.classes,
        results=lambda: forgotten(former, subject.built.model, subject),
    )


def with_buffer(new: Dataset, former: Former, images: int) -> Dataset:
    """Return the new data set with former images, repeated, in its train split.

    Args:
        new: the new images.
        former: what was trained before.
        images: size of the buffer.

    Raises:
        DataError: the buffer cannot hold an image of each class, or holds but copies of images that
            are measured on.
    """
    # No more than it was trained on.
    most = min(images, former.data.train_limit or images)
    old = open_data(replace(former.data, train_limit=most))
    train, buffer = new.splits["train"], old.splits["train"]
    # What is measured on now must not be trained on because it was trained on before.
    measured = {*new.contents["val"], *new.contents["test"]}
    kept = [i for i, content in enumerate(old.contents["train"]) if content not in measured]
    keys, contents = (tuple(of[i] for i in kept) for of in (buffer.keys, old.contents["train"]))
    if not keys:
        raise DataError(
            f"{old.spec}: every image of the buffer is a copy of a val or test image of {new.spec}",
            "raise --option images=N, or take other val and test images",
        )
    per_class = len(train) / len(new.classes)
    times = max(round(per_class * len(old.classes) / len(keys)), 1)
    outputs = np.asarray(former.columns)[np.asarray(former.labels)]

    def read(key: str) -> bytes | UInt8:
        if not key.startswith(_PREFIX):
            return train.reader(key)
        return buffer.reader(key.removeprefix(_PREFIX).partition("/")[2])

    # Each repetition is an image of its own to the feed, with views of its own.
    again = [f"{_PREFIX}{turn}/{key}" for turn in range(times) for key in keys]
    labels = np.concatenate([train.labels, np.tile(outputs[buffer.labels[kept]], times)])
    split = Split("train", (*train.keys, *again), labels, read)
    return replace(
        new,
        splits={**new.splits, "train": split},
        contents={**new.contents, "train": new.contents["train"] + contents * times},
        fingerprint=sha256_bytes(
            canonical_json([new.fingerprint, old.fingerprint, times]).encode()
        ),
    )
