"""The teacher as distillation asks it: eval mode, own normalisation, the student's class order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from edgexfer.core.errors import RunError
from edgexfer.core.files import PathLike
from edgexfer.core.rundir import read_run
from edgexfer.models.classes import match_classes
from edgexfer.models.normalise import PixelModel
from edgexfer.models.store import load_model


class Teacher(nn.Module):
    """A finished run's model that answers with logits of the student's classes.

    It is fed raw pixels and normalises and resizes them itself, as it was trained; it never trains,
    never leaves eval mode, and no gradient flows through it.
    """

    order: Tensor

    def __init__(self, model: nn.Module, order: Sequence[int], weights_sha256: str) -> None:
        """Freeze the model.

        Args:
            model: takes pixels (B, 3, H, W) on 0..255, gives logits.
            order: for each of the student's classes the teacher's output.
            weights_sha256: of the teacher's weights; it goes into the student's run.
        """
        super().__init__()
        self.model = model.requires_grad_(False)
        self.weights_sha256 = weights_sha256
        self.reordered = list(order) != list(range(len(order)))
        self.register_buffer("order", torch.as_tensor(list(order), dtype=torch.int64))
        self.train(False)

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode, whatever is asked: batch-norm statistics and dropout stand still."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (B, C) in the student's class order, for pixels (B, 3, H, W) on 0..255."""
        logits: Tensor = self.model(pixels)
        return logits[:, self.order] if self.reordered else logits[:, : len(self.order)]


def load_teacher(run: PathLike, classes: Sequence[str]) -> Teacher:
    """Load a finished run as the teacher of a student with these classes.

    Args:
        run: folder of a finished ``finetune`` or ``distill``.
        classes: the student's class names, in the order of its outputs.

    Raises:
        RunError: the run is not finished.
        ModelError: the teacher lacks a class that the student has.
    """
    info = read_run(run)
    if info.status != "done":
        raise RunError(
            f"{run}: the teacher's training is not finished ({info.status})",
            "type its `edgexfer finetune` command again; it goes on where it stopped",
        )
    model, card = load_model(Path(run))
    order = match_classes(card.classes, classes, str(run))
    return Teacher(PixelModel(model, card.preprocess), order, card.weights_sha256)
