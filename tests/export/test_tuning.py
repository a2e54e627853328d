"""An INT8 that loses too much is searched for on images held out, and the bundle says so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgexfer.core.bundle import Manifest, Rung, get_artefact, verify_files
from edgexfer.core.profile import HardwareProfile
from edgexfer.data.dataset import open_dataset
from edgexfer.export.judge import HeldOutJudge
from edgexfer.export.stage import export
from edgexfer.profiles import find_profile
from edgexfer.quantize.calibration import Calibration, HeldOut, draw_calibration, hold_out
from edgexfer.quantize.qdq import quantize_qdq
from edgexfer.recipe import ExportSection
from tests.export.digits import PREPROCESS, measured_images, stretched_run

Sealed = tuple[Path, Manifest]


@pytest.fixture(scope="module")
def mended(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    """A bundle of a run whose plain INT8 is rubble, for both ways of placing Q/DQ nodes."""
    folder = tmp_path_factory.mktemp("tuned")
    stretched = stretched_run(run, folder / "run", mendable=True)
    section = ExportSection(
        targets=("x86-onnxruntime", "jetson"),
        precision="int8",
        evaluation_images=200,
        calibration_images=100,
        max_drop=1.0,
    )
    return folder / "bundle", export(stretched, section, folder / "bundle")


def int8_rungs(manifest: Manifest) -> list[Rung]:
    return [rung for rung in manifest.parity if " int8" in rung.name]


def test_the_search_finds_an_int8_that_passes(mended: Sealed) -> None:
    place, manifest = mended
    assert verify_files(place) == manifest
    rungs = int8_rungs(manifest)
    assert len(rungs) == 2
    for rung in rungs:
        assert rung.passed
        assert rung.agreement_pct >= 95
        assert rung.drop_pt is not None
        assert rung.drop_pt <= 1.0


def test_the_manifest_says_what_was_tried_and_taken(mended: Sealed) -> None:
    for rung in int8_rungs(mended[1]):
        (why,) = [note for note in rung.notes if note.startswith("searched for")]
        assert re.search(r"plain calibration reached -?\d+\.\d dB, lost ", why)
        assert why.endswith("images of val")
        (tried,) = [note for note in rung.notes if note.startswith("tried: min-max: ")]
        for method in ("percentile-99.99", "mse", "entropy"):
            assert f"; {method}: " in tried
    for target in ("x86-onnxruntime", "jetson-orin-nano"):
        artefact = get_artefact(mended[1], f"{target}-int8")
        assert artefact.scheme is not None
        assert "equalised" in artefact.scheme or "in float" in artefact.scheme


def test_what_was_refused_is_not_in_the_bundle(mended: Sealed) -> None:
    place, manifest = mended
    files = {p.name for p in (place / "models").iterdir()}
    assert {n for n in files if n.startswith("int8")} == {
        Path(get_artefact(manifest, f"{target}-int8").files[0].path).name
        for target in ("x86-onnxruntime", "jetson-orin-nano")
    }


def test_nodes_in_float_are_named(mended: Sealed) -> None:
    place, manifest = mended
    for target, rung in zip(
        ("x86-onnxruntime", "jetson-orin-nano"), int8_rungs(manifest), strict=True
    ):
        artefact = get_artefact(manifest, f"{target}-int8")
        named = [note for note in rung.notes if note.startswith("in float: ")]
        assert bool(named) == ("in float" in str(artefact.scheme))
        nodes = {n.name for n in onnx.load(place / artefact.files[0].path).graph.node}
        for note in named:
            assert set(note.removeprefix("in float: ").split(", ")) <= nodes


def test_an_int8_that_passes_at_once_is_not_searched_for(bundle: Sealed) -> None:
    for rung in int8_rungs(bundle[1]):
        assert not [note for note in rung.notes if "searched for" in note]


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    images, _ = measured_images(100)
    return draw_calibration(open_dataset("digits"), 64, PREPROCESS, measured=images)


@pytest.fixture(scope="module")
def held_out(calibration: Calibration) -> HeldOut:
    images, _ = measured_images(100)
    return hold_out(open_dataset("digits"), 80, calibration, measured=images)


@pytest.mark.parametrize("target", ["x86-onnxruntime", "jetson"])
def test_the_judge_tells_good_from_bad(
    target: str, fp32: Path, calibration: Calibration, held_out: HeldOut, tmp_path: Path
) -> None:
    profile: HardwareProfile = find_profile(target)
    judge = HeldOutJudge(fp32, held_out, PREPROCESS, profile, 2.0)
    out = tmp_path / "q.onnx"
    restricted = profile.backend == "tensorrt"
    quantize_qdq(fp32, out, calibration, profile.quantization, restricted=restricted)
    good = judge(out)
    assert good.passed
    assert good.agreement_pct >= 97
    proto = onnx.load(out)
    scale = next(t for t in proto.graph.initializer if t.name == "relu_2_scale")
    value = onnx.numpy_helper.to_array(scale) * np.float32(1000)
    scale.CopyFrom(onnx.numpy_helper.from_array(value, scale.name))
    onnx.save(proto, tmp_path / "bad.onnx")
    bad = judge(tmp_path / "bad.onnx")
    assert not bad.passed
    assert bad.drop_pt > good.drop_pt
