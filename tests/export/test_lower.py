"""A target gets the opset, the operators and the precision that its parser takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from edgexfer.core.bundle import verify_files
from edgexfer.core.codec import decode
from edgexfer.core.errors import ProfileError
from edgexfer.core.files import read_json, sha256_file
from edgexfer.core.profile import HardwareProfile
from edgexfer.export.flavour import default_row, for_release, takes_cache, target_opset
from edgexfer.export.lint import lint, lint_target
from edgexfer.export.lower import Lowering
from edgexfer.export.stage import export
from edgexfer.models.onnx import OPSET
from edgexfer.models.store import load_model
from edgexfer.profiles import find_profile
from edgexfer.recipe import ExportSection


def _with_default(name: str) -> HardwareProfile:
    """Return the profile of a Jetson whose default is another of its releases."""
    jetson = find_profile("jetson")
    rows = tuple(replace(row, default=row.name == name) for row in jetson.stack)
    return replace(jetson, stack=rows)


@pytest.mark.parametrize(
    ("release", "opset"),
    [("JetPack 5.1", 13), ("JetPack 6.0", 17), ("JetPack 6.2", OPSET), ("JetPack 7.2", OPSET)],
)
def test_the_opset_follows_the_release(release: str, opset: int) -> None:
    assert target_opset(_with_default(release)) == opset


def test_runtimes_of_this_machine_take_what_torch_writes() -> None:
    assert target_opset(find_profile("x86-onnxruntime")) == OPSET


@pytest.mark.ort
def test_a_weakly_typed_target_gets_fp32_files_of_its_opset(run: Path, tmp_path: Path) -> None:
    manifest = export(run, ExportSection(targets=("jetson-xavier-nx",)), tmp_path / "bundle")
    files = {a.precision: a.files[0].path for a in manifest.artefacts}
    assert files["fp32"] == files["fp16"] == "models/fp32-op13.onnx"
    assert files["int8"] == "models/int8-qdq-int8-fp32-op13.onnx"
    assert {a.opset for a in manifest.artefacts} == {13}
    for file in set(files.values()):
        proto = onnx.load(tmp_path / "bundle" / file)
        assert [item.version for item in proto.opset_import] == [13]
        kinds = {t.data_type for t in proto.graph.initializer}
        assert onnx.TensorProto.FLOAT16 not in kinds
    rungs = {rung.name: rung for rung in manifest.parity}
    assert [name for name in rungs if name.startswith("lowered")] == ["lowered, fp32-op13"]
    # What a flag makes of the FP32 file is seen all the same, in one that is typed so.
    half = rungs["jetson-xavier-nx fp16, run in onnxruntime"]
    assert half.sqnr_db is not None
    assert 45 < half.sqnr_db < 100
    assert not list(tmp_path.rglob("*fp16*.onnx"))


@pytest.mark.ort
def test_another_release_of_a_board_can_be_asked_for(run: Path, tmp_path: Path) -> None:
    section = ExportSection(("jetson",), "int8", 20, 60, 60, stack="JetPack 6.0")
    place = tmp_path / "bundle"
    manifest = export(run, section, place)
    board = [a for a in manifest.artefacts if a.target == "jetson-orin-nano"]
    assert [a.opset for a in board] == [17, 17]
    assert board[1].files[0].path == "models/int8-qdq-int8-fp32-op17.onnx"
    aim = lint_target(find_profile("jetson"), "JetPack 6.0")
    assert not [f for a in board for f in lint(place / a.files[0].path, aim) if f.rule != "opset"]
    assert manifest.lineage["export"]["stack"] == "JetPack 6.0"
    sealed = decode(HardwareProfile, read_json(place / manifest.profiles[board[0].target]), "it")
    assert default_row(sealed).name == "JetPack 6.0"
    text = (place / "README.md").read_text()
    assert "For JetPack 6.0 (TensorRT 8.6.2)" in text
    assert (
        "- JetPack 5.1 (TensorRT 8.5.2): not with this bundle: it lacks operators of opset 17, "
        "which these files are. Make one for it: "
        '`edgexfer export RUN --target jetson-orin-nano --stack "JetPack 5.1"`.'
    ) in text
    assert "- JetPack 6.2 (TensorRT 10.3.0): not with this bundle: it takes precision from" in text


def test_a_target_without_the_release_keeps_its_own() -> None:
    given = find_profile("jetson"), find_profile("rpi5")
    jetson, rpi5 = for_release(given, "JetPack 6.0")
    assert [row.name for row in jetson.stack if row.default] == ["JetPack 6.0"]
    assert rpi5 == given[1]


def test_a_release_that_no_target_lists_is_refused(run: Path, tmp_path: Path) -> None:
    section = ExportSection(("jetson", "rpi5"), stack="JetPack 6")
    with pytest.raises(ProfileError) as caught:
        export(run, section, tmp_path / "bundle")
    assert caught.value.what == "jetson-orin-nano, rpi5-onnxruntime: no release 'JetPack 6'"
    assert "did you mean 'JetPack 6.2' or 'JetPack 6.0'" in caught.value.fix


@pytest.mark.ort
def test_a_file_for_the_dla_ends_in_a_pooling(run: Path, tmp_path: Path) -> None:
    model, card = load_model(run)
    profile = replace(_with_default("JetPack 6.0"), device="DLA")
    file = Lowering(model, card, tmp_path, None).base(profile).files[0]
    kinds = {node.op_type for node in onnx.load(file).graph.node}
    assert file.name == "fp32-op17-dla.onnx"
    assert {"AveragePool", "Flatten"} < kinds
    assert not {"ReduceMean", "Reshape", "GlobalAveragePool"} & kinds


@pytest.mark.ort
def test_a_dla_without_qdq_nodes_gets_a_calibration_cache(run: Path, tmp_path: Path) -> None:
    section = ExportSection(targets=("jetson-orin-nx-dla",), precision="int8")
    manifest = export(run, section, tmp_path / "bundle")
    assert verify_files(tmp_path / "bundle") == manifest
    (int8,) = manifest.artefacts
    assert [Path(f.path).suffix for f in int8.files] == [".onnx", ".cache"]
    assert int8.options == {"calibration_cache": Path(int8.files[1].path).name}
    assert str(int8.scheme).endswith("as a calibration cache")
    model, cache = (tmp_path / "bundle" / f.path for f in int8.files)
    assert "DequantizeLinear" not in {n.op_type for n in onnx.load(model).graph.node}
    aim = lint_target(find_profile("jetson-orin-nx-dla"))
    assert [f.rule for f in lint(model, aim) if f.severity != "note"] == []
    assert cache.read_text().startswith("TRT-100300-EntropyCalibration2\n")
    # What was checked is the Q/DQ file with these scales, which stays in the bundle too.
    assert int8.parent_sha256 == sha256_file(
        model.with_name(model.name.replace("cached-10.3.0", "qdq"))
    )
    (rung,) = [rung for rung in manifest.parity if " int8" in rung.name]
    assert rung.name == "jetson-orin-nx-16gb-dla int8, run in onnxruntime"
    assert f"--calib=models/{cache.name}" in (tmp_path / "bundle/README.md").read_text()


def test_a_dla_of_tensorrt_11_takes_qdq_nodes() -> None:
    dla = find_profile("jetson-orin-nx-dla")
    assert takes_cache(dla)
    assert not takes_cache(replace(dla, stack=(replace(dla.stack[-1], runtime_version="11.4.1"),)))
    assert not takes_cache(find_profile("jetson"))
