"""The training feed: batches of random views, made ahead of the training step by threads.

Which image comes when, and how it is augmented, is a function of (seed, epoch, sample index): the
feed has no state, so any step of any epoch can be asked for again and gives the same bits.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import KW_ONLY, dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from edgexfer.core.errors import DataError, nearest
from edgexfer.core.preprocess import Preprocess
from edgexfer.data.augment import AUGMENTS, ORDER, base_augment, cropped, shifted
from edgexfer.data.cache import ProgressFactory
from edgexfer.data.counter import order
from edgexfer.data.dataset import Dataset
from edgexfer.data.pool import ahead, cores
from edgexfer.data.quarantine import Bad, check_quarantine
from edgexfer.data.store import Kept, Shape, Store, open_store

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """What one training step gets.

    Attributes:
        images: uint8, (B, 3, H, W) in channels-last order, RGB, augmented.
        labels: int64, (B,).
        index: int64, (B,), the samples' places in ``TrainFeed.keys``.
        step: of the epoch, from 0.
        epoch: from 0.
    """

    images: torch.Tensor
    labels: torch.Tensor
    index: torch.Tensor
    step: int
    epoch: int


@dataclass
class TrainFeed:
    """The training images of a data set, epoch by epoch.

    Attributes:
        dataset: the data set; its train split is used.
        preprocess: the model's geometry.
        batch_size: images per step, over all processes.
        augment: ``none``, ``shift``, ``flip``, ``crop`` or ``randaugment``, see ``augment``.
        seed: of order and views.
        cache: see ``open_store``.
        workers: threads that decode and augment; by default as many as there are cores.
        rank: of this process.
        world: how many processes share each batch: this one gets every ``world``-th image of it.
        allow_quarantined: go on although more images are unreadable than is usual.
        progress: starts a display, such as the class ``Progress``; by default nothing is shown.
        keys: names of the readable images.
        labels: int64, (N,), their labels.
        quarantined: images that cannot be read and are left out.
        steps_per_epoch: whole batches per epoch; the rest of a shuffled epoch is left out, unless
            it is all there is.
    """

    dataset: Dataset
    preprocess: Preprocess
    _: KW_ONLY
    batch_size: int
    augment: str = "none"
    seed: int = 0
    cache: str = "auto"
    workers: int | None = None
    rank: int = 0
    world: int = 1
    allow_quarantined: bool = False
    progress: ProgressFactory | None = None
    keys: tuple[str, ...] = field(init=False)
    labels: Int64 = field(init=False)
    quarantined: tuple[Bad, ...] = field(init=False)
    steps_per_epoch: int = field(init=False)
    _store: Store = field(init=False, repr=False)
    _used: Int64 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Open the store.

        Raises:
            DataError: an option is wrong, or too many images cannot be read.
            MachineError: there is not enough memory for ``cache="ram"``.
        """
        if self.augment not in AUGMENTS:
            raise DataError(f"train.augment is {self.augment!r}", nearest(self.augment, AUGMENTS))
        if self.batch_size < 1 or self.batch_size % self.world:
            raise DataError(
                f"train.batch_size is {self.batch_size}, shared by {self.world} processes",
                f"make it a positive multiple of {self.world}",
            )
        split = self.dataset.splits["train"]
        shape = Shape(self.preprocess, fitted=self._base != "crop")
        self._store = open_store(
            self.dataset,
            "train",
            shape,
            cache=self.cache,
            workers=self.workers,
            progress=self.progress,
        )
        self.quarantined = self._store.bad
        check_quarantine(
            self.dataset.spec, "train", len(split), self.quarantined, allowed=self.allow_quarantined
        )
        used = np.setdiff1d(np.arange(len(split)), [bad.index for bad in self.quarantined])
        self._used = used.astype(np.int64)
        self.keys = tuple(split.keys[i] for i in self._used)
        self.labels = split.labels[self._used]
        if len(self.keys) < self.world:
            raise DataError(
                f"{self.dataset.spec}: {len(self.keys)} training images for {self.world} processes",
                "use fewer processes",
            )
        self.steps_per_epoch = max(len(self.keys) // self.batch_size, 1)

    def epoch(self, epoch: int, start_step: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch, from ``start_step`` on, while threads make the next ones.

        Closing the iterator ends the threads.
        """
        places = order(len(self.keys), self.seed, epoch, ORDER)
        # A small data set gives one short batch, the same number of images to each process.
        size = min(self.batch_size, len(places) - len(places) % self.world)

        def make(step: int) -> Batch:
            whole = places[step * size : (step + 1) * size]
            return self._batch(whole[self.rank :: self.world], step, epoch)

        # Gathering from memory is far quicker than any training step, so that one thread hides it.
        workers = 1 if self._gathers else self.workers or cores()
        yield from ahead(
            range(start_step, self.steps_per_epoch), make, workers=workers, depth=2 * workers
        )

    @property
    def _base(self) -> str:
        return base_augment(self.augment, self.preprocess)

    @property
    def _gathers(self) -> bool:
        return isinstance(self._store, Kept) and self.augment in ("none", "shift", "flip")

    def _batch(self, index: Int64, step: int, epoch: int) -> Batch:
        chosen, words = self._used[index], (self.seed, epoch)
        if self._base == "crop":
            images = cropped(self._store.__getitem__, chosen, index, self.preprocess.size, words)
        else:
            if isinstance(self._store, Kept):
                pixels = self._store.pixels
            else:
                pixels = np.stack([self._store[int(i)] for i in chosen])
                chosen = np.arange(len(chosen))
            moved = shifted(pixels, chosen, index, self._base, words)
            images = torch.from_numpy(moved).permute(0, 3, 1, 2)
        if self.augment == "randaugment":
            from edgexfer.data.randaugment import randaugment

            images = randaugment(images, index, words)
        labels, places = torch.from_numpy(self.labels[index]), torch.from_numpy(index.copy())
        return Batch(images, labels, places, step, epoch)
