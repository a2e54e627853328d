"""A small teacher, feed and training for the tests of its cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgexfer.core.rundir import SCHEMA, RunInfo, open_run
from edgexfer.data.dataset import Dataset
from edgexfer.data.feed import TrainFeed
from edgexfer.distill.cache import CachedTeacher
from edgexfer.distill.cache_plan import CachePlan, plan_cache
from edgexfer.models.create import create_model, default_preprocess
from edgexfer.models.groups import parameter_groups
from edgexfer.models.normalise import PixelModel
from edgexfer.recipe import ModelSection, StudentSection, TrainSection
from edgexfer.training.job import Job
from edgexfer.training.loop import fit
from edgexfer.training.objective import Views

SIZE = 16
TRAIN = TrainSection(
    compile="off",
    epochs=4,
    batch_size=16,
    lr=1e-2,
    views=2,
    augment="flip",
    precision="fp32",
    checkpoint_s=1e-9,
)
STUDENT = StudentSection(ModelSection("resnet8", size=SIZE), train=TRAIN)


class AskedTeacher:
    """A resnet8 with random weights that counts how many images it was asked about."""

    def __init__(self) -> None:
        model, _ = create_model("resnet8", 3, seed=7)
        self.model = PixelModel(model, default_preprocess("resnet8", SIZE)).eval()
        self.asked = 0

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        self.asked += len(pixels)
        # Larger than what random weights give, so that its answers tell images apart.
        logits: Tensor = self.model(pixels)
        return (8 * logits).half().float()


def student(*, train: dict[str, Any] | None = None, **changes: Any) -> StudentSection:
    """Return the student's section with changes to it and to its training."""
    return replace(STUDENT, train=replace(TRAIN, **(train or {})), **changes)


def make_feed(dataset: Dataset, section: StudentSection, **changes: Any) -> TrainFeed:
    """Return the feed that a section describes."""
    train = section.train
    options: dict[str, Any] = {
        "batch_size": train.batch_size,
        "augment": train.augment,
        "seed": train.seed,
        "views": train.views,
        "view_seed": train.view_seed,
        "mixes": bool(train.mixup or train.cutmix),
        "workers": 1,
        **changes,
    }
    return TrainFeed(dataset, default_preprocess("resnet8", SIZE), **options)


def plan(
    dataset: Dataset, section: StudentSection, *, shared: bool = False, **changes: Any
) -> CachePlan:
    """Plan the cache of a section for one teacher and engine."""
    feed = make_feed(dataset, section, **changes)
    return plan_cache(section, "teacher", "torch-fp32", dataset.classes, feed, shared=shared)


def train(
    place: Path,
    dataset: Dataset,
    section: StudentSection,
    teacher: AskedTeacher,
    *,
    fail_at: int | None = None,
) -> tuple[dict[str, bytes], CachedTeacher]:
    """Train a student to give the teacher's logits, and return its weights.

    Args:
        place: the run's folder.
        dataset: the images.
        section: of the student.
        teacher: is asked where the cache has no answer.
        fail_at: the step, counted from 1 in this call, that ends in ``ZeroDivisionError``.
    """
    feed = make_feed(dataset, section)
    model, _ = create_model("resnet8", len(dataset.classes), seed=section.train.seed)
    found = plan_cache(section, "teacher", "torch-fp32", dataset.classes, feed)
    info = RunInfo(SCHEMA, "distill", "running", {}, {}, dataset.fingerprint)
    with open_run(place, info) as run:
        cached = CachedTeacher(teacher, found, feed, run.log)
        steps: set[tuple[int, int]] = set()

        def objective(
            net: nn.Module, pixels: Tensor, targets: Tensor, views: Views
        ) -> tuple[Tensor, dict[str, float]]:
            steps.add((views.epoch, views.step))
            if fail_at is not None and len(steps) >= fail_at:
                raise ZeroDivisionError
            return functional.mse_loss(net(pixels), cached(pixels, views)), {}

        t = section.train
        groups = parameter_groups(model, lr=t.lr, backbone_lr=1.0, weight_decay=t.weight_decay)
        job = Job(
            run=run,
            model=model,
            preprocess=feed.preprocess,
            section=t,
            feed=feed,
            val=None,
            objective=objective,
            groups=groups,
            frozen=[],
            title="student",
            quiet=True,
        )
        fit(job)
    return {n: w.numpy().tobytes() for n, w in model.state_dict().items()}, cached
