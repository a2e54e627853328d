"""The training feed: batches of random views, made ahead of the training step by threads.

Which image comes when is a function of (seed, epoch), and how it is augmented of (view seed, view
epoch, sample index): the feed has no state, so any step of any epoch can be asked for again and
gives the same bits. With ``views`` the view epoch begins anew after so many epochs, so that the
same views come again, in another order; where the training mixes the images of a batch, whose bits
depend on who stands beside whom, the order comes again with them.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgexfer.core.errors import DataError, nearest
from edgexfer.core.files import sha256_bytes
from edgexfer.core.preprocess import Preprocess
from edgexfer.data.augment import (
    AUGMENTS,
    ORDER,
    ORDER_UNLABELLED,
    base_augment,
    cropped,
    shifted,
)
from edgexfer.data.cache import ProgressFactory
from edgexfer.data.counter import order
from edgexfer.data.dataset import UNLABELLED, Dataset
from edgexfer.data.pool import ahead, cores
from edgexfer.data.quarantine import Bad, check_quarantine
from edgexfer.data.store import DECODER, Kept, Shape, Store, open_store

Int64 = npt.NDArray[np.int64]
SPLITS = ("train", f"train+{UNLABELLED}")


@dataclass(frozen=True)
class Batch:
    """What one training step gets.

    Attributes:
        images: uint8, (B, 3, H, W) in channels-last order, RGB, augmented.
        labels: int64, (B,); -1 for none.
        index: int64, (B,), the samples' places in ``TrainFeed.keys``.
        step: of the epoch, from 0.
        epoch: from 0.
        view_epoch: decides the views, with ``index``; where it comes again, so do they.
    """

    images: torch.Tensor
    labels: torch.Tensor
    index: torch.Tensor
    step: int
    epoch: int
    view_epoch: int


@dataclass
class TrainFeed:
    """The training images of a data set, epoch by epoch.

    Attributes:
        dataset: the data set.
        preprocess: the model's geometry.
        batch_size: images per step, over all processes.
        split: ``train``, or ``train+unlabelled`` for the images without labels as well.
        balanced: of ``train+unlabelled``: half of each batch, and of each process's share, has no
            label. An epoch goes through the labelled images once; the unlabelled ones go on where
            the epoch before ended.
        augment: ``none``, ``shift``, ``flip``, ``crop`` or ``randaugment``, see ``augment``.
        seed: of the order, and of the views unless they have their own.
        views: how many epochs have views of their own before they come again; ``None`` for all.
        view_seed: of the views; ``None`` takes ``seed``.
        mixes: the training mixes the images of a batch (mixup, cutmix).
        cache: see ``open_store``.
        workers: threads that decode and augment; by default as many as there are cores.
        rank: of this process.
        world: how many processes share each batch: this one gets every ``world``-th image of it.
        allow_quarantined: go on although more images are unreadable than is usual.
        progress: starts a display, such as the class ``Progress``; by default nothing is shown.
        keys: names of the readable images, the unlabelled ones last.
        labels: int64, (N,), their labels; -1 for none.
        quarantined: images that cannot be read and are left out.
        steps_per_epoch: whole batches per epoch; the rest of a shuffled epoch is left out, unless
            it is all there is.
    """

    dataset: Dataset
    preprocess: Preprocess
    _: KW_ONLY
    batch_size: int
    split: str = "train"
    balanced: bool = False
    augment: str = "none"
    seed: int = 0
    views: int | None = None
    view_seed: int | None = None
    mixes: bool = False
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
    _stores: tuple[Store, ...] = field(init=False, repr=False)
    # Of each sample the store that holds it, and its place there.
    _owner: Int64 = field(init=False, repr=False)
    _place: Int64 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Open the stores.

        Raises:
            DataError: an option is wrong, or too many images cannot be read.
            MachineError: there is not enough memory for ``cache="ram"``.
        """
        if self.augment not in AUGMENTS:
            raise DataError(f"train.augment is {self.augment!r}", nearest(self.augment, AUGMENTS))
        shares = self.world * (1 + self.balanced)
        if self.batch_size < 1 or self.batch_size % shares:
            half = ", half of it without labels" if self.balanced else ""
            raise DataError(
                f"train.batch_size is {self.batch_size}, shared by {self.world} processes{half}",
                f"make it a positive multiple of {shares}",
            )
        if self.views is not None and self.views < 1:
            raise DataError(f"train.views is {self.views}", "give at least 1, or leave it out")
        if self.split not in SPLITS:
            raise DataError(f"a feed of split {self.split!r}", nearest(self.split, SPLITS))
        names = self.split.split("+")
        if names[-1] not in self.dataset.splits:
            raise DataError(
                f"{self.dataset.spec}: has no unlabelled images", "set data.unlabelled to a folder"
            )
        self._open(names)
        gone_through, size = len(self.keys), self.batch_size
        if self.balanced:
            gone_through, size = int((self.labels >= 0).sum()), size // 2
            if gone_through == len(self.keys):
                raise DataError(
                    f"{self.dataset.spec}: no unlabelled image can be used", "name another folder"
                )
        if gone_through < self.world:
            raise DataError(
                f"{self.dataset.spec}: {gone_through} training images for {self.world} processes",
                "use fewer processes",
            )
        self.steps_per_epoch = max(gone_through // size, 1)

    def epoch(self, epoch: int, start_step: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch, from ``start_step`` on, while threads make the next ones.

        Closing the iterator ends the threads.
        """
        steps, view_epoch = self.order(epoch), self.view_epoch(epoch)

        def make(step: int) -> Batch:
            index = steps[step, self.rank :: self.world].copy()
            labels = torch.from_numpy(self.labels[index])
            images = self.view(index, view_epoch)
            return Batch(images, labels, torch.from_numpy(index), step, epoch, view_epoch)

        # Gathering from memory is far quicker than any training step, so that one thread hides it.
        workers = 1 if self._gathers else self.workers or cores()
        yield from ahead(
            range(start_step, self.steps_per_epoch), make, workers=workers, depth=2 * workers
        )

    def order(self, epoch: int) -> Int64:
        """Return which samples the steps of an epoch hold, over all processes.

        Returns:
            int64, (``steps_per_epoch``, images per step).
        """
        again = self.view_epoch(epoch) if self.mixes else epoch
        if self.balanced:
            return self._balanced_order(again)
        places = order(len(self.keys), self.seed, again, ORDER)
        # A small data set gives one short batch, the same number of images to each process.
        size = min(self.batch_size, len(places) - len(places) % self.world)
        return places[: self.steps_per_epoch * size].reshape(self.steps_per_epoch, size)

    def _balanced_order(self, epoch: int) -> Int64:
        """Return an order in which each process's share alternates between with and without."""
        steps, n = self.steps_per_epoch, int((self.labels >= 0).sum())
        # As above: a small data set gives one short batch.
        half = min(self.batch_size // 2, n - n % self.world)
        many, others = steps * half, len(self.keys) - n
        labelled = order(n, self.seed, epoch, ORDER)[:many]
        # A round is one walk through the unlabelled images, in an order of its own; it ends
        # wherever it does in an epoch, and the next one begins.
        rounds, places = np.divmod(np.arange(epoch * many, (epoch + 1) * many), others)
        unlabelled = np.empty_like(labelled)
        for number in np.unique(rounds):
            now = rounds == number
            walk = order(others, self.seed, int(number), ORDER_UNLABELLED)
            unlabelled[now] = n + walk[places[now]]
        # Every ``world``-th image is one process's: blocks of that size alternate.
        blocks = (part.reshape(steps, -1, self.world) for part in (labelled, unlabelled))
        return np.stack(list(blocks), axis=2).reshape(steps, 2 * half)

    @property
    def period(self) -> int | None:
        """After how many epochs the views come again; ``None`` for never."""
        # Nothing is drawn for a view, so that all epochs see the same one.
        if self.augment == "none" and not self.mixes:
            return 1
        return self.views

    def view_epoch(self, epoch: int) -> int:
        """Return the number that decides an epoch's views."""
        return epoch if self.period is None else epoch % self.period

    def view(self, index: Int64, view_epoch: int) -> torch.Tensor:
        """Return views of any samples, in any order.

        Args:
            index: int64, (B,), places in ``keys``.
            view_epoch: see ``view_epoch``.

        Returns:
            uint8, (B, 3, H, W) in channels-last order.
        """
        words = (self.seed if self.view_seed is None else self.view_seed, view_epoch)
        if len(self._stores) == 1:
            images = self._moved(self._stores[0], index, words)
        else:
            size = len(index), *self.preprocess.size, 3
            images = torch.empty(size, dtype=torch.uint8).permute(0, 3, 1, 2)
            for number, store in enumerate(self._stores):
                own = np.flatnonzero(self._owner[index] == number)
                if len(own):
                    images[torch.from_numpy(own)] = self._moved(store, index[own], words)
        if self.augment == "randaugment":
            from edgexfer.data.randaugment import randaugment

            images = randaugment(images, index, words)
        return images

    def identity(self) -> dict[str, Any]:
        """Return what decides the bits of ``view(index, view_epoch)``, as plain JSON values."""
        p = self.preprocess
        return {
            "data": self.dataset.fingerprint,
            "split": self.split,
            "images": len(self.keys),
            "keys": sha256_bytes("\0".join(self.keys).encode(errors="surrogateescape")),
            "decoder": list(DECODER),
            "geometry": [list(p.size), p.resize, p.mode, p.interpolation],
            "augment": self.augment,
            "view_seed": self.seed if self.view_seed is None else self.view_seed,
        }

    def _open(self, names: list[str]) -> None:
        stores, used = [], []
        shape = Shape(self.preprocess, fitted=self._base != "crop")
        for name in names:
            store = open_store(
                self.dataset,
                name,
                shape,
                cache=self.cache,
                workers=self.workers,
                progress=self.progress,
            )
            total = len(self.dataset.splits[name])
            allowed = self.allow_quarantined
            check_quarantine(self.dataset.spec, name, total, store.bad, allowed=allowed)
            stores.append(store)
            used.append(np.setdiff1d(np.arange(total), [bad.index for bad in store.bad]))
        self._stores = tuple(stores)
        self._owner = np.repeat(np.arange(len(names)), [len(places) for places in used])
        self._place = np.concatenate(used).astype(np.int64)
        splits = [self.dataset.splits[name] for name in names]
        pairs = list(zip(splits, used, strict=True))
        self.keys = tuple(split.keys[i] for split, places in pairs for i in places)
        self.labels = np.concatenate([split.labels[places] for split, places in pairs])
        self.quarantined = tuple(bad for store in stores for bad in store.bad)

    @property
    def _base(self) -> str:
        return base_augment(self.augment, self.preprocess)

    @property
    def _gathers(self) -> bool:
        kept = all(isinstance(store, Kept) for store in self._stores)
        return kept and self.augment in ("none", "shift", "flip")

    def _moved(self, store: Store, index: Int64, words: tuple[int, int]) -> torch.Tensor:
        """Return the geometric part of the views of samples that one store holds."""
        chosen = self._place[index]
        if self._base == "crop":
            return cropped(store.__getitem__, chosen, index, self.preprocess.size, words)
        if isinstance(store, Kept):
            pixels = store.pixels
        else:
            pixels = np.stack([store[int(i)] for i in chosen])
            chosen = np.arange(len(chosen))
        moved = shifted(pixels, chosen, index, self._base, words)
        return torch.from_numpy(moved).permute(0, 3, 1, 2)
