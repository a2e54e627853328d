"""The training loop: one for teacher, student and every strategy.

``fit`` reads top to bottom in the order of the work. What a step does is in ``step.py``, what is
kept of it in ``state.py``, where it is kept in ``checkpoint.py``.
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import asdict, dataclass

import torch

from edgexfer.core.errors import Interrupted
from edgexfer.core.progress import Progress, say
from edgexfer.data.augment import mix
from edgexfer.data.feed import Batch
from edgexfer.data.images import Images
from edgexfer.models.head import head_size
from edgexfer.models.normalise import PixelModel
from edgexfer.training import checkpoint, depthwise, host
from edgexfer.training.distributed import World, lost_contact, world
from edgexfer.training.evaluate import count_right
from edgexfer.training.guards import Where, memory_errors, not_finite
from edgexfer.training.job import FitResult, Job
from edgexfer.training.metrics import Metrics
from edgexfer.training.objective import Objective, Views
from edgexfer.training.schedule import Schedule
from edgexfer.training.setup import (
    choose_precision,
    doubt_validation,
    make_stepper,
    new_state,
    one_hot,
    refuse,
    resume,
    to_device,
    train_mode,
)
from edgexfer.training.signals import StopRequest
from edgexfer.training.state import State
from edgexfer.training.step import Outcome, Stepper

# What a stage needs to train, in one place.
__all__ = ["FitResult", "Job", "Objective", "fit"]

_LOGS_PER_EPOCH = 20


def fit(job: Job) -> FitResult:
    """Train a model; an unfinished training in the run goes on where it stopped.

    On a CPU, with the same number of threads and the same versions, a training that was interrupted
    ends with the same weights, to the bit, as one that was not; GPUs do not promise as much.

    Afterwards ``job.model`` holds the weights to deploy, in eval mode: of the best epoch where
    ``section.patience`` is set, else the average where ``section.ema`` is, else the last.

    Raises:
        TrainingError: the loss or gradient is not finite, memory ran out with one image at a time,
            in the optimiser or in validation, or another process has ended or hangs.
        Interrupted: Ctrl-C or SIGTERM; the state was saved.
        DiskError: a checkpoint cannot be written; the one before is intact.
        RecipeError: the settings do not fit the machine or the data.
    """
    started = time.monotonic()
    here = world()
    refuse(job, here)
    doubt = doubt_validation(job)
    if doubt is not None and here.leader:
        say(doubt, quiet=job.quiet)
    job.run.set(lineage={**job.run.info.lineage, "malloc_tuned": host.tune_malloc()})

    # 1. Everything on the device, as it was built or as the newest checkpoint has it.
    pixel_model = PixelModel(job.model, job.preprocess)
    pixel_model.to(here.device).to(memory_format=torch.channels_last)
    depthwise.keep_float32(job.model)
    if job.auxiliary is not None:
        job.auxiliary.to(here.device)
    train_mode(job)
    chosen = choose_precision(job, here, pixel_model)
    state = new_state(job, here, chosen)
    resumed_from = resume(job, here, state)
    stepper = make_stepper(job, here, state, pixel_model, chosen)
    training = _Training(job, here, state, stepper, PixelModel(state.deployed, job.preprocess))
    training.pixel_deployed.to(here.device)

    # 2. Epoch after epoch, step after step.
    per_epoch, section = job.feed.steps_per_epoch, job.section
    progress = Progress(
        job.title,
        section.epochs * per_epoch * section.batch_size,
        quiet=job.quiet or not here.leader,
    )
    metrics = Metrics(job.run, state.total, leader=here.leader)
    with StopRequest() as stop, lost_contact(here), memory_errors(), metrics, progress:
        progress.skip(state.total * section.batch_size)
        while state.epoch < section.epochs and not _exhausted(state, section.patience):
            training.epoch(stop, metrics, progress)
            training.end_epoch(metrics)
            # Asked for while it validated; everything is saved already.
            if training.asked(stop):
                raise _interrupted(job, state, stop.name)

    # 3. The weights to deploy.
    state.deploy()
    return FitResult(
        steps=state.total,
        epochs=state.epoch,
        best_val_top1_pct=state.best.top1_pct,
        best_epoch=state.best.epoch,
        val_top1_pct=state.best.top1_pct if section.patience is not None else state.last_top1_pct,
        images_per_s=metrics.images_per_s,
        precision=chosen,
        micro_batch=state.micro_batch,
        seconds=time.monotonic() - started,
        resumed_from=resumed_from,
    )


@dataclass
class _Training:
    """A training under way."""

    job: Job
    here: World
    state: State
    stepper: Stepper
    pixel_deployed: PixelModel

    def __post_init__(self) -> None:
        per_epoch = self.job.feed.steps_per_epoch
        self.schedule = Schedule.of(self.job.section, per_epoch)
        self.classes = head_size(self.job.model)
        self.log_every = max(per_epoch // _LOGS_PER_EPOCH, 1)
        self.saved_at = time.monotonic()

    def epoch(self, stop: StopRequest, metrics: Metrics, progress: Progress) -> None:
        """Run what is left of the epoch under way."""
        state, per_epoch = self.state, self.job.feed.steps_per_epoch
        if state.step >= per_epoch:
            return
        if self.job.thaw is not None:
            self.job.frozen = self.job.thaw(state.epoch)
        train_mode(self.job)
        begun = time.perf_counter()
        # Closed in any case: the feed's threads must not outlive an error.
        with closing(self.job.feed.epoch(state.epoch, state.step)) as batches:
            for batch in batches:
                lr = self.schedule.set(state.optimizer, state.total)
                outcome = self._step(batch, lr, metrics)
                if state.ema is not None:
                    state.ema.update(state.total)
                state.step, state.total = state.step + 1, state.total + 1
                images = len(batch.labels) * self.here.size
                metrics.count(images, time.perf_counter() - begun)
                progress.update(images, f"epoch {state.epoch + 1}  loss {outcome.loss:.3g}")
                if state.total % self.log_every == 0:
                    self._log(outcome, lr, metrics)
                if self.asked(stop):
                    self._save()
                    raise _interrupted(self.job, state, stop.name)
                if time.monotonic() - self.saved_at >= self.job.section.checkpoint_s:
                    self._save()
                begun = time.perf_counter()

    def asked(self, stop: StopRequest) -> bool:
        """Say whether any of the processes was asked to end."""
        return bool(self.here.sum(float(stop.name is not None))[0])

    def end_epoch(self, metrics: Metrics) -> None:
        """Validate, take note of the best epoch, and save."""
        state, section = self.state, self.job.section
        state.epoch, state.step = state.epoch + 1, 0
        if self.job.val is not None and len(self.job.val):
            top1_pct = self._validate(self.job.val)
            state.judge(top1_pct, keep=section.patience is not None)
            metrics.log("val", state.total, {"epoch": state.epoch, "top1_pct": top1_pct})
        self._save()

    def _step(self, batch: Batch, lr: float, metrics: Metrics) -> Outcome:
        state, stepper, section = self.state, self.stepper, self.job.section
        pixels, labels = to_device(batch.images, batch.labels, self.here.device)
        targets = one_hot(labels, self.classes)
        views = Views.of(batch, self.job.feed.steps_per_epoch)
        if section.mixup or section.cutmix:
            pixels, targets = mix(
                pixels,
                targets,
                mixup=section.mixup,
                cutmix=section.cutmix,
                seed=section.seed,
                epoch=batch.view_epoch,
                step=batch.step,
            )
        total = state.total

        def shrunk(micro_batch: int) -> None:
            state.micro_batch = micro_batch
            metrics.log("out_of_memory", total, {"micro_batch": micro_batch})

        outcome = stepper.gradients(total, pixels, targets, views, shrunk)
        overflow = stepper.scaler.is_enabled() and math.isfinite(outcome.loss)
        if not math.isfinite(outcome.loss) or not (math.isfinite(outcome.norm) or overflow):
            files = [self.job.feed.keys[i] for i in batch.index.tolist()]
            where = Where(total + 1, state.epoch + 1, files, lr)
            error = not_finite(
                where,
                outcome.loss,
                outcome.norm,
                self.job.model,
                lambda: stepper.repeat(total, pixels, targets, views),
            )
            metrics.log("not_finite", total, {**asdict(where), "error": error.what})
            raise error
        stepper.apply(outcome.norm)
        return outcome

    def _log(self, outcome: Outcome, lr: float, metrics: Metrics) -> None:
        names = list(outcome.parts)
        values = (outcome.loss, outcome.norm, *outcome.parts.values())
        means = [v / self.here.size for v in self.here.sum(*values)]
        event = {
            "epoch": self.state.epoch + 1,
            "loss": means[0],
            "grad_norm": means[1],
            **dict(zip(names, means[2:], strict=True)),
            "lr": lr,
            "images_per_s": metrics.images_per_s,
        }
        metrics.log("train", self.state.total, event)

    def _validate(self, val: Images) -> float:
        """Return the accuracy on the val images in percent; each process looks at its share."""
        self.here.share_buffers(self.pixel_deployed)
        mine = range(self.here.rank, len(val), self.here.size)
        return 100 * self.here.sum(count_right(self.pixel_deployed, val, mine))[0] / len(val)

    def _save(self) -> None:
        if self.here.leader:
            checkpoint.save(self.job.run.path, self.state.snapshot())
        self.saved_at = time.monotonic()


def _exhausted(state: State, patience: int | None) -> bool:
    return patience is not None and state.best.waited >= patience


def _interrupted(job: Job, state: State, signal: str | None) -> Interrupted:
    total = job.section.epochs * job.feed.steps_per_epoch
    return Interrupted(
        f"{job.run.path}: stopped by {signal or 'a signal to another process'} after step "
        f"{state.total} of {total}; the state is saved",
        "type the same command again to go on from there",
    )
