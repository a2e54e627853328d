"""A student is trained with INT8 rounding in the loop, and its export is just what was trained."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgexfer.bench.accuracy import predict
from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.errors import ModelError, RecipeError, RunError
from edgexfer.core.model import ModelCard
from edgexfer.core.profile import HardwareProfile
from edgexfer.data.dataset import open_dataset
from edgexfer.data.images import load_images
from edgexfer.models.groups import parameter_groups
from edgexfer.models.normalise import PixelModel
from edgexfer.models.onnx import export_onnx
from edgexfer.models.store import load_model
from edgexfer.profiles import find_profile
from edgexfer.quantize.aware import AwareStudent, prepare, refuse_target
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.qdq import quantize_qdq, quantized_tensors
from edgexfer.quantize.ranges import Range, is_restricted
from edgexfer.training.loop import fit
from tests.export.digits import PREPROCESS, digits_run, measured_images
from tests.training import toy

Loaded = tuple[nn.Module, ModelCard]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    torch.set_num_threads(1)
    return load_model(digits_run(tmp_path_factory.getbasetemp()))


@pytest.fixture
def student(loaded: Loaded) -> nn.Module:
    return copy.deepcopy(loaded[0])


def int8(
    folder: Path,
    model: nn.Module,
    profile: HardwareProfile,
    calibration: Calibration,
    trained: dict[str, Range] | None = None,
) -> Path:
    file = export_onnx(model, PREPROCESS.size, folder / "fp32.onnx")
    out = folder / ("int8.onnx" if trained is None else "aware.onnx")
    restricted = is_restricted(profile)
    scheme = profile.quantization
    said = quantize_qdq(file, out, calibration, scheme, restricted=restricted, trained=trained)
    assert said.endswith("quantization-aware") == (trained is not None)
    return out


def logits_of(file: Path) -> np.ndarray:
    images, _ = measured_images(300)
    session = get_backend("onnxruntime").load(file, Plan(precision="int8", threads=1))
    return np.asarray(predict(session, images, PREPROCESS, batch=50))


def accuracy(logits: np.ndarray) -> float:
    return float(np.mean(logits.argmax(1) == measured_images(300)[1]))


def distil(aware: AwareStudent, teacher: nn.Module, *, steps: int, lr: float) -> None:
    """Train as the distilling loop does: the teacher's soft answers, its normalised images."""
    torch.manual_seed(0)
    images = load_images(open_dataset("digits"), "train", PREPROCESS)
    pixels = images.pixels(torch.arange(len(images)))
    groups = parameter_groups(aware, lr=lr, backbone_lr=1.0, weight_decay=0.0)
    optimizer = torch.optim.AdamW(groups)
    fed, guide = PixelModel(aware.train(), PREPROCESS), PixelModel(teacher.eval(), PREPROCESS)
    for index in [torch.randint(len(pixels), (64,)) for _ in range(steps)]:
        with torch.no_grad():
            wanted = F.softmax(guide(pixels[index]), 1)
        loss = F.cross_entropy(fed(pixels[index]), wanted)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    aware.eval()


def nodes(file: Path) -> list[bytes]:
    return [node.SerializeToString() for node in onnx.load(file).graph.node]


def kinds(file: Path) -> list[tuple[str, int, list[int]]]:
    return [(t.name, t.data_type, list(t.dims)) for t in onnx.load(file).graph.initializer]


@pytest.mark.parametrize("target", ["x86-onnxruntime", "jetson-orin-nano"])
def test_the_export_is_what_was_trained_placed_as_ever(
    target: str, student: nn.Module, calibration: Calibration, tmp_path: Path
) -> None:
    profile = find_profile(target)
    plain = int8(tmp_path, student, profile, calibration)
    before = {n: t.clone() for n, t in student.state_dict().items()}
    aware = prepare(student, calibration, profile)
    assert all(torch.equal(before[n], t) for n, t in student.state_dict().items())
    distil(aware, copy.deepcopy(student), steps=6, lr=1e-3)

    ranges = aware.finish(student)
    assert any(not torch.equal(before[n], t) for n, t in student.state_dict().items())
    trained = int8(tmp_path, student, profile, calibration, ranges.activations)
    assert nodes(trained) == nodes(plain)
    assert kinds(trained) == kinds(plain)
    constants = {
        t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(trained).graph.initializer
    }
    for name, found in ranges.activations.items():
        assert constants[f"{name}_scale"] == np.float32(found.scale)
        assert constants[f"{name}_zero_point"] == found.zero_point

    images = torch.from_numpy(measured_images(300)[0]).permute(0, 3, 1, 2)
    with torch.no_grad():
        mine = PixelModel(aware, PREPROCESS)(images).numpy()
    assert np.mean(mine.argmax(1) == logits_of(trained).argmax(1)) >= 0.99


