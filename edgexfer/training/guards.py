"""What stops a training before it does harm: values that are not finite, memory that ran out."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgexfer.core.errors import TrainingError, first_line


@dataclass(frozen=True)
class Where:
    """Where in a training a step stands.

    Attributes:
        step: from 1.
        epoch: from 1.
        files: keys of the batch's images.
        lr: the highest learning rate of the step.
    """

    step: int
    epoch: int
    files: Sequence[str]
    lr: float


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error is torch's way of saying that memory ran out, on GPU or CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and bool(
        re.search(r"DefaultCPUAllocator: (can't|not enough)|out of memory", str(error))
    )


@contextmanager
def memory_errors() -> Iterator[None]:
    """Tell memory that ran out where smaller micro-batches are no mend: optimiser, validation.

    Raises:
        TrainingError: with what helps there.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = first_line(error, 100)
        raise TrainingError(
            f"memory ran out beside the micro-batches, in the optimiser or validation ({reason})",
            "choose a smaller model or model.size, or a machine with more memory",
        ) from error


def not_finite(
    where: Where, loss: float, norm: float, model: nn.Module, repeat: Callable[[], Tensor]
) -> TrainingError:
    """Describe a step whose loss or gradient is not finite; nothing was updated yet.

    Args:
        where: the step.
        loss: its loss.
        norm: the norm of its gradient.
        model: the one that is trained.
        repeat: runs the forward pass of the step again and returns the loss.

    Returns:
        The error to raise; it names the step, the layer and the files.
    """
    layer = _first_layer(model, repeat)
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
    place = f", first in {layer}" if layer else ""
    shown = ", ".join(where.files[:3]) + (
        f" and {len(where.files) - 3} more" if len(where.files) > 3 else ""
    )
    return TrainingError(
        f"step {where.step} (epoch {where.epoch}): {what}{place}; images: {shown}",
        f"lower train.lr (now {where.lr:.3g}), set train.clip_grad: 1.0, or look at those images; "
        "the last checkpoint is intact",
    )


def _first_layer(model: nn.Module, repeat: Callable[[], Tensor]) -> str | None:
    """Repeat the step and name the first layer whose output, else gradient, is not finite."""
    found: list[str] = []

    def look(name: str, output: object) -> None:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return
        note(f"the output of layer {name}", output)
        if output.requires_grad:
            hooked: Any = output  # torch has no type for the method
            hooked.register_hook(lambda grad: note(f"the gradient of layer {name}", grad))

    def note(place: str, tensor: Tensor) -> None:
        if not bool(torch.isfinite(tensor).all()):
            found.append(place)

    def hook(name: str) -> Callable[..., None]:
        return lambda *call: look(name, call[-1])

    leaves = [(n, m) for n, m in model.named_modules() if next(m.children(), None) is None]
    handles = [module.register_forward_hook(hook(name)) for name, module in leaves]
    try:
        loss = repeat()
        if not found:
            torch.autograd.backward(loss)
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)
    return found[0] if found else None
