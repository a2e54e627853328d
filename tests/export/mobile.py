"""mobilenetv3_small_100 trained for moments: the net whose INT8 ONNX Runtime does not speed up."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from edgexfer.core.preprocess import Preprocess
from edgexfer.data.dataset import open_dataset
from edgexfer.data.images import load_images
from edgexfer.models.create import create_model
from edgexfer.models.normalise import PixelModel
from edgexfer.recipe import DataSection
from tests.export.digits import write_run
from tests.pictures import write_folder

NAME = "mobilenetv3_small_100"
PREPROCESS = Preprocess(size=(64, 64), resize=64, mode="squash")


def mobile_run(base: Path) -> Path:
    """Train on pictures of three colours, and write the run's folder."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = DataSection(str(write_folder(base / "pictures", 40)))
    dataset = open_dataset(data.path)
    images = load_images(dataset, "train", PREPROCESS)
    pixels = images.pixels(torch.arange(len(images)))
    model, origin = create_model(NAME, len(dataset.classes), seed=0)
    fed = PixelModel(model, PREPROCESS)
    # Statistics of few steps must be those of the weights that the steps end with.
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.3
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    model.train()
    for step in range(24):
        if step == 16:
            optimizer.param_groups[0]["lr"] = 1e-5
        index = torch.randperm(len(pixels))[:24]
        loss = nn.functional.cross_entropy(fed(pixels[index]), images.labels[index])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return write_run(base / "mobile-run", model, (NAME, origin), PREPROCESS, data)
