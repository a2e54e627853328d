"""The first layer that differs is named in graphs of other shapes than a chain of convolutions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgexfer.core.bundle import Rung
from edgexfer.core.preprocess import Preprocess
from edgexfer.export.localise import localise
from edgexfer.export.parity import EXACT, Probe, require, synthetic_images
from edgexfer.models.onnx import export_onnx

SIZE = (12, 12)
PREPROCESS = Preprocess(size=SIZE, resize=12)
FAILED = Rung("onnx fp32", "torch fp32", 8, 20.0, 1.0, 90.0, passed=False, limits=EXACT)


class Enlarging(nn.Module):
    """Two convolutions, one on a map that is enlarged, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish())
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.after = nn.Conv2d(8, 4, 3)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.after(self.up(self.stem(x))).mean((2, 3)))
        return y


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return Enlarging().eval()


@pytest.fixture(scope="module")
def sound(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(model, SIZE, tmp_path_factory.mktemp("sound") / "fp32.onnx")


@pytest.fixture
def probe() -> Probe:
    images = np.random.default_rng(0).integers(0, 256, (6, *SIZE, 3), np.uint8)
    return Probe(images, np.zeros(6, np.int64), synthetic_images(SIZE), PREPROCESS)


def damaged(sound: Path, folder: Path, op: str, edit: Callable[[onnx.NodeProto], None]) -> Path:
    proto = onnx.load(sound)
    edit(next(node for node in proto.graph.node if node.op_type == op))
    place = folder / "damaged.onnx"
    onnx.save(proto, place)
    return place


def test_a_sound_file_has_no_such_layer(model: nn.Module, sound: Path, probe: Probe) -> None:
    said = localise(model, PREPROCESS, probe, sound, FAILED)
    assert said == "every layer is right when the file runs unoptimised"


def test_another_meaning_of_resize_is_named(
    model: nn.Module, sound: Path, probe: Probe, tmp_path: Path
) -> None:
    def edit(node: onnx.NodeProto) -> None:
        kept = [a for a in node.attribute if a.name != "coordinate_transformation_mode"]
        del node.attribute[:]
        mode = onnx.helper.make_attribute("coordinate_transformation_mode", "asymmetric")
        node.attribute.extend([*kept, mode])

    file = damaged(sound, tmp_path, "Resize", edit)
    said = localise(model, PREPROCESS, probe, file, FAILED)
    assert said.startswith("first at Resize after stem.0 (")
    assert said.endswith(" dB")


def test_another_activation_is_named(
    model: nn.Module, sound: Path, probe: Probe, tmp_path: Path
) -> None:
    file = damaged(sound, tmp_path, "HardSwish", lambda node: setattr(node, "op_type", "Mish"))
    assert "first at Mish after stem.0 (" in localise(model, PREPROCESS, probe, file, FAILED)


def test_what_is_no_onnx_file_is_told_as_a_whole(model: nn.Module, probe: Probe) -> None:
    said = localise(model, PREPROCESS, probe, Path("models/fp32.xml"), FAILED)
    assert said == "the input is right, fp32.xml is not"


def test_a_file_that_cannot_be_run_hides_no_rung(
    model: nn.Module, probe: Probe, tmp_path: Path
) -> None:
    place = tmp_path / "broken.onnx"
    place.write_bytes(b"no model")
    said = localise(model, PREPROCESS, probe, place, FAILED)
    assert said.startswith("where is not known, as its layers cannot be run (")
    assert "\n" not in said


def test_the_model_is_as_it_was(model: nn.Module, sound: Path, probe: Probe) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    localise(model, PREPROCESS, probe, sound, FAILED)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_rung_that_passes_is_not_asked_about() -> None:
    def never(_: Rung) -> str:
        raise AssertionError

    passed = Rung("onnx fp32", "torch fp32", 8, None, 0.0, 100.0)
    assert require(passed, where=never) is passed
