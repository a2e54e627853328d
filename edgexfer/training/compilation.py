"""Whether a training runs compiled by ``torch.compile``: what ``compile: auto`` decides.

Compiling takes up to a minute and makes a step up to a third faster, or no faster at all; so it is
tried where the training is long enough to win by it. It is decided once, before the first step, and
kept in the run: a compiled step rounds in its own way, and what is resumed must go on as it began.
"""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from edgexfer.core.errors import MachineError, first_line
from edgexfer.training.distributed import World
from edgexfer.training.guards import is_out_of_memory
from edgexfer.training.precision import Timed, autocast, time_steps

# What the compiled step must gain, and how long a training must be to be worth the trial: a tenth
# of it is more than any model here took to compile (82 s on two cores).
_GAIN, _WORTH_S = 1.10, 15 * 60.0
# How far the loss of a compiled step, and the length of its gradient, may be from those of an eager
# one. Where both are right, bf16 alone puts them up to a few percent apart.
_MOST_LOSS, _MOST_NORM = 0.02, 0.10


@dataclass(frozen=True)
class Compilation:
    """Whether to compile, and how that was decided.

    Attributes:
        compiled: the decision.
        why: for the run's lineage.
        step_ms: median time of a step in milliseconds, ``eager`` and, where it came to that,
            ``compiled``.
        compile_s: what compiling took, in seconds; ``None`` where it was not tried.
        saves_s: what compiled steps save in the whole training; likewise.
    """

    compiled: bool
    why: str
    step_ms: dict[str, float]
    compile_s: float | None = None
    saves_s: float | None = None


def unsuited(here: World, auxiliary: nn.Module | None, *, thaws: bool) -> str | None:
    """Say why ``auto`` does not even try to compile, ``None`` where it may.

    Args:
        here: processes and device of the training.
        auxiliary: what is trained along with the model; it hooks into the model's layers, which
            breaks a compiled graph into pieces.
        thaws: layers are thawed along the way, each time of which would be compiled anew.
    """
    if here.size > 1:
        return "auto does not compile a training of several processes"
    if auxiliary is not None:
        return "the loss looks into the model's layers"
    if thaws:
        return "layers are thawed along the way"
    if _lacks_compiler():
        return "there is no C++ compiler"
    return None


def race(
    model: nn.Module,
    objective: Timed,
    batch: tuple[Tensor, Tensor],
    precision: str,
    steps: int,
    tell: Callable[[str], None],
) -> Compilation:
    """Time steps of a copy of the model, eager and compiled, where the training is long enough.

    Args:
        model: a PixelModel in training mode; it is not changed.
        objective: what is minimised.
        batch: pixels float32 (B, 3, H, W) on 0..255 and targets (B, C), on the model's device.
        precision: what the training computes in.
        steps: forward and backward passes of such a batch in the whole training.
        tell: is given a line for people before it takes long, and one where compiling failed.
    """
    eager = copy.deepcopy(model)
    entrants = {"eager": (eager, precision)}
    try:
        step_ms = time_steps(entrants, objective, batch)
        wanted = _look(eager, objective, batch, precision)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return Compilation(False, "memory ran out while steps were timed", {})
    if not long_enough(step_ms["eager"], steps):
        return Compilation(False, "the training is over before a compiler pays off", step_ms)
    tell("compiling the model to see whether that is faster, which takes about a minute ...")
    try:
        compiled = compile_model(eager)
        start = time.perf_counter()
        found = _look(compiled, objective, batch, precision)
        compile_s = time.perf_counter() - start - step_ms["eager"] / 1000
        step_ms = time_steps({**entrants, "compiled": (compiled, precision)}, objective, batch)
    except Exception as error:
        # Eager steps went well just before: whatever fails here is the compiler or its memory.
        why = f"compiling failed ({first_line(error)})"
        tell(f"{why}: the training runs without")
        return Compilation(False, why, step_ms)
    apart = deviation(wanted, found)
    if apart is not None:
        tell(f"{apart}: the training runs without")
        return Compilation(False, apart, step_ms, compile_s)
    return judge(step_ms, compile_s, steps)


def long_enough(step_ms: float, steps: int) -> bool:
    """Say whether so many steps of so many milliseconds are worth a compiler's minute."""
    return step_ms / 1000 * steps > _WORTH_S


def judge(step_ms: dict[str, float], compile_s: float, steps: int) -> Compilation:
    """Decide by the times of a step, ``eager`` and ``compiled``, and by what compiling took.

    That time has been spent, but a training that is resumed spends it again.
    """
    gain = step_ms["eager"] / step_ms["compiled"]
    saves_s = (step_ms["eager"] - step_ms["compiled"]) / 1000 * steps
    why = f"a compiled step is {gain:.2f} times as fast as an eager one"
    if gain >= _GAIN and saves_s < compile_s:
        why += ", which does not make up for compiling it"
    compiled = gain >= _GAIN and saves_s >= compile_s
    return Compilation(compiled, why, step_ms, compile_s, saves_s)


def deviation(wanted: tuple[float, float], found: tuple[float, float]) -> str | None:
    """Say how far a compiled step is from an eager one, ``None`` where that is only rounding.

    Args:
        wanted: loss and norm of the gradient, eager.
        found: the same, compiled.
    """
    limits = {"loss": _MOST_LOSS, "gradient": _MOST_NORM}
    for (name, most), right, other in zip(limits.items(), wanted, found, strict=True):
        if not abs(other - right) <= most * abs(right):
            return f"compiled, the {name} is {other:.4g} instead of {right:.4g}"
    return None


def compile_model(model: nn.Module) -> nn.Module:
    """Return the model as ``torch.compile`` makes it, sharing its weights.

    Each shape is compiled for itself: which code a shape runs in must not depend on the shapes that
    this process has met before, or a resumed training would round differently. Random numbers are
    drawn as the eager model draws them.

    Raises:
        MachineError: there is no compiler.
    """
    if _lacks_compiler():
        raise MachineError(
            "this training is compiled, which needs the C++ compiler g++",
            "install g++, or begin a new run with train.compile: off",
        )
    compiled: Any = torch.compile(model, dynamic=False, options={"fallback_random": True})
    return cast(nn.Module, compiled)


def _lacks_compiler() -> bool:
    return not torch.cuda.is_available() and shutil.which("g++") is None


def _look(
    model: nn.Module, objective: Timed, batch: tuple[Tensor, Tensor], precision: str
) -> tuple[float, float]:
    """Return the loss of a step and the norm of its gradient."""
    # The same dropout for whoever is looked at; each step of the training seeds anew.
    torch.manual_seed(0)
    with autocast(precision, batch[0].device):
        loss = objective(model, *batch)
    torch.autograd.backward(loss)
    norm = get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    model.zero_grad(set_to_none=True)
    return float(loss.detach()), float(norm)
