"""One trained run and one bundle of it, shared by the tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgexfer.core.bundle import Manifest
from edgexfer.core.model import ModelCard
from edgexfer.export.parity import Probe, synthetic_images
from edgexfer.export.stage import export
from edgexfer.models.onnx import export_onnx
from edgexfer.models.store import load_model
from edgexfer.recipe import ExportSection
from tests.export.digits import digits_run, measured_images

TARGETS = ("x86-onnxruntime", "x86-openvino", "x86-torch", "rpi5", "jetson")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """A bundle for all targets, and its manifest; tests must not change it."""
    place = tmp_path_factory.mktemp("export") / "bundle"
    return place, export(run, ExportSection(targets=TARGETS, precision="all"), place)


@pytest.fixture(scope="session")
def card(run: Path) -> ModelCard:
    return load_model(run)[1]


@pytest.fixture(scope="session")
def probe(card: ModelCard) -> Probe:
    images, labels = measured_images(200)
    return Probe(images, labels, synthetic_images(card.preprocess.size), card.preprocess)


@pytest.fixture(scope="session")
def fp32(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's model as ONNX."""
    model, card = load_model(run)
    place = tmp_path_factory.mktemp("onnx") / "fp32.onnx"
    return export_onnx(model, card.preprocess.size, place)
