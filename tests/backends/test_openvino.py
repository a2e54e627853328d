from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgexfer.backends import openvino
from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.errors import BackendError
from tests.bundles import SIZE, write_onnx

pytestmark = pytest.mark.ov


@pytest.mark.parametrize(("precision", "hint"), [("fp32", "f32"), ("bf16", "bf16")])
def test_the_precision_is_set_and_read_back(tmp_path: Path, precision: str, hint: str) -> None:
    import openvino as ov

    can = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision.upper() not in can:
        pytest.skip(f"this CPU has no {precision}")
    session = get_backend("openvino").load(write_onnx(tmp_path / "m.onnx"), Plan(precision))
    assert session.active["float_precision"] == hint
    assert hint in session.active["layers"]


def test_a_precision_that_the_cpu_lacks_is_refused_before_it_is_rounded_for_show(
    tmp_path: Path,
) -> None:
    """OpenVINO itself is told to see a CPU with AVX2 alone, in a process of its own."""
    path = write_onnx(tmp_path / "m.onnx")
    code = (
        "from pathlib import Path\n"
        "from edgexfer.backends.openvino import lacks, load\n"
        "from edgexfer.core.backend import Plan\n"
        "from edgexfer.core.errors import BackendError\n"
        "assert lacks('fp32', 'CPU') is None\n"
        "try:\n"
        f"    load(Path({str(path)!r}), Plan('fp16'))\n"
        "except BackendError as error:\n"
        "    print(error.what, '|', error.fix)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "m.onnx: this CPU has no fp16 | choose a precision and a device" in done.stdout


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_device_that_is_not_here_is_named_with_those_that_are(
    tmp_path: Path, precision: str
) -> None:
    import openvino as ov

    if {"NPU", "NPU.0"} & set(ov.Core().available_devices):
        pytest.skip("this machine has an NPU")
    path = write_onnx(tmp_path / "m.onnx", quantized=precision == "int8")
    with pytest.raises(BackendError, match="this machine has no NPU that OpenVINO can use") as c:
        get_backend("openvino").load(path, Plan(precision, device="NPU"))
    assert "it has CPU" in c.value.what
    assert "a device that this machine has" in c.value.fix


def test_an_int8_model_runs_int8_layers_and_its_float_part_in_fp32(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", quantized=True)
    session = get_backend("openvino").load(path, Plan("int8", threads=1))
    assert session.active["precision"] == "int8"
    assert session.active["float_precision"] == "f32"
    assert session.active["layers"].get("i8", 0) + session.active["layers"].get("u8", 0) > 0


@pytest.mark.parametrize("quantized", [True, False])
def test_the_plan_must_say_whether_the_model_is_quantized(tmp_path: Path, quantized: bool) -> None:
    path = write_onnx(tmp_path / "m.onnx", quantized=quantized)
    with pytest.raises(BackendError, match="the plan asks for") as caught:
        get_backend("openvino").load(path, Plan("fp32" if quantized else "int8"))
    assert "its own precision" in caught.value.fix


def test_compile_gives_ir_that_computes_the_same(tmp_path: Path) -> None:
    backend = get_backend("openvino")
    source = write_onnx(tmp_path / "m.onnx")
    out = backend.compile(source, tmp_path / "m.xml", Plan())
    assert out.with_suffix(".bin").is_file()
    batch = np.random.default_rng(0).random((1, 3, SIZE, SIZE), np.float32)
    results = [backend.load(path, Plan(threads=1)).run({"images": batch}) for path in (source, out)]
    assert results[0]["logits"].tobytes() == results[1]["logits"].tobytes()


def test_ir_without_its_weights_is_one_error(tmp_path: Path) -> None:
    backend = get_backend("openvino")
    out = backend.compile(write_onnx(tmp_path / "m.onnx"), tmp_path / "m.xml", Plan())
    out.with_suffix(".bin").unlink()
    with pytest.raises(BackendError, match=r"m\.xml: OpenVINO cannot load it on CPU"):
        backend.load(out, Plan())


def test_a_damaged_file_is_one_error(tmp_path: Path) -> None:
    backend = get_backend("openvino")
    for name in ("m.xml", "m.onnx"):
        (tmp_path / name).write_bytes(b"neither of them")
        with pytest.raises(BackendError, match="OpenVINO cannot load it"):
            backend.load(tmp_path / name, Plan())
    with pytest.raises(BackendError, match="OpenVINO cannot convert it"):
        backend.compile(tmp_path / "m.onnx", tmp_path / "out.xml", Plan())


def test_a_file_of_another_kind_is_not_offered_to_other_frontends(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"m\.pt2: is neither \.xml nor \.onnx"):
        get_backend("openvino").load(tmp_path / "m.pt2", Plan())


def test_an_unknown_float_precision_is_refused(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", quantized=True)
    with pytest.raises(BackendError, match="float_precision is 'f32'") as caught:
        get_backend("openvino").load(path, Plan("int8", options={"float_precision": "f32"}))
    assert "fp32" in caught.value.fix


class _Plugin:
    """A compiled model that tells of itself as OpenVINO's plugins for GPU and NPU do."""

    def __init__(self, layers: Any, **properties: Any) -> None:
        self._layers, self._properties = layers, properties

    def get_runtime_model(self) -> Any:
        return self._layers

    def get_property(self, name: str) -> Any:
        if name == "SUPPORTED_PROPERTIES":
            return dict.fromkeys(self._properties, "RO")
        if name not in self._properties:
            raise RuntimeError(f"Unsupported configuration key: {name}")
        return self._properties[name]


@pytest.mark.parametrize(("device", "told"), [("GPU.0", ["GPU.0"]), ("NPU", "NPU")])
def test_what_a_device_does_not_tell_is_left_out(tmp_path: Path, device: str, told: object) -> None:
    import openvino as ov

    # As read, its layers have no precision: so are those that an NPU gives back.
    layers = ov.Core().read_model(str(write_onnx(tmp_path / "m.onnx")))
    compiled = _Plugin(
        layers, INFERENCE_PRECISION_HINT=ov.Type.f16, EXECUTION_DEVICES=told, NUM_STREAMS=1
    )
    assert openvino._read_back(compiled, Plan("fp16", device=device)) == {
        "provider": device,
        "precision": "fp16",
        "float_precision": "f16",
        "layers": None,
        "streams": 1,
    }


@pytest.mark.parametrize(("device", "hint"), [("CPU", "f32"), ("GPU.1", "f32"), ("NPU", "f16")])
def test_the_float_layers_of_int8_run_in_a_type_that_the_device_has(device: str, hint: str) -> None:
    assert openvino._hint(Plan("int8", device=device)) == hint
    asked = Plan("int8", device=device, options={"float_precision": "fp16"})
    assert openvino._hint(asked) == "f16"
