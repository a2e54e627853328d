"""Strategy ``prototype``: the head is made of class means, nothing is trained (few-shot).

Features f (F,) are scaled to length 1, and so is the mean μ_c of each class's training images, its
prototype; an image belongs to the nearest one (Snell et al., "Prototypical Networks for Few-shot
Learning", NIPS 2017, equation 8: -|f - μ|² is linear in f, with w = 2μ and b = -|μ|²). Since all
|μ_c| are 1, the nearest prototype of f is that of f/|f| too, so that a plain linear head says the
same of features as they come, and deploys like any other. One image of a class is enough; augment,
epochs and learning rate have no effect.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import torch

from edgexfer.core.errors import ModelError
from edgexfer.models.head import HIDDEN, head_names, head_parameters, output_names
from edgexfer.training.distributed import world
from edgexfer.training.evaluate import predict_logits, top1_pct
from edgexfer.training.job import FitResult, Job
from edgexfer.transfer.backbone import Float32, unit, unit_features
from edgexfer.transfer.plan import Plan, Subject, training_images

NEEDS_WEIGHTS = True


def prepare(subject: Subject) -> Plan:
    """Have the head written instead of trained.

    Raises:
        ModelError: the model has two heads, or a hidden layer in its head.
    """
    model = subject.built.model
    names = head_names(model)
    if len(names) > 1:
        raise ModelError(
            f"{subject.built.name}: has two heads ({' and '.join(names)}), but prototype makes one",
            "use --strategy probe",
        )
    if names != output_names(model):
        raise ModelError(
            f"{subject.built.name}: its head has a hidden layer, but prototype makes a linear one",
            f"leave the model's option {HIDDEN} out",
        )
    return Plan(train=lambda job: _write_head(job, subject))


def prototypes(
    features: Float32, labels: npt.NDArray[np.int64], classes: int
) -> tuple[Float32, Float32]:
    """Return the linear head whose largest output is the nearest prototype.

    Args:
        features: (N, F), each of length 1.
        labels: (N,), places among the classes, each of which has an image.
        classes: how many there are.

    Returns:
        Weight (classes, F) and bias (classes,).
    """
    means = unit(np.stack([features[labels == c].mean(axis=0) for c in range(classes)]))
    return 2 * means, -np.square(means).sum(axis=1)


def _write_head(job: Job, subject: Subject) -> FitResult:
    """Write the prototypes of the training images into the head; every process does the same."""
    started = time.monotonic()
    images = training_images(subject)
    features = unit_features(job.model, job.preprocess, images)
    weight, bias = prototypes(features, images.labels.numpy(), len(subject.dataset.classes))
    with torch.no_grad():
        for parameter in head_parameters(job.model).values():
            # A head without bias says the same: all biases are -1.
            values = torch.from_numpy(weight if parameter.ndim > 1 else bias)
            parameter.copy_(values.view_as(parameter))
    job.model.to(world().device).eval()
    right_pct = None
    if job.val is not None and len(job.val):
        logits = predict_logits(job.model, job.preprocess, job.val)
        right_pct = top1_pct(logits, job.val.labels)
    seconds = time.monotonic() - started
    return FitResult(
        steps=0,
        epochs=0,
        best_val_top1_pct=right_pct,
        best_epoch=0,
        val_top1_pct=right_pct,
        images_per_s=len(images) / seconds,
        precision="fp32",
        micro_batch=len(images),
        seconds=seconds,
        resumed_from=0,
    )
