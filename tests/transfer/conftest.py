"""Fixtures of the transfer tests: pictures of three colours, and weights to start from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgexfer.models.create import create_model
from edgexfer.recipe import DataSection
from tests.pictures import write_folder, write_table


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSection:
    return DataSection(str(write_folder(tmp_path_factory.mktemp("data") / "pictures", 16)))


@pytest.fixture(scope="session")
def tabled(tmp_path_factory: pytest.TempPathFactory) -> DataSection:
    """Pictures with labels of two tasks, some of them missing."""
    place = tmp_path_factory.mktemp("tabled")
    pictures = write_folder(place / "pictures", 24)
    return DataSection(str(pictures), labels=str(write_table(pictures, place / "labels.csv")))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a resnet8 of five other classes, with statistics that are not the initial ones."""
    model, _ = create_model("resnet8", 5, seed=7)
    model.train()
    for seed in range(3):
        model(torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(seed)))
    place = tmp_path_factory.mktemp("weights") / "resnet8.safetensors"
    save_file(model.state_dict(), place)
    return place
