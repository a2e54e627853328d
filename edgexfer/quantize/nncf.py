"""INT8 as OpenVINO IR, by NNCF's post-training quantization with fast bias correction."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from edgexfer.bench.feed import normalise
from edgexfer.core.errors import BackendError
from edgexfer.core.profile import Quantization
from edgexfer.quantize.calibration import Calibration


def quantize_nncf(model: Path, out: Path, calibration: Calibration, scheme: Quantization) -> str:
    """Quantize an FP32 model for OpenVINO.

    Every calibration image counts, one at a time: NNCF averages the ranges of its samples, so a
    sample of several images would widen them.

    Args:
        model: FP32 ONNX or IR with one input.
        out: ``.xml`` file to write; its weights go beside it, into ``.bin``.
        calibration: the images.
        scheme: symmetric activations take NNCF's PERFORMANCE preset, asymmetric ones MIXED.

    Returns:
        The scheme in words, for the manifest.

    Raises:
        BackendError: NNCF cannot quantize the model.
    """
    with silenced():
        import nncf
        import openvino as ov

        mixed = scheme.activations == "uint8"
        preset = nncf.QuantizationPreset.MIXED if mixed else nncf.QuantizationPreset.PERFORMANCE
        images = [calibration.images[i : i + 1] for i in range(len(calibration))]
        samples = nncf.Dataset(images, lambda image: normalise(image, calibration.preprocess))
        try:
            quantized = nncf.quantize(
                ov.Core().read_model(str(model)),
                samples,
                preset=preset,
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(images),
            )
            ov.save_model(quantized, str(out), compress_to_fp16=False)
        except Exception as error:  # NNCF's and OpenVINO's classes share no base but this one
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise BackendError(
                f"{model.name}: NNCF cannot quantize it ({reason[:120]})",
                "export with --precision fp32, or choose another architecture",
            ) from error
    return f"nncf {preset.value} preset, {scheme.weights} weights, fast bias correction"


@contextmanager
def silenced() -> Iterator[None]:
    """Keep NNCF's log and bars off the terminal, and its telemetry off the network.

    NNCF reads the variable when it is first imported.
    """
    os.environ.setdefault("NNCF_CI", "1")
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
