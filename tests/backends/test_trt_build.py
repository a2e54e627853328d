"""Building an engine: what is set on each version, and what is refused before or by the build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgexfer.backends import tensorrt as backend
from edgexfer.backends._trt_build import TIMING_CACHE
from edgexfer.core.backend import Plan
from edgexfer.core.errors import BackendError
from edgexfer.quantize.cache import split_qdq
from tests.backends.conftest import Pretend
from tests.backends.fake_cudart import FakeCudart
from tests.backends.fake_tensorrt import VERSIONS

pytestmark = pytest.mark.ort
MIB = 1 << 20


def _build(model: Path, folder: Path, precision: str = "fp32", **words: Any) -> Path:
    plan = Plan(precision, device=words.pop("device", "GPU"), options=words)
    return backend.compile(model, folder / "engines" / "e.engine", plan)


def _flags(config: Any) -> set[str]:
    return {flag.name for flag in config._flags_set}


@pytest.mark.parametrize("version", VERSIONS)
def test_precision_is_a_flag_only_where_networks_are_not_typed(
    version: str, pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    trt = pretend(version)
    for precision, flags in (("fp32", set()), ("fp16", {"FP16"}), ("int8", {"INT8", "FP16"})):
        _build(onnx_files[precision], tmp_path, precision)
        expected = flags if version.startswith("8.") else set()
        assert _flags(trt.world.configs[-1]) == expected
    assert [f.name for f in trt.world.configs[0]._cleared] == ["TF32"]
    assert trt.world.configs[0].profiling_verbosity.name == "DETAILED"


def test_a_float_file_becomes_half_where_flags_decide(
    pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    pretend("8.6.1")
    assert _build(onnx_files["fp32"], tmp_path, "fp16").is_file()


@pytest.mark.parametrize(
    ("version", "written", "wanted"),
    [
        ("10.3.0", "fp32", "fp16"),
        ("10.3.0", "fp32", "int8"),
        ("11.4.0.106", "fp16", "fp32"),
        ("11.4.0.106", "int8", "fp16"),
        ("8.6.1", "fp32", "int8"),
        ("8.6.1", "int8", "fp16"),
    ],
)
def test_a_file_of_another_precision_is_refused_before_anything_is_written(
    version: str,
    written: str,
    wanted: str,
    pretend: Pretend,
    onnx_files: dict[str, Path],
    tmp_path: Path,
) -> None:
    pretend(version)
    with pytest.raises(BackendError, match=f"is {written}, the plan asks for {wanted}") as caught:
        _build(onnx_files[written], tmp_path, wanted)
    assert caught.value.fix == f"build it with precision {written}, or export it again"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("version", "where"), [("8.6.1", "node 1"), ("10.3.0", "node 1, Relu"), ("11.4.0.106", "Relu")]
)
def test_the_parsers_error_is_one_line_with_node_operator_and_reason(
    version: str, where: str, pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    pretend(version, unsupported=("Relu",))
    with pytest.raises(BackendError) as caught:
        _build(onnx_files["fp32"], tmp_path)
    assert f"fp32.onnx: TensorRT {version} does not take it ({where}" in caught.value.what.replace(
        "node 1, Relu", where
    )
    assert "No importer registered for op: Relu. Attempting plugin" in caught.value.what
    assert "\n" not in caught.value.what
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_one_line(pretend: Pretend, tmp_path: Path) -> None:
    pretend()
    (tmp_path / "bad.onnx").write_bytes(b"no model at all")
    with pytest.raises(BackendError, match=r"bad\.onnx: TensorRT 10\.3\.0 does not take it") as c:
        _build(tmp_path / "bad.onnx", tmp_path)
    assert "\n" not in c.value.what
    assert "failed to parse bad.onnx" in c.value.what


def test_a_build_that_fails_says_its_first_error(
    pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    pretend(build_error="Error Code 10: Could not find any implementation for node conv")
    with pytest.raises(BackendError, match=r"cannot build it .*any implementation for node conv"):
        _build(onnx_files["fp32"], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("free", "options", "limit"),
    [
        (8000, {}, 6000),  # a quarter stays free
        (1000, {}, 488),  # or 512 MiB
        (8000, {"workspace_mib": 256}, 256),
        (1000, {"workspace_mib": 700}, 488),
    ],
)
def test_the_workspace_is_what_the_device_has_free_less_a_reserve(
    free: int,
    options: dict[str, Any],
    limit: int,
    pretend: Pretend,
    onnx_files: dict[str, Path],
    tmp_path: Path,
) -> None:
    trt = pretend(cudart=FakeCudart(free=free * MIB))
    _build(onnx_files["fp32"], tmp_path, **options)
    assert trt.world.configs[0]._pools == {"WORKSPACE": limit * MIB}


def test_too_little_free_memory_is_said(
    pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    pretend(cudart=FakeCudart(free=540 * MIB))
    with pytest.raises(BackendError, match="only 540 MiB of the device's memory are free") as c:
        _build(onnx_files["fp32"], tmp_path)
    assert "close other programs" in c.value.fix


def test_the_timing_cache_is_kept_and_one_of_another_version_is_not_used(
    pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    cache = tmp_path / "engines" / TIMING_CACHE
    pretend("10.3.0")
    _build(onnx_files["fp32"], tmp_path)
    assert cache.read_bytes() == b"timing 10.3.0 (8, 7) timed"
    trt = pretend("10.3.0")
    _build(onnx_files["int8"], tmp_path, "int8")
    assert trt.world.calls.count("IBuilderConfig.set_timing_cache") == 1
    newer = pretend("10.7.0")
    _build(onnx_files["fp32"], tmp_path)
    assert newer.world.calls.count("IBuilderConfig.set_timing_cache") == 2
    assert cache.read_bytes() == b"timing 10.7.0 (8, 7) timed"


def test_the_profile_reaches_from_one_to_the_largest_batch(
    pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    trt = pretend()
    _build(onnx_files["fp32"], tmp_path, max_batch=8)
    (profile,) = trt.world.configs[0]._profiles
    assert profile._shapes == {"images": [[1, 3, 16, 16], [1, 3, 16, 16], [8, 3, 16, 16]]}


def test_a_fixed_batch_needs_no_profile_and_a_free_side_is_refused(
    pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    import onnx

    trt = pretend()
    model = onnx.load(onnx_files["fp32"])
    sides = model.graph.input[0].type.tensor_type.shape.dim
    sides[3].dim_param = "width"
    onnx.save(model, tmp_path / "free.onnx")
    with pytest.raises(BackendError, match=r"input images is free in \(-1, 3, 16, -1\)"):
        _build(tmp_path / "free.onnx", tmp_path)
    sides[0].dim_value, sides[3].dim_value = 1, 16
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "fixed.onnx")
    engine = _build(tmp_path / "fixed.onnx", tmp_path)
    assert trt.world.configs[-1]._profiles == []
    session = backend.load(engine, Plan(device="GPU"))
    import numpy as np

    with pytest.raises(BackendError, match=r"images is \(2, 3, 16, 16\), the engine takes \(1, "):
        session.run({"images": np.zeros((2, 3, 16, 16), np.float32)})
    assert session.run({"images": np.zeros((1, 3, 16, 16), np.float32)})["logits"].shape == (1, 3)


@pytest.mark.parametrize("version", VERSIONS)
def test_layers_go_to_the_dla_that_the_device_has(
    version: str, pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    trt = pretend(version, dla_cores=2)
    engine = _build(onnx_files["fp16"], tmp_path, "fp16", device="DLA", dla_core=1)
    config = trt.world.configs[0]
    assert (config.default_device_type.name, config.DLA_core) == ("DLA", 1)
    assert "GPU_FALLBACK" in _flags(config)
    # As long as there is a flag for it, a DLA asks for it, whatever the file's own types.
    assert ("FP16" in _flags(config)) == (not version.startswith("11."))
    plan = Plan("fp16", device="DLA", options={"dla_core": 1})
    session = backend.load(engine, plan)
    assert session.active["provider"] == "TensorRT DLA, Orin"
    assert session.active["cuda_graph"] == "off"
    session.close()
    _build(onnx_files["fp16"], tmp_path, "fp16", device="DLA", gpu_fallback=False)
    assert "GPU_FALLBACK" not in _flags(trt.world.configs[1])


def test_a_dla_that_is_not_here_is_refused(
    pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    pretend("10.16.1.11")
    with pytest.raises(BackendError, match=r"DLA core 0 is not here: .* 10\.16\.1\.11 have 0") as c:
        _build(onnx_files["fp16"], tmp_path, "fp16", device="DLA")
    assert "choose device GPU" in c.value.fix
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_calibration_cache_is_taken_where_there_are_calibrators(
    version: str, pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    trt = pretend(version, dla_cores=1)
    model = tmp_path / "model.onnx"
    model.write_bytes(onnx_files["fp32"].read_bytes())
    options = {"calibration_cache": "model.cache", "device": "DLA"}
    if version.startswith("11."):
        with pytest.raises(BackendError, match="takes no calibration cache") as caught:
            _build(model, tmp_path, "int8", **options)
        assert "export with Q/DQ nodes" in caught.value.fix
        return
    with pytest.raises(BackendError, match=r"model\.cache: cannot be read"):
        _build(model, tmp_path, "int8", **options)
    split_qdq(onnx_files["int8"], model, tmp_path / "model.cache", "8.6.1")
    _build(model, tmp_path, "int8", **options)
    config = trt.world.configs[0]
    assert _flags(config) == {"INT8", "FP16", "GPU_FALLBACK"}
    written = (tmp_path / "model.cache").read_bytes()
    assert config.int8_calibrator.read_calibration_cache() == written
    assert written.startswith(b"TRT-8601-EntropyCalibration2\nimages: ")
    assert config.int8_calibrator.get_batch(["images"]) is None
    with pytest.raises(BackendError, match="is int8, the plan asks for fp32"):
        model.write_bytes(onnx_files["int8"].read_bytes())
        _build(model, tmp_path, "int8", **options)
