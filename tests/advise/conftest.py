"""Fixtures of the advice tests: pictures of three colours, and finished runs to advise on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgexfer.models.create import create_model, default_preprocess
from edgexfer.models.store import save_model
from edgexfer.recipe import DataSection
from tests.pictures import COLOURS, write_folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSection:
    return DataSection(str(write_folder(tmp_path_factory.mktemp("data") / "pictures", 24)))


def _save(run: Path, model: nn.Module, classes: tuple[str, ...]) -> Path:
    save_model(
        run,
        model,
        name="resnet8",
        classes=classes,
        preprocess=default_preprocess("resnet8", 16),
        origin="scratch",
        options={},
    )
    return run


@pytest.fixture(scope="session")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose statistics are those of pictures, so that its features tell colours apart."""
    model, _ = create_model("resnet8", 5, seed=7)
    model.train()
    for seed in range(20):
        noise = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
        model(noise + torch.randn(16, 3, 1, 1, generator=torch.Generator().manual_seed(seed)))
    return _save(tmp_path_factory.mktemp("runs") / "seeing", model, tuple("abcde"))


@pytest.fixture(scope="session")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose first layer passes nothing on: every picture looks the same to it."""
    model, _ = create_model("resnet8", 3, seed=1)
    with torch.no_grad():
        next(model.parameters()).zero_()
    return _save(tmp_path_factory.mktemp("runs") / "blind", model, tuple(COLOURS))
