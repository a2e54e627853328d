"""A small trained run for the tests of quantize and export: digits, a ResNet-8, in seconds.

Random weights say nothing about a quantizer, so it is really trained.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgexfer.core.codec import encode
from edgexfer.core.files import write_json
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.rundir import INFO, SCHEMA, RunInfo
from edgexfer.data.dataset import open_dataset
from edgexfer.data.images import load_images, sample
from edgexfer.models.create import create_model
from edgexfer.models.normalise import PixelModel
from edgexfer.models.store import load_model, save_model
from edgexfer.recipe import DataSection

NAME = "resnet8"
# Uneven on purpose: swapped channels or a wrong mean must change what the model sees.
PREPROCESS = Preprocess(
    size=(16, 16), resize=16, mode="squash", mean=(0.3, 0.45, 0.6), std=(0.25, 0.3, 0.4)
)


def digits_run(base: Path) -> Path:
    """Return the one run of a test session, trained by whoever asks first."""
    place = base / "digits-run"
    return place if (place / INFO).exists() else make_run(place)


def measured_images(n: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return test images in the run's geometry, uint8 (n, H, W, 3), and their classes."""
    images, labels, _ = sample(open_dataset("digits"), "test", n, PREPROCESS)
    return images, labels


def make_run(place: Path, *, epochs: int = 3) -> Path:
    """Train on digits, the three channels weighted apart, and write the run's folder."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    dataset = open_dataset("digits")
    images = load_images(dataset, "train", PREPROCESS)
    pixels = images.pixels(torch.arange(len(images)))
    model, origin = create_model(NAME, len(dataset.classes), seed=0)
    fed = PixelModel(model, PREPROCESS)
    steps = epochs * -(-len(pixels) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(epochs):
        for index in torch.split(torch.randperm(len(pixels)), 64):
            loss = nn.functional.cross_entropy(fed(pixels[index]), images.labels[index])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return write_run(place, model, (NAME, origin), PREPROCESS, DataSection("digits"))


def write_run(
    place: Path,
    model: nn.Module,
    name_and_origin: tuple[str, str],
    preprocess: Preprocess,
    data: DataSection,
) -> Path:
    """Write the folder of a finished training, and return it."""
    name, origin = name_and_origin
    dataset = open_dataset(data.path)
    place.mkdir(parents=True, exist_ok=True)
    save_model(
        place,
        model.eval(),
        name=name,
        classes=dataset.classes,
        preprocess=preprocess,
        origin=origin,
        options={},
    )
    config = {"model": {"name": name}}
    info = RunInfo(SCHEMA, "finetune", "done", config, encode(data), dataset.fingerprint)
    write_json(place / INFO, encode(info))
    return place


def stretched_run(run: Path, place: Path, *, mendable: bool, factor: float = 1e4) -> Path:
    """Copy a run and stretch channels: the same model in FP32, rubble in plain INT8.

    Args:
        run: what to copy.
        place: where to.
        mendable: stretch one channel between two convolutions, which equalisation takes back; else
            one channel of every residual sum, which is fed to more than half of all layers.
        factor: by how much.
    """
    shutil.copytree(run, place)
    model, card = load_model(run)
    parts: dict[str, Any] = dict(model.named_modules())
    before, after = ["layer1.0.bn1"], ["layer1.0.conv2"]
    if not mendable:
        before = ["bn1"] + [f"layer{i}.0.bn2" for i in (1, 2, 3)]
        before += [f"layer{i}.0.downsample.1" for i in (2, 3)]
        after = [f"layer{i}.0.conv1" for i in (1, 2, 3)]
        after += [f"layer{i}.0.downsample.0" for i in (2, 3)] + ["fc"]
    with torch.no_grad():
        for name in before:
            parts[name].weight[0] *= factor
            parts[name].bias[0] *= factor
        for name in after:
            parts[name].weight[:, 0] /= factor
    save_model(
        place,
        model,
        name=card.name,
        classes=card.classes,
        preprocess=card.preprocess,
        origin=card.origin,
        options=card.options,
    )
    return place
