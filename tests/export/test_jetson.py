"""The trtexec commands: options that each TensorRT version knows, settings always said."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgexfer.core.backend import TensorSpec
from edgexfer.core.bundle import Artefact, FileEntry, Manifest
from edgexfer.core.errors import ProfileError
from edgexfer.core.model import SCHEMA, ModelCard
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.profile import Stack
from edgexfer.core.record import read_record
from edgexfer.export.flavour import default_row, wanted_precisions
from edgexfer.export.jetson import build_command, instructions, obstacle, run_command
from edgexfer.export.readme import bundle_readme
from edgexfer.profiles import find_profile
from edgexfer.recipe import ExportSection
from tests.backends.fake_tensorrt import write_site

PREPROCESS = Preprocess(size=(160, 224), resize=224)
JETSON = find_profile("jetson")


def artefact(precision: str, opset: int = 20) -> Artefact:
    return Artefact(
        name=f"jetson-orin-nano-{precision}",
        target="jetson-orin-nano",
        backend="tensorrt",
        precision=precision,
        files=(FileEntry(f"models/{precision}.onnx", 1, "0" * 64),),
        inputs=(TensorSpec("images", (-1, 3, 160, 224), "float32"),),
        outputs=(TensorSpec("logits", (-1, 2), "float32"),),
        opset=opset,
    )


def row(version: str, opset: int = 20, typing: str = "strong") -> Stack:
    return Stack(f"with {version}", version, "3.10", "2.35", opset, typing)  # type: ignore[arg-type]


def test_an_engine_is_typed_strongly_where_that_must_be_said() -> None:
    ten = build_command(artefact("int8"), JETSON, PREPROCESS, row("10.3.0"))
    eleven = build_command(artefact("int8"), JETSON, PREPROCESS, row("11.4.1"))
    assert "--stronglyTyped" in ten
    assert "--stronglyTyped" not in eleven
    assert "--shapes=images:1x3x160x224" in ten


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("version", ["10.3.0", "10.16.2", "11.4.1"])
def test_no_option_that_a_version_refuses(precision: str, version: str) -> None:
    """TensorRT 11 ends at the builder flags, 10 at the names of 8; both end at a typing error."""
    words = build_command(artefact(precision), JETSON, PREPROCESS, row(version))
    words += run_command(artefact(precision), PREPROCESS, row(version))
    options = {w.split("=")[0] for w in words}
    gone = {"--fp16", "--int8", "--best", "--calib", "--buildOnly", "--workspace", "--batch"}
    assert not options & gone
    assert ("--noTF32" in options) == (precision == "fp32")


def test_the_three_settings_are_always_said() -> None:
    assert {"--useCudaGraph", "--useSpinWait", "--noDataTransfers"} <= set(
        run_command(artefact("int8"), PREPROCESS, row("10.3.0"))
    )


@pytest.mark.parametrize(
    ("opset", "stack", "reason"),
    [
        (20, row("10.3.0"), None),
        (20, row("8.6.2", 17, "weak"), "takes ONNX up to opset 17, these files are opset 20"),
        (17, row("8.6.2", 17, "weak"), "takes precision from builder flags"),
    ],
)
def test_a_release_that_cannot_build_says_why(opset: int, stack: Stack, reason: str | None) -> None:
    found = obstacle(artefact("int8", opset), JETSON, stack)
    assert found is None if reason is None else found is not None and reason in found


def test_files_for_builder_flags_are_not_for_a_release_that_types_strongly() -> None:
    weak = replace(JETSON, stack=(row("8.6.2", 17, "weak"),))
    found = obstacle(artefact("fp16", 17), weak, row("10.3.0"))
    assert found == "it takes precision from the files, these leave it to builder flags"
    assert obstacle(artefact("fp32", 17), weak, row("10.3.0")) is None
    assert obstacle(artefact("int8", 17), weak, row("8.6.1", 17, "weak")) is None


def test_a_dla_is_built_for_by_flags_until_tensorrt_11() -> None:
    """trtexec of TensorRT 10 sets FP16 for a DLA, which a strongly typed network refuses."""
    dla = find_profile("jetson-agx-orin-dla")
    half = replace(artefact("fp16"), name=f"{dla.name}-fp16", target=dla.name)
    text = instructions(dla, [half], PREPROCESS)
    assert "--fp16 \\\n" in text
    assert "--useDLACore=0" in text
    assert "--stronglyTyped" not in text
    assert "JetPack 5.1 (TensorRT 8.5.2): not with this bundle: its parser" in text
    files = "it takes precision from the files, these leave it to builder flags"
    assert f"with TensorRT 11.4 (TensorRT 11.4.1): not with this bundle: {files}" in text
    without = replace(row("10.16.2"), dla=False)
    assert obstacle(half, dla, without) == "it builds no engines for the DLA"


@pytest.mark.parametrize(
    ("target", "precision", "made"),
    [
        ("jetson-orin-nx-dla", "int8", ("int8",)),
        ("jetson-orin-nx-dla", "fp16", ("fp16",)),
        ("intel-lunar-lake-npu-openvino", "int8", ("int8",)),
    ],
)
def test_a_target_without_fp32_gets_none(target: str, precision: str, made: tuple[str]) -> None:
    section = ExportSection(precision=precision)  # type: ignore[arg-type]
    assert wanted_precisions(find_profile(target), section) == made


def test_instructions_cover_every_row() -> None:
    newer = replace(JETSON, stack=(*JETSON.stack, row("11.4.1", 25)))
    text = instructions(newer, [artefact("int8")], PREPROCESS)
    assert "For JetPack 6.2 (TensorRT 10.3.0)" in text
    for stack in newer.stack:
        assert stack.name in text
    assert "with 11.4.1 (TensorRT 11.4.1): the same commands of `edgexfer.pyz`" in text


def test_three_commands_and_what_has_not_been_seen() -> None:
    text = instructions(JETSON, [artefact("int8")], PREPROCESS)
    for verb in ("verify .", "bench . --out ../bench", "trtexec . --out ../bench"):
        assert f"python3 edgexfer.pyz {verb}" in text
    assert "python3-libnvinfer" in text
    assert "Not seen on hardware: whether this TensorRT takes these files" in text
    seen = instructions(replace(JETSON, seen_on_hardware=True), [artefact("int8")], PREPROCESS)
    assert "Not seen" not in seen


def test_a_release_that_is_too_old_gets_trtexec_alone() -> None:
    nano = find_profile("jetson-nano")
    text = instructions(nano, [artefact("fp16", 13)], PREPROCESS)
    assert "too old for `edgexfer.pyz`; only `trtexec` is of use" in text
    assert "pyz verify" not in text
    assert "--workspace=1024" in text
    xavier = instructions(find_profile("jetson-xavier-nx"), [artefact("fp32", 13)], PREPROCESS)
    assert "too old for `edgexfer.pyz`; `trtexec` has other options there" in xavier


def test_a_release_of_flags_gets_them() -> None:
    weak = row("8.6.2", 17, "weak")
    words = build_command(artefact("int8", 17), JETSON, PREPROCESS, weak)
    assert {"--int8", "--fp16", "--skipInference"} <= set(words)


def test_the_default_row_is_the_marked_one_else_the_first() -> None:
    assert default_row(JETSON).name == "JetPack 6.2"
    unmarked = replace(JETSON, stack=tuple(replace(r, default=False) for r in JETSON.stack))
    assert default_row(unmarked).name == "JetPack 5.1"
    with pytest.raises(ProfileError, match="has no stack row"):
        default_row(replace(JETSON, stack=()))


@pytest.mark.parametrize(
    ("precision", "made"),
    [
        ("auto", ("fp32", "fp16", "int8")),
        ("int8", ("fp32", "int8")),
        ("fp16", ("fp32", "fp16")),
        ("fp32", ("fp32",)),
    ],
)
def test_fp32_is_always_made_first(precision: str, made: tuple[str, ...]) -> None:
    section = ExportSection(precision=precision)  # type: ignore[arg-type]
    assert wanted_precisions(JETSON, section) == made


@pytest.mark.ort
@pytest.mark.parametrize("version", ["10.3.0", "11.4.0.106"])
def test_the_commands_of_the_sealed_bundle_work_on_the_api_of_tensorrt(
    version: str, bundle: tuple[Path, Manifest], tmp_path: Path
) -> None:
    """On a stand-in for the board: its machine's name and a TensorRT that computes on the CPU."""
    shutil.copytree(bundle[0], tmp_path / "bundle")
    site = write_site(tmp_path / "site", version)
    (site / "sitecustomize.py").write_text(
        "import platform\nplatform.machine = lambda: 'aarch64'\n"
    )
    text = (tmp_path / "bundle/README.md").read_text()
    typed = re.findall(r"^python3 (edgexfer\.pyz (?:verify|bench) [^#\n]*)", text, re.MULTILINE)
    assert len(set(typed)) >= 2
    for command in (
        "edgexfer.pyz verify .",
        "edgexfer.pyz bench . --out ../bench --artefact jetson-orin-nano-int8 --processes 1",
    ):
        assert any(command.startswith(line.strip()) for line in typed)
        done = subprocess.run(
            [sys.executable, *command.split()],
            cwd=tmp_path / "bundle",
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        # Nothing is timed where the machine's name is not that of the program that runs; the record
        # says so, which is no failure of the command.
        timed = "verify" not in command
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("emulated" in done.stdout) == timed
        for precision in ("fp32", "fp16", "int8") if "verify" in command else ():
            assert f"ok      jetson-orin-nano-{precision}  golden outputs" in done.stdout
    record = read_record(tmp_path / "bench/jetson-orin-nano-int8.json")
    assert record.status == "invalid" and "emulated" in record.reasons[0]
    assert record.accuracy is not None
    assert record.accuracy.top1_pct > 90
    assert record.active["layers"]["int8"] > 0


def test_verify_promises_golden_outputs_to_every_target() -> None:
    card = ModelCard(SCHEMA, "resnet8", ("a", "b"), PREPROCESS, 1, "0" * 64, "scratch")
    for profiles in ([JETSON], [JETSON, find_profile("rpi5")]):
        text = bundle_readme(card, profiles, [artefact("int8")])
        assert "verify .    # hashes, preprocess, golden outputs" in text
