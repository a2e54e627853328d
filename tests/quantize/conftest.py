"""A trained FP32 ONNX file and calibration images of digits, shared by the tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgexfer.data.dataset import open_dataset
from edgexfer.models.onnx import export_onnx
from edgexfer.models.store import load_model
from edgexfer.quantize.calibration import Calibration, draw_calibration
from tests.export.digits import PREPROCESS, digits_run, measured_images


@pytest.fixture(scope="session")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, card = load_model(digits_run(tmp_path_factory.getbasetemp()))
    place = tmp_path_factory.mktemp("fp32") / "fp32.onnx"
    return export_onnx(model, card.preprocess.size, place)


@pytest.fixture(scope="session")
def calibration() -> Calibration:
    images, _ = measured_images(100)
    return draw_calibration(open_dataset("digits"), 64, PREPROCESS, measured=images)
