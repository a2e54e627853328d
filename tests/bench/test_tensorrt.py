"""A bundle for TensorRT through the packed device side: verify, one job, a whole benchmark.

The TensorRT is the fake of ``tests/backends``, imported by fresh processes; what is proved is that
the device side builds, finds, checks and times engines, not that a GPU would.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgexfer.bench.engines import engines_folder
from edgexfer.bench.job import SCHEMA, Job, Result
from edgexfer.core.bundle import verify_files
from edgexfer.core.codec import decode, encode
from edgexfer.core.files import read_json, write_json
from edgexfer.core.record import Record, read_record
from edgexfer.remote.pack import pack_device_side
from tests.backends.fake_tensorrt import write_site
from tests.bundles import LABELS, SIZE, make_bundle

pytestmark = pytest.mark.ort
KINDS = ("tensorrt-fp32", "tensorrt-int8")
# Input and output of one image; the fake engine itself takes nothing.
DEVICE_BYTES = 4 * (3 * SIZE * SIZE + len(LABELS))


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_device_side(tmp_path_factory.mktemp("pyz") / "edgexfer.pyz")


class Board:
    """A machine with the packed file, a bundle and a TensorRT of one version."""

    def __init__(self, folder: Path, pyz: Path) -> None:
        self.folder, self.pyz = folder, pyz
        self.bundle = make_bundle(folder / "bundle", KINDS)
        self.engines = engines_folder(self.bundle)
        self.install("10.3.0")

    def install(self, version: str, world: str = "") -> None:
        write_site(self.folder / "site", version, world)

    def type(self, *words: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(self.pyz), *map(str, words)],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": "site", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def job(self, artefact: str) -> Result:
        job = Job(SCHEMA, "bundle", artefact, 0, True, 100, 0.01, 2.0, 1, 0)
        write_json(self.folder / "job.json", encode(job))
        self.type("job", "job.json", "--out", "result.json")
        return decode(Result, read_json(self.folder / "result.json"), "result")


@pytest.fixture
def board(tmp_path: Path, pyz: Path) -> Board:
    return Board(tmp_path, pyz)


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "11.4.0.106"])
def test_verify_builds_the_engines_and_checks_golden_outputs(board: Board, version: str) -> None:
    board.install(version)
    done = board.type("verify", "bundle")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", "files"],
        ["ok", "preprocess"],
        ["ok", "gpu-tensorrt-fp32"],
        ["ok", "gpu-tensorrt-int8"],
    ]
    assert "golden outputs: equal to the bit" in lines[2]
    verify_files(board.bundle)  # nothing was put into it
    names = sorted(path.name for path in board.engines.iterdir())
    assert names == [
        "gpu-tensorrt-fp32.engine",
        "gpu-tensorrt-fp32.engine.json",
        "gpu-tensorrt-int8.engine",
        "gpu-tensorrt-int8.engine.json",
        "timing.cache",
    ]


def test_a_job_builds_once_and_says_how_long_it_took(board: Board) -> None:
    first = board.job("gpu-tensorrt-int8")
    assert first.failure is None
    assert first.run is not None
    assert first.active["engine_build_ns"] > 0
    # Its peak is that of the build.
    assert first.run.peak_pss_bytes is None
    assert "built its engine" in first.absent["peak_pss_bytes"]
    assert first.run.device_bytes is None
    assert "built its engine" in first.absent["device_bytes"]
    assert len(first.run.gpu_ns) == 200
    assert first.accuracy is not None
    assert first.active["layers"] == {"int8": 1, "fp32": 7}
    assert first.active["versions"] == {"tensorrt": "10.3.0", "cuda": "12.6"}
    second = board.job("gpu-tensorrt-int8")
    assert second.run is not None
    assert second.active["engine_build_ns"] is None
    assert second.active["engine_bytes"] == first.active["engine_bytes"]
    assert second.run.peak_pss_bytes is not None
    assert second.run.device_bytes == DEVICE_BYTES
    assert "device_bytes" not in second.absent
    assert second.accuracy == first.accuracy


def test_a_whole_benchmark_writes_records(board: Board) -> None:
    argv = ["bench", "bundle", "--processes", "2", "--seconds", "0.02", "--out", "bench"]
    done = board.type(*argv)
    assert done.returncode == 0, done.stderr
    records: list[Record] = [
        read_record(board.folder / "bench" / f"gpu-{kind}.json") for kind in KINDS
    ]
    for record in records:
        assert record.status != "failed", record.reasons
        assert record.active["provider"] == "TensorRT GPU, Orin"
        assert record.stages["gpu"]["p50"].n == 400
        assert record.latency["p50"].value is not None
        assert [run.peak_pss_bytes is None for run in record.processes] == [True, False]
        assert record.memory["device_bytes"] == DEVICE_BYTES


def test_another_tensorrt_builds_its_own_engine(board: Board) -> None:
    assert board.job("gpu-tensorrt-fp32").active["engine_build_ns"] is not None
    board.install("10.16.1.11")
    second = board.job("gpu-tensorrt-fp32")
    assert second.failure is None
    assert second.active["engine_build_ns"] is not None


def test_without_tensorrt_it_is_said_what_to_install(board: Board) -> None:
    (board.folder / "site" / "tensorrt.py").unlink()
    done = board.type("verify", "bundle")
    assert done.returncode == 0
    assert "skipped gpu-tensorrt-fp32  backend tensorrt: tensorrt cannot be imported" in done.stdout
    failure = board.job("gpu-tensorrt-fp32").failure
    assert failure is not None
    assert "python3-libnvinfer" in failure.fix
    assert not board.engines.exists()


def test_a_model_that_tensorrt_refuses_fails_alone(board: Board) -> None:
    board.install("10.3.0", "unsupported=('QuantizeLinear',)")
    done = board.type("verify", "bundle")
    assert done.returncode == 1
    assert "ok      gpu-tensorrt-fp32" in done.stdout
    assert "failed  gpu-tensorrt-int8" in done.stdout
    assert "QuantizeLinear" in done.stdout


def test_without_numpy_every_verb_says_so(board: Board) -> None:
    (board.folder / "site" / "numpy.py").write_text("raise ImportError('no numpy here')")
    done = board.type("verify", "bundle")
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        "error: numpy cannot be imported (no numpy here)",
        "fix: pip install numpy",
    ]
    failure = board.job("gpu-tensorrt-fp32").failure
    assert failure is not None
    assert "numpy cannot be imported" in failure.what
