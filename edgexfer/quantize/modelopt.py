"""Q/DQ for TensorRT as NVIDIA ModelOpt places it, in place of ``placement.py``.

ModelOpt also quantizes what HardSwish and the products of squeeze-and-excitation take, and leaves
layers out that it holds to be too small. It is an extra, and runs on the CPU here.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from edgexfer.core.errors import BackendError, first_line
from edgexfer.models.onnx import check_onnx
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.nncf import silenced
from edgexfer.quantize.qdq import check_qdq


def quantize_modelopt(model: Path, out: Path, calibration: Calibration) -> str:
    """Quantize an FP32 ONNX file by min-max; what is between Q/DQ nodes stays FP32.

    Args:
        model: FP32 ONNX with one input, in the opset of the target.
        out: file to write.
        calibration: the images.

    Returns:
        The scheme in words, for the manifest.

    Raises:
        BackendError: ModelOpt is missing or fails on the model, or TensorRT refuses its file.
        ModelError: what it wrote is not a valid ONNX.
    """
    modelopt, quantize = _import()
    opset = check_onnx(model)
    with tempfile.TemporaryDirectory() as folder, silenced():
        # It leaves files beside the one that it reads.
        source = Path(shutil.copy(model, folder))
        try:
            quantize(
                str(source),
                calibration_data_reader=_reader(source, calibration),
                calibration_method="max",
                calibration_eps=["cpu"],
                high_precision_dtype="fp32",
                output_path=str(out),
                log_level="ERROR",
            )
        except Exception as error:  # its classes share no base but this one
            raise BackendError(
                f"{model.name}: ModelOpt cannot quantize it ({first_line(error)})",
                "leave --placement out",
            ) from error
    written = check_onnx(out)
    if written != opset:  # it writes nothing below 19
        raise BackendError(
            f"{model.name}: ModelOpt wrote opset {written}, the target takes {opset}",
            "leave --placement out",
        )
    check_qdq(out, strict=True)
    version = modelopt.__version__
    return f"qdq int8 activations, int8-per-channel weights, placed by NVIDIA ModelOpt {version}"


def _import() -> tuple[Any, Any]:
    try:
        with silenced():
            import modelopt
            from modelopt.onnx.quantization import quantize
    except ImportError as error:
        raise BackendError(
            f"ModelOpt cannot be imported ({first_line(error)})",
            "install it: pip install 'edgexfer[modelopt]', or leave --placement out",
        ) from error
    return modelopt, quantize


def _reader(model: Path, calibration: Calibration) -> Any:
    """Return the images, normalised and in batches, as ONNX Runtime's calibrators take them."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    feed = onnx.load(model, load_external_data=False).graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc] # it ships no types
        def __init__(self) -> None:
            self.rewind()

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {feed: batch}

        def get_first(self) -> dict[str, Any]:
            return {feed: next(calibration.batches())}

        def rewind(self) -> None:
            self._batches = calibration.batches()

    return Reader()
