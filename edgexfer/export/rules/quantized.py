"""Rules on QuantizeLinear and DequantizeLinear: what TensorRT refuses, and what costs speed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from edgexfer.export.passes.editor import attribute
from edgexfer.export.rules.subject import Finding, Graph, Target, label
from edgexfer.quantize.placement import WEIGHTED, weight_axis

if TYPE_CHECKING:
    from onnx import NodeProto

_IMPORTER = "onnx-tensorrt importer, QuantizeLinear and DequantizeLinear"
_GUIDE = "TensorRT developer guide, explicit quantization"
_PAIR = ("QuantizeLinear", "DequantizeLinear")
# An INT8 weight above this fills more than 7 bits.
_SEVEN_BITS = 64


def rule_zero_point(graph: Graph, target: Target) -> Iterator[Finding]:
    """Zero points are int8, constant and 0, and stand in the file.

    Source: NvInfer.h and onnx-tensorrt 10.1: symmetric only; UINT8 is rejected; without a zero
    point TensorRT takes INT8 and ONNX means UINT8.
    """
    from onnx import TensorProto

    if not target.tensorrt:
        return
    for node in graph.of(*_PAIR):
        zero = node.input[2] if len(node.input) > 2 else ""
        if not zero:
            text = "has no zero point: ONNX means uint8, TensorRT takes int8"
        elif graph.dtype(zero) == TensorProto.UINT8:
            text = "its zero point is uint8"
        elif (value := graph.value(zero)) is None:
            text = "its zero point is not a constant"
        elif value.astype(np.float32).any():
            text = "its zero point is not 0"
        else:
            continue
        yield _refused("zero-point", node, text, "quantize symmetrically, with int8 zero points 0")


def rule_scale(graph: Graph, target: Target) -> Iterator[Finding]:
    """Scales are constant, finite and positive.

    Source: onnx-tensorrt 10.1 asserts "Scale coefficients must all be positive"; a scale of 0
    divides by zero in every runtime.
    """
    for node in graph.of(*_PAIR):
        value = graph.value(node.input[1])
        if value is None:
            if target.tensorrt:
                yield _refused("scale", node, "its scale is computed", "store the scale")
        elif not (np.isfinite(value).all() and (value > 0).all()):
            mend = "give a channel without weights any positive scale"
            yield _refused("scale", node, "a scale is not positive", mend)


def rule_per_channel(graph: Graph, target: Target) -> Iterator[Finding]:
    """Activations have one scale; weights have one for each output channel.

    Source: TensorRT developer guide, explicit quantization: activations per tensor, weights per
    channel on axis 0 of Conv and 1 of ConvTranspose.
    """
    if not target.tensorrt:
        return
    for node in graph.of(*_PAIR):
        scale = graph.value(node.input[1])
        if scale is None or scale.size == 1:
            continue
        if not _is_weight(graph, node):
            text = f"quantizes an activation with {scale.size} scales"
            yield _refused("per-channel-activation", node, text, "use one scale per tensor")
            continue
        yield from _beside_channels(graph, node)


def rule_bias(graph: Graph, target: Target) -> Iterator[Finding]:
    """Biases stay floating point.

    Source: TensorRT developer guide, explicit quantization; INT32 is no type that its
    DequantizeLinear takes.
    """
    if not target.tensorrt:
        return
    for node in graph.of("Conv", "ConvTranspose", "Gemm"):
        writer = graph.writers.get(node.input[2]) if len(node.input) > 2 else None
        if writer is not None and writer.op_type == "DequantizeLinear":
            mend = "quantize with QuantizeBias=False"
            yield _refused("quantized-bias", node, "its bias is quantized", mend)


def rule_scale_type(graph: Graph, target: Target) -> Iterator[Finding]:
    """The type between Q/DQ is the one that the engine should run float layers in.

    Source: strongly typed networks take it from the file; FP16 scales need opset 19, which
    TensorRT 8 does not parse.
    """
    from onnx import TensorProto

    if not target.tensorrt:
        return
    strong = target.row.typing == "strong"
    wrong = TensorProto.FLOAT if strong else TensorProto.FLOAT16
    found = [n for n in graph.of(*_PAIR) if graph.dtype(n.input[1]) == wrong]
    if found and strong:
        text = f"{len(found)} Q/DQ nodes are typed FP32, so that layers between them run in FP32"
        mend = "type the file as FP16, as `edgexfer export` does"
        yield _slower("scale-type", found[0], text, mend)
    elif found:
        text = f"{len(found)} Q/DQ nodes have FP16 scales, which opset 19 brought"
        yield _refused("scale-type", found[0], text, "keep Q/DQ in FP32 for this release")


def rule_placement(graph: Graph, target: Target) -> Iterator[Finding]:
    """Q/DQ stands before weighted layers, and nowhere that keeps layers from fusing.

    Source: TensorRT developer guide, explicit quantization: outputs of weighted layers are not
    quantized, of a residual addition one branch alone.
    """
    if not target.tensorrt:
        return
    for node in graph.of("Relu", "Clip"):
        between = _dequantized_from(graph, node.input[0])
        if between in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            text = f"Q/DQ between {between} and {node.op_type} keeps them from fusing"
            yield _slower(
                "output-quantized", node, text, "quantize inputs of weighted layers alone"
            )
    for node in graph.of("Add"):
        both = [_dequantized_from(graph, name) for name in node.input]
        if all(kind is not None for kind in both):
            text = "both branches are quantized; the convolution before it cannot fuse"
            yield _slower("both-branches", node, text, "quantize the skipping branch alone")


def rule_concat(graph: Graph, target: Target) -> Iterator[Finding]:
    """All inputs of a concatenation share one scale.

    Source: TensorRT developer guide, explicit quantization: Concat commutes with equal scales.
    """
    if not target.tensorrt:
        return
    for node in graph.of("Concat"):
        writers = [graph.writers.get(name) for name in node.input]
        scales = [
            graph.value(w.input[1]) for w in writers if w is not None and w.op_type == _PAIR[1]
        ]
        known = {float(s) for s in scales if s is not None and s.size == 1}
        if len(known) > 1:
            text = f"its inputs have {len(known)} different scales"
            yield _slower("concat-scales", node, text, "give them one scale")


def rule_saturation(graph: Graph, target: Target) -> Iterator[Finding]:
    """Sums of products fit into 16 bits where the CPU adds them there.

    Source: VPMADDUBSW saturates: AVX2 without VNNI adds two products of uint8 and int8 in 16 bits.
    A profile says so with ``reduce_range``.
    """
    if target.profile.backend != "onnxruntime" or not target.profile.quantization.reduce_range:
        return
    for node in graph.of("Conv", "Gemm", "MatMul"):
        if len(node.input) < 2:
            continue
        weight = graph.writers.get(node.input[1])
        if weight is None or weight.op_type != "DequantizeLinear":
            continue
        value = graph.value(weight.input[0])
        if value is not None and np.abs(value.astype(np.int32)).max(initial=0) > _SEVEN_BITS:
            text = "its weights use 8 bits; sums may be cut off on this CPU without a word"
            mend = "quantize with reduce_range, as `edgexfer export` does for this target"
            source = f"profile {target.profile.name}, reduce_range"
            yield Finding("warning", "saturation", label(node), node.op_type, text, mend, source)


QUANTIZED_RULES = (
    rule_zero_point,
    rule_scale,
    rule_per_channel,
    rule_bias,
    rule_scale_type,
    rule_placement,
    rule_concat,
    rule_saturation,
)


def _refused(rule: str, node: NodeProto, text: str, mend: str) -> Finding:
    return Finding("error", rule, label(node), node.op_type, text, mend, _IMPORTER)


def _slower(rule: str, node: NodeProto, text: str, mend: str) -> Finding:
    return Finding("warning", rule, label(node), node.op_type, text, mend, _GUIDE)


def _beside_channels(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    """Find weighted layers whose output channels do not lie along the axis of a weight's scales."""
    ndim, axis = len(graph.shape(node.input[0]) or ()), attribute(node, "axis", 1)
    for reader in graph.readers.get(node.output[0], []):
        place = list(reader.input).index(node.output[0])
        if reader.op_type not in WEIGHTED or place > 1 or not ndim:
            continue
        wanted = weight_axis(reader, place, ndim)
        if wanted is not None and axis % ndim != wanted:
            text = f"has its scales on axis {axis}, not {wanted}"
            yield _refused("weight-axis", node, text, "give each output channel one scale")


def _is_weight(graph: Graph, node: NodeProto) -> bool:
    """Whether what is quantized stands in the file, as integers or as floating point."""
    name = node.input[0]
    writer = graph.writers.get(name)
    if writer is not None and writer.op_type == "QuantizeLinear":
        name = writer.input[0]
    return name in graph.constants


def _dequantized_from(graph: Graph, name: str) -> str | None:
    """Return the operator whose result reaches a tensor through one Q/DQ; "" for an input."""
    writer = graph.writers.get(name)
    if writer is None or writer.op_type != "DequantizeLinear":
        return None
    quantizer = graph.writers.get(writer.input[0])
    if quantizer is None or quantizer.op_type != "QuantizeLinear":
        return None
    before = graph.writers.get(quantizer.input[0])
    return "" if before is None else str(before.op_type)
