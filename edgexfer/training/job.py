"""What a training is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from edgexfer.core.preprocess import Preprocess
from edgexfer.core.rundir import RunDir
from edgexfer.data.feed import TrainFeed
from edgexfer.data.images import Images
from edgexfer.recipe import TrainSection
from edgexfer.training.objective import Objective


@dataclass
class Job:
    """One training.

    Attributes:
        run: where it is kept.
        model: bare, takes normalised images; trained in place.
        preprocess: how the model is fed.
        section: schedule, optimiser, speed.
        feed: the training batches of this process.
        val: images to validate on after each epoch; ``None`` validates never.
        objective: what is minimised.
        groups: parameter groups of the optimiser, each with its peak learning rate.
        frozen: modules that stay in eval mode, so that their statistics stand still.
        title: for the progress line.
        quiet: show no progress.
        thaw: called before each epoch with its number, from 0: sets which parameters move, and
            returns the modules that stay in eval mode from then on; ``None`` changes nothing.
        auxiliary: what is trained along with the model and not deployed, such as the projectors of
            a feature loss; its parameters stand in ``groups`` too.
    """

    run: RunDir
    model: nn.Module
    preprocess: Preprocess
    section: TrainSection
    feed: TrainFeed
    val: Images | None
    objective: Objective
    groups: list[dict[str, Any]]
    frozen: list[nn.Module]
    title: str
    quiet: bool = False
    thaw: Callable[[int], list[nn.Module]] | None = None
    auxiliary: nn.Module | None = None


@dataclass(frozen=True)
class FitResult:
    """How a training went.

    Attributes:
        steps: optimiser steps in all.
        epochs: epochs in all; fewer than asked for where it stopped early.
        best_val_top1_pct: best val accuracy of an epoch, in percent; ``None`` without validation.
        best_epoch: its number, from 1; 0 without validation.
        val_top1_pct: val accuracy of the weights that are deployed.
        images_per_s: median over the steps of this process's life, all processes together.
        precision: what it computed in.
        micro_batch: images that went through the model at once in the end, per process.
        seconds: of this process's life.
        resumed_from: steps that earlier processes had done.
    """

    steps: int
    epochs: int
    best_val_top1_pct: float | None
    best_epoch: int
    val_top1_pct: float | None
    images_per_s: float
    precision: str
    micro_batch: int
    seconds: float
    resumed_from: int
