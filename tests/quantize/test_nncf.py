"""NNCF makes an INT8 IR that agrees with FP32, quietly and from all images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgexfer
from edgexfer.bench.accuracy import predict
from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.errors import BackendError
from edgexfer.core.profile import Quantization
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.nncf import quantize_nncf
from tests.export.digits import PREPROCESS, measured_images

pytestmark = pytest.mark.ov


def predictions(path: Path, precision: str) -> np.ndarray:
    images, _ = measured_images(300)
    session = get_backend("openvino").load(path, Plan(precision=precision, threads=1))
    return np.asarray(predict(session, images, PREPROCESS, batch=50).argmax(1))


@pytest.mark.parametrize(("activations", "preset"), [("int8", "performance"), ("uint8", "mixed")])
def test_int8_agrees_with_fp32_on_digits(
    activations: str,
    preset: str,
    fp32: Path,
    calibration: Calibration,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    scheme = Quantization("nncf", activations)  # type: ignore[arg-type]
    said = quantize_nncf(fp32, tmp_path / "q.xml", calibration, scheme)
    assert capfd.readouterr() == ("", "")
    assert said.startswith(f"nncf {preset} preset")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q.bin", "q.xml"]
    agreement = np.mean(predictions(tmp_path / "q.xml", "int8") == predictions(fp32, "fp32"))
    assert agreement >= 0.96
    assert (tmp_path / "q.bin").stat().st_size < 0.35 * fp32.stat().st_size


def test_nncf_reports_to_nobody() -> None:
    """In a fresh interpreter, since NNCF switches its telemetry off below pytest by itself."""
    code = (
        "from edgexfer.quantize.nncf import silenced\n"
        "with silenced():\n"
        "    from nncf.telemetry.wrapper import telemetry\n"
        "print(type(telemetry).__name__)\n"
    )
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("NNCF", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**outside, "PYTHONPATH": str(Path(edgexfer.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == "MagicMock\n"


def test_a_model_that_cannot_be_quantized_is_named(
    calibration: Calibration, tmp_path: Path
) -> None:
    (tmp_path / "odd.onnx").write_bytes(b"not a model")
    with pytest.raises(BackendError) as caught:
        quantize_nncf(tmp_path / "odd.onnx", tmp_path / "q.xml", calibration, Quantization("nncf"))
    assert "odd.onnx: NNCF cannot quantize it" in caught.value.what
    assert "--precision fp32" in caught.value.fix
