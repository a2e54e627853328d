"""What ``lora``, ``adapter`` and ``bitfit`` have trained goes to a device like any other model."""

from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

import edgexfer
from edgexfer.bench.accuracy import predict
from edgexfer.core.backend import Plan as Loading
from edgexfer.core.backend import get_backend
from edgexfer.models.normalise import PixelModel
from edgexfer.recipe import BenchSection, DataSection, ExportSection
from edgexfer.training.stage import Built
from edgexfer.transfer.plan import Plan, Subject
from tests.pictures import COLOURS, picture
from tests.transfer.tiny import TRAIN, from_weights

pytestmark = [pytest.mark.torch, pytest.mark.ort, pytest.mark.ov]

TARGETS = ("x86-onnxruntime", "x86-openvino")
PICTURES = np.stack(
    [np.asarray(picture(c, seed)) for c in COLOURS.values() for seed in range(90, 94)]
)
Float32 = npt.NDArray[np.float32]


def unmerged(patch: pytest.MonkeyPatch, strategy: str) -> list[Float32]:
    """Have a strategy note what its model answers before it brings it into its former form."""
    module = importlib.import_module(f"edgexfer.transfer.{strategy}")
    prepare, noted = module.prepare, []

    def watched(subject: Subject) -> Plan:
        plan: Plan = prepare(subject)

        def finish() -> None:
            noted.append(answers(subject.built))
            if plan.finish is not None:
                plan.finish()

        return replace(plan, finish=finish)

    patch.setattr(module, "prepare", watched)
    return noted


def answers(built: Built) -> Float32:
    pixels = torch.from_numpy(PICTURES).permute(0, 3, 1, 2)
    with torch.no_grad():
        found: Float32 = PixelModel(built.model, built.preprocess).eval()(pixels).numpy()
    return found


def contents(file: Path) -> tuple[dict[str, tuple[int, ...]], Counter[str]]:
    """Return an ONNX file's initialisers with their shapes, and how many nodes it has of a type."""
    graph = onnx.load(file).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    return shapes, Counter(node.op_type for node in graph.node)


@pytest.fixture(scope="module")
def plain(
    data: DataSection, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, tuple[int, ...]], Counter[str]]:
    """What is in the file of a model that was trained in full."""
    place = tmp_path_factory.mktemp("plain")
    edgexfer.finetune(data, from_weights(weights, "full"), place / "run")
    edgexfer.export(place / "run", ExportSection(TARGETS[:1], "fp32"), place / "bundle")
    (file,) = (place / "bundle").rglob("*.onnx")
    return contents(file)


@pytest.mark.parametrize(
    "strategy",
    [
        "lora",
        pytest.param("adapter", marks=pytest.mark.slow),
        pytest.param("bitfit", marks=pytest.mark.slow),
    ],
)
def test_the_whole_trip(
    tmp_path: Path,
    data: DataSection,
    weights: Path,
    plain: tuple[dict[str, tuple[int, ...]], Counter[str]],
    monkeypatch: pytest.MonkeyPatch,
    strategy: str,
) -> None:
    noted = unmerged(monkeypatch, strategy)
    edgexfer.finetune(
        data, from_weights(weights, strategy, replace(TRAIN, epochs=8)), tmp_path / "run"
    )
    bundle = tmp_path / "bundle"
    manifest = edgexfer.export(tmp_path / "run", ExportSection(TARGETS, "all"), bundle)
    made = {artefact.name: artefact for artefact in manifest.artefacts}
    assert made.keys() >= {f"{target}-{kind}" for target in TARGETS for kind in ("fp32", "int8")}
    assert manifest.parity and all(rung.passed for rung in manifest.parity)

    # No trace of what was trained beside the weights, and the very answers.
    file = bundle / made["x86-onnxruntime-fp32"].files[0].path
    assert contents(file) == plain
    session = get_backend("onnxruntime").load(file, Loading("fp32", threads=1))
    np.testing.assert_allclose(
        predict(session, PICTURES, manifest.preprocess), noted[0], rtol=0, atol=1e-5
    )
    session.close()

    short = BenchSection(processes=1, seconds=0.01, samples=10, threads=1)
    records = edgexfer.bench(bundle, tmp_path / "bench", section=short)
    assert [record.artefact["name"] for record in records] == list(made)
    assert not [record.reasons for record in records if record.status == "failed"]
    with edgexfer.load_bundle(bundle) as loaded:
        said = [loaded.predict(image).label for image in PICTURES]
    assert said == [manifest.labels[i] for i in noted[0].argmax(1)]
