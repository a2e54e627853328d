"""The processes of one training, as ``torchrun`` starts them; a single process is a world of one.

Only the leader (rank 0) writes. Gradients are averaged by torch's DistributedDataParallel. Batch
norm takes its statistics from each process's own share of the batch, as is usual; the leader's
running statistics are the ones that are validated and stored.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from edgexfer.core.errors import MachineError, TrainingError, first_line
from edgexfer.training.pulse import Pulse
from edgexfer.training.signals import ignore_sigterm

TIMEOUT_S = 120.0
# This process's, while it has joined others; torch's own process group is as global.
_pulse: Pulse | None = None
# How often this process has joined others; all have joined as often.
_joined = itertools.count()


class LostContactError(TrainingError):
    """An exchange with the other processes failed, since one of them has ended or hangs."""


@dataclass(frozen=True)
class World:
    """This process's place among the others.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        local_rank: its number on this machine.
        device: where it computes: its own GPU where there is one, else the CPU.
        pulse: tells the others that it lives; ``None`` in a world of one.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = field(default_factory=lambda: _device(0))
    pulse: Pulse | None = field(default=None, repr=False, compare=False)

    @property
    def leader(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def arrive(self) -> None:
        """Note that the next thing this process does is to exchange something with the others."""
        if self.pulse is not None:
            self.pulse.arrive()

    def follow(self, patience_s: float = TIMEOUT_S) -> None:
        """Wait for the leader to come here too, from work that takes longer than an exchange may.

        Args:
            patience_s: how long it may go without a pulse.

        Raises:
            LostContactError: it has given up or was killed.
        """
        if self.pulse is not None and not self.pulse.follow(patience_s):
            raise _lost(self, "the leader is not done")

    def sum(self, *values: float) -> list[float]:
        """Return the sums of the values over all processes."""
        if self.size == 1:
            return list(values)
        self.arrive()
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        sums: list[float] = tensor.tolist()
        return sums

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean of a tensor of one shape in all processes."""
        if self.size == 1:
            return tensor
        self.arrive()
        total = tensor.clone()
        dist.all_reduce(total)
        return total / self.size

    def share(self, value: Any) -> Any:
        """Return the leader's value, a plain JSON value, in every process."""
        if self.size == 1:
            return value
        self.arrive()
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def average_gradients(self, module: nn.Module) -> None:
        """Average a module's gradients over all processes, as DDP does for the model's own."""
        if self.size > 1:
            self.arrive()
            for parameter in module.parameters():
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= self.size

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the leader's buffers, such as running statistics."""
        if self.size > 1:
            self.arrive()
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)


def world() -> World:
    """Return this process's world: what ``joined`` has set up, else a world of one."""
    if not (dist.is_available() and dist.is_initialized()):
        return World()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return World(dist.get_rank(), dist.get_world_size(), local, _device(local), _pulse)


@contextmanager
def joined(timeout_s: float = TIMEOUT_S) -> Iterator[World]:
    """Join the processes that ``torchrun`` has started, gloo on CPUs and nccl on GPUs.

    They leave together, when the leader is done: what it has written can be read by all of them.

    Args:
        timeout_s: after so many seconds without an answer from the others the work is given up, so
            that a process that hangs or dies ends the job.

    Raises:
        MachineError: the other processes cannot be reached, or this one has no GPU of its own.
        TrainingError: another process has ended or hangs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield world()
        return
    global _pulse
    device = _device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(seconds=timeout_s)
    try:
        store, rank, size = next(rendezvous("env://", timeout=timeout))
        # What an earlier training of the same processes left there is not this one's.
        prefix = f"training-{next(_joined)}"
        store = dist.PrefixStore(prefix, store)  # type: ignore[attr-defined]
        store.set_timeout(timeout)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        raise MachineError(
            f"torchrun: rank {os.environ.get('RANK')} cannot join the others ({first_line(error)})",
            "start all processes with torchrun, on hosts that reach each other",
        ) from error
    try:
        with Pulse(store, rank, size) as _pulse:
            here = world()
            with _told_to_the_others(_pulse), lost_contact(here):
                yield here
                here.follow(timeout_s)
    finally:
        _pulse = None
        dist.destroy_process_group()


@contextmanager
def _told_to_the_others(pulse: Pulse) -> Iterator[None]:
    """Tell the other processes when this one ends with an error, and whether it is its own."""
    try:
        yield
    except LostContactError:
        pulse.give_up("")
        raise
    except BaseException as error:
        pulse.give_up(f"{type(error).__name__}: {first_line(error)}")
        raise


@contextmanager
def lost_contact(here: World) -> Iterator[None]:
    """Turn a collective that fails, since another process has gone, into one line.

    Raises:
        LostContactError: naming this process, and the one to blame where that can be told.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if here.size == 1 or not any(w in text for w in ("gloo", "NCCL", "Connection", "Timed")):
            raise
        raise _lost(here, first_line(error)) from error


def _lost(here: World, why: str) -> LostContactError:
    """Return the error that names this process, and the one to blame where that can be told."""
    blamed = None
    if here.pulse is not None:
        # torchrun ends all processes as soon as one has failed, which is about now. This one ends
        # by itself, once it has found out and said why; that takes seconds on a busy machine.
        ignore_sigterm()
        blamed = here.pulse.blame()
    return LostContactError(
        f"rank {here.rank}: {blamed or 'another process has ended or hangs'} ({why})",
        "see what that rank says, then type the same command again",
    )


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    here = torch.cuda.device_count()
    if local_rank >= here:
        raise MachineError(
            f"torchrun: process {local_rank} of this machine has no GPU of its own ({here} here)",
            f"start at most {here} on it with --nproc-per-node",
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
