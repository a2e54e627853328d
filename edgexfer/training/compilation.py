"""Whether a training runs compiled by ``torch.compile``: what ``compile: auto`` decides.

It is decided once, before the first step, and kept in the run. On CPUs ``auto`` never compiles:
channels-last and bf16, which are chosen anyway, gain as much there, and a resume to the bit must
not hang on which C++ compiler is installed that day.
"""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgexfer.core.errors import MachineError
from edgexfer.training.distributed import World
from edgexfer.training.guards import is_out_of_memory
from edgexfer.training.precision import Timed, time_steps

# Compiling takes up to a minute; a training of this length cannot lose by it.
_WORTH_S = 15 * 60.0
# What the compiled step must gain.
_GAIN = 1.10


@dataclass(frozen=True)
class Compilation:
    """Whether to compile, and how that was decided.

    Attributes:
        compiled: the decision.
        why: for the run's lineage.
        step_ms: median time of a step in milliseconds, ``eager`` and, where it came to that,
            ``compiled``.
    """

    compiled: bool
    why: str
    step_ms: dict[str, float]


def unsuited(here: World, auxiliary: nn.Module | None) -> str | None:
    """Say why ``auto`` does not even try to compile, ``None`` where it may.

    Args:
        here: processes and device of the training.
        auxiliary: what is trained along with the model; it hooks into the model's layers, which
            breaks a compiled graph into pieces.
    """
    if here.device.type != "cuda":
        return "auto compiles on GPUs alone"
    if here.size > 1:
        return "auto does not compile a training of several processes"
    if auxiliary is not None:
        return "the loss looks into the model's layers"
    return None


def race(
    model: nn.Module, objective: Timed, batch: tuple[Tensor, Tensor], precision: str, steps: int
) -> Compilation:
    """Time steps of a copy of the model, eager and compiled, where the training is long enough.

    Args:
        model: a PixelModel in training mode; it is not changed.
        objective: what is minimised.
        batch: pixels float32 (B, 3, H, W) on 0..255 and targets (B, C), on the model's device.
        precision: what the training computes in.
        steps: forward and backward passes of such a batch in the whole training.
    """
    eager = copy.deepcopy(model)
    entrants = {"eager": (eager, precision)}
    try:
        alone = time_steps(entrants, objective, batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return Compilation(False, "memory ran out while steps were timed", {})
    if not long_enough(alone["eager"], steps):
        return Compilation(False, "the training is over before a compiler pays off", alone)
    try:
        entrants["compiled"] = (compile_model(eager), precision)
        return judge(time_steps(entrants, objective, batch))
    except (RuntimeError, MemoryError) as error:
        # Eager steps went well just before: what fails here is the compiler or its memory.
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        return Compilation(False, f"compiling failed ({reason[0][:120]})", alone)


def long_enough(step_ms: float, steps: int) -> bool:
    """Say whether so many steps of so many milliseconds are worth a compiler's minute."""
    return step_ms / 1000 * steps > _WORTH_S


def judge(step_ms: dict[str, float]) -> Compilation:
    """Decide by the times of a step, ``eager`` and ``compiled``."""
    gain = step_ms["eager"] / step_ms["compiled"]
    why = f"a compiled step is {gain:.2f} times as fast as an eager one"
    return Compilation(gain >= _GAIN, why, step_ms)


def compile_model(model: nn.Module) -> nn.Module:
    """Return the model as ``torch.compile`` makes it, sharing its weights.

    Each shape is compiled for itself: which code a shape runs in must not depend on the shapes that
    this process has met before, or a resumed training would round differently.

    Raises:
        MachineError: there is no compiler.
    """
    if not torch.cuda.is_available() and shutil.which("g++") is None:
        raise MachineError("train.compile needs a C++ compiler", "install g++, or leave it out")
    compiled: Any = torch.compile(model, dynamic=False)
    return cast(nn.Module, compiled)
