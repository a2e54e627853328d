"""What stands before the first step: checks, formats, optimiser, the checkpoint to go on from."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from edgexfer.core.errors import RecipeError, RunError
from edgexfer.core.progress import say
from edgexfer.core.stats import wilson
from edgexfer.models.head import head_size
from edgexfer.models.normalise import PixelModel
from edgexfer.training import checkpoint, compilation, precision
from edgexfer.training.distributed import World
from edgexfer.training.ema import Ema
from edgexfer.training.job import Job
from edgexfer.training.objective import Views
from edgexfer.training.schedule import refuse_schedule
from edgexfer.training.state import State
from edgexfer.training.step import Stepper

# Half a width of the interval of val accuracy, in points, from which on it decides nothing.
_RESOLUTION_PT = 3.0


def refuse(job: Job, here: World) -> None:
    """Refuse settings that cannot work on this machine or this data.

    Raises:
        RecipeError: naming the key and a value that works.
    """
    section = job.section
    precision.refuse_unusable(section.precision, here.device)
    refuse_schedule(section)
    checks = (
        (
            section.batch_size % here.size == 0,
            f"train.batch_size is {section.batch_size}, which "
            f"{here.size} processes cannot share evenly",
            f"use a multiple of {here.size}",
        ),
        (
            section.patience is None or bool(job.val is not None and len(job.val)),
            "train.patience is set, but there are no val images",
            "set data.val to a share such as 0.1, or leave out train.patience",
        ),
        (bool(job.groups), f"{job.title}: every parameter is frozen", "freeze less"),
    )
    for good, what, fix in checks:
        if not good:
            raise RecipeError(what, fix)


def doubt_validation(job: Job) -> str | None:
    """Say where the val images are too few for early stopping to follow anything but chance.

    Which of two epochs is better cannot be told where accuracies differ by less than the half width
    of the 95 % interval; at 80 % that is 3 points with 700 images.

    Returns:
        A line for people; ``None`` where nothing is decided by them, or they are enough.
    """
    if job.section.patience is None or job.val is None:
        return None
    n = len(job.val)
    low, high = wilson(round(0.8 * n), n)
    half_pt = 100 * (high - low) / 2
    if half_pt <= _RESOLUTION_PT:
        return None
    return (
        f"warning: {n} val images know an accuracy to about ±{half_pt:.0f} points, so "
        "train.patience stops by chance; a larger data.val or no patience is safer"
    )


def train_mode(job: Job) -> None:
    """Put the model into training mode, all but what is frozen."""
    job.model.train()
    for module in job.frozen:
        module.eval()


def choose_precision(job: Job, here: World, pixel_model: PixelModel) -> str:
    """Return the precision of this run: asked for, chosen before, or chosen now and recorded."""
    if job.section.precision != "auto":
        return job.section.precision
    # Of a resumed run only the leader knows; the others must not race alone meanwhile.
    known: Mapping[str, Any] | None = here.share(job.run.info.lineage.get("precision"))
    if known is None:
        objective, batch = _rehearsal(job, here)
        steps = job.section.epochs * job.feed.steps_per_epoch
        known = asdict(precision.race(pixel_model, objective, batch, steps))
    known = here.share(known)
    job.run.set(lineage={**job.run.info.lineage, "precision": known})
    return str(known["precision"])


def choose_compilation(
    job: Job, here: World, pixel_model: PixelModel, chosen: str, *, begun: bool
) -> bool:
    """Return whether this run is compiled: asked for, chosen before, or chosen now and recorded.

    Args:
        job: the training.
        here: its processes.
        pixel_model: on its device, in training mode.
        chosen: the precision.
        begun: whether steps of it are done; those that nothing is recorded of were eager.
    """
    if job.section.compile != "auto":
        return job.section.compile == "on"
    known: Mapping[str, Any] | None = job.run.info.lineage.get("compile")
    if known is None:
        if begun:
            return False
        known = asdict(_compilation(job, here, pixel_model, chosen))
        job.run.set(lineage={**job.run.info.lineage, "compile": known})
    # What one process began may go on in several.
    return bool(known["compiled"]) and here.size == 1


def _compilation(
    job: Job, here: World, pixel_model: PixelModel, chosen: str
) -> compilation.Compilation:
    unsuited = compilation.unsuited(here, job.auxiliary, thaws=job.thaw is not None)
    if unsuited:
        return compilation.Compilation(False, unsuited, {})
    objective, batch = _rehearsal(job, here)
    steps = job.section.epochs * job.feed.steps_per_epoch * job.section.accumulate
    tell = partial(say, quiet=job.quiet)
    return compilation.race(pixel_model, objective, batch, chosen, steps, tell)


def new_state(job: Job, here: World, chosen: str) -> State:
    """Return the state before the first step, for a precision; the model is on its device."""
    section = job.section
    # Fused: one pass over the parameters. With many small ones the plain loop takes longer than
    # the arithmetic.
    optimizer: torch.optim.Optimizer
    if section.optimizer == "adamw":
        optimizer = torch.optim.AdamW(job.groups, fused=True)
    else:
        optimizer = torch.optim.SGD(job.groups, momentum=0.9, nesterov=section.nesterov, fused=True)
    return State(
        model=job.model,
        optimizer=optimizer,
        scaler=torch.amp.GradScaler(here.device.type, enabled=chosen == "fp16"),
        ema=Ema(job.model, section.ema) if section.ema else None,
        micro_batch=_micro_batch(job, here),
        auxiliary=job.auxiliary,
    )


def resume(job: Job, here: World, state: State) -> int:
    """Go back to the newest whole checkpoint; returns how many steps are done."""
    if here.leader:
        checkpoint.sweep(job.run.path)
    snapshot, skipped = checkpoint.newest(job.run.path)
    if snapshot is not None:
        state.restore(snapshot)
    if here.share(state.total) != state.total:
        raise RunError(
            f"{job.run.path}: rank {here.rank} sees other checkpoints than rank 0",
            "put the run on a disk that all machines share",
        )
    if snapshot is not None or skipped:
        job.run.log({"event": "resume", "step": state.total, "skipped": skipped})
    return state.total


def make_stepper(
    job: Job, here: World, state: State, pixel_model: PixelModel, chosen: str
) -> Stepper:
    """Return what computes the steps, in a precision; compiled and distributed where that is so.

    Raises:
        MachineError: it is to be compiled, and there is no compiler.
    """
    model: nn.Module = pixel_model
    if choose_compilation(job, here, pixel_model, chosen, begun=state.total > 0):
        model = compilation.compile_model(model)
    # The races copy the model, but not what the objective looks at beside it, be that the model
    # itself or what is trained along: their gradients are there.
    state.optimizer.zero_grad(set_to_none=True)
    if here.size > 1:
        devices = [here.local_rank] if here.device.type == "cuda" else None
        # Parameters that are still frozen have no gradient to exchange.
        model = DistributedDataParallel(
            model, device_ids=devices, find_unused_parameters=job.thaw is not None
        )
        # It begins with an exchange of buffers.
        model.register_forward_pre_hook(lambda *_: here.arrive())
    return Stepper(
        model=model,
        bare=pixel_model,
        objective=job.objective,
        optimizer=state.optimizer,
        precision=chosen,
        scaler=state.scaler,
        micro_batch=state.micro_batch,
        clip_grad=job.section.clip_grad,
        seed=job.section.seed,
        rank=here.rank,
        auxiliary=job.auxiliary,
    )


def _rehearsal(job: Job, here: World) -> tuple[precision.Timed, tuple[Tensor, Tensor]]:
    """Return the objective and a batch to time steps with; nothing of it counts as training."""
    with closing(job.feed.epoch(0)) as batches:
        batch = next(batches)
    # No more at once than the training itself: what fits there fits here.
    few = slice(_micro_batch(job, here))
    pixels, labels = to_device(batch.images[few], batch.labels[few], here.device)
    views = Views.of(batch, job.feed.steps_per_epoch, rehearsal=True)

    def objective(model: nn.Module, some: Tensor, wanted: Tensor) -> Tensor:
        return job.objective(model, some, wanted, views.part(0, len(some)))[0]

    return objective, (pixels, one_hot(labels, head_size(job.model)))


def _micro_batch(job: Job, here: World) -> int:
    return -(-job.section.batch_size // (here.size * job.section.accumulate))


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Return labels (B,) as float32 (B, classes); a label of -1 is none, a row of zeros.

    Labels of several tasks (B, T) are places among all outputs, so that each sets its own.
    """
    found = F.one_hot(labels.clamp(min=0), classes).float() * (labels >= 0).unsqueeze(-1)
    return found.sum(1) if labels.ndim > 1 else found


def to_device(images: Tensor, labels: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return pixels as float32 on 0..255 in channels-last order, and labels, on the device."""
    if device.type == "cuda":
        images, labels = images.pin_memory(), labels.pin_memory()
    pixels = images.to(device, non_blocking=True).float()
    return (
        pixels.contiguous(memory_format=torch.channels_last),
        labels.to(device, non_blocking=True),
    )
