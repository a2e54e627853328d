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
from edgexfer.core.errors import QuantizerError, first_line
from edgexfer.core.profile import Quantization
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.clipping import Method
from edgexfer.quantize.observe import is_by_image

if TYPE_CHECKING:
    from nncf import AdvancedQuantizationParameters


@dataclass(frozen=True)
class Tuning:
    """What may differ from NNCF's defaults.

    Attributes:
        method: of the activations' ranges: ``min-max`` is the mean of the images' extremes, a
            percentile the mean of their quantiles, ``mse`` NNCF's search over a histogram.
        transformer: leave in float what transformers are sensitive at, such as normalisations, and
            smooth the activations that matrix products take.
        float_nodes: names of the ONNX file's nodes that stay floating point.
    """

    method: Method = "min-max"
    transformer: bool = False
    float_nodes: tuple[str, ...] = ()


def quantize_nncf(
    model: Path,
    out: Path,
    calibration: Calibration,
    scheme: Quantization,
    tuning: Tuning | None = None,
) -> str:
    """Quantize an FP32 model for OpenVINO.

    Every calibration image counts by itself, as NNCF averages the ranges of its samples. They go
    through in batches of one size where each tensor says that its first dimension is the batch, so
    that NNCF can tell its images apart; else one by one.

    Args:
        model: FP32 ONNX with one input.
        out: ``.xml`` file to write; its weights go beside it, into ``.bin``.
        calibration: the images.
        scheme: symmetric activations take NNCF's PERFORMANCE preset, asymmetric ones MIXED.
        tuning: what differs from NNCF's defaults; ``None`` for nothing.

    Returns:
        The scheme in words, for the manifest.

    Raises:
        QuantizerError: NNCF cannot quantize the model.
    """
    tuning = tuning or Tuning()
    with silenced():
        import nncf
        import openvino as ov

        mixed = scheme.activations == "uint8"
        preset = nncf.QuantizationPreset.MIXED if mixed else nncf.QuantizationPreset.PERFORMANCE
        try:
            size = _batch_size(model, calibration)
            batches = [calibration.images[i : i + size] for i in range(0, len(calibration), size)]
            samples = nncf.Dataset(batches, lambda batch: normalise(batch, calibration.preprocess))
            quantized = nncf.quantize(
                ov.Core().read_model(str(model)),
                samples,
                preset=preset,
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(batches),
                model_type=nncf.ModelType.TRANSFORMER if tuning.transformer else None,
                ignored_scope=nncf.IgnoredScope(names=_layers(tuning.float_nodes), validate=False),
                advanced_parameters=_advanced(tuning.method, batchwise=size > 1),
            )
            ov.save_model(quantized, str(out), compress_to_fp16=False)
        except Exception as error:  # NNCF's and OpenVINO's classes share no base but this one
            raise QuantizerError(
                f"{model.name}: NNCF cannot quantize it ({first_line(error, last=True)})",
                "export with --precision fp32, or choose another architecture",
            ) from error
    return f"nncf {preset.value} preset, {scheme.weights} weights, fast bias correction"


def _layers(nodes: Iterable[str]) -> list[str]:
    """Return OpenVINO's names of the layers that ONNX nodes become."""
    # It splits a convolution with a bias into two.
    return [name for node in nodes for name in (node, f"{node}/WithoutBiases")]


def _batch_size(model: Path, calibration: Calibration) -> int:
    """Return the largest divisor of the images' number that bounds the memory, or 1."""
    import onnx

    count = len(calibration)
    if not is_by_image(onnx.load(model)):
        return 1
    return max(n for n in range(1, min(calibration.at_once, count) + 1) if count % n == 0)


def _advanced(method: Method, *, batchwise: bool) -> AdvancedQuantizationParameters:
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    found = nncf.AdvancedQuantizationParameters(batchwise_statistics=batchwise)
    if method == "mse":
        found.activations_range_estimator_params = RangeEstimatorParametersSet.HISTOGRAM
    elif method != "min-max":
        found.activations_range_estimator_params = RangeEstimatorParametersSet.MEAN_QUANTILE
    return found


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
