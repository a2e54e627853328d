"""Self-supervised pre-training: images without labels in, weights to fine-tune from out.

Method ``simclr`` (Chen et al., "A Simple Framework for Contrastive Learning of Visual
Representations", 2020): two views of each image go through the model and a projection g, and each
is to be nearest to its partner among all views of the batch (NT-Xent, equation 1). The model's head
is the first layer of g, so that DDP and the optimiser know it as they know any head; batch norm,
ReLU and the second layer stand beside the model. Both are thrown away.

The loss is a few lines, the views are ours in any case (a function of seed, epoch and index, so
that a killed training resumes to the bit), and so is the loop; a library such as lightly would
bring a second loop with pytorch-lightning and a configuration language along, for those few lines.

Several processes compare each view with those of all of them, as the paper's own training does:
embeddings are gathered, and the gradient is that of one process with the whole batch.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from edgexfer.core.codec import encode
from edgexfer.core.errors import DataError, RecipeError, TrainingError
from edgexfer.core.files import PathLike
from edgexfer.core.rundir import RunDir, RunInfo
from edgexfer.data.dataset import Dataset, open_pictures
from edgexfer.data.simclr import two_views
from edgexfer.models.features import feature_size
from edgexfer.models.head import HIDDEN, set_head
from edgexfer.recipe import DataSection, PretrainSection, TrainSection
from edgexfer.training.distributed import joined, world
from edgexfer.training.job import FitResult
from edgexfer.training.loop import fit
from edgexfer.training.objective import Objective, Views
from edgexfer.training.stage import (
    Built,
    build_model,
    conclude,
    make_feed,
    make_job,
    open_training,
    train_along,
)

#: The one class of a model that has learned no classes: no data set has a single one, so that
#: fine-tuning always makes the head anew.
CLASSES = ("unlabelled",)
# What a training with labels, views from the feed, or steps in parts would heed.
_UNUSED = (
    *("accumulate", "patience", "mixup", "cutmix", "label_smoothing", "views", "view_seed"),
    *("balance", "task_weights"),
)


def pretrain(data: DataSection, section: PretrainSection, out: PathLike) -> RunInfo:
    """Pre-train a model on images without labels; an unfinished run in ``out`` goes on.

    Args:
        data: the images: a folder; only what says how they are read counts.
        section: architecture, method and schedule.
        out: the run's folder.

    Raises:
        RecipeError: a setting is of no use without labels.
        ModelError: the architecture or its weights are unusable.
        DataError: the images are unusable, or too few to be compared with each other.
        RunError: ``out`` holds something else.
        TrainingError: the loss became non-finite, or memory ran out.
        Interrupted: by Ctrl-C or SIGTERM; the state is saved.
    """
    # 1. Refuse what cannot work before anything is written.
    _refuse(section)
    section = replace(section, train=replace(section.train, augment="none"))
    dataset = open_pictures(data.path, data.limit)
    with joined() as here, open_training("pretrain", out, encode(section), data, dataset) as run:
        if here.share(run.done):
            return run.info

        # 2. The architecture; its head becomes the first layer of the projection.
        train = section.train
        built = build_model(section.model, len(CLASSES), train.seed)
        width = feature_size(built.model)
        set_head(built.model, width, seed=train.seed)
        projection = _projection(width, section.projection, train.seed)

        # 3. The images as they are: the views are made in the step.
        feed = make_feed(data, dataset, built.preprocess, train)
        share = feed.order(0).shape[1] // here.size
        if share < 2:
            raise DataError(
                f"{data.path}: {len(feed.keys)} usable images, in steps of {share} per process; "
                "SimCLR compares images of a step with each other",
                "add images, or set train.batch_size to at least 2 per process",
            )

        # 4. The one loop.
        objective = simclr(projection, section, share)
        job = make_job(run, built, train, feed, None, objective)
        train_along(job, projection, "projection")
        result = fit(job)
        return _finish(run, built, result, dataset)


def nt_xent(embeddings: Tensor, temperature: float) -> Tensor:
    """Return NT-Xent: the mean of -log softmax(cos/τ) at the partner, a view itself left out.

    Args:
        embeddings: (2N, D); views i and i + N are partners.
        temperature: τ.
    """
    unit = F.normalize(embeddings.float(), dim=1)
    views = len(unit)
    similarity = unit @ unit.T / temperature
    itself = torch.eye(views, dtype=torch.bool, device=unit.device)
    partners = torch.arange(views, device=unit.device).roll(views // 2)
    return F.cross_entropy(similarity.masked_fill(itself, -torch.inf), partners)


def gathered_nt_xent(embeddings: Tensor, temperature: float) -> Tensor:
    """Return NT-Xent over the views of all processes; with one it is ``nt_xent``.

    The value is the same in all of them. The gradient of this process's embeddings is multiplied by
    the number of processes, so that the mean that DDP takes is the gradient of the whole batch.

    Args:
        embeddings: (2N, D) of this process; views i and i + N are partners.
        temperature: τ.
    """
    here = world()
    if here.size == 1:
        return nt_xent(embeddings, temperature)
    own = embeddings.float().contiguous()
    everyone = [torch.empty_like(own) for _ in range(here.size)]
    here.arrive()
    dist.all_gather(everyone, own.detach())
    everyone[here.rank] = own
    firsts, seconds = zip(*(part.chunk(2) for part in everyone), strict=True)
    loss = nt_xent(torch.cat([*firsts, *seconds]), temperature)
    return loss + (here.size - 1) * (loss - loss.detach())


def simclr(projection: nn.Module, section: PretrainSection, share: int) -> Objective:
    """Return SimCLR as an objective.

    Args:
        projection: what stands behind the model's head.
        section: temperature, jitter and seed.
        share: images of a step and process, which must go through the model at once.
    """
    seed = section.train.seed

    def objective(
        model: nn.Module, pixels: Tensor, targets: Tensor, views: Views
    ) -> tuple[Tensor, dict[str, Tensor]]:
        del targets
        # What is only timed may be a part of a step.
        if len(pixels) < share and not views.rehearsal:
            raise TrainingError(
                f"memory ran out with {share} images at once, each of them in two views",
                "choose a smaller train.batch_size, model or model.size",
            )
        pair = two_views(pixels, views.index, seed, views.epoch, section.jitter)
        embeddings = projection(model(torch.cat(pair)))
        # What is only timed is timed by each process alone.
        loss = nt_xent if views.rehearsal else gathered_nt_xent
        with torch.autocast(embeddings.device.type, enabled=False):
            return loss(embeddings, section.temperature), {}

    return objective


def _refuse(section: PretrainSection) -> None:
    plain = TrainSection()
    for key in _UNUSED:
        value = getattr(section.train, key)
        if value != getattr(plain, key):
            raise RecipeError(
                f"train.{key} is {value}, but SimCLR has no labels, makes its own views, and "
                "compares all images of a step",
                f"leave out train.{key}",
            )


def _projection(width: int, size: int, seed: int) -> nn.Module:
    """Return what stands behind the first layer of the projection.

    Statistics are each batch's own: with nothing kept, nothing has to be resumed or shared.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.BatchNorm1d(width, track_running_stats=False),
            nn.ReLU(),
            nn.Linear(width, size, bias=False),
        )


def _finish(run: RunDir, built: Built, result: FitResult, dataset: Dataset) -> RunInfo:
    """Save the model under an untrained head for no class, and mark the run as done."""
    if not world().leader:
        return run.info
    set_head(built.model, len(CLASSES), hidden=built.options.get(HIDDEN))
    images = len(dataset.splits["train"])
    return conclude(run, built, result, CLASSES, {"images": images})
