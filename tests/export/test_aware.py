"""A run that was trained with quantization exports what it was trained with, and says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
import torch

from edgexfer.core.bundle import Artefact, Manifest, get_artefact
from edgexfer.core.errors import RunError
from edgexfer.core.model import FOLDER
from edgexfer.core.rundir import open_run, read_run
from edgexfer.data.dataset import open_dataset
from edgexfer.export.stage import export
from edgexfer.models.store import load_model, save_model
from edgexfer.profiles import find_profile
from edgexfer.quantize.aware import prepare
from edgexfer.quantize.calibration import draw_calibration
from edgexfer.quantize.ranges import FILE, TrainedRanges, write_ranges
from edgexfer.recipe import ExportSection
from tests.export.digits import measured_images

Made = tuple[Path, TrainedRanges]
Sealed = tuple[Path, Manifest]


@pytest.fixture(scope="module")
def aware(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The run of digits with its weights and ranges moved, as a training moves them."""
    place = tmp_path_factory.mktemp("aware") / "run"
    shutil.copytree(run, place)
    model, card = load_model(place)
    images, _ = measured_images(100)
    calibration = draw_calibration(open_dataset("digits"), 64, card.preprocess, measured=images)
    student = prepare(model, calibration, find_profile("x86-onnxruntime"))
    with torch.no_grad():
        for parameter in student.graph.log_scales:
            parameter.add_(0.05)
        student.get_classifier().get_parameter("bias").add_(0.01)
    ranges = student.finish(model)
    with open_run(place, read_run(place)) as opened:
        write_ranges(opened, ranges)
    save_model(
        place,
        model,
        name=card.name,
        classes=card.classes,
        preprocess=card.preprocess,
        origin=card.origin,
        options=card.options,
    )
    return place, ranges


@pytest.fixture(scope="module")
def sealed(aware: Made, tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    place = tmp_path_factory.mktemp("bundle") / "bundle"
    section = ExportSection(targets=("x86-onnxruntime", "rpi5"), precision="int8")
    return place, export(aware[0], section, place)


def graph(place: Path, artefact: Artefact) -> onnx.GraphProto:
    return onnx.load(place / artefact.files[0].path).graph


def test_the_trained_ranges_are_in_the_file(aware: Made, sealed: Sealed) -> None:
    place, manifest = sealed
    artefact = get_artefact(manifest, "x86-onnxruntime-int8")
    assert artefact.scheme is not None
    assert artefact.scheme.endswith("quantization-aware")
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph(place, artefact).initializer}
    for name, found in aware[1].activations.items():
        assert float(constants[f"{name}_scale"]) == found.scale


def test_the_nodes_are_those_of_post_training_quantization(sealed: Sealed, bundle: Sealed) -> None:
    both = [
        graph(place, get_artefact(manifest, "x86-onnxruntime-int8"))
        for place, manifest in (sealed, bundle)
    ]
    nodes = [[node.SerializeToString() for node in one.node] for one in both]
    kinds = [[(t.name, t.data_type, tuple(t.dims)) for t in one.initializer] for one in both]
    assert nodes[0] == nodes[1]
    assert kinds[0] == kinds[1]


def test_another_scheme_is_calibrated_as_ever(sealed: Sealed) -> None:
    artefact = get_artefact(sealed[1], "rpi5-onnxruntime-int8")
    assert artefact.scheme == "qdq int8 activations, int8-per-channel weights"


def test_ranges_that_were_changed_are_refused(aware: Made, tmp_path: Path) -> None:
    shutil.copytree(aware[0], tmp_path / "run")
    (tmp_path / "run" / FOLDER / FILE).unlink()
    with pytest.raises(RunError, match=r"quantization\.json: is missing"):
        export(tmp_path / "run", ExportSection(), tmp_path / "bundle")
