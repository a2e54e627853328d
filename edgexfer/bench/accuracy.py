"""Accuracy of a loaded artefact on the bundle's evaluation images."""

from __future__ import annotations

from typing import Any, Optional, Tuple

import numpy as np

from edgexfer.bench.feed import normalise, run_once
from edgexfer.core.backend import Session
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.record import Accuracy
from edgexfer.core.stats import wilson


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


def score(logits: Any, labels: Any, split: str, reference: Optional[Any] = None) -> Accuracy:
    """Count the right answers.

    Args:
        logits: (N, C).
        labels: (N,), indices of the right classes.
        split: name of the split that the images are from.
        reference: top-1 classes of another model, (N,), to say how often both agree.
    """
    chosen = logits.argmax(axis=1)
    n, correct = len(labels), int((chosen == labels).sum())
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
        predictions=tuple(int(c) for c in chosen),
        confidences=confidences(logits),
    )


def confidences(logits: Any) -> Tuple[float, ...]:
    """Return the probability that softmax gives the top-1 class of each image, to four places.

    Empty where a logit is not finite: no probability follows from it.
    """
    if not np.isfinite(logits).all():
        return ()
    values = np.asarray(logits, dtype=np.float64)
    top = 1 / np.exp(values - values.max(axis=1, keepdims=True)).sum(axis=1)
    return tuple(round(float(p), 4) for p in top)