def test_training_regains_what_a_poor_calibration_loses(
    student: nn.Module, calibration: Calibration, tmp_path: Path
) -> None:
    """Four images, taken in the dark: their ranges are a quarter of those that the model needs."""
    dark = replace(calibration, images=calibration.images[:4] // 4, keys=calibration.keys[:4])
    profile = find_profile("x86-onnxruntime")
    before = accuracy(logits_of(int8(tmp_path, student, profile, dark)))
    aware = prepare(student, dark, profile)
    distil(aware, copy.deepcopy(student), steps=40, lr=1e-3)
    ranges = aware.finish(student)
    after = accuracy(logits_of(int8(tmp_path, student, profile, dark, ranges.activations)))
    assert before < 0.7
    assert after > before + 0.2


def test_the_ordinary_loop_trains_it(tmp_path: Path) -> None:
    """With all that copies, averages and restores a model's state; the same training ends alike."""
    torch.set_num_threads(1)
    with toy.make_run(tmp_path / "float") as run:
        job = toy.make_job(run)
        fit(job)
    images = toy.digits(64)[0].permute(0, 2, 3, 1).numpy()
    calibration = Calibration(images, job.preprocess, ("",) * len(images))
    profile = find_profile("x86-onnxruntime")
    settings = {"lr": 1e-3, "epochs": 2, "ema": 0.9, "patience": 2, "precision": "auto"}
    ended = []
    for name in ("first", "second"):
        aware = prepare(job.model, calibration, profile)
        with toy.make_run(tmp_path / name) as run:
            result = fit(toy.make_job(run, aware, **settings))
        ended.append(toy.bits(aware))
    assert ended[0] == ended[1]
    assert result.val_top1_pct is not None
    assert result.val_top1_pct > 50
    before = toy.bits(job.model)
    assert len(aware.finish(job.model).activations) >= 4
    assert toy.bits(job.model) != before


def test_ranges_of_another_graph_are_refused(
    student: nn.Module, calibration: Calibration, tmp_path: Path
) -> None:
    profile = find_profile("x86-onnxruntime")
    file = int8(tmp_path, student, profile, calibration)
    ranges = {name: Range(0.1, 0) for name in sorted(quantized_tensors(file))}
    for wrong in ({**ranges, "elsewhere": Range(0.1, 0)}, dict(list(ranges.items())[1:])):
        with pytest.raises(RunError) as caught:
            int8(tmp_path, student, profile, calibration, wrong)
        assert "is not quantized here as it was in training (1 such tensors)" in caught.value.what
        assert "--qat-for" in caught.value.fix


class Scaled(nn.Module):
    """Multiplies its weight before it uses it, so that no file holds the weight itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight / self.conv.weight.norm()
        scores: Tensor = self.fc(F.conv2d(x, weight).mean((2, 3)))
        return scores


def test_a_weight_that_the_file_does_not_hold_is_named(calibration: Calibration) -> None:
    with pytest.raises(ModelError) as caught:
        prepare(Scaled(), calibration, find_profile("x86-onnxruntime"))
    assert "Scaled: " in caught.value.what
    assert "of its ONNX file is none of its weights" in caught.value.what
    assert "--qat-for" in caught.value.fix


def test_weights_that_do_not_come_back_are_an_error(
    student: nn.Module, calibration: Calibration
) -> None:
    aware = prepare(student, calibration, find_profile("x86-onnxruntime"))
    aware._bound = {}
    with pytest.raises(ModelError) as caught:
        aware.finish(student)
    assert "its ONNX file does not hold the trained weights" in caught.value.what
    assert "--qat-for" in caught.value.fix


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("x86-openvino", "target x86-openvino is quantized by nncf, which cannot be trained for"),
        ("x86-torch", "target x86-torch has no INT8"),
    ],
)
def test_a_target_that_cannot_be_trained_for_is_refused(target: str, what: str) -> None:
    with pytest.raises(RecipeError) as caught:
        refuse_target(find_profile(target))
    assert what in caught.value.what
    assert "--qat-for" in caught.value.fix


def test_ranges_suit_only_targets_of_the_same_scheme(
    student: nn.Module, calibration: Calibration
) -> None:
    ranges = prepare(student, calibration, find_profile("rpi5")).finish(student)
    assert ranges.suit(find_profile("rpi5"))
    assert not ranges.suit(find_profile("x86-onnxruntime"))
    # Symmetric INT8 as well, on fewer tensors.
    assert not ranges.suit(find_profile("jetson"))
