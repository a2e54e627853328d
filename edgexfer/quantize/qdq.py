"""INT8 as QuantizeLinear and DequantizeLinear nodes in ONNX, for ONNX Runtime and TensorRT.

The ranges of activations come from ``observe.py`` and ``clipping.py``, or from a training. For
TensorRT the nodes are placed by ``placement.py``; for ONNX Runtime by its own quantizer, which
knows what its kernels take.
"""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgexfer.bench.accuracy import predict
from edgexfer.bench.compare import ratio_db
from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.errors import BackendError, ProfileError, QuantizerError, RunError
from edgexfer.core.profile import Quantization
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.clipping import to_range, within
from edgexfer.quantize.observe import Extremes, cannot_quantize, extremes, observe
from edgexfer.quantize.placement import place, plan
from edgexfer.quantize.ranges import Range

if TYPE_CHECKING:
    from onnx import TensorProto

# Share of the calibration images whose extremes a range must cover.
SHARES = (1.0, 0.95)


@dataclass(frozen=True)
class Placed:
    """Which nodes of a file are quantized.

    Attributes:
        scheme: types, and where scales are per channel.
        restricted: quantize only what weighted layers take and one branch of residual additions,
            and keep outputs and biases floating point. TensorRT fuses such graphs best and refuses
            zero points; ONNX Runtime's CPU kernels want every layer quantized instead.
        float_nodes: names of nodes that stay floating point.
        whole: keep every node of the float graph, also such as ONNX Runtime's quantizer leaves out
            because a range does their work; the file computes the same.
    """

    scheme: Quantization
    restricted: bool
    float_nodes: frozenset[str] = frozenset()
    whole: bool = False


def quantize_qdq(
    model: Path,
    out: Path,
    calibration: Calibration,
    scheme: Quantization,
    *,
    restricted: bool,
    trained: Mapping[str, Range] | None = None,
) -> str:
    """Quantize an FP32 ONNX file, with ranges from calibration or from a training.

    A calibrated range holds all values of the images, or all of 95 % of the images: whichever file
    has its logits nearer to FP32's on them.

    Args:
        model: FP32 ONNX with one input.
        out: file to write; the same model, images and scheme give the same bytes.
        calibration: the images.
        scheme: types, and where scales are per channel.
        restricted: see ``Placed``.
        trained: ranges of the activations that a quantization-aware training has found; they take
            the place of those of calibration, on the same tensors.

    Returns:
        The scheme in words, for the manifest.

    Raises:
        QuantizerError: ONNX Runtime cannot quantize the model.
        BackendError: it wrote what the target refuses.
        ProfileError: activations that TensorRT does not take.
        RunError: the tensors that are quantized are not those of ``trained``.
    """
    placed = Placed(scheme, restricted)
    words = describe(scheme, restricted=restricted)
    if trained is None:
        share = _write_nearest(model, out, calibration, placed)
        return words if share == 1.0 else f"{words}, ranges of {100 * share:.0f} % of the images"
    _refuse_others(model, trained, _tensors(model))
    write_qdq(model, out, extremes(model, calibration), placed, trained=trained)
    _refuse_others(model, quantized_tensors(out), trained)
    _refuse_others(model, trained, quantized_tensors(out))
    return f"{words}, quantization-aware"


def _write_nearest(model: Path, out: Path, calibration: Calibration, placed: Placed) -> float:
    """Write the file that is nearest to FP32 on the calibration images; return its share of them.

    Of the images' extremes the widest suit a net whose tensors look alike on all images; where one
    image in twenty is far from the others, as with squeeze-and-excitation, they drown the rest.
    """
    seen = observe(model, calibration)
    near: dict[float, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for share in SHARES:
            file = Path(folder) / "try.onnx"
            write_qdq(model, file, within(seen.ends, share), placed)
            ratio = ratio_db(seen.logits, _logits(file, calibration))
            if ratio > max(near.values(), default=-math.inf):
                shutil.copyfile(file, out)
            near[share] = ratio
    return max(near, key=lambda share: near[share])


def _logits(model: Path, calibration: Calibration) -> Any:
    plan = Plan("int8", options={"allow_spinning": False})
    with closing(get_backend("onnxruntime").load(model, plan)) as session:
        return predict(session, calibration.images, calibration.preprocess, calibration.at_once)


def write_qdq(
    model: Path,
    out: Path,
    ends: Mapping[str, Extremes],
    placed: Placed,
    *,
    trained: Mapping[str, Range] | None = None,
) -> None:
    """Write a float ONNX file with Q/DQ nodes, and check it.

    Args:
        model: FP32 ONNX with one input.
        out: file to write.
        ends: what the range of each float32 activation covers.
        placed: what is quantized.
        trained: ranges that take the place of some of ``ends``.

    Raises:
        QuantizerError: ONNX Runtime cannot quantize the model.
        BackendError: it wrote what the target refuses.
        ProfileError: activations that TensorRT does not take.
    """
    if placed.restricted:
        _write_restricted(model, out, ends, placed, trained or {})
    else:
        _write_by_runtime(model, out, ends, placed, trained)
    check_qdq(out, strict=placed.restricted)


def _write_restricted(
    model: Path,
    out: Path,
    ends: Mapping[str, Extremes],
    placed: Placed,
    trained: Mapping[str, Range],
) -> None:
    import onnx

    scheme = placed.scheme
    if scheme.activations != "int8" or scheme.reduce_range:
        raise ProfileError(
            f"quantization: TensorRT takes no {scheme.activations} activations with "
            f"{7 if scheme.reduce_range else 8}-bit weights",
            "write activations: int8 and reduce_range: false",
        )
    proto = onnx.load(model)
    chosen = plan(proto, placed.float_nodes)
    ranges = {}
    for leader in dict.fromkeys(chosen.groups.values()):
        shared = [ends[name] for name in chosen.members(leader)]
        widest = Extremes(min(e.low for e in shared), max(e.high for e in shared))
        ranges[leader] = trained.get(leader) or to_range(widest, scheme)
    per_channel = scheme.weights == "int8-per-channel"
    made = place(proto, ranges, per_channel=per_channel, float_nodes=placed.float_nodes)
    onnx.save(made, out)


def _write_by_runtime(
    model: Path,
    out: Path,
    ends: Mapping[str, Extremes],
    placed: Placed,
    trained: Mapping[str, Range] | None,
) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    scheme = placed.scheme
    symmetric = scheme.activations == "int8"
    options: dict[str, Any] = {
        "ActivationSymmetric": symmetric,
        "WeightSymmetric": True,
        "QDQKeepRemovableActivations": placed.whole,
    }
    if trained is not None:
        options["TensorQuantOverrides"] = _overrides(trained, scheme)
    ranges = {name: (np.float32(e.low), np.float32(e.high)) for name, e in ends.items()}
    try:
        with _silenced():
            quantizer = QDQQuantizer(
                load_model_with_shape_infer(model),
                per_channel=scheme.weights == "int8-per-channel",
                reduce_range=scheme.reduce_range,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
                nodes_to_quantize=[],
                nodes_to_exclude=sorted(placed.float_nodes),
                op_types_to_quantize=sorted({*QLinearOpsRegistry, *QDQRegistry}),
                extra_options=options,
            )
            quantizer.quantize_model()
            quantizer.model.save_model_to_file(str(out), False)
    except Exception as error:  # ONNX Runtime's classes share no base but this one
        raise cannot_quantize(model.name, error) from error


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
        raise QuantizerError(
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


@contextmanager
def _silenced() -> Iterator[None]:
    """Hold back the root logger: the quantizer advises a pre-processing that torch has done."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
