"""Random numbers of a training as a function of (seed, step, rank).

Every step begins by seeding all generators from these three. A resumed training therefore needs no
generator state, a step that is repeated (after memory ran out, or to find the layer that broke)
sees the same dropout masks, and nothing that runs between two steps, such as a validation or a
checkpoint, can change the result. Data order and augmentation are seeded likewise in ``data/``.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch (CPU and GPUs), numpy and Python for one step of one process."""
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
    value = int.from_bytes(digest[:8], "little")
    torch.manual_seed(value)
    np.random.seed(value % 2**32)
    random.seed(value)
