"""How far two sets of logits are apart: signal to noise, largest difference, agreement."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Optional, Sequence

import numpy as np

from edgexfer.bench.tasks import answers
from edgexfer.core.tasks import Task


@dataclass(frozen=True)
class Difference:
    """How ``other`` differs from ``reference``.

    Attributes:
        n: images compared.
        sqnr_db: 20·log10(‖y‖₂ / ‖y - ŷ‖₂) over all outputs; ``None`` where they are equal.
        max_abs: largest absolute difference of an output.
        agreement_pct: images with the same top-1 class, in percent.
    """

    n: int
    sqnr_db: Optional[float]
    max_abs: float
    agreement_pct: float

    def at_least(self, limit_db: float) -> bool:
        """Say whether the signal-to-noise ratio reaches ``limit_db``; equal outputs always do."""
        return self.sqnr_db is None or self.sqnr_db >= limit_db


def compare(reference: Any, other: Any, tasks: Sequence[Task] = ()) -> Difference:
    """Compare two arrays of logits (N, C), computed in float64.

    Of several tasks an image agrees where each of them does.

    A value that is not finite in one of them makes the ratio minus infinity, as far as numbers go:
    -1000 dB, and counts as disagreement of its image.

    Raises:
        ValueError: the shapes differ, or there is nothing to compare.
    """
    if reference.shape != other.shape or reference.ndim != 2 or not reference.size:
        raise ValueError(f"cannot compare logits of shapes {reference.shape} and {other.shape}")
    y, other64 = reference.astype(np.float64), other.astype(np.float64)
    good = np.isfinite(y).all(axis=1) & np.isfinite(other64).all(axis=1)
    same = (answers(y, tasks) == answers(other64, tasks)).all(axis=1)
    agreement = 100.0 * float(np.mean(good & same))
    if not good.all():
        return Difference(len(y), -_EXTREME_DB, math.inf, agreement)
    noise = y - other64
    return Difference(len(y), _sqnr_db(y, noise), float(np.abs(noise).max()), agreement)


def ratio_db(reference: Any, other: Any) -> float:
    """Return 20·log10(‖y‖₂ / ‖y - ŷ‖₂) of two arrays of one size, whatever their shapes.

    Equal arrays give 1000 dB; arrays of two sizes, and values that are not finite, give -1000 dB.
    """
    if reference.size != other.size or not np.isfinite(other).all():
        return -_EXTREME_DB
    signal = reference.astype(np.float64).ravel()
    found = _sqnr_db(signal, signal - other.ravel())
    return _EXTREME_DB if found is None else found


_EXTREME_DB = 1000.0


def _sqnr_db(signal: Any, noise: Any) -> Optional[float]:
    power, lost = float(np.linalg.norm(signal)), float(np.linalg.norm(noise))
    if lost == 0.0:
        return None
    return 20.0 * math.log10(power / lost) if power > 0.0 else -_EXTREME_DB
