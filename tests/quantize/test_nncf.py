"""NNCF makes an INT8 IR that agrees with FP32, quietly and from all images."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgexfer
from edgexfer.bench.accuracy import predict
from edgexfer.bench.feed import normalise
from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.errors import QuantizerError
from edgexfer.core.profile import Quantization
from edgexfer.models.create import create_model
from edgexfer.models.onnx import export_onnx
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.nncf import Tuning, quantize_nncf, silenced
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


def test_in_batches_every_image_counts_by_itself(
    fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    few = replace(calibration, images=calibration.images[:60], keys=calibration.keys[:60])
    quantize_nncf(fp32, tmp_path / "q.xml", few, Quantization("nncf"))
    with silenced():
        import nncf
        import openvino as ov

        images = [few.images[i : i + 1] for i in range(len(few))]
        model = nncf.quantize(
            ov.Core().read_model(str(fp32)),
            nncf.Dataset(images, lambda image: normalise(image, few.preprocess)),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(images),
        )
        ov.save_model(model, str(tmp_path / "bare.xml"), compress_to_fp16=False)
    assert (tmp_path / "q.bin").read_bytes() == (tmp_path / "bare.bin").read_bytes()


def test_a_transformer_s_normalisations_stay_in_float(
    calibration: Calibration, tmp_path: Path
) -> None:
    model, _ = create_model("vit_tiny_patch16_224", 10, options={"img_size": 32, "depth": 1})
    export_onnx(model.eval(), (32, 32), tmp_path / "fp32.onnx")
    images = np.repeat(np.repeat(calibration.images[:4], 4, axis=1), 4, axis=2)[:, :32, :32]
    few = replace(calibration, images=np.ascontiguousarray(images), keys=calibration.keys[:4])

    def steps(tuning: Tuning) -> int:
        quantize_nncf(tmp_path / "fp32.onnx", tmp_path / "q.xml", few, Quantization("nncf"), tuning)
        return (tmp_path / "q.xml").read_text().count('type="FakeQuantize"')

    assert steps(Tuning(transformer=True)) < steps(Tuning())


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
    with pytest.raises(QuantizerError) as caught:
        quantize_nncf(tmp_path / "odd.onnx", tmp_path / "q.xml", calibration, Quantization("nncf"))
    assert "odd.onnx: NNCF cannot quantize it" in caught.value.what
    assert "--precision fp32" in caught.value.fix
