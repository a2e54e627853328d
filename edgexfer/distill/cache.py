"""The teacher cache: answers to views that come again are computed once and read from then on.

As in Shen & Xing, "A Fast Knowledge Distillation Framework for Visual Recognition" (ECCV 2022) a
view is known by its number, not by its pixels. The cache fills as the training goes: an epoch whose
answers are not there is answered by the teacher, and when its last step is done they are written.
Whether and where they are kept is decided in ``cache_plan``; how, in ``answers``.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgexfer.core.errors import DataError, DiskError
from edgexfer.core.files import make_dir, write_json
from edgexfer.data.cache import hold, sweep
from edgexfer.data.feed import TrainFeed
from edgexfer.data.pool import ahead, cores
from edgexfer.distill.answers import Rows, pack, read_rows, unpack, write_rows
from edgexfer.distill.cache_plan import KIND, META, CachePlan
from edgexfer.training.objective import Views

Log = Callable[[dict[str, Any]], None]


@dataclass
class _Filling:
    """The answers of the epoch under way.

    Attributes:
        rows: one for each training image.
        seen: bool (N,), which of them are there.
    """

    rows: Rows
    seen: npt.NDArray[np.bool_]


class CachedTeacher:
    """Answers as the teacher does, from the cache where it can.

    A fresh answer is rounded just as a kept one is, so that a training does not depend on which of
    them it got. Where the cache cannot be written, the training goes on with fresh answers.

    Attributes:
        plan: what is kept, and where.
        read: how many answers came from the cache.
        computed: how many came from the teacher.
    """

    def __init__(
        self,
        teacher: Callable[[Tensor], Tensor],
        plan: CachePlan,
        feed: TrainFeed,
        log: Log | None = None,
    ) -> None:
        """Open the cache, and make room for what is to be written.

        Args:
            teacher: takes pixels float32 (B, 3, H, W) on 0..255, gives logits (B, C).
            plan: see ``plan_cache``; where it is not used, nothing is kept or read.
            feed: of the student.
            log: told when the cache has to be mended or given up, such as ``RunDir.log``.
        """
        self.plan = plan
        self.read = self.computed = 0
        self._teacher, self._feed, self._log = teacher, feed, log
        self._writes = plan.use and plan.writes
        self._epoch: int | None = None
        self._filling: _Filling | None = None
        self._whole: dict[int, Rows] = {}
        if plan.use:
            self._prepare()

    def __call__(self, pixels: Tensor, views: Views) -> Tensor:
        """Return logits, float32 (B, C), on the pixels' device.

        Args:
            pixels: float32 (B, 3, H, W) on 0..255.
            views: what they show.
        """
        if views.epoch != self._epoch:
            self._enter(views)
        whole = self._whole.get(views.view_epoch)
        if whole is not None:
            self.read += len(pixels)
            return unpack(whole[views.index.numpy()], self.plan.classes).to(pixels.device)
        logits = self._ask(pixels)
        if self._filling is None and self.plan.top_k is None:
            # The same bits as below, without the way over the CPU.
            return logits.half().float()
        rows = pack(logits, self.plan.row)
        if self._filling is not None and not views.rehearsal:
            self._keep(self._filling, rows, pixels.device, views)
        return unpack(rows, self.plan.classes).to(pixels.device)

    def _prepare(self) -> None:
        plan = self.plan
        try:
            weakref.finalize(self, hold(KIND, plan.folder.name))
            if plan.writes and not (plan.folder / META).exists():
                make_dir(plan.folder)
                write_json(plan.folder / META, plan.meta)
        except DiskError as error:
            self._writes = False
            # What is there can be read all the same.
            if plan.missing_bytes:
                self._give_up(error.what, 0)
            return
        if plan.writes:
            sweep(KIND, plan.budget - plan.missing_bytes, keep=plan.folder)

    def _ask(self, pixels: Tensor) -> Tensor:
        self.computed += len(pixels)
        return self._teacher(pixels)

    def _enter(self, views: Views) -> None:
        self._epoch, self._filling = views.epoch, None
        if self.plan.use and views.view_epoch not in self._whole:
            self._open(views)
        if self._writes and views.view_epoch not in self._whole:
            n = self.plan.images
            self._filling = _Filling(np.zeros(n, self.plan.row), np.zeros(n, np.bool_))

    def _open(self, views: Views) -> None:
        """Map the file of an epoch's views if it is there and whole; remove it if it is not."""
        place = self.plan.file(views.view_epoch)
        if not place.is_file():
            return
        try:
            self._whole[views.view_epoch] = read_rows(place, self.plan.row, self.plan.images)
        except (DataError, OSError) as error:
            self._warn(f"{error}; it is computed again", _steps(views))
            if self._writes:
                place.unlink(missing_ok=True)

    def _keep(self, filling: _Filling, rows: Rows, device: torch.device, views: Views) -> None:
        index = views.index.numpy()
        filling.rows[index], filling.seen[index] = rows, True
        if views.step < views.steps_per_epoch - 1:
            return
        # The last step may come in several micro-batches.
        steps = self._feed.order(views.epoch)
        if not filling.seen[steps[-1]].all():
            return
        if not self._feed.mixes:
            self._complete(filling, device, views.view_epoch, len(index))
        elif not filling.seen[steps].all():
            # After a resume: what was mixed before it cannot be seen again in this epoch.
            return
        self._write(filling, views)

    def _complete(
        self, filling: _Filling, device: torch.device, view_epoch: int, size: int
    ) -> None:
        """Ask about what the epoch left out: the rest of a shuffle, and steps before a resume."""
        missing = np.flatnonzero(~filling.seen)
        parts = [missing[i : i + size] for i in range(0, len(missing), size)]

        def make(part: npt.NDArray[np.int64]) -> Tensor:
            # Always as many as the step had, for which memory sufficed and an engine is ready.
            return self._feed.view(np.resize(part, size), view_epoch)

        workers = self._feed.workers or cores()
        views = ahead(parts, make, workers=workers, depth=2 * workers)
        for part, images in zip(parts, views, strict=True):
            pixels = images.to(device).float().contiguous(memory_format=torch.channels_last)
            filling.rows[part] = pack(self._ask(pixels), self.plan.row)[: len(part)]

    def _write(self, filling: _Filling, views: Views) -> None:
        self._filling = None
        place = self.plan.file(views.view_epoch)
        try:
            # Another process may have been quicker; what others have mapped is left as it is.
            if not place.is_file():
                write_rows(place, filling.rows)
        except (DiskError, OSError) as error:
            self._give_up(str(error), _steps(views))
            return
        self._open(views)

    def _give_up(self, why: str, step: int) -> None:
        self._writes, self._filling = False, None
        self._warn(f"{why}; the teacher's answers are no longer kept", step)

    def _warn(self, text: str, step: int) -> None:
        if self._log is not None:
            self._log({"event": "teacher_cache", "step": step, "warning": text})


def _steps(views: Views) -> int:
    return views.epoch * views.steps_per_epoch + views.step
