"""INT8 as QuantizeLinear and DequantizeLinear nodes in ONNX, for ONNX Runtime and TensorRT.

Scales come from the smallest and largest value that each tensor takes on the calibration images
(min-max). On nets of a few minutes' training, percentiles gave the same accuracy at twice the time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgexfer.core.errors import BackendError, RunError
from edgexfer.core.profile import Quantization
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.ranges import Range

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

_WEIGHTED = ["Conv", "Gemm", "MatMul"]


def quantize_qdq(
    model: Path,
    out: Path,
    calibration: Calibration,
    scheme: Quantization,
    *,
    restricted: bool,
    trained: Mapping[str, Range] | None = None,
) -> str:
    """Quantize an FP32 ONNX file.

    Args:
        model: FP32 ONNX with one input.
        out: file to write; the same model, images and scheme give the same bytes.
        calibration: the images.
        scheme: types, and where scales are per channel.
        restricted: quantize only what weighted layers (Conv, Gemm, MatMul) take, and keep their
            outputs and biases floating point. TensorRT fuses such graphs best and refuses zero
            points; ONNX Runtime's CPU kernels want every layer quantized instead.
        trained: ranges of the activations that a quantization-aware training has found; they take
            the place of those of calibration, on the same tensors.

    Returns:
        The scheme in words, for the manifest.

    Raises:
        BackendError: ONNX Runtime cannot quantize the model, or wrote what the target refuses.
        RunError: the tensors that are quantized are not those of ``trained``.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    symmetric = scheme.activations == "int8"
    options: dict[str, Any] = {"ActivationSymmetric": symmetric, "WeightSymmetric": True}
    if restricted:
        options |= {"QuantizeBias": False, "OpTypesToExcludeOutputQuantization": _WEIGHTED}
    if trained is not None:
        _refuse_others(model, trained, _tensors(model))
        options["TensorQuantOverrides"] = _overrides(trained, scheme)
    try:
        with _silenced():
            quantize_static(
                str(model),
                str(out),
                _reader(calibration, _input_name(model)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_WEIGHTED if restricted else None,
                per_channel=scheme.weights == "int8-per-channel",
                reduce_range=scheme.reduce_range,
                activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options=options,
            )
    except Exception as error:  # ONNX Runtime's classes share no base but this one
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BackendError(
            f"{model.name}: ONNX Runtime cannot quantize it ({reason[:120]})",
            "export with --precision fp32, or choose another architecture",
        ) from error
    check_qdq(out, strict=restricted)
    if trained is not None:
        _refuse_others(model, quantized_tensors(out), trained)
        _refuse_others(model, trained, quantized_tensors(out))
    aware = ", quantization-aware" if trained is not None else ""
    return describe(scheme, restricted=restricted) + aware


def check_qdq(path: Path, *, strict: bool) -> int:
    """Check that a Q/DQ file is quantized and keeps the rules of its target.

    Args:
        path: ONNX file.
        strict: TensorRT's rules too: int8 alone, all zero points 0. Positive scales are a rule of
            every target.

    Returns:
        How many pairs of nodes quantize activations.

    Raises:
        BackendError: naming the first tensor that breaks a rule.
    """
    import onnx

    graph = onnx.load(path).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    pairs = 0
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        pairs += node.op_type == "QuantizeLinear"
        fault = _fault(node, constants, strict=strict)
        if fault:
            raise BackendError(f"{path.name}: {fault}", "export with --precision fp32")
    if not pairs:
        raise BackendError(
            f"{path.name}: nothing was quantized", "choose an architecture with convolutions"
        )
    return pairs


def quantized_tensors(path: Path) -> set[str]:
    """Return the names of the activations that a Q/DQ file has scales for.

    Some share one, such as the two sides of a max pooling; it is named after the first.
    """
    import onnx

    nodes = onnx.load(path).graph.node
    return {n.input[1].removesuffix("_scale") for n in nodes if n.op_type == "QuantizeLinear"}


def describe(scheme: Quantization, *, restricted: bool) -> str:
    """Return the scheme in words, such as ``qdq uint8 activations, int8-per-channel weights``."""
    scope = ", inputs of weighted layers only" if restricted else ""
    reduced = ", weights in 7 bits" if scheme.reduce_range else ""
    return f"qdq {scheme.activations} activations, {scheme.weights} weights{reduced}{scope}"


def _tensors(model: Path) -> set[str]:
    """Return the names of all tensors of an ONNX file but its initialisers."""
    import onnx

    graph = onnx.load(model).graph
    return {i.name for i in graph.input} | {name for n in graph.node for name in n.output}


def _refuse_others(model: Path, asked: Iterable[str], known: Iterable[str]) -> None:
    others = sorted(set(asked) - set(known))
    if others:
        raise RunError(
            f"{model.name}: {others[0]} is not quantized here as it was in training "
            f"({len(others)} such tensors)",
            "export with the versions of edgexfer, torch and onnxruntime that it was trained with, "
            "or distil again with --qat-for",
        )


def _overrides(trained: Mapping[str, Range], scheme: Quantization) -> dict[str, list[Any]]:
    """Return ranges as ONNX Runtime's quantizer takes them instead of calibrated ones."""
    return {
        name: [
            {
                "scale": np.array(found.scale, np.float32),
                "zero_point": np.array(found.zero_point, scheme.activations),
            }
        ]
        for name, found in trained.items()
    }


def _fault(node: Any, constants: dict[str, TensorProto], *, strict: bool) -> str | None:
    from onnx import TensorProto, numpy_helper

    scale = numpy_helper.to_array(constants[node.input[1]])
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        return f"scale {node.input[1]} is not positive"
    if not strict:
        return None
    if len(node.input) < 3:
        return f"{node.name} has no zero point, which ONNX reads as uint8"
    zero = constants[node.input[2]]
    if zero.data_type != TensorProto.INT8:
        return f"zero point {zero.name} is not int8"
    if numpy_helper.to_array(zero).any():
        return f"zero point {zero.name} is not 0"
    return None


def _reader(calibration: Calibration, name: str) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        """Hands the batches to ONNX Runtime one by one."""

        def __init__(self) -> None:
            self._batches = calibration.batches()

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {name: batch}

    return Reader()


def _input_name(model: Path) -> str:
    import onnx

    proto: ModelProto = onnx.load(model, load_external_data=False)
    graph: GraphProto = proto.graph
    return str(graph.input[0].name)


@contextmanager
def _silenced() -> Iterator[None]:
    """Hold back the root logger: the quantizer advises a pre-processing that torch has done."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
