"""The state of a training: all that decides how it goes on, and its way into a checkpoint and back.

Random generators are not part of it, see ``seeding.py``; neither is the learning rate, which is a
function of the step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from edgexfer.models.store import stored
from edgexfer.training.checkpoint import Snapshot
from edgexfer.training.ema import Ema


@dataclass
class Best:
    """The best epoch so far, by val accuracy.

    Attributes:
        top1_pct: its accuracy in percent; ``None`` before the first validation.
        epoch: its number, from 1.
        waited: epochs since then.
        weights: what would have been deployed then; kept only where the training may stop early.
    """

    top1_pct: float | None = None
    epoch: int = 0
    waited: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class State:
    """A training at rest between two steps.

    Attributes:
        model: the bare model.
        optimizer: of its trainable parameters.
        scaler: of fp16 gradients.
        ema: the average, where there is one.
        micro_batch: images that go through the model at once.
        epoch: epochs finished.
        step: steps done in the epoch that is under way.
        total: steps done in all.
        best: the best epoch so far.
        last_top1_pct: val accuracy of the last finished epoch.
        auxiliary: what is trained along with the model and not deployed.
    """

    model: nn.Module
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    ema: Ema | None
    micro_batch: int
    epoch: int = 0
    step: int = 0
    total: int = 0
    best: Best = field(default_factory=Best)
    last_top1_pct: float | None = None
    auxiliary: nn.Module | None = None

    @property
    def deployed(self) -> nn.Module:
        """The model that is validated and, without early stopping, deployed."""
        return self.model if self.ema is None else self.ema.model

    def judge(self, top1_pct: float, *, keep: bool) -> None:
        """Take note of an epoch's val accuracy.

        Args:
            top1_pct: of ``deployed``, in percent.
            keep: whether to keep the weights of the best epoch.
        """
        self.last_top1_pct = top1_pct
        best = self.best
        if best.top1_pct is not None and top1_pct <= best.top1_pct:
            best.waited += 1
            return
        best.top1_pct, best.epoch, best.waited = top1_pct, self.epoch, 0
        if keep:
            best.weights = {n: t.detach().clone() for n, t in self.deployed.state_dict().items()}

    @torch.no_grad()
    def deploy(self) -> None:
        """Put the weights to deploy into the model, in eval mode: best epoch's, else average's."""
        chosen = self.best.weights or self.deployed.state_dict()
        for name, tensor in self.model.state_dict().items():
            tensor.copy_(chosen[name])
        self.model.eval()

    def snapshot(self) -> Snapshot:
        """Copy everything to the CPU, for a checkpoint."""
        tensors, scalars = _pack_optimizer(self.optimizer)
        for part, named in self._parts():
            tensors.update({f"{part}.{n}": stored(t) for n, t in named.items()})
        best = dataclasses.asdict(dataclasses.replace(self.best, weights={}))
        state = {
            "epoch": self.epoch,
            "step": self.step,
            "micro_batch": self.micro_batch,
            "last_top1_pct": self.last_top1_pct,
            "best": {k: v for k, v in best.items() if k != "weights"},
            "scaler": self.scaler.state_dict(),
            "optimizer": scalars,
        }
        return Snapshot(self.total, tensors, state)

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of a training with the same settings, to the bit.

        Tensors are copied into those that stand here, whose memory layout they must keep: the same
        operation rounds differently on another layout.
        """
        state = snapshot.state
        kept = {n: t for n, t in snapshot.tensors.items() if n.startswith("best.")}
        self.best = Best(**state["best"])
        self.best.weights = {n.removeprefix("best."): t for n, t in kept.items()}
        for part, named in self._parts():
            if part != "best":
                for name, tensor in named.items():
                    tensor.copy_(snapshot.tensors[f"{part}.{name}"])
        _unpack_optimizer(self.optimizer, snapshot.tensors, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.step, self.total = state["epoch"], state["step"], snapshot.step
        self.micro_batch, self.last_top1_pct = state["micro_batch"], state["last_top1_pct"]

    def _parts(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        yield "model", self.model.state_dict()
        if self.ema is not None:
            yield "ema", self.ema.model.state_dict()
        if self.auxiliary is not None:
            yield "auxiliary", self.auxiliary.state_dict()
        yield "best", self.best.weights


def _pack_optimizer(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, parameter in enumerate(_parameters(optimizer)):
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = stored(value)
            else:
                scalars.setdefault(str(index), {})[key] = value
    return tensors, scalars


def _unpack_optimizer(
    optimizer: Optimizer, tensors: Any, scalars: dict[str, dict[str, Any]]
) -> None:
    parameters = list(_parameters(optimizer))
    optimizer.state.clear()
    for index, values in scalars.items():
        optimizer.state[parameters[int(index)]].update(values)
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part == "optimizer":
            index, _, key = rest.partition(".")
            parameter = parameters[int(index)]
            like = torch.empty_like(parameter) if tensor.shape == parameter.shape else tensor
            optimizer.state[parameter][key] = like.to(parameter.device).copy_(tensor)


def _parameters(optimizer: Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]
