"""A bundle on emulated Arm CPUs, with the real aarch64 wheels: the outputs of x86, and no latency.

``tools/arm_emulation.py`` makes the interpreter. What is stated here was seen under emulation; no
board was involved.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgexfer.backends.openvino import lacks
from edgexfer.bench.accuracy import predict
from edgexfer.bench.job import load_artefact, read_profile
from edgexfer.bench.verify import Finding
from edgexfer.core.backend import get_backend
from edgexfer.core.bundle import Artefact, Manifest, get_artefact, read_manifest
from edgexfer.core.record import Record, read_record
from edgexfer.export.parity import HALF, INT8_USUAL, RUNTIME
from edgexfer.export.stage import export
from edgexfer.recipe import BenchSection, ExportSection
from edgexfer.remote.bench import How, bench_bundles
from edgexfer.remote.transport import Local
from edgexfer.remote.verify import verify
from tests.export.digits import digits_run

pytestmark = [pytest.mark.arm, pytest.mark.slow, pytest.mark.ort, pytest.mark.ov]

PYTHON = os.environ.get("EDGEXFER_ARM_PYTHON", "")
CPUS = {"cortex-a72": "Cortex-A72", "cortex-a76": "Cortex-A76"}
TARGETS = ("rpi5-onnxruntime", "rpi4-onnxruntime", "rpi5-openvino")
ELSEWHERE = "x86-onnxruntime"
HALF_PRECISION = "rpi5-openvino-fp16"
# The least SQNR in dB that ``verify`` asks of the golden outputs: another runtime's kernels may
# fuse at will (60, 45), and INT8 may round the other way (30). OpenVINO's INT8 on Arm runs some
# convolutions in float and requantizes in Arm Compute Library, which gave 23 dB (15).
GOLDEN_DB = {
    **{f"{target}-fp32": 60.0 for target in TARGETS},
    "rpi5-onnxruntime-int8": 30.0,
    "rpi4-onnxruntime-int8": 30.0,
    "rpi5-openvino-fp16": 45.0,
    "rpi5-openvino-int8": 20.0,
}
# The least share of equal answers on all evaluation images: what the parity ladder asks as well.
AGREEMENT_PCT = {
    "fp32": RUNTIME["agreement_pct"],
    "fp16": HALF["agreement_pct"],
    "int8": INT8_USUAL["agreement_pct"],
}
SECTION = BenchSection(processes=1, seconds=0.01, samples=10, threads=1)


class Emulated(Local):
    """This machine's emulated aarch64."""

    name = "the emulated aarch64"
    python: Sequence[str] = (PYTHON, "-E")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained net for the boards, and for a machine that the emulated one is not."""
    place = tmp_path_factory.mktemp("arm") / "bundle"
    section = ExportSection(
        targets=(*TARGETS, ELSEWHERE), precision="all", max_drop=5.0, evaluation_images=200
    )
    export(digits_run(tmp_path_factory.getbasetemp()), section, place)
    return place


@pytest.fixture(scope="module")
def manifest(bundle: Path) -> Manifest:
    return read_manifest(bundle)


@pytest.fixture(scope="module", params=list(CPUS))
def cpu(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def emulate(cpu: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Choose the CPU of every interpreter that is started from here on."""
    monkeypatch.setenv("EDGEXFER_ARM_CPU", cpu)
    return cpu


def test_golden_outputs_are_those_of_x86(bundle: Path, manifest: Manifest, emulate: str) -> None:
    findings = {finding.name: finding for finding in verify(bundle, transport=Emulated)}
    ours = {a.name: a for a in manifest.artefacts if a.target != ELSEWHERE}
    expected = set(GOLDEN_DB)
    if lacks("fp16", "CPU"):  # then no golden outputs could be made of it on this host either
        expected.remove(HALF_PRECISION)
    assert set(ours) == expected
    assert {name: a.golden_sqnr_db for name, a in ours.items()} == {
        name: GOLDEN_DB[name] for name in expected
    }
    assert findings["files"].status == findings["preprocess"].status == "ok"
    for artefact in manifest.artefacts:
        _check_finding(findings[artefact.name], artefact, emulate)


