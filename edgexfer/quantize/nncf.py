"""INT8 as OpenVINO IR, by NNCF's post-training quantization with fast bias correction."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgexfer.bench.feed import normalise
from edgexfer.core.errors import BackendError
from edgexfer.core.profile import Quantization
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.clipping import Method

if TYPE_CHECKING:
    from nncf import AdvancedQuantizationParameters


@dataclass(frozen=True)
class Tuning:
    """What may differ from NNCF's defaults.

    Attributes:
        method: of the activations' ranges: ``min-max`` is the mean of the images' extremes, a
            percentile the mean of their quantiles, ``mse`` NNCF's search over a histogram.
        accurate: correct biases layer by layer on the quantized model, which takes long.
        float_nodes: names of the ONNX file's nodes that stay floating point.
    """

    method: Method = "min-max"
    accurate: bool = False
    float_nodes: tuple[str, ...] = ()


def quantize_nncf(
    model: Path,
    out: Path,
    calibration: Calibration,
    scheme: Quantization,
    tuning: Tuning | None = None,
) -> str:
    """Quantize an FP32 model for OpenVINO.

    Every calibration image counts, one at a time: NNCF averages the ranges of its samples, so a
    sample of several images would widen them.

    Args:
        model: FP32 ONNX or IR with one input.
        out: ``.xml`` file to write; its weights go beside it, into ``.bin``.
        calibration: the images.
        scheme: symmetric activations take NNCF's PERFORMANCE preset, asymmetric ones MIXED.
        tuning: what differs from NNCF's defaults; ``None`` for nothing.

    Returns:
        The scheme in words, for the manifest.

    Raises:
        BackendError: NNCF cannot quantize the model.
    """
    tuning = tuning or Tuning()
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
                fast_bias_correction=not tuning.accurate,
                ignored_scope=nncf.IgnoredScope(names=_layers(tuning.float_nodes), validate=False),
                advanced_parameters=_ranges(tuning.method),
            )
            ov.save_model(quantized, str(out), compress_to_fp16=False)
        except Exception as error:  # NNCF's and OpenVINO's classes share no base but this one
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise BackendError(
                f"{model.name}: NNCF cannot quantize it ({reason[:120]})",
                "export with --precision fp32, or choose another architecture",
            ) from error
    pace = "accurate" if tuning.accurate else "fast"
    return f"nncf {preset.value} preset, {scheme.weights} weights, {pace} bias correction"


def _layers(nodes: Iterable[str]) -> list[str]:
    """Return OpenVINO's names of the layers that ONNX nodes become."""
    # It splits a convolution with a bias into two.
    return [name for node in nodes for name in (node, f"{node}/WithoutBiases")]


def _ranges(method: Method) -> AdvancedQuantizationParameters | None:
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    if method == "min-max":
        return None
    found = RangeEstimatorParametersSet.HISTOGRAM
    if method != "mse":
        found = RangeEstimatorParametersSet.MEAN_QUANTILE
    return nncf.AdvancedQuantizationParameters(activations_range_estimator_params=found)


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
