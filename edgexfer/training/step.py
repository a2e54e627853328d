"""One optimiser step: micro-batches, autocast, clipping; and what happens out of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from edgexfer.core.errors import TrainingError, first_line
from edgexfer.training.distributed import world
from edgexfer.training.guards import is_out_of_memory
from edgexfer.training.objective import Objective, Views, mean_targets
from edgexfer.training.precision import autocast
from edgexfer.training.seeding import seed_step


@dataclass(frozen=True)
class Outcome:
    """What a step found, before the weights move.

    Attributes:
        loss: mean over this process's batch.
        norm: of the whole gradient, before clipping.
        parts: of the loss, by name.
    """

    loss: float
    norm: float
    parts: dict[str, float]


@dataclass
class Stepper:
    """Computes gradients of a batch and applies them.

    Attributes:
        model: what the objective is handed: a PixelModel, compiled or distributed where asked for.
        bare: the PixelModel itself.
        objective: what is minimised.
        optimizer: of the model's trainable parameters.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        scaler: keeps fp16 gradients in range; disabled with the others.
        micro_batch: images that go through the model at once.
        clip_grad: largest norm of the gradient, 0 for no limit.
        seed: of the training.
        rank: of this process.
        auxiliary: trained along with the model, outside of what DDP knows.
    """

    model: nn.Module
    bare: nn.Module
    objective: Objective
    optimizer: Optimizer
    precision: str
    scaler: torch.amp.GradScaler
    micro_batch: int
    clip_grad: float
    seed: int
    rank: int
    auxiliary: nn.Module | None = None

    def gradients(
        self,
        step: int,
        pixels: Tensor,
        targets: Tensor,
        views: Views,
        on_shrink: Callable[[int], None],
    ) -> Outcome:
        """Compute the gradients of a batch; where memory runs out, in halved micro-batches.

        The sum over micro-batches is the gradient of the whole batch, also where labels are spread
        unevenly over them; only batch norm, and losses that compare images with each other, see
        smaller batches, and twice those that fitted before memory ran out.

        Args:
            step: its index, from 0; seeds dropout.
            pixels: float32 (B, 3, H, W) on 0..255.
            targets: (B, C).
            views: what the batch holds.
            on_shrink: told the new micro-batch when memory ran out.

        Raises:
            TrainingError: memory does not even suffice for one image at a time.
        """
        # Over the step of all processes, whose gradients are averaged.
        views = replace(views, targets_mean=world().mean(mean_targets(targets)))
        while True:
            try:
                return self._attempt(step, pixels, targets, views)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = first_line(error, 100)
            # Outside the handler, whose error would keep the step's tensors alive.
            self._shrink(min(self.micro_batch, len(pixels)), reason)
            on_shrink(self.micro_batch)

    def repeat(self, step: int, pixels: Tensor, targets: Tensor, views: Views) -> Tensor:
        """Run the forward pass of a step again, with the same dropout, and return its loss.

        It goes through the bare model: hooks are heard there, and no other process is waited for,
        which need not have found anything wrong.
        """
        seed_step(self.seed, step, self.rank)
        views = replace(views, targets_mean=mean_targets(targets))
        losses = [
            self._forward(self.bare, p, t, v)[0] * len(p)
            for p, t, v, _ in self._micro(pixels, targets, views)
        ]
        return torch.stack(losses).sum() / len(pixels)

    def apply(self, norm: float) -> None:
        """Clip and move the weights; an fp16 step that overflowed is skipped by the scaler."""
        if self.clip_grad and norm > self.clip_grad:
            device = next(self.model.parameters()).device
            clip_grads_with_norm_(
                self._parameters(), self.clip_grad, torch.tensor(norm, device=device)
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _attempt(self, step: int, pixels: Tensor, targets: Tensor, views: Views) -> Outcome:
        seed_step(self.seed, step, self.rank)
        total = torch.zeros((), device=pixels.device)
        sums: dict[str, Any] = {}
        for some, wanted, held, last in self._micro(pixels, targets, views):
            share = len(some) / len(pixels)
            with self._no_sync(last):
                loss, parts = self._forward(self.model, some, wanted, held)
                world().arrive()
                torch.autograd.backward(self.scaler.scale(loss * share))
            total += loss.detach() * share
            for name, part in parts.items():
                sums[name] = sums.get(name, 0) + torch.as_tensor(part).detach() * share
        if self.auxiliary is not None:
            world().average_gradients(self.auxiliary)
        self.scaler.unscale_(self.optimizer)
        grads = [p.grad for p in self._parameters() if p.grad is not None]
        norm = get_total_norm(grads)
        # One transfer for all figures: on a GPU each would wait for the step to end.
        figures = [torch.as_tensor(v, device=total.device).float() for v in sums.values()]
        values = torch.stack([total, norm.float(), *figures]).tolist()
        return Outcome(values[0], values[1], dict(zip(sums, values[2:], strict=True)))

    def _forward(
        self, model: nn.Module, pixels: Tensor, targets: Tensor, views: Views
    ) -> tuple[Tensor, dict[str, Any]]:
        with autocast(self.precision, pixels.device):
            loss, parts = self.objective(model, pixels, targets, views)
        return loss.float(), dict(parts)

    def _micro(
        self, pixels: Tensor, targets: Tensor, views: Views
    ) -> Iterator[tuple[Tensor, Tensor, Views, bool]]:
        for start in range(0, len(pixels), self.micro_batch):
            end = start + self.micro_batch
            last = end >= len(pixels)
            yield pixels[start:end], targets[start:end], views.part(start, end), last

    def _no_sync(self, last: bool) -> AbstractContextManager[None]:
        """Let only the last micro-batch exchange gradients with the other processes."""
        if isinstance(self.model, DistributedDataParallel) and not last:
            return self.model.no_sync()
        return nullcontext()

    def _shrink(self, micro_batch: int, reason: str) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if isinstance(self.model, DistributedDataParallel):
            # The others wait in the middle of the exchange; this step cannot be begun again.
            raise TrainingError(
                f"rank {self.rank}: memory ran out with {micro_batch} images at once ({reason})",
                "double train.accumulate, or use more processes",
            )
        if micro_batch == 1:
            raise TrainingError(
                f"memory ran out with a single image at once ({reason})",
                "choose a smaller model or model.size, or a machine with more memory",
            )
        self.micro_batch = (micro_batch + 1) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]
