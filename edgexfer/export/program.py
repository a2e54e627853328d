"""A trained model as a ``.pt2`` program, which torch runs without the code that built the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from edgexfer.core.errors import ModelError, first_line
from edgexfer.core.tasks import Task
from edgexfer.models.onnx import BATCH, frozen, merged, quiet


class _ByTask(nn.Module):
    """A model with an output for each task."""

    def __init__(self, model: nn.Module, tasks: Sequence[Task]) -> None:
        super().__init__()
        self._model, self._sizes = model, [len(task.classes) for task in tasks]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.split(self._model(images), self._sizes, dim=1)


def export_program(
    model: nn.Module, size: tuple[int, int], out: Path, tasks: Sequence[Task] = ()
) -> Path:
    """Write a model as a ``torch.export`` program with a free batch.

    Args:
        model: takes (batch, 3, height, width), float32 and normalised; it is as before afterwards.
        size: height and width of the input in pixels.
        out: file to write, ``.pt2``.
        tasks: what the model's outputs are about, where that is more than one question; each has
            an output of its own then.

    Raises:
        ModelError: the model cannot be traced.
    """
    shapes = ({0: torch.export.Dim(BATCH)},)
    whole = _ByTask(model, tasks) if tasks else model
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(
                merged(frozen(whole)), (torch.zeros(2, 3, *size),), dynamic_shapes=shapes
            )
            _strip(program)
            torch.export.save(program, out)
    except Exception as error:  # the exporter wraps whatever the model's own code raises
        raise ModelError(
            f"model {type(model).__name__} cannot be exported as a program ({first_line(error)})",
            "choose an architecture without data-dependent control flow",
        ) from error
    return out


def _strip(program: torch.export.ExportedProgram) -> None:
    """Remove what tells of the machine and not of the model: stack traces with their paths."""
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
