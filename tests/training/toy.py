"""A training small enough to be killed twenty times: 8x8 digits, a net of 5,000 weights."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgexfer.core.preprocess import Preprocess
from edgexfer.core.rundir import SCHEMA, RunDir, RunInfo, open_run
from edgexfer.models.groups import parameter_groups
from edgexfer.recipe import TrainSection
from edgexfer.training.loop import Job
from edgexfer.training.objective import cross_entropy

PREPROCESS = Preprocess((8, 8), 8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@dataclass
class Batch:
    images: Tensor
    labels: Tensor
    index: Tensor
    step: int
    epoch: int
    view_epoch: int


class Feed:
    """Shuffled batches of images in memory, as a function of (seed, epoch) alone."""

    def __init__(self, batch_size: int, count: int = 320, rank: int = 0, world: int = 1) -> None:
        self.images, self.labels = digits(count)
        self.keys = tuple(f"digits/{i:05d}" for i in range(count))
        self.batch_size, self.rank, self.world = batch_size, rank, world
        self.steps_per_epoch = count // batch_size

    def epoch(self, epoch: int, start_step: int = 0) -> Generator[Batch, None, None]:
        generator = torch.Generator().manual_seed(epoch)
        order = torch.randperm(len(self.labels), generator=generator)
        for step in range(start_step, self.steps_per_epoch):
            index = order[step * self.batch_size : (step + 1) * self.batch_size]
            index = index[self.rank :: self.world]
            yield Batch(self.images[index], self.labels[index], index, step, epoch, epoch)


def without_labels(feed: Any, classes: int) -> None:
    """Take the labels of the first classes away: most batches have them unevenly spread."""
    feed.labels = torch.where(feed.labels < classes, -1, feed.labels)


class Images:
    """Validation images in memory."""

    tasks = ()

    def __init__(self, count: int = 100) -> None:
        images, labels = digits(count + 320)
        self._images, self.labels = images[320:], labels[320:]
        self.keys = tuple(f"digits/{i:05d}" for i in range(320, 320 + count))

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: Tensor) -> Tensor:
        return self._images[indices]


def digits(count: int) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = (found.images[:count] * 255 / 16).astype(np.uint8)
    pixels = torch.from_numpy(images).unsqueeze(1).expand(-1, 3, -1, -1).contiguous()
    return pixels, torch.from_numpy(found.target[:count].astype(np.int64))


class Net(nn.Module):
    """Two convolutions with batch norm (unless ``norm`` is off), dropout, a linear head."""

    def __init__(self, *, norm: bool = True, dropout: float = 0.1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(8, 16, 3, 2, padding=1)
        self.bn2 = nn.BatchNorm2d(16) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(16 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        logits: Tensor = self.fc(self.drop(x.flatten(1)))
        return logits

    def get_classifier(self) -> nn.Module:
        return self.fc


def make_run(path: Path) -> RunDir:
    return open_run(path, RunInfo(SCHEMA, "finetune", "running", {}, {}, "0" * 64))


def make_job(run: RunDir, model: nn.Module | None = None, **changes: Any) -> Job:
    """A training of four epochs of ten steps."""
    settings: dict[str, Any] = {
        "epochs": 4,
        "batch_size": 32,
        "lr": 1e-2,
        "precision": "fp32",
        "warmup": 0.5,
        "compile": "off",
        **changes,
    }
    section = TrainSection(**settings)
    torch.manual_seed(section.seed)
    net = Net() if model is None else model
    groups = parameter_groups(
        net, lr=section.lr, backbone_lr=section.backbone_lr, weight_decay=section.weight_decay
    )
    feed: Any = Feed(section.batch_size)
    val: Any = Images()
    objective = cross_entropy(section.label_smoothing)
    return Job(
        run=run,
        model=net,
        preprocess=PREPROCESS,
        section=section,
        feed=feed,
        val=val,
        objective=objective,
        groups=groups,
        frozen=[],
        title="toy",
        quiet=True,
    )


def bits(model: nn.Module) -> dict[str, bytes]:
    """All weights and buffers as bytes, to be compared to the bit."""
    return {n: t.contiguous().numpy().tobytes() for n, t in model.state_dict().items()}
