"""Accuracy of a loaded artefact on the bundle's evaluation images."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Optional, Sequence

import numpy as np

from edgexfer.bench.feed import normalise, run_once
from edgexfer.bench.tasks import answers, by_task, codes, confidences, right
from edgexfer.core.backend import Session
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.record import Accuracy
from edgexfer.core.stats import wilson
from edgexfer.core.tasks import Task


def predict(session: Session, images: Any, preprocess: Preprocess, batch: int = 1) -> Any:
    """Run images through a session and return its logits.

    Args:
        session: a loaded artefact with one input.
        images: uint8, (N, H, W, 3), RGB, of the model's size; N at least 1.
        preprocess: its normalisation.
        batch: images per call; above 1 only where the artefact's batch is free. A last, smaller
            batch is run as it is.

    Returns:
        float32, (N, C).
    """
    parts = [
        run_once(session, normalise(images[start : start + batch], preprocess))
        for start in range(0, len(images), batch)
    ]
    return np.concatenate(parts).astype(np.float32, copy=False)


def predict_apart(lanes: Sequence[Session], images: Any, preprocess: Preprocess) -> Any:
    """Do what ``predict`` does, image by image, on several sessions of a model at the same time."""
    used = lanes[: len(images)]
    shares = np.array_split(images, len(used))
    with ThreadPoolExecutor(len(used)) as pool:
        parts = pool.map(lambda lane, share: predict(lane, share, preprocess), used, shares)
        return np.concatenate(list(parts))


def score(
    logits: Any,
    labels: Any,
    split: str,
    reference: Optional[Any] = None,
    tasks: Sequence[Task] = (),
) -> Accuracy:
    """Count the right answers.

    Args:
        logits: (N, C).
        labels: (N,), indices of the right classes; (N, T) of several tasks, -1 for none.
        split: name of the split that the images are from.
        reference: top-1 classes of another model, (N,), to say how often both agree.
        tasks: of the model; empty for one.
    """
    chosen = np.asarray(codes(answers(logits, tasks), labels, tasks), dtype=object)
    n, correct = len(labels), int(right(logits, labels, tasks).sum())
    low, high = wilson(correct, n)
    agreement = None if reference is None else 100.0 * float((chosen == reference).mean())
    return Accuracy(
        split=split,
        n=n,
        correct=correct,
        top1_pct=100.0 * correct / n,
        low_pct=100.0 * low,
        high_pct=100.0 * high,
        agreement_pct=agreement,
        predictions=tuple(chosen),
        confidences=confidences(logits, labels, tasks),
        tasks=by_task(logits, labels, tasks),
    )