def _check_finding(finding: Finding, artefact: Artefact, cpu: str) -> None:
    if artefact.target == ELSEWHERE:
        assert (finding.status, finding.detail) == ("skipped", "is for x86_64, this is aarch64")
    elif artefact.name == HALF_PRECISION and cpu == "cortex-a72":
        # Made for a Cortex-A76; this older core cannot compute in half precision.
        assert (finding.status, finding.detail) == ("skipped", "this CPU has no fp16")
    else:
        assert finding.status == "ok", finding
        match = re.fullmatch(
            r"golden outputs: (equal to the bit|([\d.]+) dB), (\d+) % agreement", finding.detail
        )
        assert match, finding.detail
        assert match[2] is None or float(match[2]) >= GOLDEN_DB[artefact.name]


@pytest.fixture
def records(bundle: Path, emulate: str, tmp_path: Path) -> dict[str, Record]:
    """What a benchmark under emulation writes, by artefact.

    Of ONNX Runtime alone: on a busy host OpenVINO was seen to hang in its first run there.
    """
    how = How(targets=TARGETS[:2], section=SECTION, transport=Emulated)
    return {path.stem: read_record(path) for path in bench_bundles([bundle], tmp_path, how)}


def test_a_benchmark_takes_no_latency_and_counts_the_answers_of_x86(
    bundle: Path, manifest: Manifest, records: dict[str, Record], emulate: str
) -> None:
    assert len(records) == 4
    for name, record in records.items():
        assert record.status == "invalid", (name, record.reasons)
        assert re.fullmatch(r"emulated: this aarch64 is .+, a program for x86", record.reasons[0])
        assert record.absent["latency"].startswith(record.reasons[0])
        assert record.processes == ()
        assert {quantile.value for quantile in record.latency.values()} == {None}
        assert (record.device["machine"], record.device["cpu"]) == ("aarch64", CPUS[emulate])
        artefact = get_artefact(manifest, name)
        assert record.accuracy is not None
        same = _answers_here(bundle, manifest, artefact) == record.accuracy.predictions
        assert 100.0 * np.mean(same) >= AGREEMENT_PCT[artefact.precision], name


def _answers_here(bundle: Path, manifest: Manifest, artefact: Artefact) -> npt.NDArray[np.int64]:
    """Return the classes that this machine gives for all evaluation images."""
    assert manifest.evaluation is not None
    profile = read_profile(bundle, manifest, artefact)
    session = load_artefact(bundle, artefact, profile, get_backend(artefact.backend))
    images = np.load(bundle / manifest.evaluation.images)
    logits = predict(session, images, manifest.preprocess)
    session.close()
    answers: npt.NDArray[np.int64] = logits.argmax(axis=1)
    return answers


def test_the_bundle_s_own_program_refuses_to_measure_and_verifies_what_it_is_told(
    bundle: Path, tmp_path: Path, emulate: str
) -> None:
    """The commands as typed on a board, where ``bench`` starts children of its own."""
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    program = [PYTHON, str(copy / "edgexfer.pyz")]
    name = "rpi4-onnxruntime-int8"
    # Threads that wait for each other spin, and what spins takes qemu minutes.
    options = ["--artefact", name, "--processes", "1", "--threads", "1"]
    options += ["--out", str(tmp_path / "record.json")]
    done = subprocess.run(
        [*program, "bench", str(copy), *options], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr  # as on the host: the record says what it is worth
    assert "invalid  " in done.stdout
    assert "emulated: this aarch64 is " in done.stdout
    assert " ms" not in done.stdout
    (copy / "models/extra").touch()
    done = subprocess.run([*program, "verify", str(copy)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "models/extra: is not listed" in done.stderr


def test_the_interpreter_names_its_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEXFER_ARM_CPU", "cortex-m4")
    done = subprocess.run([PYTHON, "-V"], capture_output=True, text=True)
    assert done.returncode == 2
    what, fix = done.stderr.splitlines()
    assert what == "error: EDGEXFER_ARM_CPU=cortex-m4 is not one of: cortex-a72, cortex-a76"
    assert fix.startswith("fix: ")


def test_an_emulated_process_starts_emulated_children_and_sees_nothing_of_the_host() -> None:
    script = (
        "import subprocess, sys, numpy; print(numpy.__file__); print(*sys.path, sep=chr(10));"
        "subprocess.run([sys.executable, '-c', 'import platform; print(platform.machine())'])"
    )
    done = subprocess.run([PYTHON, "-I", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    # A child writes first, its parent's output being buffered.
    assert lines[0] == "aarch64"
    assert lines[1].startswith("/usr/local/lib/python3.")
    assert not any(line.startswith(sys.prefix) for line in lines)
