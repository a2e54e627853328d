"""A profile of a machine: what is kept of its facts, its types, its release; what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgexfer.core.errors import ProfileError
from edgexfer.core.profile import Fact, HardwareProfile
from edgexfer.profiles import check_profile, find_profile, to_yaml
from edgexfer.remote.profile import probe
from tests.test_profiles import write

FACTS = {
    "machine": "x86_64",
    "cpu": "Intel(R) Xeon(R) CPU @ 2.20GHz",
    "cpu_flags": ["avx2"],
    "cores": 2,
    "governor": None,
    "load1": 3.5,
    "absent": {"governor": "no cpufreq"},
}


def test_probe_keeps_what_lasts_and_marks_it_measured(tmp_path: Path) -> None:
    profile = probe(FACTS)
    assert profile.name == "intel-xeon-onnxruntime"
    assert {f.kind for f in profile.facts.values()} == {"measured"}
    assert set(profile.facts) == {"cpu", "cpu_flags", "cores"}
    place = write(tmp_path, to_yaml(profile), profile.name)
    assert check_profile(place) == profile


def test_probe_prefers_what_was_measured_to_be_fastest(tmp_path: Path) -> None:
    measured = {
        "fp32_peak_gflop_s": Fact(150.0, "measured", "a run"),
        "bf16_peak_gflop_s": Fact(1000.0, "measured", "a run"),
        "int8_peak_gop_s": Fact(700.0, "measured", "a run"),
        "memory_bandwidth_gb_s": Fact(9.0, "measured", "a copy"),
    }
    profile = probe({**FACTS, "load1": 0.1}, "openvino", "here", measured)
    assert profile.precisions == ("bf16", "int8", "fp32")
    assert {key: profile.facts[key] for key in measured} == measured
    place = write(tmp_path, to_yaml(profile), "here")
    assert check_profile(place) == profile


@pytest.mark.parametrize(
    ("changes", "backend", "activations", "reduced"),
    [
        ({}, "tensorrt", "int8", False),
        ({}, "onnxruntime", "uint8", True),
        ({"cpu_flags": ["avx512_vnni"]}, "onnxruntime", "uint8", False),
        ({"cpu_flags": None}, "onnxruntime", "uint8", False),
        ({"machine": "aarch64"}, "onnxruntime", "int8", False),
        ({}, "openvino", "int8", False),
    ],
)
def test_probe_chooses_the_types_that_the_processor_multiplies(
    changes: dict[str, object], backend: str, activations: str, reduced: bool
) -> None:
    found = probe({**FACTS, **changes}, backend).quantization
    assert (found.activations, found.reduce_range) == (activations, reduced)


def test_probe_reads_this_machine() -> None:
    from edgexfer.bench.device import facts

    assert isinstance(probe(facts()), HardwareProfile)


@pytest.mark.parametrize(
    ("backend", "name", "what"),
    [
        ("tensort", None, "'tensort' is unknown"),
        ("torch", "My Board", "'My Board' is not a valid profile name"),
    ],
)
def test_probe_refuses(backend: str, name: str | None, what: str) -> None:
    with pytest.raises(ProfileError) as caught:
        probe(FACTS, backend, name)
    assert what in caught.value.what
    assert caught.value.fix


def test_a_ceiling_of_a_busy_machine_says_so_wherever_it_is_used() -> None:
    measured = {
        "int8_peak_gop_s": Fact(700.0, "measured", "a run"),
        "memory_bandwidth_gb_s": Fact(9.0, "measured", "a copy"),
        "onnxruntime_version": Fact("onnxruntime 1.31.1", "measured", "asked"),
    }
    busy = probe(FACTS, measured=measured).facts
    assert busy["int8_peak_gop_s"].source == "a run; load 3.5 before it, may be too low"
    assert busy["memory_bandwidth_gb_s"].source == "a copy; load 3.5 before it, may be too low"
    assert busy["onnxruntime_version"].source == "asked"
    idle = probe({**FACTS, "load1": 0.2}, measured=measured).facts
    assert {key: idle[key] for key in measured} == measured


HERE = {**FACTS, "python": "3.11.9", "glibc": "2.36"}


@pytest.mark.parametrize(
    ("backend", "said", "opset", "typing"),
    [
        ("onnxruntime", "1.31.1", 26, "strong"),
        ("onnxruntime", "1.17.0", 20, "strong"),
        ("tensorrt", "8.6.2.3-1+cuda12.2", 17, "weak"),
        ("tensorrt", "10.3.0.30-1+cuda12.5", 20, "strong"),
    ],
)
def test_the_release_that_was_found_is_a_row(
    backend: str, said: str, opset: int, typing: str, tmp_path: Path
) -> None:
    ran = {f"{backend}_version": Fact(f"{backend} {said}", "measured", "asked")}
    facts = {**HERE, "packages": {"tensorrt": said}}
    profile = probe(facts, backend, "here", ran if backend == "onnxruntime" else None)
    (row,) = profile.stack
    assert said.startswith(row.runtime_version)
    assert (row.python, row.glibc, row.onnx_opset_max) == ("3.11", "2.36", opset)
    assert (row.typing, row.default) == (typing, True)
    assert check_profile(write(tmp_path, to_yaml(profile), "here")) == profile


def test_a_release_that_nobody_knows_is_no_row() -> None:
    assert probe(HERE).stack == ()
    assert probe({**HERE, "packages": {"tensorrt": "6.0.1"}}, "tensorrt").stack == ()
    assert find_profile("x86").stack != ()
