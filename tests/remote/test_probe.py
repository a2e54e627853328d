"""The probe on this machine: its peaks make a good profile, and no net runs below its bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgexfer.bench import emulated
from edgexfer.bench.__main__ import main
from edgexfer.bench.latency import timed
from edgexfer.bench.peaks import measure_memory, measure_peaks
from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.errors import BackendError
from edgexfer.core.profile import HardwareProfile, Precision
from edgexfer.export.lint import lint_target
from edgexfer.models.create import create_model
from edgexfer.models.onnx import INPUT, export_onnx
from edgexfer.models.roofline import bound
from edgexfer.models.workload import read_workload
from edgexfer.profiles import check_profile, find_profile, to_yaml
from edgexfer.remote.probe import probe_machine, write_kernels
from edgexfer.remote.profile import probe
from edgexfer.remote.transport import Local

RUNTIMES = [
    pytest.param("onnxruntime", marks=pytest.mark.ort),
    pytest.param("openvino", marks=pytest.mark.ov),
]
NETS = {"resnet8": 32, "mobilenetv3_small_100": 64}
RUNS = 30


@pytest.fixture(scope="module", params=RUNTIMES)
def probed(request: pytest.FixtureRequest) -> HardwareProfile:
    """A profile of this machine for one runtime."""
    found, peaks = probe_machine(Local, request.param)
    return probe(found, request.param, "this-machine", peaks)


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("nets")
    return {
        name: export_onnx(create_model(name, 10)[0], (size, size), folder / f"{name}.onnx")
        for name, size in NETS.items()
    }


def test_a_probed_profile_is_good_and_all_measured(probed: HardwareProfile, tmp_path: Path) -> None:
    place = tmp_path / "this-machine.yaml"
    place.write_text(to_yaml(probed))
    assert check_profile(place) == probed
    assert {fact.kind for fact in probed.facts.values()} == {"measured"}
    wanted = {"fp32_peak_gflop_s", "int8_peak_gop_s", "memory_bandwidth_gb_s", "cores"}
    assert wanted <= set(probed.facts)
    assert f"{probed.backend}_version" in probed.facts
    assert {"int8", "fp32"} <= set(probed.precisions)
    (row,) = probed.stack
    assert row.default and f"{probed.backend} {row.runtime_version}" == row.name
    assert (
        row.onnx_opset_max == lint_target(find_profile(f"x86-{probed.backend}")).row.onnx_opset_max
    )


def test_what_is_emulated_is_no_peak(probed: HardwareProfile) -> None:
    """OpenVINO takes the hint fp16 on any x86 CPU; without AMX-FP16 it is no faster than FP32."""
    fp32 = probed.facts["fp32_peak_gflop_s"].value
    for precision in ("fp16", "bf16"):
        fact = probed.facts.get(f"{precision}_peak_gflop_s")
        assert (fact is not None) == (precision in probed.precisions)
        assert fact is None or fact.value > fp32


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("net", NETS)
def test_no_real_run_is_faster_than_the_bound(
    net: str, probed: HardwareProfile, nets: dict[str, Path]
) -> None:
    """For a machine that does nothing else: the peaks of a busy one are not its peaks."""
    module: Any = get_backend(probed.backend)
    work = read_workload(nets[net])
    feed = {INPUT: np.zeros((1, 3, NETS[net], NETS[net]), np.float32)}
    floats: list[Precision] = [p for p in probed.precisions if p != "int8"]
    for precision in floats:
        session = module.load(nets[net], Plan(precision=precision))
        fastest_ms = min(timed(lambda: session.run(feed))[1] for _ in range(RUNS)) / 1e6  # noqa: B023
        session.close()
        least = bound(work, probed, precision).latency_ms.value
        assert least is not None
        assert 0 < least <= fastest_ms, precision


def test_kernels_are_valid_files_whose_operations_are_counted_right(tmp_path: Path) -> None:
    kernels = write_kernels(tmp_path)
    assert [kernel.quantized for kernel in kernels] == [False, True, False, True]
    for kernel in kernels:
        onnx.checker.check_model(str(kernel.path), full_check=True)
        assert kernel.operations == 2 * read_workload(kernel.path).macs


@pytest.mark.ort
def test_a_runtime_that_refuses_the_files_is_named(tmp_path: Path) -> None:
    kernels = write_kernels(tmp_path)
    for kernel in kernels:
        kernel.path.write_bytes(b"no model")
    with pytest.raises(BackendError, match="runs no FP32 on CPU") as caught:
        measure_peaks(kernels, "onnxruntime")
    assert "another backend" in caught.value.fix


def test_an_emulated_machine_has_no_peaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(emulated, "emulator", lambda: ("qemu-aarch64, a program for x86", ""))
    assert main(["peaks", str(tmp_path), "--backend", "onnxruntime"]) == 3
    what, fix = capsys.readouterr().err.splitlines()
    assert "a profile's peaks: " in what
    assert "is emulated by qemu" in what
    assert fix == "fix: measure on the device itself"


def test_memory_is_faster_than_a_disk_and_slower_than_light() -> None:
    [(key, fact)] = measure_memory().items()
    assert key == "memory_bandwidth_gb_s"
    assert 0.2 < fact.value < 10_000
