"""The processes of one training, as ``torchrun`` starts them; a single process is a world of one.

Only the leader (rank 0) writes. Gradients are averaged by torch's DistributedDataParallel. Batch
norm takes its statistics from each process's own share of the batch, as is usual; the leader's
running statistics are the ones that are validated and stored.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from edgexfer.core.errors import MachineError, TrainingError

TIMEOUT_S = 120.0


@dataclass(frozen=True)
class World:
    """This process's place among the others.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        local_rank: its number on this machine.
        device: where it computes: its own GPU where there is one, else the CPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = field(default_factory=lambda: _device(0))

    @property
    def leader(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Return the sums of the values over all processes."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        sums: list[float] = tensor.tolist()
        return sums

    def share(self, value: Any) -> Any:
        """Return the leader's value, a plain JSON value, in every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def average_gradients(self, module: nn.Module) -> None:
        """Average a module's gradients over all processes, as DDP does for the model's own."""
        if self.size > 1:
            for parameter in module.parameters():
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= self.size

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the leader's buffers, such as running statistics."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)


def world() -> World:
    """Return this process's world: what ``joined`` has set up, else a world of one."""
    if not (dist.is_available() and dist.is_initialized()):
        return World()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return World(dist.get_rank(), dist.get_world_size(), local, _device(local))


@contextmanager
def joined(timeout_s: float = TIMEOUT_S) -> Iterator[World]:
    """Join the processes that ``torchrun`` has started, gloo on CPUs and nccl on GPUs.

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
    device = _device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    except (RuntimeError, ValueError) as error:
        raise MachineError(
            f"torchrun: rank {os.environ.get('RANK')} cannot join the others "
            f"({_first_line(error)})",
            "start all processes with torchrun, on hosts that reach each other",
        ) from error
    try:
        here = world()
        with lost_contact(here):
            yield here
    finally:
        dist.destroy_process_group()


@contextmanager
def lost_contact(here: World) -> Iterator[None]:
    """Turn a collective that fails, since another process has gone, into one line.

    Raises:
        TrainingError: naming this process.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if here.size == 1 or not any(w in text for w in ("gloo", "NCCL", "Connection", "Timed")):
            raise
        raise TrainingError(
            f"rank {here.rank}: another process has ended or hangs ({_first_line(error)})",
            "see what the first rank that failed says, then type the same command again",
        ) from error


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


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:120] if lines else type(error).__name__
