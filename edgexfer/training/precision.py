"""Which number format a training computes in: what is asked for, or what a short race says.

bf16 doubles the speed of a resnet on hardware that has it, gives a small mobile network little and
may slow others down, so that no default is right: ``auto`` times a few steps of both.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgexfer.core.errors import RecipeError
from edgexfer.training.guards import is_out_of_memory

# The loss of a model on pixels and targets.
Timed = Callable[[nn.Module, Tensor, Tensor], Tensor]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# The race: images per step, steps of each format after one to warm up, and the gain that the
# lower precision must show. Shorter trainings than this many steps are not worth a race.
_IMAGES, _STEPS, _GAIN, _WORTH = 64, 4, 1.05, 200


@dataclass(frozen=True)
class Choice:
    """A format and how it came to be chosen.

    Attributes:
        precision: ``fp32``, ``bf16`` or ``fp16``.
        why: for the run's lineage.
        step_ms: median time of one step of each format that raced, in milliseconds.
    """

    precision: str
    why: str
    step_ms: dict[str, float]


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context in which a forward pass computes in a format."""
    dtype = DTYPES.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def refuse_unusable(precision: str, device: torch.device) -> None:
    """Refuse fp16 without a GPU: its gradients need hardware that CPUs lack.

    Raises:
        RecipeError: with the format to take instead.
    """
    if precision == "fp16" and device.type != "cuda":
        raise RecipeError(
            "train.precision is fp16, but this machine has no CUDA device",
            "use bf16, fp32 or auto",
        )


def candidate(device: torch.device) -> str | None:
    """Return the format below fp32 that the hardware can compute in, ``None`` for none."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    onednn: Any = torch.backends.mkldnn  # torch has no types for it
    usable = onednn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16" if usable else None


def race(model: nn.Module, objective: Timed, batch: tuple[Tensor, Tensor], steps: int) -> Choice:
    """Time steps in fp32 and in the hardware's lower precision on a copy of the model.

    Args:
        model: a PixelModel in training mode; it is not changed.
        objective: what is minimised.
        batch: pixels float32 (B, 3, H, W) on 0..255 and targets (B, C), on the model's device.
        steps: of the whole training.

    Returns:
        The faster format; where memory runs out, the lower one, which needs less of it.
    """
    lower = candidate(batch[0].device)
    if lower is None:
        return Choice("fp32", "the hardware has no lower precision", {})
    if steps < _WORTH:
        return Choice("fp32", f"{steps} steps are too few to time formats first", {})
    trial = copy.deepcopy(model)
    entrants = {"fp32": (trial, "fp32"), lower: (trial, lower)}
    pixels, targets = batch
    try:
        medians = time_steps(entrants, objective, (pixels[:_IMAGES], targets[:_IMAGES]))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return Choice(lower, "memory ran out while formats were timed", {})
    gain = medians["fp32"] / medians[lower]
    chosen = lower if gain >= _GAIN else "fp32"
    return Choice(chosen, f"a step in {lower} is {gain:.2f} times as fast as in fp32", medians)


def time_steps(
    entrants: Mapping[str, tuple[nn.Module, str]], objective: Timed, batch: tuple[Tensor, Tensor]
) -> dict[str, float]:
    """Return the median time of a step of each entrant in milliseconds, after one to warm up.

    Args:
        entrants: model and format by name; they take turns, so that a machine that slows down
            slows all of them.
        objective: what is minimised.
        batch: pixels and targets.
    """
    times: dict[str, list[float]] = {name: [] for name in entrants}
    for turn in range(_STEPS + 1):
        for name, (model, precision) in entrants.items():
            spent = _step_s(model, objective, batch, precision)
            if turn:
                times[name].append(spent)
    return {name: 1000 * statistics.median(values) for name, values in times.items()}


def _step_s(
    model: nn.Module, objective: Timed, batch: tuple[Tensor, Tensor], precision: str
) -> float:
    device = batch[0].device
    _synchronise(device)
    start = time.perf_counter()
    with autocast(precision, device):
        loss = objective(model, *batch)
    torch.autograd.backward(loss)
    _synchronise(device)
    spent = time.perf_counter() - start
    model.zero_grad(set_to_none=True)
    return spent


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
