"""Images that cannot be read: recorded by name, tolerated only where they are few.

An unreadable image is left out, never replaced by its neighbour. Of the images that are trained on
up to 0.1 % may be left out; in val and test none, as that would change what an accuracy means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgexfer.core.errors import DataError

MOST_OF_TRAIN = 0.001
_TRAINED_ON = ("train", "unlabelled")


@dataclass(frozen=True)
class Bad:
    """One image that was left out.

    Attributes:
        index: its place in the split.
        key: its name in the data set.
        reason: what is wrong with it.
    """

    index: int
    key: str
    reason: str


def check_quarantine(
    spec: str, split: str, total: int, bad: Sequence[Bad], *, allowed: bool
) -> None:
    """Refuse a split of which too many images cannot be read.

    Args:
        spec: the data set, as the user named it.
        split: name of the split.
        total: images of the split.
        bad: those that cannot be read.
        allowed: the user has said to go on without them.

    Raises:
        DataError: naming the first of them and how many there are; or none is left.
    """
    most = MOST_OF_TRAIN * total if split in _TRAINED_ON else 0
    if len(bad) <= most or (allowed and len(bad) < total):
        return
    # The check looks at what has labels.
    look = "" if split == "unlabelled" else f"see `edgexfer data check {spec}`, "
    raise DataError(
        f"{bad[0].reason}; {len(bad)} of {total} {split} images cannot be used",
        f"{look}mend the files, or set data.allow_quarantined: true",
    )
