"""The stage: what a bundle holds, that a failed export leaves nothing, that nothing is lost."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgexfer.backends.openvino import lacks
from edgexfer.core.bundle import Manifest, get_artefact, verify_files
from edgexfer.core.errors import BundleError, ParityError, ProfileError, RecipeError, RunError
from edgexfer.core.files import read_json, write_json
from edgexfer.core.progress import Progress
from edgexfer.core.rundir import INFO
from edgexfer.export.stage import export
from edgexfer.profiles import find_profile, to_yaml
from edgexfer.quantize.qdq import check_qdq
from edgexfer.recipe import ExportSection
from tests.export.conftest import TARGETS
from tests.export.digits import stretched_run

# One image of sixty is more than a point.
ONE = ExportSection(
    targets=("x86-onnxruntime",),
    precision="all",
    evaluation_images=60,
    calibration_images=60,
    max_drop=5.0,
)
Sealed = tuple[Path, Manifest]


def left_in(folder: Path) -> list[str]:
    return sorted(place.name for place in folder.iterdir())


def test_the_bundle_is_sealed_and_whole(bundle: Sealed) -> None:
    place, manifest = bundle
    assert verify_files(place) == manifest
    assert left_in(place.parent) == ["bundle"]


def test_each_target_has_its_precisions(bundle: Sealed) -> None:
    names = [a.name for a in bundle[1].artefacts]
    missing = lacks("bf16", "CPU")
    assert names == [
        "x86-onnxruntime-fp32",
        "x86-onnxruntime-int8",
        "x86-openvino-fp32",
        *([] if missing else ["x86-openvino-bf16"]),
        "x86-openvino-int8",
        "x86-torch-fp32",
        "rpi5-onnxruntime-fp32",
        "rpi5-onnxruntime-int8",
        "jetson-orin-nano-fp32",
        "jetson-orin-nano-fp16",
        "jetson-orin-nano-int8",
    ]


def test_int8_keeps_the_accuracy_on_digits(bundle: Sealed) -> None:
    rungs = {r.name: r for r in bundle[1].parity}
    int8 = [r for name, r in rungs.items() if " int8" in name]
    assert len(int8) == 4
    for rung in int8:
        assert rung.agreement_pct >= 97, rung
        assert rung.drop_pt is not None
        assert rung.drop_pt <= 1.0, rung


def test_the_ladder_begins_at_the_trained_model(bundle: Sealed) -> None:
    _, manifest = bundle
    assert [r.name for r in manifest.parity[:2]] == ["onnx fp32", "onnx fp32, optimised"]
    assert all(r.passed and r.against == "torch fp32" for r in manifest.parity)
    assert manifest.reference is not None
    assert manifest.reference.n == manifest.parity[3].n
    fp32 = next(r for r in manifest.parity if r.name == "x86-onnxruntime fp32")
    assert fp32.top1_pct == pytest.approx(100 * manifest.reference.correct / manifest.reference.n)


def test_targets_share_files_of_the_same_content(bundle: Sealed) -> None:
    _, manifest = bundle
    files = {a.name: a.files[0].path for a in manifest.artefacts}
    shared = {files[f"{t}-fp32"] for t in ("x86-onnxruntime", "rpi5-onnxruntime")}
    assert shared == {files["jetson-orin-nano-fp32"]}
    assert len(set(files.values())) == 8


def test_artefacts_name_their_parent_scheme_and_makers(bundle: Sealed) -> None:
    place, manifest = bundle
    base = get_artefact(manifest, "x86-onnxruntime-fp32")
    int8 = get_artefact(manifest, "x86-onnxruntime-int8")
    assert base.parent_sha256 is None
    assert int8.parent_sha256 == base.files[0].sha256
    assert int8.scheme is not None
    assert "uint8 activations" in int8.scheme
    assert {"torch", "onnx", "onnxruntime"} <= set(int8.made_by)
    assert int8.inputs[0].shape == (-1, 3, 16, 16)
    assert int8.opset == onnx.load(place / int8.files[0].path).opset_import[0].version == 20
    nncf = get_artefact(manifest, "x86-openvino-int8")
    assert [Path(f.path).suffix for f in nncf.files] == [".xml", ".bin"]
    assert "nncf" in nncf.made_by


def test_images_labels_and_golden_outputs_fit_together(bundle: Sealed) -> None:
    place, manifest = bundle
    assert manifest.evaluation is not None
    images = np.load(place / manifest.evaluation.images, allow_pickle=False)
    labels = np.load(place / manifest.evaluation.labels, allow_pickle=False)
    golden = np.load(place / manifest.golden_images, allow_pickle=False)
    assert images.dtype == golden.dtype == np.uint8
    assert labels.dtype == np.int64
    assert images.shape == (manifest.evaluation.n, 16, 16, 3) == (len(labels), 16, 16, 3)
    assert manifest.evaluation.n <= manifest.evaluation.n_split
    for artefact in manifest.artefacts:
        assert artefact.golden is not None
        outputs = np.load(place / artefact.golden, allow_pickle=False)
        assert outputs.shape == (len(golden), 10)


def test_calibration_is_recorded_and_from_train(bundle: Sealed) -> None:
    calibration = bundle[1].calibration
    assert calibration["split"] == "train"
    assert calibration["n"] == 300
    assert len(calibration["sha256"]) == 64


def test_lineage_names_no_place_of_this_machine(bundle: Sealed, run: Path) -> None:
    place, manifest = bundle
    text = json.dumps(manifest.lineage) + (place / "README.md").read_text()
    assert manifest.lineage["run"] == run.name
    assert str(run.parent) not in text
    for artefact in manifest.artefacts:
        content = (place / artefact.files[0].path).read_bytes()
        assert b"site-packages" not in content, artefact.name


def test_the_jetson_part_is_what_a_jetson_needs(bundle: Sealed) -> None:
    place, manifest = bundle
    int8 = get_artefact(manifest, "jetson-orin-nano-int8")
    model = onnx.load(place / int8.files[0].path)
    assert check_qdq(place / int8.files[0].path, strict=True) > 0
    kinds = {t.data_type for t in model.graph.initializer}
    assert onnx.TensorProto.FLOAT not in kinds
    assert onnx.TensorProto.FLOAT16 in kinds
    ends = [*model.graph.input, *model.graph.output]
    assert {e.type.tensor_type.elem_type for e in ends} == {onnx.TensorProto.FLOAT}
    for name in ("jetson-orin-nano-fp32", "jetson-orin-nano-fp16"):
        assert (place / get_artefact(manifest, name).files[0].path).is_file()
    profile = read_json(place / manifest.profiles["jetson-orin-nano"])
    assert profile["seen_on_hardware"] is False
    rung = next(r for r in manifest.parity if r.name.startswith("jetson-orin-nano int8"))
    assert rung.name.endswith("run in onnxruntime")


def test_the_readme_gives_the_commands_and_claims_nothing(bundle: Sealed) -> None:
    place, manifest = bundle
    text = (place / "README.md").read_text()
    jetson = text[text.index("Jetson Orin Nano") :]
    assert "Provided, not measured on hardware" in jetson
    for file in ("jetson-orin-nano-int8", "jetson-orin-nano-fp16", "jetson-orin-nano-fp32"):
        path = get_artefact(manifest, file).files[0].path
        assert f"--onnx={path} " in jetson
        # Beside the bundle: a foreign file in it would break the seal.
        assert f"--saveEngine=../{file}.engine" in jetson
    timed = [part for part in jetson.split("trtexec") if "--loadEngine" in part]
    assert len(timed) == 3
    for command in timed:
        for option in ("--useCudaGraph", "--useSpinWait", "--noDataTransfers"):
            assert option in command
    assert "JetPack 5.1 (TensorRT 8.5.2): not with this bundle" in jetson
    assert "JetPack 7.2 (TensorRT 10.16.2): the same commands" in jetson


def test_the_readme_has_the_accuracy_of_every_artefact(bundle: Sealed) -> None:
    place, manifest = bundle
    text = (place / "README.md").read_text()
    for a in manifest.artefacts:
        rung = next(r for r in manifest.parity if r.name.startswith(f"{a.target} {a.precision}"))
        cells = f"| `{a.name}` | {rung.top1_pct:.2f} % | {rung.drop_pt:.2f} | "
        cells += f"{rung.drop_low_pt:.2f} to {rung.drop_high_pt:.2f} | "
        where = "run in onnxruntime" if a.backend == "tensorrt" else "by its own runtime"
        assert f"{cells}{where} |" in text


def test_a_drop_that_the_images_cannot_decide_is_in_the_verdict_and_the_readme(
    run: Path, tmp_path: Path
) -> None:
    section = replace(ONE, targets=("rpi5",), precision="int8", evaluation_images=8)
    manifest = export(run, section, tmp_path / "bundle")
    (choice,) = manifest.choices
    rung = next(r for r in manifest.parity if r.name == "rpi5-onnxruntime int8")
    assert choice.verdict.startswith("INT8: drop undecidable with 8 images: about ")
    lost = f"{rung.drop_pt:.2f} points lost, 95 % interval {rung.drop_low_pt:.2f} to "
    assert f"({lost}{rung.drop_high_pt:.2f})" in choice.verdict
    assert f"\n{choice.verdict}.\n" in (tmp_path / "bundle/README.md").read_text()


def test_the_packed_device_side_verifies_the_bundle(bundle: Sealed) -> None:
    place, _ = bundle
    done = subprocess.run(
        [sys.executable, "edgexfer.pyz", "verify", "."],
        cwd=place,
        env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "x86-onnxruntime-int8" in done.stdout
    assert "failed" not in done.stdout


def test_the_same_request_finds_its_bundle(bundle: Sealed, run: Path) -> None:
    place, manifest = bundle
    before = (place / "manifest.json").stat().st_mtime_ns
    assert export(run, ExportSection(targets=TARGETS, precision="all"), place) == manifest
    assert (place / "manifest.json").stat().st_mtime_ns == before


def test_another_request_does_not_touch_the_bundle(bundle: Sealed, run: Path) -> None:
    place, _ = bundle
    before = (place / "manifest.json").read_bytes()
    with pytest.raises(BundleError) as caught:
        export(run, ONE, place)
    assert "holds a bundle of another model or of other settings" in caught.value.what
    assert "choose another --out" in caught.value.fix
    assert (place / "manifest.json").read_bytes() == before


def test_two_exports_give_the_same_model_files(run: Path, tmp_path: Path) -> None:
    first, second = (export(run, ONE, tmp_path / name) for name in ("a", "b"))
    assert [a.files for a in first.artefacts] == [a.files for a in second.artefacts]
    assert first.calibration == second.calibration


def test_progress_shows_the_parts_and_seconds_are_kept(run: Path, tmp_path: Path) -> None:
    text = io.StringIO()
    section = ExportSection(targets=("x86-torch",), evaluation_images=20)
    manifest = export(
        run,
        section,
        tmp_path / "b",
        progress=lambda title, total, unit: Progress(title, total, unit, text),
    )
    assert "x86-torch fp32" in text.getvalue()
    assert set(manifest.lineage["seconds"]) == {"images", "fp32 reference", "x86-torch fp32"}
    assert manifest.calibration == {}


def test_a_drop_beyond_the_limit_leaves_nothing(run: Path, tmp_path: Path) -> None:
    stretched = stretched_run(run, tmp_path / "run", mendable=False)
    with pytest.raises(ParityError) as caught:
        export(stretched, ONE, tmp_path / "bundle")
    assert "x86-onnxruntime int8 loses" in caught.value.what
    assert left_in(tmp_path) == ["run"]


def test_an_interruption_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgexfer.quantize.qdq.quantize_qdq", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(run, ONE, tmp_path / "bundle")
    assert left_in(tmp_path) == []


def test_changed_data_is_refused(run: Path, tmp_path: Path) -> None:
    changed = tmp_path / "run"
    shutil.copytree(run, changed)
    info = read_json(changed / INFO)
    write_json(changed / INFO, {**info, "data_fingerprint": "0" * 64})
    with pytest.raises(RunError) as caught:
        export(changed, ONE, tmp_path / "bundle")
    assert "has changed since the training" in caught.value.what
    assert "train again" in caught.value.fix


def test_an_unfinished_run_is_refused(run: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "run"
    unfinished.mkdir()
    shutil.copy(run / INFO, unfinished / INFO)
    with pytest.raises(RunError, match="holds no trained model"):
        export(unfinished, ONE, tmp_path / "bundle")


def test_a_target_named_twice_is_refused(run: Path, tmp_path: Path) -> None:
    section = ExportSection(targets=("x86", "x86-onnxruntime"))
    with pytest.raises(RecipeError) as caught:
        export(run, section, tmp_path / "bundle")
    assert "x86-onnxruntime is named twice" in caught.value.what


def test_a_precision_that_a_target_lacks_is_refused(run: Path, tmp_path: Path) -> None:
    section = ExportSection(targets=("x86-torch",), precision="int8")
    with pytest.raises(RecipeError) as caught:
        export(run, section, tmp_path / "bundle")
    assert "x86-torch has no precision int8" in caught.value.what
    assert "one of fp32" in caught.value.fix


def test_a_profile_with_a_precision_that_cannot_be_made_is_refused(
    run: Path, tmp_path: Path
) -> None:
    text = to_yaml(find_profile("torch")).replace("backend: torch", 'backend: "null"')
    place = tmp_path / "x86-torch.yaml"
    place.write_text(text)
    with pytest.raises(ProfileError, match="fp32 cannot be exported for null"):
        export(run, ExportSection(targets=(str(place),)), tmp_path / "bundle")


def test_a_profile_of_ones_own_decides_the_drop(run: Path, tmp_path: Path) -> None:
    text = to_yaml(find_profile("x86-onnxruntime")).replace(
        "accuracy_drop_pt: null", "accuracy_drop_pt: 42.0"
    )
    place = tmp_path / "x86-onnxruntime.yaml"
    place.write_text(text)
    section = replace(ONE, targets=(str(place),), max_drop=None)
    manifest = export(run, section, tmp_path / "bundle")
    int8 = next(r for r in manifest.parity if r.name.endswith("int8"))
    assert int8.limits["drop_pt"] == 42.0
