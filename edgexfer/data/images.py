"""Images for evaluation: a whole split in the model's geometry, and stratified samples of one.

The random views of training live in ``feed``. Nothing here normalises: values stay uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from edgexfer.core.errors import DataError
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.tasks import Task
from edgexfer.data.cache import ProgressFactory
from edgexfer.data.dataset import Dataset, Split
from edgexfer.data.decode import UInt8
from edgexfer.data.pool import ahead, cores
from edgexfer.data.quarantine import Bad, check_quarantine
from edgexfer.data.split import Entry, keep
from edgexfer.data.store import Kept, Shape, Store, open_store

# Of 384 pixels they take 28 MB.
_AT_ONCE = 64

Indices = Sequence[int] | npt.NDArray[np.int64] | torch.Tensor


class Images:
    """The readable images of one split, as the model's geometry makes them.

    Attributes:
        labels: int64 tensor, (N,); of several tasks (N, tasks), -1 for none.
        tasks: what they are about, where that is more than one question.
        keys: names of the images, N of them.
        quarantined: images of the split that cannot be read and are left out.
    """

    def __init__(
        self, split: Split, store: Store, workers: int, tasks: tuple[Task, ...] = ()
    ) -> None:
        """Use ``load_images``; this only keeps what it opened."""
        used = np.setdiff1d(np.arange(len(split)), [bad.index for bad in store.bad])
        self._store, self._used, self._workers = store, used.astype(np.int64), workers
        self.labels = torch.from_numpy(split.labels[self._used])
        self.tasks = tasks
        self.keys = tuple(split.keys[i] for i in self._used)
        self.quarantined: tuple[Bad, ...] = store.bad

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.keys)

    def pixels(self, indices: Indices) -> torch.Tensor:
        """Return images by their index.

        Returns:
            uint8, (B, 3, H, W) in channels-last order, RGB.
        """
        chosen = self._used[np.asarray(indices, np.int64)]
        if isinstance(self._store, Kept):
            batch = self._store.pixels.take(chosen, axis=0)
        else:
            made = ahead(
                [int(i) for i in chosen],
                self._store.__getitem__,
                workers=self._workers,
                depth=len(chosen),
            )
            batch = np.stack(list(made))
        return torch.from_numpy(batch).permute(0, 3, 1, 2)

    def batches(self) -> Iterator[UInt8]:
        """Yield all images in their order, uint8 (B, H, W, 3), few of them at once."""
        for start in range(0, len(self), _AT_ONCE):
            some = range(start, min(start + _AT_ONCE, len(self)))
            yield self.pixels(some).permute(0, 2, 3, 1).numpy()


def load_images(
    dataset: Dataset,
    split: str,
    preprocess: Preprocess,
    *,
    cache: str = "auto",
    workers: int | None = None,
    allow_quarantined: bool = False,
    progress: ProgressFactory | None = None,
) -> Images:
    """Open one split for evaluation.

    Args:
        dataset: the data set.
        split: ``train``, ``val`` or ``test``.
        preprocess: the model's geometry.
        cache: see ``open_store``.
        workers: threads that decode; by default as many as there are cores.
        allow_quarantined: go on although more images are unreadable than is usual.
        progress: starts a display, such as the class ``Progress``; by default nothing is shown.

    Raises:
        DataError: images cannot be read.
        MachineError: there is not enough memory for ``cache="ram"``.
    """
    chosen, shape = dataset.splits[split], Shape(preprocess, fitted=True)
    store = open_store(dataset, split, shape, cache=cache, workers=workers, progress=progress)
    check_quarantine(dataset.spec, split, len(chosen), store.bad, allowed=allow_quarantined)
    return Images(chosen, store, workers or cores(), dataset.tasks)


def sample(
    dataset: Dataset,
    split: str,
    n: int,
    preprocess: Preprocess,
    *,
    seed: int = 0,
    allow_quarantined: bool = False,
) -> tuple[UInt8, npt.NDArray[np.int64], tuple[str, ...]]:
    """Take images evenly from the classes of a split, the same ones every time.

    An unreadable image of train, or of any split with ``allow_quarantined``, is left out; none
    takes its place.

    Returns:
        uint8 images (n, H, W, 3), their int64 labels as in the split, and the keys; in the order of
        the split, and all of it where it has no more than ``n``.

    Raises:
        DataError: the split is empty, or an image of val or test cannot be read.
    """
    chosen, shape = dataset.splits[split], Shape(preprocess, fitted=True)
    names = [str(label) for label in chosen.labels]
    entries = [Entry(key, name) for key, name in zip(chosen.keys, names, strict=True)]
    wanted = {entry.key for entry in keep(entries, n, seed)}
    places = [i for i, key in enumerate(chosen.keys) if key in wanted]

    def make(i: int) -> UInt8 | None:
        try:
            return shape.make(chosen, i)
        except DataError:
            if split == "train" or allow_quarantined:
                return None
            raise

    made = list(ahead(places, make, workers=cores(), depth=4 * cores()))
    used = [i for i, image in zip(places, made, strict=True) if image is not None]
    if not used:
        raise DataError(f"{dataset.spec}: split {split} has no images", "see `edgexfer data check`")
    images = np.stack([image for image in made if image is not None])
    return images, chosen.labels[used], tuple(chosen.keys[i] for i in used)
